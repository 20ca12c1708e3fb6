package gitlabci

import (
	"fmt"
	"strings"
)

// parallel is parallel: of a job, or of an entry of needs.
type parallel struct {
	count int // 0 for a matrix
	rows  []matrixRow
}

// matrixRow is one entry of matrix: its variables in order, each with its values.
type matrixRow []matrixVariable

type matrixVariable struct {
	name   string
	values []string
}

const maxParallel = 200

func readParallel(d *decoder, n *node, matrixOnly bool) parallel {
	var p parallel
	switch {
	case n.kind == mapKind:
		d.known(n, []string{"matrix"})
		if n.get("matrix") == nil {
			d.errorf(n, "needs matrix")
		}
		d.field(n, "matrix", func(v *node) { p.rows = readMatrix(d, v) })
	case n.kind == intKind && !matrixOnly:
		p.count = d.integer(n, 1, maxParallel)
	case matrixOnly:
		d.errorf(n, "must be a mapping with matrix, not %s", n.describe())
	default:
		d.errorf(n, "must be a number from 1 to %d or a mapping with matrix, not %s", maxParallel, n.describe())
	}
	return p
}

func readMatrix(d *decoder, n *node) []matrixRow {
	if n.kind != listKind {
		d.errorf(n, "must be a list of mappings from variables to values, not %s", n.describe())
		return nil
	}
	if len(n.items) == 0 {
		d.errorf(n, "must not be empty")
	}
	rows := make([]matrixRow, 0, len(n.items))
	total := 0
	for _, c := range flattenItems(n, nil) {
		if c.kind != mapKind || len(c.fields) == 0 {
			d.errorf(c, "must be a list of mappings from variables to values, but holds %s", c.describe())
			continue
		}
		row := make(matrixRow, 0, len(c.fields))
		size := 1
		for _, f := range c.fields {
			d.in(f.key, func() { row = append(row, matrixVariable{f.key, readMatrixValues(d, f.value)}) })
			size = min(size*max(1, len(row[len(row)-1].values)), maxParallel+1)
		}
		rows = append(rows, row)
		total += size
	}
	if total > maxParallel {
		d.errorf(n, "makes more than %d jobs", maxParallel)
		return nil
	}
	return rows
}

func readMatrixValues(d *decoder, n *node) []string {
	if n.scalar() {
		return []string{n.text}
	}
	if n.kind != listKind {
		d.errorf(n, "must be a value or a list of values, not %s", n.describe())
		return nil
	}
	if len(n.items) == 0 {
		d.errorf(n, "must not be empty")
	}
	var out []string
	for _, c := range flattenItems(n, nil) {
		if !c.scalar() {
			d.errorf(c, "must be a value or a list of values, but holds %s", c.describe())
			continue
		}
		out = append(out, c.text)
	}
	return out
}

// combinations returns every choice of values, the last variable changing fastest.
func (row matrixRow) combinations() []Variables {
	out := []Variables{nil}
	for _, v := range row {
		next := make([]Variables, 0, len(out)*len(v.values))
		for _, start := range out {
			for _, value := range v.values {
				next = append(next, append(start[:len(start):len(start)], Variable{Key: v.name, Value: value}))
			}
		}
		out = next
	}
	return out
}

func combinations(rows []matrixRow) []Variables {
	var out []Variables
	for _, row := range rows {
		out = append(out, row.combinations()...)
	}
	return out
}

// instance is one job made of a job with parallel, or the job itself.
type instance struct {
	name     string
	parallel *Parallel
}

func (p *parallel) instances(name string) []instance {
	if p == nil {
		return []instance{{name: name}}
	}
	if p.rows == nil {
		out := make([]instance, p.count)
		for i := range out {
			out[i] = instance{fmt.Sprintf("%s %d/%d", name, i+1, p.count), &Parallel{Index: i + 1, Total: p.count}}
		}
		return out
	}
	all := combinations(p.rows)
	out := make([]instance, len(all))
	for i, vs := range all {
		out[i] = instance{matrixName(name, vs), &Parallel{Index: i + 1, Total: len(all), Matrix: vs}}
	}
	return out
}

func matrixName(name string, vs Variables) string {
	values := make([]string, len(vs))
	for i, v := range vs {
		values[i] = v.Value
	}
	return name + ": [" + strings.Join(values, ", ") + "]"
}

// covers reports whether an instance has all the values of a combination.
func (p *Parallel) covers(want Variables) bool {
	if p == nil {
		return false
	}
	for _, w := range want {
		if v, ok := p.Matrix.Get(w.Key); !ok || v.Value != w.Value {
			return false
		}
	}
	return true
}

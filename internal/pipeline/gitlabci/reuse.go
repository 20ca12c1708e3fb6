package gitlabci

import "strings"

// maxReferenceDepth is how far a !reference may lead to another, maxExtends how many levels of
// extends one job may have.
const (
	maxReferenceDepth = 10
	maxExtends        = 11
)

// references replaces every !reference of a merged file.
type references struct {
	d    *decoder
	root *node
	done map[*node]*node
	open map[*node]bool
}

func resolveReferences(d *decoder, root *node) *node {
	if !root.refs {
		return root
	}
	r := &references{d: d, root: root, done: map[*node]*node{}, open: map[*node]bool{}}
	return r.resolve(root, 0)
}

func (r *references) resolve(n *node, depth int) *node {
	if !n.refs {
		return n
	}
	if out, ok := r.done[n]; ok {
		return out
	}
	out := n
	switch n.kind {
	case referenceKind:
		out = r.follow(n, depth)
	case listKind:
		out = &node{kind: listKind, place: n.place, items: make([]*node, len(n.items))}
		for i, c := range n.items {
			out.items[i] = r.resolve(c, depth)
		}
		out.seal()
	case mapKind:
		out = &node{kind: mapKind, place: n.place, fields: make([]field, len(n.fields))}
		for i, f := range n.fields {
			out.fields[i] = field{f.key, f.place, r.resolve(f.value, depth)}
		}
		out.seal()
	}
	r.done[n] = out
	return out
}

func (r *references) follow(n *node, depth int) *node {
	nothing := (&node{kind: listKind, place: n.place, broken: true}).seal()
	keys := make([]string, len(n.items))
	for i, c := range n.items {
		if !c.scalar() {
			r.d.errorf(n, "!reference takes names of keys, such as [job, script]")
			return nothing
		}
		keys[i] = c.text
	}
	written := "!reference [" + strings.Join(keys, ", ") + "]"
	if len(keys) == 0 {
		r.d.errorf(n, "!reference takes names of keys, such as [job, script]")
		return nothing
	}
	if r.open[n] {
		r.d.errorf(n, "%s leads back to itself", written)
		return nothing
	}
	if depth >= maxReferenceDepth {
		r.d.errorf(n, "%s is nested deeper than %d levels", written, maxReferenceDepth)
		return nothing
	}
	r.open[n] = true
	defer delete(r.open, n)
	target := r.root
	for i, key := range keys {
		if target.kind == referenceKind { // the way leads through another reference
			target = r.resolve(target, depth+1)
		}
		next := target.get(key)
		if next == nil {
			known := make([]string, 0, len(target.fields))
			for _, f := range target.fields {
				known = append(known, f.key)
			}
			r.d.missing(n, "%s leads nowhere: there is no %s%s", written, strings.Join(keys[:i+1], ":"), didYouMean(key, known))
			return nothing
		}
		target = next
	}
	return r.resolve(target, depth+1)
}

// extender merges the templates a job extends under it.
type extender struct {
	d    *decoder
	root *node
	done map[string]*node
}

func resolveExtends(d *decoder, root *node) *node {
	e := &extender{d: d, root: root, done: map[string]*node{}}
	any := false
	for i := range root.fields {
		if root.fields[i].value.get("extends") != nil {
			any = true
			break
		}
	}
	if !any {
		return root
	}
	out := &node{kind: mapKind, place: root.place, fields: make([]field, len(root.fields))}
	for i, f := range root.fields {
		out.fields[i] = field{f.key, f.place, e.entry(f.key, f.value, nil)}
	}
	return out.seal()
}

// entry returns a top-level entry with all it extends; trail holds the entries on the way to it.
func (e *extender) entry(name string, n *node, trail []string) *node {
	if done, ok := e.done[name]; ok {
		return done
	}
	ext := n.get("extends")
	if ext == nil {
		e.done[name] = n
		return n
	}
	job, path := e.d.job, e.d.path
	e.d.job, e.d.path = name, nil
	defer func() { e.d.job, e.d.path = job, path }()
	trail = append(trail[:len(trail):len(trail)], name)
	var out *node
	e.d.in("extends", func() {
		for _, base := range e.bases(ext) {
			if b := e.base(base, trail); b != nil {
				out = merge(out, b)
			}
		}
	})
	out = merge(out, n.without("extends"))
	e.done[name] = out
	return out
}

func (e *extender) bases(ext *node) []*node {
	switch ext.kind {
	case stringKind:
		return []*node{ext}
	case nullKind:
		return nil
	case listKind:
		if len(ext.items) == 0 {
			e.d.errorf(ext, "must not be empty")
		}
		out := make([]*node, 0, len(ext.items))
		for _, c := range ext.items {
			if c.kind != stringKind {
				e.d.errorf(c, "must be a name or a list of names, but holds %s", c.describe())
				continue
			}
			out = append(out, c)
		}
		return out
	}
	e.d.errorf(ext, "must be a name or a list of names, not %s", ext.describe())
	return nil
}

func (e *extender) base(n *node, trail []string) *node {
	for i, name := range trail {
		if name == n.text {
			e.d.errorf(n, "leads back to itself: %s", strings.Join(append(trail[i:len(trail):len(trail)], n.text), " -> "))
			return nil
		}
	}
	if len(trail) > maxExtends {
		e.d.errorf(n, "is nested deeper than %d levels", maxExtends)
		return nil
	}
	target := e.root.get(n.text)
	if target == nil {
		names := make([]string, 0, len(e.root.fields))
		for _, f := range e.root.fields {
			names = append(names, f.key)
		}
		e.d.missing(n, "names %s, which does not exist%s", n.text, didYouMean(n.text, names))
		return nil
	}
	if target.kind != mapKind {
		e.d.errorf(n, "names %s, which is %s instead of a job", n.text, target.kind)
		return nil
	}
	return e.entry(n.text, target, trail)
}

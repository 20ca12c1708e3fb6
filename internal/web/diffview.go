package web

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/slipwayhq/slipway/internal/forge"
)

// diffLine is one line of a unified diff with its numbers on both sides.
type diffLine struct {
	Kind  string // "add", "del", "same" or "hunk"
	Old   int
	New   int
	Parts []diffPart
}

// diffPart is a stretch of a line; Mark shows what changed within the line.
type diffPart struct {
	Text string
	Mark bool
}

// fileDiff is one file of a diff, ready to be shown.
type fileDiff struct {
	forge.FileDiff
	Anchor string
	Lines  []diffLine
}

// diffFiles prepares a diff for the page.
func diffFiles(files []forge.FileDiff) []fileDiff {
	out := make([]fileDiff, len(files))
	for i, f := range files {
		out[i] = fileDiff{FileDiff: f, Anchor: "file-" + strconv.Itoa(i), Lines: parsePatch(f.Patch)}
	}
	return out
}

// parsePatch reads hunks from "@@" on. Pairs of removed and added lines are
// compared word by word.
func parsePatch(patch string) []diffLine {
	if patch == "" {
		return nil
	}
	var lines []diffLine
	var oldN, newN int
	for _, raw := range strings.Split(strings.TrimSuffix(patch, "\n"), "\n") {
		if raw == "" {
			raw = " "
		}
		rest := raw[1:]
		switch raw[0] {
		case '@':
			oldN, newN = hunkStart(raw)
			lines = append(lines, diffLine{Kind: "hunk", Parts: []diffPart{{Text: raw}}})
		case '+':
			lines = append(lines, diffLine{Kind: "add", New: newN, Parts: []diffPart{{Text: rest}}})
			newN++
		case '-':
			lines = append(lines, diffLine{Kind: "del", Old: oldN, Parts: []diffPart{{Text: rest}}})
			oldN++
		case '\\':
			lines = append(lines, diffLine{Kind: "hunk", Parts: []diffPart{{Text: raw}}})
		default:
			lines = append(lines, diffLine{Kind: "same", Old: oldN, New: newN, Parts: []diffPart{{Text: rest}}})
			oldN++
			newN++
		}
	}
	markWords(lines)
	return lines
}

// hunkStart reads the first line numbers of "@@ -12,3 +14,4 @@".
func hunkStart(s string) (oldN, newN int) {
	fields := strings.Fields(s)
	if len(fields) < 3 {
		return 0, 0
	}
	number := func(f string) int {
		f, _, _ = strings.Cut(strings.TrimLeft(f, "+-"), ",")
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0
		}
		return n
	}
	return number(fields[1]), number(fields[2])
}

// markWords marks what differs within lines that were changed rather than
// replaced: runs of equally many removed and added lines.
func markWords(lines []diffLine) {
	for i := 0; i < len(lines); {
		if lines[i].Kind != "del" {
			i++
			continue
		}
		d := i
		for i < len(lines) && lines[i].Kind == "del" {
			i++
		}
		a := i
		for i < len(lines) && lines[i].Kind == "add" {
			i++
		}
		if a-d != i-a {
			continue
		}
		for k := range a - d {
			markPair(&lines[d+k], &lines[a+k])
		}
	}
}

func markPair(del, add *diffLine) {
	x, y := del.Parts[0].Text, add.Parts[0].Text
	p := 0
	for p < len(x) && p < len(y) && x[p] == y[p] {
		p++
	}
	for p > 0 && !utf8.RuneStart(at(x, p)) {
		p--
	}
	s := 0
	for s < len(x)-p && s < len(y)-p && x[len(x)-1-s] == y[len(y)-1-s] {
		s++
	}
	for s > 0 && (!utf8.RuneStart(x[len(x)-s]) || !utf8.RuneStart(y[len(y)-s])) {
		s--
	}
	if p+s < 3 && max(len(x), len(y)) > 6 {
		return // nothing in common worth showing
	}
	split := func(t string) []diffPart {
		return []diffPart{{Text: t[:p]}, {Text: t[p : len(t)-s], Mark: true}, {Text: t[len(t)-s:]}}
	}
	del.Parts, add.Parts = split(x), split(y)
}

func at(s string, i int) byte {
	if i < len(s) {
		return s[i]
	}
	return 0
}

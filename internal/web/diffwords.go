package web

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxWordLine = 2000  // bytes of a line that is compared word by word
	maxWordGrid = 40000 // pairs of words that are compared at most
)

// markWords marks what differs within lines that were changed rather than
// replaced: the first removed line is compared with the first added one of a
// run, and so on.
func markWords(lines []diffLine) {
	for i := 0; i < len(lines); {
		if lines[i].Kind != '-' {
			i++
			continue
		}
		d := i
		for i < len(lines) && lines[i].Kind == '-' {
			i++
		}
		dels := i - d
		for i < len(lines) && lines[i].Kind == '\\' {
			i++
		}
		a := i
		for i < len(lines) && lines[i].Kind == '+' {
			i++
		}
		for k := range min(dels, i-a) {
			markPair(&lines[d+k], &lines[a+k])
		}
	}
}

// words splits a line into words, runs of spaces and single other characters.
func words(s string) []string {
	class := func(r rune) int {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '_':
			return 1
		case unicode.IsSpace(r):
			return 2
		}
		return 0
	}
	var out []string
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if c := class(r); c != 0 {
			for n < len(s) {
				next, size := utf8.DecodeRuneInString(s[n:])
				if class(next) != c {
					break
				}
				n += size
			}
		}
		out = append(out, s[:n])
		s = s[n:]
	}
	return out
}

// markPair marks the words that two lines do not share. Lines with little in
// common stay unmarked: everything would be.
func markPair(del, add *diffLine) {
	if len(del.Text) > maxWordLine || len(add.Text) > maxWordLine {
		return
	}
	x, y := words(del.Text), words(add.Text)
	p := 0
	for p < len(x) && p < len(y) && x[p] == y[p] {
		p++
	}
	s := 0
	for s < len(x)-p && s < len(y)-p && x[len(x)-1-s] == y[len(y)-1-s] {
		s++
	}
	keepX, keepY := make([]bool, len(x)), make([]bool, len(y))
	for i := range x {
		keepX[i] = i < p || i >= len(x)-s
	}
	for i := range y {
		keepY[i] = i < p || i >= len(y)-s
	}
	common(x[p:len(x)-s], y[p:len(y)-s], keepX[p:], keepY[p:])
	shared, shorter := 0, min(len(strings.TrimSpace(del.Text)), len(strings.TrimSpace(add.Text)))
	for i, w := range x {
		if keepX[i] {
			shared += len(strings.TrimSpace(w))
		}
	}
	if shared*3 < shorter {
		return
	}
	del.Parts, add.Parts = parts(x, keepX), parts(y, keepY)
}

// common marks the longest common sequence of two lists of words.
func common(x, y []string, keepX, keepY []bool) {
	if len(x) == 0 || len(y) == 0 || len(x)*len(y) > maxWordGrid {
		return
	}
	grid := make([][]uint16, len(x)+1)
	cells := make([]uint16, (len(x)+1)*(len(y)+1))
	for i := range grid {
		grid[i] = cells[i*(len(y)+1) : (i+1)*(len(y)+1)]
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				grid[i][j] = grid[i+1][j+1] + 1
			} else {
				grid[i][j] = max(grid[i+1][j], grid[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(x) && j < len(y); {
		switch {
		case x[i] == y[j]:
			keepX[i], keepY[j] = true, true
			i, j = i+1, j+1
		case grid[i+1][j] >= grid[i][j+1]:
			i++
		default:
			j++
		}
	}
}

// parts joins neighbours; a space between two marked words is marked too.
func parts(list []string, keep []bool) []diffPart {
	var out []diffPart
	for i, w := range list {
		mark := !keep[i]
		if keep[i] && strings.TrimSpace(w) == "" && i > 0 && i+1 < len(list) && !keep[i-1] && !keep[i+1] {
			mark = true
		}
		if n := len(out); n > 0 && out[n-1].Mark == mark {
			out[n-1].Text += w
			continue
		}
		out = append(out, diffPart{w, mark})
	}
	return out
}

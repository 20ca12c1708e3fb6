package gitlabci

import "strings"

// Glob is a file pattern as Ruby's File.fnmatch reads it with PATHNAME, DOTMATCH and EXTGLOB, which
// is what rules:changes and rules:exists use: "*" and "?" stop at a slash, "**/" spans folders,
// {a,b} are alternatives, [a-z] and [!a-z] are sets, a backslash escapes, and dots are not special.
type Glob struct{ alternatives [][]string }

// maxAlternatives bounds what {a,b}{c,d}... may grow to; further alternatives are not tried.
const maxAlternatives = 1024

// NewGlob prepares a pattern. Every text is a pattern: what is malformed matches nothing but itself
// or nothing at all, as in Ruby.
func NewGlob(pattern string) *Glob {
	var g Glob
	for _, p := range braces(pattern, 0) {
		g.alternatives = append(g.alternatives, strings.Split(p, "/"))
	}
	return &g
}

// Match reports whether the whole path matches.
func (g *Glob) Match(path string) bool {
	parts := strings.Split(path, "/")
	for _, a := range g.alternatives {
		if matchParts(a, parts) {
			return true
		}
	}
	return false
}

// braces expands {a,b}, nested ones too.
func braces(pattern string, depth int) []string {
	open, end, commas := -1, -1, []int(nil)
	level := 0
	for i := 0; i < len(pattern) && end < 0; i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '{':
			if level == 0 {
				open = i
			}
			level++
		case ',':
			if level == 1 {
				commas = append(commas, i)
			}
		case '}':
			if level > 0 {
				if level--; level == 0 {
					end = i
				}
			}
		}
	}
	if end < 0 || depth > 20 {
		return []string{pattern}
	}
	var out []string
	from := open + 1
	for _, to := range append(commas, end) {
		out = append(out, braces(pattern[:open]+pattern[from:to]+pattern[end+1:], depth+1)...)
		from = to + 1
		if len(out) >= maxAlternatives {
			return out[:maxAlternatives]
		}
	}
	return out
}

// matchParts matches folder by folder. A "**" that is not the last part stands for any folders;
// trying the shortest first with one point of return is enough, as with "*" in a name.
func matchParts(pattern, parts []string) bool {
	backPattern, backPart := -1, 0
	p, s := 0, 0
	for {
		if p < len(pattern)-1 && pattern[p] == "**" {
			p++
			backPattern, backPart = p, s
			continue
		}
		if p < len(pattern) && s < len(parts) && matchName(pattern[p], parts[s]) {
			p, s = p+1, s+1
			if p == len(pattern) && s == len(parts) {
				return true
			}
			continue
		}
		if backPattern < 0 || backPart >= len(parts) {
			return false
		}
		backPart++
		p, s = backPattern, backPart
	}
}

// matchName matches one name against a pattern without slashes.
func matchName(pattern, name string) bool {
	backPattern, backName := -1, 0
	p, s := 0, 0
	for {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			backPattern, backName = p, s
			continue
		}
		if p == len(pattern) && s == len(name) {
			return true
		}
		if p < len(pattern) && s < len(name) {
			if n, m := matchOne(pattern[p:], name[s:]); n > 0 {
				p, s = p+n, s+m
				continue
			}
		}
		if backPattern < 0 || backName >= len(name) {
			return false
		}
		backName += runeLength(name[backName:])
		p, s = backPattern, backName
	}
}

func runeLength(s string) int {
	for i := range s {
		if i > 0 {
			return i
		}
	}
	return len(s)
}

// matchOne matches the first character of name, which is not empty; it returns the bytes used of
// both, or zero.
func matchOne(pattern, name string) (used, taken int) {
	size := runeLength(name)
	switch pattern[0] {
	case '?':
		return 1, size
	case '[':
		if n, ok := matchSet(pattern, name[:size]); n > 0 {
			if ok {
				return n, size
			}
			return 0, 0
		}
		return 0, 0 // an open set matches nothing
	case '\\':
		if len(pattern) > 1 {
			pattern = pattern[1:]
			n := runeLength(pattern)
			if pattern[:n] == name[:size] {
				return n + 1, size
			}
			return 0, 0
		}
	}
	n := runeLength(pattern)
	if pattern[:n] == name[:size] {
		return n, size
	}
	return 0, 0
}

// matchSet reads "[...]" at the start of pattern; n is its length, 0 when it is not closed.
func matchSet(pattern, char string) (n int, ok bool) {
	i, not := 1, false
	if i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^') {
		not = true
		i++
	}
	next := func() string {
		if i < len(pattern) && pattern[i] == '\\' && i+1 < len(pattern) {
			i++
		}
		if i >= len(pattern) {
			return ""
		}
		c := pattern[i : i+runeLength(pattern[i:])]
		i += len(c)
		return c
	}
	for first := true; i < len(pattern); first = false {
		if pattern[i] == ']' && !first {
			return i + 1, ok != not
		}
		low := next()
		high := low
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			i++
			high = next()
		}
		if low <= char && char <= high && low != "" {
			ok = true
		}
	}
	return 0, false
}

// globSet matches a list of patterns. Beyond the limit of comparisons it claims a match, as GitLab
// does, so that a huge change cannot stall a pipeline's creation.
type globSet []*Glob

const (
	maxComparisons = 50_000
	maxMatches     = 2_000_000 // comparisons of alternatives, which {a,b} multiplies
)

func newGlobSet(patterns []string) globSet {
	out := make(globSet, len(patterns))
	for i, p := range patterns {
		out[i] = NewGlob(p)
	}
	return out
}

func (g globSet) matchAny(paths []string) bool {
	alternatives := 0
	for _, glob := range g {
		alternatives += len(glob.alternatives)
	}
	if len(g)*len(paths) > maxComparisons || alternatives*len(paths) > maxMatches {
		return true
	}
	for _, glob := range g {
		for _, p := range paths {
			if glob.Match(p) {
				return true
			}
		}
	}
	return false
}

// Package spelling guesses which of some known words a person meant.
//
// It receives words and emits one of them; it must import only the standard
// library.
package spelling

import (
	"slices"
	"strings"
)

// Suggest returns the candidate a person most likely meant, or "". Case, and
// the difference of "-" and "_", do not count.
func Suggest(word string, candidates []string) string {
	w := strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	limit := 2
	if len(w) <= 4 {
		limit = 1
	}
	best, bestDistance := "", limit+1
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if d := editDistance(w, strings.ToLower(strings.ReplaceAll(c, "-", "_")), limit); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// DidYouMean is Suggest as the end of a sentence; empty without a suggestion.
func DidYouMean(word string, candidates []string) string {
	if s := Suggest(word, candidates); s != "" && s != word {
		return "; did you mean " + s + "?"
	}
	return ""
}

// editDistance counts insertions, deletions, replacements and swaps of neighbours, or limit+1.
func editDistance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit {
		return limit + 1
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

package main

import (
	"fmt"
	"strings"
)

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// megabytes writes a size for people; nothing for 0.
func megabytes(n int64) string {
	if n == 0 {
		return "-"
	}
	if n >= 10<<30 {
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.0f MB", float64(n)/(1<<20))
}

package web

import (
	"strconv"
)

// pageNumber reads ?page=, from 1.
func pageNumber(r *Request) int {
	n, err := strconv.Atoi(r.FormValue("page"))
	if err != nil || n < 1 || n > 1_000_000 {
		return 1
	}
	return n
}

// pagerLinks returns the addresses of the pages before and after; empty where
// there is none.
func pagerLinks(r *Request, page int, more bool) (prev, next string) {
	link := func(n int) string {
		q := r.URL.Query()
		q.Set("page", strconv.Itoa(n))
		return "?" + q.Encode()
	}
	if page > 1 {
		prev = link(page - 1)
	}
	if more {
		next = link(page + 1)
	}
	return prev, next
}

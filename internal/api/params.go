package api

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const maxBody = 8 << 20 // bytes of a JSON or form body

// Decode reads the parameters of a request into v, a pointer to a struct with
// json tags. Like GitLab it takes a JSON body, a form body and query
// parameters; the body wins. Numbers, booleans and comma-separated or key[]
// lists in forms are converted to what the struct's field asks for.
func Decode(r *Request, v any) error {
	values := r.URL.Query()
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var body []byte
	switch media {
	case "application/json":
		var err error
		body, err = io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
		if err != nil {
			return delivery.Errorf(delivery.TooLarge, "The body is larger than %d bytes.", maxBody)
		}
	case "application/x-www-form-urlencoded", "multipart/form-data":
		r.Body = http.MaxBytesReader(nil, r.Body, maxBody)
		if err := r.ParseMultipartForm(maxBody); err != nil && err != http.ErrNotMultipart {
			return delivery.Errorf(delivery.Invalid, "The form cannot be read: %v", err)
		}
		for k, vs := range r.PostForm {
			values[k] = vs
		}
	}
	if len(values) > 0 {
		if err := decodeValues(values, v); err != nil {
			return err
		}
	}
	if len(strings.TrimSpace(string(body))) > 0 {
		if err := json.Unmarshal(body, v); err != nil {
			return delivery.Errorf(delivery.Invalid, "The JSON body does not fit: %v", err)
		}
	}
	return nil
}

// decodeValues fills v from form values by way of JSON: each value is offered
// as a string and, where the field refuses that, as a bare JSON value.
func decodeValues(values url.Values, v any) error {
	for key, vs := range values {
		name, isList := strings.CutSuffix(key, "[]")
		var candidates []any
		if isList {
			candidates = append(candidates, vs)
			if nums, ok := numbers(vs); ok {
				candidates = append(candidates, nums)
			}
		} else if len(vs) > 0 {
			s := vs[len(vs)-1]
			candidates = append(candidates, s)
			var bare any
			if json.Unmarshal([]byte(s), &bare) == nil && bare != nil {
				candidates = append(candidates, json.RawMessage(s))
			}
			candidates = append(candidates, strings.Split(s, ","))
		}
		name, sub, nested := strings.Cut(name, "[")
		var last error
		ok := false
		for _, c := range candidates {
			if nested {
				c = map[string]any{strings.TrimSuffix(sub, "]"): c}
			}
			raw, err := json.Marshal(map[string]any{name: c})
			if err != nil {
				return err
			}
			if last = json.Unmarshal(raw, v); last == nil {
				ok = true
				break
			}
		}
		if !ok && last != nil {
			return &delivery.Error{Kind: delivery.Invalid, Message: fmt.Sprintf("%s is invalid", name), Err: last}
		}
	}
	return nil
}

func numbers(vs []string) ([]int64, bool) {
	out := make([]int64, len(vs))
	for i, s := range vs {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}

// Page is a page of an offset-paginated listing.
type Page struct {
	Number  int // from 1
	PerPage int // 1 to 100
}

// PageOf reads page and per_page; the defaults are GitLab's, 1 and 20.
func PageOf(r *http.Request) Page {
	p := Page{Number: 1, PerPage: 20}
	q := r.URL.Query()
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 0 {
		p.Number = n
	}
	if n, err := strconv.Atoi(q.Get("per_page")); err == nil && n > 0 {
		p.PerPage = min(n, 100)
	}
	return p
}

// Offset is the number of rows before the page.
func (p Page) Offset() int { return (p.Number - 1) * p.PerPage }

// WriteHeaders sets GitLab's pagination headers (doc/api/rest): X-Page,
// X-Per-Page, X-Next-Page, X-Prev-Page, X-Total, X-Total-Pages and Link.
func (p Page) WriteHeaders(w http.ResponseWriter, r *http.Request, total int) {
	pages := max(1, (total+p.PerPage-1)/p.PerPage)
	h := w.Header()
	h.Set("X-Page", strconv.Itoa(p.Number))
	h.Set("X-Per-Page", strconv.Itoa(p.PerPage))
	h.Set("X-Total", strconv.Itoa(total))
	h.Set("X-Total-Pages", strconv.Itoa(pages))
	next, prev := "", ""
	if p.Number < pages {
		next = strconv.Itoa(p.Number + 1)
	}
	if p.Number > 1 {
		prev = strconv.Itoa(p.Number - 1)
	}
	h.Set("X-Next-Page", next)
	h.Set("X-Prev-Page", prev)
	var links []string
	link := func(number, rel string) {
		u := *r.URL
		u.Scheme, u.Host = "http", r.Host
		if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
			u.Scheme = "https"
		}
		q := u.Query()
		q.Set("page", number)
		q.Set("per_page", strconv.Itoa(p.PerPage))
		q.Del("private_token")
		u.RawQuery = q.Encode()
		links = append(links, fmt.Sprintf("<%s>; rel=%q", u.String(), rel))
	}
	if prev != "" {
		link(prev, "prev")
	}
	if next != "" {
		link(next, "next")
	}
	link("1", "first")
	link(strconv.Itoa(pages), "last")
	h.Set("Link", strings.Join(links, ", "))
}

// List writes one page of a listing with its headers.
func List[T any](w http.ResponseWriter, r *Request, p Page, total int, items []T) error {
	if items == nil {
		items = []T{}
	}
	p.WriteHeaders(w, r.Request, total)
	return WriteJSON(w, http.StatusOK, items)
}

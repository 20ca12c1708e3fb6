package web

import (
	"html/template"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

func TestTemplatesOfAPage(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"t/layout.html": {Data: []byte(`<p>{{block "title" .}}none{{end}}</p>{{if .}}{{template "main" .}}{{else}}{{template "empty"}}{{end}}`)},
		"t/_parts.html": {Data: []byte(`{{define "empty"}}nothing{{end}}{{define "row"}}<li>{{.}}</li>{{end}}{{define "unused"}}{{end}}`)},
		"t/list.html":   {Data: []byte(`{{define "title"}}List{{end}}{{define "main"}}{{range .}}{{template "row" .}}{{end}}{{end}}{{define "apart"}}{{with .}}{{template "row" .}}{{end}}{{end}}`)},
	}
	all, err := newTemplates(files, "t", template.FuncMap{})
	if err != nil {
		t.Fatal(err)
	}
	if trees, err := all.reach("list", layoutFile); err != nil || trees["unused"] != nil || len(trees) != 5 {
		t.Fatalf("reached %v, %v", trees, err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for entry, want := range map[string]string{layoutFile: "<p>List</p><li>a&lt;</li>", "apart": "<li>[a&lt;]</li>"} {
				set, err := all.page("list", entry)
				if err != nil {
					t.Error(err)
					return
				}
				var got strings.Builder
				if err := set.Execute(&got, []string{"a<"}); err != nil || got.String() != want {
					t.Errorf("%s: %q, %v; want %q", entry, got.String(), err, want)
				}
			}
		})
	}
	group.Wait()
	for name, body := range map[string]string{"missing": `{{define "main"}}{{template "nowhere"}}{{end}}`, "broken": `{{if}}`} {
		files := fstest.MapFS{"t/layout.html": files["t/layout.html"], "t/_parts.html": files["t/_parts.html"], "t/" + name + ".html": {Data: []byte(body)}}
		if _, err := newTemplates(files, "t", template.FuncMap{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := all.page("other", layoutFile); err == nil {
		t.Error("a page that does not exist has a template")
	}
}

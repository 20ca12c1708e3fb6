package forge_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// TestLFSMirrors imports, pulls and pushes a repository with large files: the
// files are there as soon as what names them.
func TestLFSMirrors(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git-lfs"); err != nil {
		t.Skip("git-lfs is not installed")
	}
	w := newWorld(t)
	w.person("ann")
	source := w.project("ann", "", "source")
	dir := w.workingCopy(source, "ann")
	w.git(dir, "lfs", "install", "--local")
	w.git(dir, "lfs", "track", "*.bin")
	add := func(name, content string) {
		t.Helper()
		w.commit(dir, name, content, "Add "+name)
		if out, err := w.tryGit(dir, "push", "origin", "main"); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	has := func(p delivery.Project, name, content string) {
		t.Helper()
		pointer, err := w.forge.ReadFile(t.Context(), p.ID, "main", name, 1000)
		if err != nil {
			t.Fatal(err)
		}
		oid, _, _ := forge.LFSPointer(pointer)
		f, _, err := w.forge.OpenLFS(t.Context(), p.ID, oid)
		if err != nil {
			t.Fatalf("%s of %s: %v", name, p.FullPath, err)
		}
		defer f.Close()
		if got, err := io.ReadAll(f); err != nil || string(got) != content {
			t.Errorf("%s of %s has %d bytes, %v", name, p.FullPath, len(got), err)
		}
	}
	first, second := strings.Repeat("large ", 10000), strings.Repeat("larger ", 10000)
	add("a.bin", first)
	copied, err := w.forge.CreateProject(t.Context(), w.people["ann"], forge.NewProject{Path: "copy", ImportURL: w.url(source, "ann")})
	if err != nil {
		t.Fatal(err)
	}
	has(copied, "a.bin", first)
	add("b.bin", second)
	backup := w.project("ann", "", "backup")
	for _, m := range []forge.Mirror{{ProjectID: copied.ID, URL: w.url(source, "ann"), Enabled: true}, {ProjectID: source.ID, Push: true, URL: w.url(backup, "ann"), Enabled: true}} {
		if _, err := w.forge.SetMirror(t.Context(), w.people["ann"], m); err != nil {
			t.Fatal(err)
		}
	}
	w.background()
	for _, p := range []delivery.Project{copied, source} {
		eventually(t, "mirror of "+p.FullPath, func() bool {
			list, err := w.forge.Mirrors(t.Context(), p.ID)
			if err != nil || list[0].Status == "failed" {
				t.Fatal(list, err)
			}
			return list[0].Status == "finished"
		})
	}
	has(copied, "b.bin", second)
	has(backup, "a.bin", first)
	has(backup, "b.bin", second)
}

// TestHostileLFSServer names objects where no request may go, and sends others
// than it says.
func TestHostileLFSServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *forge.Options) { o.LocalRequests, o.LocalHosts = false, []string{"127.0.0.1"} })
	w.person("ann")
	p := w.project("ann", "", "app")
	const oid = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" // of "foo"
	n := delivery.NewCommit{Branch: "main", Message: "Large", Actions: []delivery.CommitAction{{Action: "create", Path: "a.bin", Content: []byte("version https://git-lfs.github.com/spec/v1\noid sha256:" + oid + "\nsize 3\n")}}}
	if _, err := w.forge.CommitFiles(t.Context(), w.people["ann"], p, n); err != nil {
		t.Fatal(err)
	}
	var answer string
	asked := false // for a local address
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "localhost") {
			asked = true
		}
		if strings.HasPrefix(r.URL.Path, "/objects/") {
			_, _ = io.WriteString(rw, strings.TrimPrefix(r.URL.Path, "/objects/")) // a client that is gone reads nothing
			return
		}
		if answer == "" {
			http.NotFound(rw, r)
			return
		}
		_, _ = io.WriteString(rw, answer)
	}))
	defer server.Close()
	object := func(href string) string {
		return `{"transfer":"basic","objects":[{"oid":"` + oid + `","size":3,"actions":{"download":{"href":"` + href + `"}}},{"oid":"../../../x","size":3,"actions":{"download":{"href":"` + server.URL + `/objects/foo"}}}]}`
	}
	for _, c := range []struct {
		what, answer string
		want         delivery.Kind
	}{
		{"a local address", object(strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/objects/foo"), delivery.Forbidden},
		{"another content", object(server.URL + "/objects/bar"), delivery.Invalid},
		{"too much", object(server.URL + "/objects/food"), delivery.Invalid},
		{"a file", object("file:///etc/passwd"), delivery.Invalid},
		{"nonsense", "<html>", delivery.Invalid},
	} {
		answer = c.answer
		if err := w.forge.FetchLFS(t.Context(), p.ID, server.URL+"/x"); delivery.KindOf(err) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
		if _, _, err := w.forge.OpenLFS(t.Context(), p.ID, oid); !delivery.IsNotFound(err) {
			t.Errorf("%s: the object is there: %v", c.what, err)
		}
	}
	if asked {
		t.Error("a local address was asked")
	}
	// A server without LFS is no failure, and one that has the object gives it.
	for _, text := range []string{"", object(server.URL + "/objects/foo")} {
		answer = text
		if err := w.forge.FetchLFS(t.Context(), p.ID, server.URL+"/x.git"); err != nil {
			t.Error(err)
		}
	}
	if _, size, err := w.forge.OpenLFS(t.Context(), p.ID, oid); err != nil || size != 3 {
		t.Errorf("%d %v", size, err)
	}
}

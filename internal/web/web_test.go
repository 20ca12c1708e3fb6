package web

import (
	"testing"
	"time"
)

func TestReturnAddressesStayHere(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/group/project?x=1": "/group/project?x=1", "": "/", "https://evil.example": "/", "//evil.example": "/",
		`/\evil.example`: "/", "javascript:alert(1)": "/", "relative": "/",
	} {
		if got := localPath(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	if got := ago(time.Now().Add(-3 * time.Hour)); got != "3 hours ago" {
		t.Error(got)
	}
	if got := humanSeconds(125); got != "2 min 05 s" {
		t.Error(got)
	}
	if got := projectPath("a/b", "tree", escapePath("x/ä b")); got != "/a/b/-/tree/x/%C3%A4%20b" {
		t.Error(got)
	}
}

func TestTemplatesParse(t *testing.T) {
	t.Parallel()
	if _, err := New(Deps{}); err != nil {
		t.Fatal(err)
	}
}

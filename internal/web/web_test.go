package web

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
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

// A commit is remembered for a while, one that could not be told for a shorter
// one, an error not at all; and never more than commitsKept of them.
func TestCommitMemory(t *testing.T) {
	t.Parallel()
	var m commitMemory
	begin, asked := time.Unix(0, 0), 0
	get := func(after time.Duration, key, sha string, problem error) string {
		c, err := m.get(begin.Add(after), key, func() (delivery.Commit, error) { asked++; return delivery.Commit{SHA: sha}, problem })
		if !errors.Is(err, problem) {
			t.Errorf("%s: %v", key, err)
		}
		return c.SHA
	}
	for _, c := range []struct {
		after             time.Duration
		key, tells, wants string
		problem           error
		asks              int
	}{
		{0, "a", "a1", "a1", nil, 1},
		{commitKept - 1, "a", "a2", "a1", nil, 0},
		{commitKept, "a", "a2", "a2", nil, 1},
		{0, "b", "", "", nil, 1},
		{noCommitKept - 1, "b", "b1", "", nil, 0},
		{noCommitKept, "b", "b1", "b1", nil, 1},
		{0, "c", "", "", errors.New("broken"), 1},
		{0, "c", "c1", "c1", nil, 1},
	} {
		asked = 0
		if got := get(c.after, c.key, c.tells, c.problem); got != c.wants && c.problem == nil || asked != c.asks {
			t.Errorf("%s after %s: %q, asked %d times", c.key, c.after, got, asked)
		}
	}
	for i := range 2 * commitsKept {
		get(commitKept+time.Duration(i), strconv.Itoa(i), "x", nil)
	}
	if len(m.known) != commitsKept {
		t.Errorf("%d are remembered", len(m.known))
	}
	asked = 0
	get(commitKept+2*commitsKept, strconv.Itoa(2*commitsKept-1), "y", nil)
	get(commitKept+2*commitsKept, "0", "y", nil)
	if asked != 1 {
		t.Errorf("the oldest is forgotten and the newest kept: asked %d times", asked)
	}
}

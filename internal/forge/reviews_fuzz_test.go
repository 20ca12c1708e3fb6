package forge_test

import (
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/forge"
)

// FuzzNoteText reads mentions, suggestions and patches as people and git write
// them: nothing panics, and what is taken out was there.
func FuzzNoteText(f *testing.F) {
	for _, seed := range []string{"@ann `@bob`", "```suggestion:-1+2\na\n```", "~~~suggestion\n~~~", "@@ -1,2 +3 @@ x\n-a\n+b\n \\ No newline", "@@ @@\n\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names, _ := forge.Mentions(text)
		for _, n := range names {
			if !strings.Contains(strings.ToLower(text), "@"+n) {
				t.Errorf("%q names %q", text, n)
			}
		}
		if rest, list := forge.Suggestions(text); len(list) == 0 && strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")) != rest {
			t.Errorf("%q became %q", text, rest)
		}
		for _, l := range forge.ParsePatch(text) {
			if l.Kind == '+' && l.Old != 0 || l.Kind == '-' && l.New != 0 {
				t.Errorf("%q has %+v", text, l)
			}
		}
	})
}

package output_test

import (
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/command/output"
)

func TestList(t *testing.T) {
	t.Parallel()
	cells := func(s string) []string { return []string{s, "x"} }
	for _, c := range []struct {
		name   string
		asJSON bool
		list   []string
		want   string
	}{
		{"an empty list is no null", true, nil, "[]\n"},
		{"no browser reads it", true, []string{"a<b&c"}, "[\n  \"a<b&c\"\n]\n"},
		{"columns line up", false, []string{"one", "three"}, "NAME   KIND\none    x\nthree  x\n"},
		{"a heading stays", false, nil, "NAME  KIND\n"},
	} {
		var w strings.Builder
		if err := output.List(&w, c.asJSON, c.list, []string{"NAME", "KIND"}, cells); err != nil || w.String() != c.want {
			t.Errorf("%s: %q, %v", c.name, w.String(), err)
		}
	}
}

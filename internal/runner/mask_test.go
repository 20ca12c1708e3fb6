package runner

import (
	"bytes"
	"testing"
)

func TestMaskerHidesSecretsHoweverTheyAreSplit(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"whole", "the secret is hunter2!", "the secret is [MASKED]!"},
		{"longest wins", "hunter2hunter2x", "[MASKED]x"},
		{"prefix of a secret at the end", "ends with hunt", "ends with hunt"},
		{"repeated start", "hunhunter2", "hun[MASKED]"},
		{"token", "t=glpat-abc_DEF-123 next", "t=[MASKED] next"},
		{"token at the end", "glpat-abc", "[MASKED]"},
		{"two", "hunter2 hunter2", "[MASKED] [MASKED]"},
	}
	for _, test := range tests {
		for size := 1; size <= len(test.in); size++ {
			var out bytes.Buffer
			m := newMasker(&out, []string{"hunter2", "hunter2hunter2", ""}, []string{"glpat-"})
			for in := []byte(test.in); len(in) > 0; {
				n := min(size, len(in))
				if _, err := m.Write(in[:n]); err != nil {
					t.Fatal(err)
				}
				in = in[n:]
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if out.String() != test.want {
				t.Errorf("%s in pieces of %d: got %q, want %q", test.name, size, out.String(), test.want)
			}
		}
	}
}

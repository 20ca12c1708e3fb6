package gitops

import "testing"

func TestProjectPath(t *testing.T) {
	t.Parallel()
	for repo, want := range map[string]string{
		"http://F:8080/acme/ops.git": "acme/ops", "http://f:8080/acme/sub/ops": "acme/sub/ops",
		"http://g:8080/acme/ops": "", "http://f:8080/": "",
	} {
		if got, ok := ProjectPath("http://f:8080", repo); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q %v", repo, got, ok)
		}
	}
}

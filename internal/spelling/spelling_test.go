package spelling

import "testing"

func TestSuggest(t *testing.T) {
	t.Parallel()
	known := []string{"proxy-body-size", "proxy-read-timeout", "rules", "needs"}
	for word, want := range map[string]string{
		"proxy-bodysize": "proxy-body-size", "proxy_body_size": "proxy-body-size", "Proxy-Read-Timeuot": "proxy-read-timeout",
		"rule": "rules", "need": "needs", "nedes": "needs", "xyz": "", "": "",
	} {
		if got := Suggest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	if got := DidYouMean("rules", known); got != "" {
		t.Errorf("a known word: %q", got)
	}
}

package gitops

import (
	"net/url"
	"strings"
)

// ProjectPath returns the full path of the forge's project whose clone address
// is repoURL, and false for an address elsewhere.
func ProjectPath(forgeURL, repoURL string) (string, bool) {
	f, err1 := url.Parse(forgeURL)
	r, err2 := url.Parse(repoURL)
	if err1 != nil || err2 != nil || !strings.EqualFold(f.Host, r.Host) {
		return "", false
	}
	path, ok := strings.CutPrefix(r.Path, strings.TrimRight(f.Path, "/")+"/")
	path = strings.Trim(strings.TrimSuffix(strings.TrimRight(path, "/"), ".git"), "/")
	return path, ok && path != ""
}

package gitlabci

import (
	"crypto/sha256"
	"math/big"
	"regexp"
	"strings"
)

// Slug is the form of a name in CI_COMMIT_REF_SLUG and CI_JOB_NAME_SLUG: lower case, everything but
// letters and digits a dash, at most 63 bytes, no dash at either end.
func Slug(name string) string {
	b := []byte(strings.ToLower(name))
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			b[i] = '-'
		}
	}
	if len(b) > 63 {
		b = b[:63]
	}
	return strings.Trim(string(b), "-")
}

var (
	notSlug = regexp.MustCompile(`[^a-z0-9]`)
	dashes  = regexp.MustCompile(`-+`)
)

// EnvironmentSlug is CI_ENVIRONMENT_SLUG by GitLab's rules: at most 24 characters, starting with a
// letter, with a suffix made of the name whenever shortening or replacing lost something.
func EnvironmentSlug(name string) string {
	slug := notSlug.ReplaceAllString(strings.ToLower(name), "-")
	if slug == "" || slug[0] < 'a' || slug[0] > 'z' {
		slug = "env-" + slug
	}
	slug = dashes.ReplaceAllString(slug, "-")
	if len(slug) <= 24 && slug == name {
		return strings.TrimSuffix(slug, "-")
	}
	sum := sha256.Sum256([]byte(name))
	suffix := new(big.Int).SetBytes(sum[:]).Text(36)
	suffix = suffix[len(suffix)-6:]
	if len(slug) > 17 {
		slug = slug[:17]
	}
	if !strings.HasSuffix(slug, "-") {
		slug += "-"
	}
	return slug + suffix
}

var environmentTiers = []struct {
	pattern *regexp.Regexp
	tier    string
}{
	{regexp.MustCompile(`(?i)dev|review|trunk`), "development"},
	{regexp.MustCompile(`(?i)test|tst|int|ac(ce|)pt|qa|qc|control|quality`), "testing"},
	{regexp.MustCompile(`(?i)st(a|)g|mod(e|)l|pre|demo|non`), "staging"},
	{regexp.MustCompile(`(?i)pr(o|)d|live`), "production"},
}

// EnvironmentTier guesses the deployment tier from an environment's name, as GitLab does.
func EnvironmentTier(name string) string {
	for _, t := range environmentTiers {
		if t.pattern.MatchString(name) {
			return t.tier
		}
	}
	return "other"
}

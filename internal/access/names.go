package access

import (
	"net/mail"
	"regexp"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

var pathPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}$`)

// reserved are first parts of addresses that the platform itself uses.
var reserved = map[string]bool{
	"-": true, "api": true, "admin": true, "v2": true, "prometheus": true, "loki": true, "static": true, "assets": true, "help": true,
	"dashboard": true, "explore": true, "login": true, "logout": true, "users": true, "groups": true, "projects": true, "search": true,
	"profile": true, "uploads": true, "health": true, "healthz": true, "readyz": true, "metrics": true, "argocd": true, "oauth": true,
	// Registries that the pull-through cache serves below their own names.
	"docker.io": true, "index.docker.io": true, "ghcr.io": true, "quay.io": true, "gcr.io": true, "registry.k8s.io": true, "k8s.gcr.io": true, "mcr.microsoft.com": true, "public.ecr.aws": true, "registry.gitlab.com": true, "lscr.io": true,
	"jwt": true, ".well-known": true, "robots.txt": true, "favicon.ico": true, "raw": true, "pages": true, "public": true, "new": true,
}

// CheckPath reports whether a string can be the path of a user, group or
// project: letters, digits, "_", "-" and ".", not starting with "-" or ".",
// and not ending with ".", ".git" or ".atom" (GitLab's rules).
func CheckPath(path string, top bool) error {
	low := strings.ToLower(path)
	switch {
	case path == "":
		return invalid("path", "can't be blank")
	case !pathPattern.MatchString(path) || strings.HasSuffix(path, ".") || strings.Contains(path, ".."):
		return invalid("path", "can contain only letters, digits, '_', '-' and '.', and cannot start with '-' or '.' or end with '.'")
	case strings.HasSuffix(low, ".git") || strings.HasSuffix(low, ".atom") || strings.HasSuffix(low, ".lock"):
		return invalid("path", "cannot end with .git, .atom or .lock")
	case top && reserved[low]:
		return invalid("path", path+" is a reserved name")
	}
	return nil
}

func checkEmail(email string) error {
	a, err := mail.ParseAddress(email)
	if err != nil || a.Address != email || len(email) > 254 {
		return invalid("email", "is invalid")
	}
	return nil
}

func checkName(name string) error {
	if strings.TrimSpace(name) == "" {
		return invalid("name", "can't be blank")
	}
	if len(name) > 255 {
		return invalid("name", "is too long (maximum is 255 characters)")
	}
	return nil
}

func checkVisibility(v, parent delivery.Visibility) error {
	rank := map[delivery.Visibility]int{delivery.Private: 1, delivery.Internal: 2, delivery.Public: 3}
	if rank[v] == 0 {
		return invalid("visibility", "is not one of private, internal, public")
	}
	if parent != "" && rank[v] > rank[parent] {
		return invalid("visibility_level", string(v)+" is not allowed since the parent group has "+string(parent)+" visibility")
	}
	return nil
}

func validRole(r delivery.Role) bool {
	switch r {
	case delivery.MinimalAccess, delivery.Guest, delivery.Reporter, delivery.Developer, delivery.Maintainer, delivery.Owner:
		return true
	}
	return false
}

package gitops

import (
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func TestPolicy(t *testing.T) {
	t.Parallel()
	apps := []*Application{
		{Name: "shop", Project: "default", Sources: []Source{{RepoURL: "http://forge:8080/acme/ops.git"}}},
		{Name: "docs", Project: "team", Sources: []Source{{RepoURL: "https://charts.example.org", Chart: "x"}, {RepoURL: "http://forge:8080/acme/open"}}},
		{Name: "foreign", Project: "default", Sources: []Source{{RepoURL: "https://elsewhere/acme/ops"}}},
	}
	got := Policy("http://forge:8080", apps, func(path string) bool { return path == "acme/open" })
	for _, want := range []string{
		// Without it, a policy.csv as Argo CD's documentation shows would lock the platform out.
		"g, slipway, role:admin\n", "g, slipway:admins, role:admin\n", "g, slipway:auditors, role:readonly\n",
		"p, role:@acme/ops:reporter, applications, get, default/shop, allow\n",
		"p, role:@acme/ops:reporter, logs, get, default/shop, allow\n",
		"p, role:@acme/ops:developer, applications, sync, default/shop, allow\n",
		"p, role:@acme/ops:maintainer, applications, delete, default/shop, allow\n",
		"p, role:slipway:users, applications, get, team/docs, allow\n",
		"p, role:@acme/open:developer, applications, sync, team/docs, allow\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if !strings.Contains(got, "g, @acme/ops:developer, role:@acme/ops:developer\n") {
		t.Error("the role is nobody's")
	}
	if strings.Contains(got, "foreign") || strings.Contains(got, ":developer, applications, update") || strings.Contains(got, "exec") {
		t.Errorf("too much is allowed:\n%s", got)
	}
}

func TestPolicyNames(t *testing.T) {
	t.Parallel()
	if got := strings.Join(PolicyNames("acme", delivery.Developer), " "); got != "@acme:guest @acme:reporter @acme:developer" {
		t.Error(got)
	}
	if got := PolicyNames("acme", delivery.NoAccess); len(got) != 0 {
		t.Error(got)
	}
}

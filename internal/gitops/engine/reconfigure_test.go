package engine

import (
	"maps"
	"testing"
)

func TestSettingsThatComparisonsDependOn(t *testing.T) {
	t.Parallel()
	base := map[string]string{"url": "https://one", "resource.exclusions": "- kinds: [Node]", "kustomize.buildOptions": "--enable-helm"}
	with := func(key, value string) map[string]string {
		m := maps.Clone(base)
		m[key] = value
		return m
	}
	without := maps.Clone(base)
	delete(without, "kustomize.buildOptions")
	for _, c := range []struct {
		what, name string
		after      map[string]string
		want       int32
	}{
		{"nothing", "argocd-cm", base, compareNothing},
		{"an address", "argocd-cm", with("url", "https://two"), compareNothing},
		{"a health check", "argocd-cm", with("resource.customizations.health.example.com_Widget", "return {}"), compareAgain},
		{"exclusions", "argocd-cm", with("resource.exclusions", ""), compareAgain},
		{"build options", "argocd-cm", with("kustomize.buildOptions", "--load-restrictor LoadRestrictionsNone"), renderAgain},
		{"build options removed", "argocd-cm", without, renderAgain},
		{"tracking", "argocd-cm", with("application.resourceTrackingMethod", "label"), renderAgain},
		{"a host key", "argocd-ssh-known-hosts-cm", with("ssh_known_hosts", "x"), compareAgain},
		{"a policy", "argocd-rbac-cm", with("policy.csv", "x"), compareNothing},
	} {
		if got := settingsEffect(c.name, base, c.after); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
}

func TestChangesAreGathered(t *testing.T) {
	t.Parallel()
	r := reconfigured{wake: make(chan struct{}, 1)}
	r.tell("argocd-cm", nil, map[string]string{"kustomize.buildOptions": "x"})
	r.tell("argocd-cm", nil, map[string]string{"resource.exclusions": "x"})
	if len(r.wake) != 1 || r.need.Load() != renderAgain {
		t.Errorf("%d waiting, need %d", len(r.wake), r.need.Load())
	}
}

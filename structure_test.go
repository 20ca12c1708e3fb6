package slipway_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/slipwayhq/slipway/"

// quarantine lists heavy or delicate imports with the packages (prefixes below
// internal/ or cmd/) that may import them, and why nobody else may.
var quarantine = []struct {
	imports string
	allowed []string
	why     string
}{
	{"k8s.io/kubernetes", []string{"internal/cluster", "cmd/slipway-cluster"}, "it is the whole of Kubernetes: only the cluster links it"},
	{"database/sql", []string{"internal/store"}, "SQL is reached only through the store"},
	{"modernc.org/sqlite", []string{"internal/store"}, "SQL is reached only through the store"},
	{"github.com/prometheus/prometheus/tsdb", []string{"internal/observe"}, "the metrics database belongs to observe"},
	{"github.com/containerd/containerd/v2", []string{"internal/runner", "internal/build", "internal/cluster", "cmd/slipway-cluster"}, "containerd's client belongs to those that run containers"},
	{"github.com/argoproj/argo-cd", []string{"internal/gitops/engine", "cmd/slipway-gitops"}, "Argo CD is linked into its own program"},
	{"github.com/caddyserver/caddy", []string{"internal/ingress"}, "Caddy is the ingress's data plane"},
	{"github.com/distribution/distribution", []string{"internal/registry"}, "the registry engine belongs to registry"},
}

// stages must not know each other: delivery is what they share.
var stages = []string{"forge", "pipeline", "runner", "registry", "build", "scan", "gitops", "rollout", "ingress", "observe", "release"}

// shared packages serve several stages, so they must know none.
var shared = []string{"api", "grpccalls", "hostnet", "kubewatch", "registryhosts", "seal", "socket", "spelling", "toolwire", "trust", "wholefile"}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 10 {
		t.Fatalf("only %d packages found", len(list))
	}
	return list
}

// TestImportRules enforces the rules of docs/architecture.md.
func TestImportRules(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		name, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours || strings.HasPrefix(name, "e2e") || strings.HasPrefix(name, "bench") {
			continue
		}
		for _, imp := range p.Imports {
			for _, q := range quarantine {
				if within(imp, q.imports) && !anyWithin(name, q.allowed) {
					t.Errorf("%s must not import %s: %s", name, imp, q.why)
				}
			}
			local, isLocal := strings.CutPrefix(imp, module)
			if !isLocal {
				if name == "internal/delivery" && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
					t.Errorf("internal/delivery must import only the standard library, not %s", imp)
				}
				continue
			}
			checkLocal(t, name, local)
		}
	}
}

func checkLocal(t *testing.T, name, imp string) {
	if name == "internal/delivery" {
		t.Errorf("internal/delivery must import nothing of ours, not %s", imp)
	}
	for _, s := range shared {
		if within(name, "internal/"+s) && stageOf(imp) != "" {
			t.Errorf("%s must not import %s: stages share it", name, imp)
		}
	}
	stage := stageOf(name)
	if stage == "" {
		return
	}
	if other := stageOf(imp); other != "" && other != stage {
		t.Errorf("%s must not import %s: stages share only delivery; declare a small interface and let cmd wire it", name, imp)
	}
	for _, forbidden := range []string{"internal/store", "internal/config", "internal/web"} {
		if within(imp, forbidden) {
			t.Errorf("%s must not import %s: stages get what they need through constructors", name, imp)
		}
	}
}

func stageOf(name string) string {
	for _, s := range stages {
		if within(name, "internal/"+s) {
			return s
		}
	}
	return ""
}

func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func anyWithin(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if within(path, p) {
			return true
		}
	}
	return false
}

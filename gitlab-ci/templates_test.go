package gitlabci_test

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	templates "github.com/slipwayhq/slipway/gitlab-ci"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// inputs are what templates with inputs without defaults need.
var inputs = map[string]string{
	"Test.gitlab-ci.yml":   "{image: python}",
	"Deploy.gitlab-ci.yml": "{repository: group/gitops, file: kustomization.yaml, name: app}",
}

// repository has a file of every kind that rules:exists asks for.
var repository = fstest.MapFS{"Dockerfile": {}, "main.py": {}, "pyproject.toml": {}, ".rubocop.yml": {}, "ci_settings.xml": {}}

func plan(t *testing.T, config, branch string) []string {
	t.Helper()
	src := &gitlabci.Folder{Files: repository, Templates: templates.Templates()}
	event := gitlabci.Context{Source: "push", Ref: branch, Predefined: map[string]string{"CI_COMMIT_BRANCH": branch, "CI_DEFAULT_BRANCH": "main", "CI_COMMIT_REF_NAME": branch}}
	compiled, diags := gitlabci.Compile(t.Context(), ".gitlab-ci.yml", []byte(config), src, event)
	if len(diags) > 0 {
		t.Fatalf("%v", diags)
	}
	p, diags := gitlabci.Plan(t.Context(), compiled, event)
	if len(diags) > 0 {
		t.Fatalf("%v", diags)
	}
	var names []string
	for i := range p.Jobs {
		names = append(names, p.Jobs[i].Name)
	}
	return names
}

// TestTemplates compiles every template without a finding, and looks that it
// makes jobs for the default branch.
func TestTemplates(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	err := fs.WalkDir(templates.Templates(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen[name] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := fmt.Sprintf("include: [{template: %q}]\n", name)
			if in := inputs[name]; in != "" {
				config = fmt.Sprintf("include: [{template: %q, inputs: %s}]\n", name, in)
			}
			if strings.HasPrefix(name, "Workflows/") {
				config += "job: {script: x}\n"
			}
			if jobs := plan(t, config, "main"); len(jobs) == 0 {
				t.Error("it makes no jobs for the default branch")
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Jobs/SAST.gitlab-ci.yml", "Security/SAST.gitlab-ci.yml", "Security/Secret-Detection.gitlab-ci.yml", "Jobs/Container-Scanning.gitlab-ci.yml",
		"Jobs/Dependency-Scanning.gitlab-ci.yml", "Jobs/Code-Quality.gitlab-ci.yml", "Code-Quality.gitlab-ci.yml", "Pages/HTML.gitlab-ci.yml", "Docker.gitlab-ci.yml",
		"Python.gitlab-ci.yml", "Go.gitlab-ci.yml", "Nodejs.gitlab-ci.yml", "Workflows/MergeRequest-Pipelines.gitlab-ci.yml"} {
		if !seen[name] {
			t.Errorf("%s is missing; there are %v", name, slices.Sorted(maps.Keys(seen)))
		}
	}
}

func TestTemplateNames(t *testing.T) {
	t.Parallel()
	if jobs := plan(t, "include: [{template: Jobs/SAST.latest.gitlab-ci.yml}]", "main"); !slices.Equal(jobs, []string{"semgrep-sast"}) {
		t.Errorf("the newest version: %v", jobs)
	}
	all := "include: [{template: Jobs/Build.gitlab-ci.yml}, {template: Jobs/SAST.gitlab-ci.yml}, {template: Jobs/Secret-Detection.gitlab-ci.yml}, {template: Security/Dependency-Scanning.gitlab-ci.yml}, {template: Jobs/Container-Scanning.gitlab-ci.yml}, {template: Code-Quality.gitlab-ci.yml}]\n"
	want := []string{"build", "code_quality", "code_quality_dockerfile", "container_scanning", "dependency_scanning", "secret_detection", "semgrep-sast"}
	if jobs := plan(t, all, "topic"); !slices.Equal(slices.Sorted(slices.Values(jobs)), want) {
		t.Errorf("together they make %v", jobs)
	}
	if jobs := plan(t, all+"variables: {SAST_DISABLED: \"true\", CODE_QUALITY_DISABLED: \"true\"}\n", "topic"); len(jobs) != 4 {
		t.Errorf("with two turned off they make %v", jobs)
	}
}

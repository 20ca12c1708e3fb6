package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	templates "github.com/slipwayhq/slipway/gitlab-ci"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// file is the configuration a command works on.
type file struct {
	name   string // as the user wrote it
	root   string // its name within folder
	folder string // local includes are read from here
	text   []byte
}

const defaultFile = ".gitlab-ci.yml"

func open(c *cobra.Command, args []string) (*file, error) {
	name := defaultFile
	if len(args) > 0 {
		name = args[0]
	}
	f := &file{name: name, root: filepath.Base(name), folder: filepath.Dir(name)}
	var err error
	if name == "-" {
		f.name, f.root, f.folder = "standard input", "standard input", "."
		f.text, err = io.ReadAll(c.InOrStdin())
	} else {
		f.text, err = os.ReadFile(name)
	}
	if err != nil {
		hint := ""
		if errors.Is(err, os.ErrNotExist) && len(args) == 0 {
			hint = "; name the file, or change to the folder that has it"
		}
		fmt.Fprintf(c.ErrOrStderr(), "slipway: %v%s\n", err, hint)
		return nil, exitError(exitInvalid)
	}
	return f, nil
}

// placed makes the file names of findings relative to where the user is.
func (f *file) placed(diags gitlabci.Diagnostics) gitlabci.Diagnostics {
	if f.folder == "." {
		return diags
	}
	out := append(gitlabci.Diagnostics(nil), diags...)
	for i := range out {
		if !strings.Contains(out[i].File, ":") && out[i].File != "" {
			out[i].File = filepath.Join(f.folder, out[i].File)
		}
	}
	return out
}

// event holds the flags that say what a pipeline would run for.
type event struct {
	ref, tag, source, defaultBranch string
	variables, inputs, changed      []string
	projects                        []string
	changedSet                      func() bool
}

func (e *event) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&e.ref, "ref", "", "branch the pipeline is for (default: the one checked out)")
	f.StringVar(&e.tag, "tag", "", "tag the pipeline is for")
	f.StringVar(&e.source, "source", "push", "CI_PIPELINE_SOURCE: "+strings.Join(sources, ", "))
	f.StringVar(&e.defaultBranch, "default-branch", "", "CI_DEFAULT_BRANCH (default: that of origin, or main)")
	f.StringArrayVar(&e.variables, "var", nil, "pipeline variable KEY=VALUE, or a predefined one to set; may be repeated")
	f.StringArrayVar(&e.inputs, "input", nil, "input NAME=VALUE of spec:inputs; may be repeated")
	f.StringArrayVar(&e.changed, "changed", nil, "path that changed, for rules:changes; may be repeated; empty for none")
	f.StringArrayVar(&e.projects, "project", nil, "PATH=FOLDER: read includes of the project group/name from a checkout; may be repeated")
	e.changedSet = func() bool {
		set := false
		f.Visit(func(flag *pflag.Flag) { set = set || flag.Name == "changed" })
		return set
	}
}

// sources are the values of CI_PIPELINE_SOURCE.
var sources = []string{
	"api", "external", "external_pull_request_event", "merge_request_event", "parent_pipeline", "pipeline", "push",
	"schedule", "security_orchestration_policy", "trigger", "web", "chat", "webide", "ondemand_dast_scan",
}

// compile reads the file with its includes for the event.
func (e *event) compile(c *cobra.Command, f *file) (*gitlabci.Config, gitlabci.Context, gitlabci.Diagnostics, error) {
	facts, err := e.facts(f)
	if err != nil {
		return nil, facts, nil, usage(c, err)
	}
	projects, err := pairs("--project", e.projects)
	if err != nil {
		return nil, facts, nil, usage(c, err)
	}
	src := &gitlabci.Folder{Files: os.DirFS(f.folder), Templates: templates.Templates(), Fetch: fetch, Projects: checkouts(projects)}
	config, diags := gitlabci.Compile(c.Context(), f.root, f.text, src, facts)
	return config, facts, f.placed(diags), nil
}

// checkouts opens the projects of --project. The ref of an include is not looked at: the checkout is.
func checkouts(projects [][2]string) func(gitlabci.Location) (fs.FS, error) {
	return func(at gitlabci.Location) (fs.FS, error) {
		for _, p := range projects {
			if strings.EqualFold(p[0], at.Project) {
				return os.DirFS(p[1]), nil
			}
		}
		return nil, fmt.Errorf("the project is not in this folder; name a checkout with --project %s=FOLDER", at.Project)
	}
}

func (e *event) facts(f *file) (gitlabci.Context, error) {
	var facts gitlabci.Context
	if !known(e.source) {
		return facts, fmt.Errorf("--source %s is not one of %s", e.source, strings.Join(sources, ", "))
	}
	if e.ref != "" && e.tag != "" {
		return facts, errors.New("--ref and --tag exclude each other")
	}
	ref, tag := strings.TrimPrefix(e.ref, "refs/heads/"), strings.TrimPrefix(e.tag, "refs/tags/")
	if name, ok := strings.CutPrefix(e.ref, "refs/tags/"); ok {
		ref, tag = "", name
	}
	variables, err := pairs("--var", e.variables)
	if err != nil {
		return facts, err
	}
	inputs, err := pairs("--input", e.inputs)
	if err != nil {
		return facts, err
	}
	copy := readWorkingCopy(f.folder)
	facts.Source = e.source
	facts.MergeRequest = e.source == "merge_request_event"
	facts.Ref, facts.Tag = firstOf(tag, ref, copy.branch, "main"), tag != ""
	facts.Predefined = predefined(copy, f, facts, firstOf(e.defaultBranch, copy.defaultBranch, "main"))
	for _, v := range variables {
		facts.Pipeline = append(facts.Pipeline, gitlabci.Variable{Key: v[0], Value: v[1]})
	}
	for _, v := range inputs {
		if facts.Inputs == nil {
			facts.Inputs = map[string]any{}
		}
		facts.Inputs[v[0]] = v[1]
	}
	if e.changedSet() {
		facts.ChangedPaths = e.changedPaths(facts)
	}
	return facts, nil
}

// changedPaths answers with the paths of --changed where a comparison has a meaning: for a push, a
// merge request, or with compare_to.
func (e *event) changedPaths(facts gitlabci.Context) func(string) ([]string, bool, error) {
	var paths []string
	for _, p := range e.changed {
		if p != "" {
			paths = append(paths, strings.TrimPrefix(filepath.ToSlash(p), "./"))
		}
	}
	compares := facts.MergeRequest || e.source == "push" && !facts.Tag || e.source == "external_pull_request_event"
	return func(compareTo string) ([]string, bool, error) {
		return paths, compares || compareTo != "", nil
	}
}

func known(source string) bool {
	for _, s := range sources {
		if s == source {
			return true
		}
	}
	return false
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

func pairs(flag string, texts []string) ([][2]string, error) {
	out := make([][2]string, len(texts))
	for i, t := range texts {
		key, value, ok := strings.Cut(t, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%s %q must be written NAME=VALUE", flag, t)
		}
		out[i] = [2]string{key, value}
	}
	return out, nil
}

const (
	fetchTimeout = 15 * time.Second
	fetchLimit   = 2 << 20
)

// fetch reads include:remote.
func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotFound:
		return nil, gitlabci.ErrNotFound
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the server answered %s", response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, fetchLimit+1))
	if err == nil && len(text) > fetchLimit {
		err = fmt.Errorf("the file is larger than %d MiB", fetchLimit>>20)
	}
	return text, err
}

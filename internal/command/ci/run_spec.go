package ci

import (
	"bufio"
	"compress/gzip"
	"crypto/sha1"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

const (
	defaultTimeout     = time.Hour
	afterScriptTimeout = 5 * time.Minute
)

// spec makes the job the runner gets. The lock is held.
func (c *coordinator) spec(i int) *delivery.JobSpec {
	g := &c.plan.Jobs[i]
	timeout := defaultTimeout
	if d, err := gitlabci.ParseDuration(g.Timeout); err == nil && d > 0 {
		timeout = d
	}
	sources := c.sources(i)
	predefined, scope := c.scope(g, sources)
	lookup := scope.Lookup()
	expand := func(s string) string { return gitlabci.ExpandExisting(s, lookup) }
	s := &delivery.JobSpec{
		ID: int64(i + 1), AllowGitFetch: true, GitInfo: c.snapshot.gitInfo(),
		JobInfo: delivery.JobInfo{
			Name: g.Name, Stage: g.Stage, PipelineID: 1, ProjectID: 1, ProjectName: c.event.Predefined["CI_PROJECT_NAME"],
			ProjectFullPath: c.event.Predefined["CI_PROJECT_PATH"],
		},
		RunnerInfo:  delivery.JobRunnerInfo{Timeout: int(timeout.Seconds())},
		Credentials: c.credentials,
		Variables:   predefined, Cache: c.caches(g, expand), Artifacts: artifacts(g, expand),
		Steps: []delivery.JobStep{{
			Name: "script", Script: append(append([]string{}, g.BeforeScript...), g.Script...), Timeout: int(timeout.Seconds()), When: "on_success",
		}},
	}
	if len(g.AfterScript) > 0 {
		s.Steps = append(s.Steps, delivery.JobStep{
			Name: "after_script", Script: g.AfterScript, Timeout: int(afterScriptTimeout.Seconds()), When: "always", AllowFailure: true,
		})
	}
	if g.Image != nil {
		s.Image = image(*g.Image)
	}
	for _, service := range g.Services {
		one := image(service.Image)
		one.Alias, one.Command = service.Alias, service.Command
		for _, v := range service.Variables {
			one.Variables = append(one.Variables, delivery.JobVariable{Key: v.Key, Value: v.Value, Public: true, Raw: v.Raw})
		}
		s.Services = append(s.Services, *one)
	}
	if len(g.PreGetSources) > 0 {
		s.Hooks = []delivery.JobHook{{Name: "pre_get_sources_script", Script: g.PreGetSources}}
	}
	for _, k := range sources {
		if l := &c.jobs[k]; l.archive != "" {
			s.Dependencies = append(s.Dependencies, delivery.JobDependency{
				ID: int64(k + 1), Name: c.plan.Jobs[k].Name, ArtifactsFile: delivery.JobArtifactFile{Filename: "artifacts.zip", Size: fileSize(l.archive)},
			})
		}
	}
	return s
}

func fileSize(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

// sources are the jobs whose artifacts and dotenv variables a job gets.
func (c *coordinator) sources(i int) []int {
	g := &c.plan.Jobs[i]
	var out []int
	for k := range c.plan.Jobs {
		from := &c.plan.Jobs[k]
		use := from.StageIndex < g.StageIndex
		if g.Needs != nil {
			use = false
			for _, n := range g.Needs {
				use = use || n.Job == from.Name && n.Artifacts
			}
		}
		if use && g.Dependencies != nil {
			use = false
			for _, d := range g.Dependencies {
				use = use || d == from.Name
			}
		}
		if use && c.state.Jobs[k].Status.Completed() && c.state.Jobs[k].Status != process.Skipped {
			out = append(out, k)
		}
	}
	return out
}

// scope returns the job's variables as the runner gets them, by precedence, and expanded.
func (c *coordinator) scope(g *gitlabci.Job, sources []int) ([]delivery.JobVariable, gitlabci.Variables) {
	predefined := make(gitlabci.Variables, 0, len(c.event.Predefined)+16)
	for key, value := range c.event.Predefined {
		predefined = append(predefined, gitlabci.Variable{Key: key, Value: value, Raw: true})
	}
	add := func(key, value string) {
		predefined = append(predefined, gitlabci.Variable{Key: key, Value: value, Raw: true})
	}
	add("CI_JOB_NAME", g.Name)
	add("CI_JOB_NAME_SLUG", gitlabci.Slug(g.Name))
	add("CI_JOB_STAGE", g.Stage)
	add("CI_JOB_STARTED_AT", time.Now().UTC().Format(time.RFC3339))
	add("CI_PIPELINE_ID", "1")
	add("CI_COMMIT_SHA", c.snapshot.sha)
	add("CI_COMMIT_SHORT_SHA", c.snapshot.sha[:8])
	total := 1
	if g.Parallel != nil {
		total = g.Parallel.Total
		add("CI_NODE_INDEX", strconv.Itoa(g.Parallel.Index))
	}
	add("CI_NODE_TOTAL", strconv.Itoa(total))
	environment := ""
	if e := g.Environment; e != nil {
		early := gitlabci.Merge(predefined, g.Variables, c.event.Pipeline).Lookup()
		environment = gitlabci.Expand(e.Name, early)
		add("CI_ENVIRONMENT_NAME", environment)
		add("CI_ENVIRONMENT_SLUG", gitlabci.EnvironmentSlug(environment))
		add("CI_ENVIRONMENT_ACTION", e.Action)
		if e.URL != "" {
			add("CI_ENVIRONMENT_URL", gitlabci.Expand(e.URL, early))
		}
	}
	var dotenv gitlabci.Variables
	for _, k := range sources {
		dotenv = gitlabci.Merge(dotenv, c.jobs[k].dotenv)
	}
	all := gitlabci.Merge(predefined, g.Variables, dotenv, c.event.Pipeline)
	out := make([]delivery.JobVariable, len(all))
	for i, v := range all {
		out[i] = delivery.JobVariable{Key: v.Key, Value: v.Value, Public: true, Raw: v.Raw}
	}
	expanded, err := all.Expanded(true)
	if err != nil {
		c.printer.note(g.Name, err.Error())
	}
	return out, expanded
}

func image(i gitlabci.Image) *delivery.JobImage {
	out := &delivery.JobImage{Name: i.Name, Entrypoint: i.Entrypoint, PullPolicy: i.PullPolicy}
	if i.Docker != nil {
		out.ExecutorOpts = &delivery.JobExecutorOpts{Docker: &delivery.JobDockerOpts{Platform: i.Docker.Platform, User: i.Docker.User}}
	}
	return out
}

func each(list []string, expand func(string) string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = expand(s)
	}
	return out
}

func artifacts(g *gitlabci.Job, expand func(string) string) []delivery.JobArtifact {
	a := g.Artifacts
	if a == nil {
		return nil
	}
	var out []delivery.JobArtifact
	if len(a.Paths) > 0 || a.Untracked {
		out = append(out, delivery.JobArtifact{
			Name: expand(a.Name), Untracked: a.Untracked, Paths: each(a.Paths, expand), Exclude: each(a.Exclude, expand),
			When: a.When, Type: "archive", Format: "zip",
		})
	}
	for _, r := range a.Reports {
		out = append(out, delivery.JobArtifact{Name: r.Type, Paths: each(r.Paths, expand), When: "always", Type: r.Type, Format: "gzip"})
	}
	return out
}

func (c *coordinator) caches(g *gitlabci.Job, expand func(string) string) []delivery.JobCache {
	var out []delivery.JobCache
	for _, cache := range g.Cache {
		key := expand(cache.Key)
		if len(cache.KeyFiles) > 0 {
			key = c.keyOfFiles(cache.KeyFiles)
			if cache.KeyPrefix != "" {
				key = expand(cache.KeyPrefix) + "-" + key
			}
		}
		out = append(out, delivery.JobCache{
			Key: key, Untracked: cache.Untracked, Policy: expand(cache.Policy), Paths: each(cache.Paths, expand), When: cache.When,
			FallbackKeys: each(cache.FallbackKeys, expand),
		})
	}
	return out
}

// keyOfFiles is a hash of the files as they are; "default" when there is none.
func (c *coordinator) keyOfFiles(files []string) string {
	sum, any := sha1.New(), false
	for _, f := range files {
		if text, err := os.ReadFile(filepath.Join(c.snapshot.root, filepath.FromSlash(f))); err == nil {
			any = true
			sum.Write(text)
		}
	}
	if !any {
		return "default"
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// readDotenv reads the variables of a dotenv report as it was uploaded.
func readDotenv(name string) (gitlabci.Variables, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		return nil, delivery.Errorf(delivery.Invalid, "the dotenv report cannot be read: %w", err)
	}
	var out gitlabci.Variables
	lines := bufio.NewScanner(unpacked)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok {
			return nil, delivery.Errorf(delivery.Invalid, "the dotenv report has a line that is not NAME=VALUE: %s", line)
		}
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		out = append(out, gitlabci.Variable{Key: strings.TrimSpace(key), Value: value})
	}
	return out, lines.Err()
}

package pipeline

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// defaultDepth is GitLab's default of GIT_DEPTH.
const defaultDepth = 20

// failureReasons are those that a runner may report.
var failureReasons = []string{"unknown_failure", "script_failure", "runner_system_failure", "runner_unsupported", "runner_configuration_error",
	"runner_external_dependency_failure", "runner_interrupted", "job_execution_timeout", "image_pull_failure", "job_canceled", "stuck_or_timeout_failure", "data_integrity_failure"}

// tokenPrefixes begin the platform's own tokens; runners mask what follows.
var tokenPrefixes = []string{"glpat-", "gldt-", "glptt-", "glrt-", "glcbt-", "glft-", "glimt-", "glagent-", "gloas-", "glsoat-"}

// registryUser is the name that a job's token is used with.
const registryUser = "gitlab-ci-token"

// spec builds what a runner gets for a job.
func (e *Engine) spec(ctx context.Context, c *jobContext, r *Runner, session *delivery.RunnerSession, token string) (*delivery.JobSpec, error) {
	timeout := c.job.Timeout
	if r.MaximumTimeout > 0 && r.MaximumTimeout < timeout {
		timeout = r.MaximumTimeout
	}
	c.job.Timeout = timeout
	repo := e.repositoryURL(c.project.FullPath, token)
	e.addRunnerVariables(c, r, session, token, repo)
	if err := e.addTokensAndSecrets(ctx, c); err != nil {
		return nil, err
	}
	vars, err := e.jobVariables(ctx, c)
	if err != nil {
		return nil, err
	}
	scope := plainVariables(vars)
	if expanded, err := scope.Expanded(true); err == nil {
		scope = expanded
		for i := range vars {
			if !vars[i].Raw && !vars[i].File {
				if v, ok := expanded.Get(vars[i].Key); ok {
					vars[i].Value = v.Value
				}
			}
		}
	}
	lookup := scope.Lookup()
	expand := func(s string) string { return gitlabci.ExpandExisting(s, lookup) }
	spec := &delivery.JobSpec{
		ID: c.job.ID, Token: token, AllowGitFetch: c.settings.GitStrategy != "clone",
		JobInfo: delivery.JobInfo{Name: c.job.Name, Stage: c.job.Stage, PipelineID: c.pipeline.ID, ProjectID: c.project.ID, ProjectName: c.project.Path,
			ProjectFullPath: c.project.FullPath, NamespaceID: c.project.Namespace.ID, RootNamespaceID: rootNamespace(c),
			UserID: c.job.UserID, TimeInQueue: e.clock.Now().Sub(c.job.QueuedAt).Seconds(), QueueSize: int64(e.queue.size()), QueueDepth: 0,
			RunningOnInstance: strconv.Itoa(e.queue.runningOf(c.project.ID))},
		GitInfo:     e.gitInfo(ctx, c, repo, lookup),
		RunnerInfo:  delivery.JobRunnerInfo{Timeout: timeout},
		Variables:   vars,
		Steps:       steps(c.options, timeout),
		Artifacts:   e.artifactSpecs(c.options, expand),
		Credentials: []delivery.JobCredential{{Type: "registry", URL: e.cfg.RegistryHost, Username: registryUser, Password: token}},
		Features:    delivery.JobFeatures{TraceSections: true, TokenMaskPrefixes: tokenPrefixes, FailureReasons: failureReasons},
		Services:    []delivery.JobImage{},
	}
	if img := c.options.Image; img != nil {
		spec.Image = imageSpec(*img, expand)
	}
	for _, s := range c.options.Services {
		svc := imageSpec(s.Image, expand)
		svc.Alias, svc.Command = expand(s.Alias), s.Command
		for _, v := range s.Variables {
			value := v.Value
			if !v.Raw {
				value = expand(value)
			}
			svc.Variables = append(svc.Variables, delivery.JobVariable{Key: v.Key, Value: value, Public: true, Raw: v.Raw})
		}
		spec.Services = append(spec.Services, *svc)
	}
	if spec.Cache, err = e.cacheSpecs(ctx, c, expand); err != nil {
		return nil, err
	}
	for _, d := range c.deps {
		dep := delivery.JobDependency{ID: d.job.ID, Token: token, Name: d.job.Name}
		if d.archive != nil {
			dep.ArtifactsFile = delivery.JobArtifactFile{Filename: d.archive.Filename, Size: d.archive.Size}
		}
		spec.Dependencies = append(spec.Dependencies, dep)
	}
	if len(c.options.PreGetSources) > 0 {
		spec.Hooks = []delivery.JobHook{{Name: "pre_get_sources_script", Script: c.options.PreGetSources}}
	}
	return spec, nil
}

func rootNamespace(c *jobContext) int64 {
	groups := factGroups(c.pipeline.Facts)
	if len(groups) == 0 {
		return c.project.Namespace.ID
	}
	return groups[len(groups)-1]
}

// repositoryURL is the address a job clones from, with its credentials.
func (e *Engine) repositoryURL(fullPath, token string) string {
	u, err := url.Parse(e.cfg.ExternalURL + "/" + fullPath + ".git")
	if err != nil {
		return e.cfg.ExternalURL + "/" + fullPath + ".git"
	}
	u.User = url.UserPassword(registryUser, token)
	return u.String()
}

func (e *Engine) addRunnerVariables(c *jobContext, r *Runner, s *delivery.RunnerSession, token, repo string) {
	add := func(key, value string, masked bool) {
		c.predefined = append(c.predefined, delivery.JobVariable{Key: key, Value: value, Masked: masked, Raw: true})
	}
	add("CI_JOB_TIMEOUT", strconv.Itoa(c.job.Timeout), false)
	add("CI_JOB_TOKEN", token, true)
	add("CI_REGISTRY_USER", registryUser, false)
	add("CI_REGISTRY_PASSWORD", token, true)
	add("CI_DEPENDENCY_PROXY_USER", registryUser, false)
	add("CI_DEPENDENCY_PROXY_PASSWORD", token, true)
	add("CI_REPOSITORY_URL", repo, true)
	add("CI_RUNNER_ID", id(r.ID), false)
	add("CI_RUNNER_DESCRIPTION", r.Description, false)
	tags, err := json.Marshal(append([]string{}, r.Tags...))
	if err == nil {
		add("CI_RUNNER_TAGS", string(tags), false)
	}
	add("CI_RUNNER_VERSION", s.Info.Version, false)
	add("CI_RUNNER_REVISION", s.Info.Revision, false)
	add("CI_RUNNER_EXECUTABLE_ARCH", s.Info.Platform+"/"+s.Info.Architecture, false)
	add("CI_RUNNER_SHORT_TOKEN", r.TokenHint, false)
}

// gitInfo says what to check out. The pipeline's own ref keeps the commit
// reachable whatever happens to its branch.
func (e *Engine) gitInfo(ctx context.Context, c *jobContext, repo string, lookup gitlabci.Lookup) delivery.GitInfo {
	p := &c.pipeline
	info := delivery.GitInfo{RepoURL: repo, ObjectFormat: "sha1", Ref: p.Ref, SHA: p.SHA, BeforeSHA: p.BeforeSHA, RefType: "branch",
		Depth: c.settings.GitDepth, Protected: p.Protected}
	if len(p.SHA) == 64 {
		info.ObjectFormat = "sha256"
	}
	if text, ok := lookup("GIT_DEPTH"); ok {
		if n, err := strconv.Atoi(text); err == nil && n >= 0 {
			info.Depth = n
		}
	}
	pin := pipelineRef(p.ID)
	info.Refspecs = []string{"+" + pin + ":" + pin}
	exists := func(name string) bool {
		_, err := e.cfg.Repositories.Ref(ctx, p.ProjectID, name)
		return err == nil
	}
	switch {
	case p.Tag:
		info.RefType = "tag"
		if exists("refs/tags/" + p.Ref) {
			info.Refspecs = append(info.Refspecs, "+refs/tags/"+p.Ref+":refs/tags/"+p.Ref)
		}
	case p.MergeRequestIID == 0 && exists("refs/heads/"+p.Ref):
		info.Refspecs = append(info.Refspecs, "+refs/heads/"+p.Ref+":refs/remotes/origin/"+p.Ref)
	}
	if info.Depth == 0 {
		info.Refspecs = append([]string{"+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"}, "+"+pin+":"+pin)
	}
	return info
}

// steps are the job's scripts. before_script shares the shell of script.
func steps(g *gitlabci.Job, timeout int) []delivery.JobStep {
	script := append(append([]string{}, g.BeforeScript...), g.Script...)
	out := []delivery.JobStep{{Name: "script", Script: script, Timeout: timeout, When: "on_success"}}
	if len(g.AfterScript) > 0 {
		out = append(out, delivery.JobStep{Name: "after_script", Script: g.AfterScript, Timeout: timeout, When: "always", AllowFailure: true})
	}
	return out
}

func imageSpec(i gitlabci.Image, expand func(string) string) *delivery.JobImage {
	img := &delivery.JobImage{Name: expand(i.Name), Entrypoint: i.Entrypoint, PullPolicy: i.PullPolicy}
	opts := delivery.JobExecutorOpts{}
	if i.Docker != nil {
		opts.Docker = &delivery.JobDockerOpts{Platform: expand(i.Docker.Platform), User: expand(i.Docker.User)}
	}
	if i.Kubernetes != nil {
		opts.Kubernetes = &delivery.JobKubernetesOpts{User: expand(i.Kubernetes.User)}
	}
	if opts.Docker != nil || opts.Kubernetes != nil {
		img.ExecutorOpts = &opts
	}
	return img
}

// reportFormats are how GitLab wants reports uploaded; others are gzip.
var reportFormats = map[string]string{"codequality": "raw", "sast": "raw", "dependency_scanning": "raw", "container_scanning": "raw", "dast": "raw",
	"secret_detection": "raw", "terraform": "raw", "sarif": "raw", "coverage_fuzzing": "raw", "api_fuzzing": "raw", "cluster_image_scanning": "raw", "annotations": "gzip"}

func (e *Engine) artifactSpecs(g *gitlabci.Job, expand func(string) string) []delivery.JobArtifact {
	var out []delivery.JobArtifact
	a := g.Artifacts
	if a == nil {
		a = &gitlabci.Artifacts{When: "on_success"}
	}
	all := func(list []string) []string {
		out := make([]string, len(list))
		for i, s := range list {
			out[i] = expand(s)
		}
		return out
	}
	paths := all(a.Paths)
	if g.Pages != nil && g.Pages.Publish != "" && !containsString(paths, g.Pages.Publish) {
		paths = append(paths, expand(g.Pages.Publish))
	}
	if len(paths) > 0 || a.Untracked {
		out = append(out, delivery.JobArtifact{Name: expand(a.Name), Untracked: a.Untracked, Paths: paths, Exclude: all(a.Exclude),
			When: a.When, Type: "archive", Format: "zip", ExpireIn: expand(a.ExpireIn)})
	}
	for _, r := range a.Reports {
		format := reportFormats[r.Type]
		if format == "" {
			format = "gzip"
		}
		when := "always"
		if r.Type == "dotenv" {
			when = a.When
		}
		out = append(out, delivery.JobArtifact{Name: r.Type, Paths: all(r.Paths), When: when, Type: r.Type, Format: format, ExpireIn: expand(a.ExpireIn)})
	}
	return out
}

// cacheSpecs resolves cache keys. Protected refs have caches of their own, so
// that what an unprotected branch cached cannot reach them.
func (e *Engine) cacheSpecs(ctx context.Context, c *jobContext, expand func(string) string) ([]delivery.JobCache, error) {
	var out []delivery.JobCache
	suffix := "-non_protected"
	if c.pipeline.Protected {
		suffix = "-protected"
	}
	for _, g := range c.options.Cache {
		key := expand(g.Key)
		if len(g.KeyFiles) > 0 {
			var err error
			if key, err = e.cacheKeyOfFiles(ctx, c, g.KeyFiles); err != nil {
				return nil, err
			}
			if g.KeyPrefix != "" {
				key = expand(g.KeyPrefix) + "-" + key
			}
		}
		if key == "" {
			key = "default"
		}
		entry := delivery.JobCache{Key: key, Untracked: g.Untracked, Policy: expand(g.Policy), When: g.When}
		for _, f := range g.FallbackKeys {
			entry.FallbackKeys = append(entry.FallbackKeys, expand(f))
		}
		if !g.Unprotect && c.settings.SeparateCaches {
			entry.Key += suffix
			for i := range entry.FallbackKeys {
				entry.FallbackKeys[i] += suffix
			}
		}
		entry.Paths = []string{}
		for _, p := range g.Paths {
			entry.Paths = append(entry.Paths, expand(p))
		}
		out = append(out, entry)
	}
	return out, nil
}

// cacheKeyOfFiles is a hash of the files' content at the pipeline's commit;
// "default" when none of them exists, as in GitLab.
func (e *Engine) cacheKeyOfFiles(ctx context.Context, c *jobContext, files []string) (string, error) {
	sum := sha1.New()
	any := false
	for _, f := range files {
		body, err := e.cfg.Repositories.ReadFile(ctx, c.project.ID, c.pipeline.SHA, cleanPath(f))
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("pipeline: cache:key:files: %w", err)
		}
		any = true
		fmt.Fprintf(sum, "%s %d\n", f, len(body))
		sum.Write(body)
	}
	if !any {
		return "default", nil
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

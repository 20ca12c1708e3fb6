package runner

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// request describes the environment that the job needs and computes its
// variables.
func (j *job) request() (EnvironmentRequest, error) {
	info := j.spec.JobInfo
	config := j.runner.config
	builds := config.BuildsDir
	host := filepath.Join(j.dir, "builds")
	if builds == "" {
		builds = host // the executor shows the host's own path
	}
	if err := os.Mkdir(host, 0o777); err != nil {
		return EnvironmentRequest{}, fmt.Errorf("make builds folder: %w", err)
	}
	if err := os.Chmod(host, 0o777); err != nil {
		return EnvironmentRequest{}, fmt.Errorf("make builds folder: %w", err)
	}
	j.shownBuilds = builds
	dir := path.Join(builds, info.ProjectFullPath)
	if info.ProjectFullPath == "" {
		dir = path.Join(builds, fmt.Sprintf("project-%d", info.ProjectID))
	}
	own := func(dir string) []delivery.JobVariable {
		var list []delivery.JobVariable
		for _, pair := range [][2]string{
			{"CI_BUILDS_DIR", builds}, {"CI_PROJECT_DIR", dir}, {"CI_CONCURRENT_ID", "0"}, {"CI_CONCURRENT_PROJECT_ID", "0"},
			{"CI_SERVER", "yes"}, {"CI_DISPOSABLE_ENVIRONMENT", "true"},
			{"GITLAB_ENV", path.Join(dir+".tmp", jobEnvFile)}, {"RUNNER_TEMP_PROJECT_DIR", dir + ".tmp"},
		} {
			list = append(list, delivery.JobVariable{Key: pair[0], Value: pair[1], Public: true, Raw: true})
		}
		return list
	}
	given := j.spec.Variables
	if file := j.runner.authority(); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return EnvironmentRequest{}, fmt.Errorf("read the platform's certificate authority: %w", err)
		}
		given = append([]delivery.JobVariable{{Key: "CI_SERVER_TLS_CA_FILE", Value: string(text), Public: true, File: true, Raw: true}}, given...)
	}
	j.variables = NewVariables(dir+".tmp", given, own(dir)).Expanded()
	if custom := j.variables.Get("GIT_CLONE_PATH"); custom != "" {
		custom = path.Clean(custom)
		if !strings.HasPrefix(custom, builds+"/") {
			return EnvironmentRequest{}, &JobError{Reason: ReasonConfiguration,
				Message: fmt.Sprintf("the GIT_CLONE_PATH=%q has to be within %q", custom, builds)}
		}
		dir = custom
		j.variables = NewVariables(dir+".tmp", given, own(dir)).Expanded()
	}
	j.projectDir = dir
	return EnvironmentRequest{
		JobID: j.spec.ID, ProjectID: info.ProjectID, ProjectPath: info.ProjectFullPath,
		Hostname:  fmt.Sprintf("runner-project-%d-job-%d", info.ProjectID, j.spec.ID),
		BuildsDir: host, Image: j.image(), Services: j.services(), Variables: j.variables,
		Credentials: credentials(j.spec, j.variables, j.log), Limits: j.limits(), Privileged: config.Privileged,
		Tools: j.tools(config.Tools), Log: j.log,
	}, nil
}

// authority is the file with the platform's certificate authority, where there
// is one.
func (r *Runner) authority() string {
	if r.config.CAFile == "" {
		return ""
	}
	if _, err := os.Stat(r.config.CAFile); err != nil {
		return "" // it is not there yet
	}
	return r.config.CAFile
}

// tools are those that the job gets.
func (j *job) tools(all []ToolMount) []ToolMount {
	var out []ToolMount
	for _, t := range all {
		if t.Variable == "" || j.variables.Get(t.Variable) != "" {
			out = append(out, t)
		}
	}
	return out
}

// prepare makes the environment and opens the builds folder.
func (j *job) prepare(ctx context.Context, request EnvironmentRequest) error {
	var err error
	if j.home, err = os.OpenRoot(j.dir); err != nil {
		return fmt.Errorf("open job folder: %w", err)
	}
	if j.builds, err = os.OpenRoot(request.BuildsDir); err != nil {
		return fmt.Errorf("open builds folder: %w", err)
	}
	j.fetchEarly(ctx)
	environment, err := j.runner.executor.Prepare(ctx, request)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.environment = environment
	j.mu.Unlock()
	return nil
}

package demo

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	gitlab "gitlab.com/gitlab-org/api/client-go"
)

// repository is a working copy that is pushed with real git.
type repository struct {
	project *gitlab.Project
	dir     string
	url     string
	token   string
}

// newRepository writes a folder of the sample files into a fresh working copy.
// The example names in them become the instance's own.
func (d *Demo) newRepository(ctx context.Context, p *gitlab.Project, folder string) (*repository, error) {
	dir, err := os.MkdirTemp("", "slipway-demo-")
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(d.URL)
	if err != nil {
		return nil, err
	}
	names := strings.NewReplacer(
		"http://forge.slipway.example/group", d.URL+"/"+d.Group,
		"registry.slipway.example/group", base.Host+"/"+d.Group,
		"apps.slipway.example", d.Domain,
	)
	err = fs.WalkDir(d.Files, folder, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(name, folder)))
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		body, err := fs.ReadFile(d.Files, name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, []byte(names.Replace(string(body))), 0o644)
	})
	if err != nil {
		return nil, fmt.Errorf("write the sample files: %w", err)
	}
	r := &repository{project: p, dir: dir, url: d.URL + "/" + p.PathWithNamespace + ".git", token: d.Token}
	if _, err := r.git(ctx, "init", "--quiet", "--initial-branch=main"); err != nil {
		return nil, err
	}
	if _, err := r.git(ctx, "remote", "add", "origin", r.url); err != nil {
		return nil, err
	}
	return r, nil
}

// git runs git in the working copy. The token travels in the environment.
func (r *repository) git(ctx context.Context, args ...string) (string, error) {
	base := []string{"-c", "user.name=Demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false", "-c", "credential.helper=",
		"-c", `credential.helper=!f() { echo username=root; echo "password=$SLIPWAY_DEMO_TOKEN"; }; f`}
	cmd := exec.CommandContext(ctx, "git", append(base, args...)...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "SLIPWAY_DEMO_TOKEN="+r.token, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "HOME="+r.dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// push commits the changed files (path -> content) and pushes them. It returns
// the commit.
func (r *repository) push(ctx context.Context, message string, files map[string]string) (string, error) {
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "--message", message}, {"push", "--quiet", "origin", "main"}} {
		if _, err := r.git(ctx, args...); err != nil {
			return "", err
		}
	}
	return r.git(ctx, "rev-parse", "HEAD")
}

func (r *repository) file(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(r.dir, filepath.FromSlash(name)))
}

// release pushes a version of the sample application.
func (r *repository) release(ctx context.Context, version, faultRate string) (string, error) {
	body, err := r.file("release.env")
	if err != nil {
		return "", err
	}
	var lines []string
	for _, line := range strings.Split(string(body), "\n") {
		switch {
		case strings.HasPrefix(line, "VERSION="):
			line = "VERSION=" + version
		case strings.HasPrefix(line, "FAULT_RATE="):
			line = "FAULT_RATE=" + faultRate
		}
		lines = append(lines, line)
	}
	return r.push(ctx, "Release "+version, map[string]string{"release.env": strings.Join(lines, "\n")})
}

// close deletes the working copy.
func (r *repository) close() error {
	if r == nil {
		return nil
	}
	return os.RemoveAll(r.dir)
}

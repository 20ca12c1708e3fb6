package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func splitPort(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address, "80"
	}
	return host, port
}

func isStatus(err error, status int) bool {
	var e *gitlab.ErrorResponse
	return errors.As(err, &e) && e.Response != nil && e.Response.StatusCode == status || status == http.StatusNotFound && errors.Is(err, gitlab.ErrNotFound)
}

// createProjects makes the group and both projects, after taking away those
// of an earlier run, and lets the application's jobs push to the GitOps
// project.
func (d *Demo) createProjects(ctx context.Context) (string, error) {
	if err := d.Remove(ctx); err != nil {
		return "", err
	}
	with := gitlab.WithContext(ctx)
	group, err := d.group(ctx)
	if err != nil {
		return "", err
	}
	create := func(name, path, description string) (*gitlab.Project, error) {
		p, _, err := d.api.Projects.CreateProject(&gitlab.CreateProjectOptions{
			Name: &name, Path: &path, NamespaceID: gitlab.Ptr(group.ID), Description: &description,
			Visibility: gitlab.Ptr(gitlab.InternalVisibility), DefaultBranch: gitlab.Ptr("main"),
		}, with)
		if err != nil {
			return nil, fmt.Errorf("create the project %s/%s: %w", d.Group, path, err)
		}
		return p, nil
	}
	app, err := create("Shortener", "shortener", "A small FastAPI service on its way to production")
	if err != nil {
		return "", err
	}
	config, err := create("GitOps configs", "gitops-configs", "What runs where, as files")
	if err != nil {
		return "", err
	}
	if err := d.allowPush(ctx, config.ID, app.ID); err != nil {
		return "", err
	}
	if d.app, err = d.newRepository(ctx, app, "sample-fastapi-app"); err != nil {
		return "", err
	}
	if d.config, err = d.newRepository(ctx, config, "gitops-configs"); err != nil {
		return "", err
	}
	if _, err := d.config.push(ctx, "Describe the environments", nil); err != nil {
		return "", err
	}
	return fmt.Sprintf("group %s with %s and %s; manifests pushed over git", d.Group, app.PathWithNamespace, config.PathWithNamespace), nil
}

// group makes the group, or finds it where somebody has projects of their own
// in it.
func (d *Demo) group(ctx context.Context) (*gitlab.Group, error) {
	with := gitlab.WithContext(ctx)
	group, _, err := d.api.Groups.GetGroup(d.Group, nil, with)
	if err == nil {
		return group, nil
	}
	if !isStatus(err, http.StatusNotFound) {
		return nil, fmt.Errorf("read the group %s: %w", d.Group, err)
	}
	group, _, err = d.api.Groups.CreateGroup(&gitlab.CreateGroupOptions{
		Name: gitlab.Ptr("Demo"), Path: gitlab.Ptr(d.Group), Visibility: gitlab.Ptr(gitlab.InternalVisibility),
	}, with)
	if err != nil {
		return nil, fmt.Errorf("create the group %s: %w", d.Group, err)
	}
	return group, nil
}

// removeGroup deletes the group unless somebody has put something else into it.
func (d *Demo) removeGroup(ctx context.Context) error {
	with := gitlab.WithContext(ctx)
	others, _, err := d.api.Groups.ListGroupProjects(d.Group, &gitlab.ListGroupProjectsOptions{IncludeSubGroups: gitlab.Ptr(true)}, with)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the projects of the group %s: %w", d.Group, err)
	}
	for _, p := range others {
		if p.Path != "shortener" && p.Path != "gitops-configs" {
			d.Say("   the group %s stays: it has %s", d.Group, p.PathWithNamespace)
			return nil
		}
	}
	if _, err := d.api.Groups.DeleteGroup(d.Group, nil, with); err != nil && !isStatus(err, http.StatusNotFound) {
		return fmt.Errorf("delete the group %s: %w", d.Group, err)
	}
	return nil
}

// allowPush lets the jobs of one project push to another with their job token:
// an entry of its job token allowlist with the right to push, which is this
// platform's own parameter.
func (d *Demo) allowPush(ctx context.Context, target, source int64) error {
	entry := struct {
		Target int64 `json:"target_project_id"`
		Push   bool  `json:"push"`
	}{source, true}
	req, err := d.api.NewRequest(http.MethodPost, fmt.Sprintf("projects/%d/job_token_scope/allowlist", target), entry, []gitlab.RequestOptionFunc{gitlab.WithContext(ctx)})
	if err == nil {
		_, err = d.api.Do(req, nil)
	}
	if err != nil {
		return fmt.Errorf("allow the application's jobs to push to the GitOps project: %w", err)
	}
	return nil
}

// Remove takes the demonstration away: its Applications with everything they
// made, both projects with their images, and the group unless it has other projects.
func (d *Demo) Remove(ctx context.Context) error {
	names := []string{"shortener", staging, production, blueGreen}
	for _, name := range names {
		if err := d.Apps.Delete(ctx, name, true); err != nil && !isGone(err) {
			return fmt.Errorf("delete the Application %s: %w", name, err)
		}
	}
	err := until(ctx, 500*time.Millisecond, func() (bool, error) {
		apps, err := d.Apps.List(ctx)
		if err != nil {
			return false, nil
		}
		for _, a := range apps {
			if slices.Contains(names, a.Name) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the Applications to go: %w", err)
	}
	// Argo CD made them for the Applications and leaves them.
	for _, name := range []string{staging, production, blueGreen} {
		if err := d.Apps.DeleteNamespace(ctx, name); err != nil {
			return fmt.Errorf("delete the namespace %s: %w", name, err)
		}
	}
	with := gitlab.WithContext(ctx)
	for _, name := range []string{"shortener", "gitops-configs"} {
		if _, err := d.api.Projects.DeleteProject(d.Group+"/"+name, nil, with); err != nil && !isStatus(err, http.StatusNotFound) {
			return fmt.Errorf("delete the project %s/%s: %w", d.Group, name, err)
		}
	}
	return d.removeGroup(ctx)
}

func isGone(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "not found") || strings.Contains(err.Error(), "does not exist"))
}

// applyRoot hands the GitOps repository to Argo CD.
func (d *Demo) applyRoot(ctx context.Context) error {
	body, err := d.config.file("argocd/root.yaml")
	if err != nil {
		return err
	}
	var object map[string]any
	if err := yaml.Unmarshal(body, &object); err != nil {
		return fmt.Errorf("argocd/root.yaml: %w", err)
	}
	if err := d.Apps.Apply(ctx, &unstructured.Unstructured{Object: object}); err != nil {
		return fmt.Errorf("apply argocd/root.yaml: %w", err)
	}
	return nil
}

// until calls ok until it is true, its error is not nil or ctx ends.
func until(ctx context.Context, every time.Duration, ok func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

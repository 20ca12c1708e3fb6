package main

import (
	"context"
	"strconv"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// The adapters let a stage see another through the small interfaces that it
// declares itself.

// projectsForPipelines implements pipeline.Projects and pipeline.Users.
type projectsForPipelines struct {
	access *access.Service
	forge  *forge.Service
}

// Project implements pipeline.Projects.
func (a projectsForPipelines) Project(ctx context.Context, id int64) (delivery.Project, error) {
	return a.forge.Project(ctx, id)
}

// ProjectByPath implements pipeline.Projects.
func (a projectsForPipelines) ProjectByPath(ctx context.Context, path string) (delivery.Project, error) {
	return a.forge.ProjectByPath(ctx, path)
}

// Ancestors implements pipeline.Projects.
func (a projectsForPipelines) Ancestors(ctx context.Context, projectID int64) ([]delivery.Group, error) {
	p, err := a.forge.Project(ctx, projectID)
	if err != nil || p.Namespace.Kind != "group" {
		return nil, err
	}
	g, _, err := a.access.VisibleGroup(ctx, systemIdentity, p.Namespace.FullPath)
	if err != nil {
		return nil, err
	}
	groups := []delivery.Group{g}
	for g.ParentID != 0 {
		if g, _, err = a.access.VisibleGroup(ctx, systemIdentity, strconv.FormatInt(g.ParentID, 10)); err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// RoleIn implements pipeline.Projects.
func (a projectsForPipelines) RoleIn(ctx context.Context, userID, projectID int64) (delivery.Role, error) {
	u, err := a.access.User(ctx, userID)
	if err != nil {
		return delivery.NoAccess, err
	}
	return a.access.UserRole(ctx, u, projectID)
}

// JobRoleIn implements pipeline.Projects.
func (a projectsForPipelines) JobRoleIn(ctx context.Context, userID, jobProjectID, projectID int64) (delivery.Role, error) {
	u, err := a.access.User(ctx, userID)
	if err != nil {
		return delivery.NoAccess, err
	}
	who := delivery.Identity{Kind: delivery.JobToken, User: &u, Name: u.Username, ProjectID: jobProjectID}
	return a.access.RoleIn(ctx, who, delivery.Project{ID: projectID})
}

// User implements pipeline.Users.
func (a projectsForPipelines) User(ctx context.Context, id int64) (delivery.User, error) {
	return a.access.User(ctx, id)
}

// repositoriesForPipelines implements pipeline.Repositories.
type repositoriesForPipelines struct {
	access *access.Service
	forge  *forge.Service
}

const maxPipelineFile = 8 << 20 // bytes of a file that a pipeline reads from a repository

// ReadFile implements pipeline.Repositories.
func (a repositoriesForPipelines) ReadFile(ctx context.Context, projectID int64, revision, path string) ([]byte, error) {
	return a.forge.ReadFile(ctx, projectID, revision, path, maxPipelineFile)
}

// Paths implements pipeline.Repositories.
func (a repositoriesForPipelines) Paths(ctx context.Context, projectID int64, revision string) ([]string, error) {
	return a.forge.ListFiles(ctx, projectID, revision)
}

// ChangedPaths implements pipeline.Repositories.
func (a repositoriesForPipelines) ChangedPaths(ctx context.Context, projectID int64, from, to string) ([]string, error) {
	return a.forge.ChangedPaths(ctx, projectID, from, to)
}

// Commit implements pipeline.Repositories.
func (a repositoriesForPipelines) Commit(ctx context.Context, projectID int64, revision string) (delivery.Commit, error) {
	return a.forge.Commit(ctx, projectID, revision)
}

// Ref implements pipeline.Repositories.
func (a repositoriesForPipelines) Ref(ctx context.Context, projectID int64, name string) (delivery.Ref, error) {
	p, err := a.forge.Project(ctx, projectID)
	if err != nil {
		return delivery.Ref{}, err
	}
	const branches, tags = "refs/heads/", "refs/tags/"
	switch {
	case len(name) > len(branches) && name[:len(branches)] == branches:
		return a.forge.Branch(ctx, p, name[len(branches):])
	case len(name) > len(tags) && name[:len(tags)] == tags:
		return a.forge.Tag(ctx, p, name[len(tags):])
	}
	ref, err := a.forge.Branch(ctx, p, name)
	if delivery.IsNotFound(err) {
		return a.forge.Tag(ctx, p, name)
	}
	return ref, err
}

// Tags implements pipeline.Repositories.
func (a repositoriesForPipelines) Tags(ctx context.Context, projectID int64) ([]delivery.Ref, error) {
	p, err := a.forge.Project(ctx, projectID)
	if err != nil {
		return nil, err
	}
	return a.forge.Tags(ctx, p, forge.RefOptions{})
}

// MergeBase implements pipeline.Repositories.
func (a repositoriesForPipelines) MergeBase(ctx context.Context, projectID int64, x, y string) (string, error) {
	return a.forge.MergeBase(ctx, projectID, x, y)
}

// SetRef implements pipeline.Repositories.
func (a repositoriesForPipelines) SetRef(ctx context.Context, projectID int64, fullName, sha string) error {
	if sha == "" {
		return a.forge.DeleteRef(ctx, projectID, fullName)
	}
	return a.forge.CreateRef(ctx, projectID, fullName, sha)
}

// Protected implements pipeline.Repositories.
func (a repositoriesForPipelines) Protected(ctx context.Context, projectID int64, name string, tag bool) (bool, error) {
	if tag {
		return a.forge.TagProtected(ctx, projectID, name)
	}
	return a.forge.BranchProtected(ctx, projectID, name)
}

// MayUpdate implements pipeline.Repositories.
func (a repositoriesForPipelines) MayUpdate(ctx context.Context, userID, projectID int64, name string, tag bool) (bool, error) {
	u, err := a.access.User(ctx, userID)
	if err != nil {
		return false, err
	}
	p, err := a.forge.Project(ctx, projectID)
	if err != nil {
		return false, err
	}
	if !tag {
		ok, _, err := a.forge.CanPush(ctx, delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: u.Username}, p, name)
		return ok, err
	}
	role, err := a.access.UserRole(ctx, u, projectID)
	if err != nil || role < delivery.Developer {
		return false, err
	}
	protected, err := a.forge.TagProtected(ctx, projectID, name)
	return !protected || role >= delivery.Maintainer, err
}

// repositoriesForRunner implements runner.Repositories: jobs check out from the
// bare repository on the same disk.
type repositoriesForRunner struct{ forge *forge.Service }

// GitDir implements runner.Repositories.
func (a repositoriesForRunner) GitDir(_ context.Context, projectID int64) (string, error) {
	return a.forge.RepositoryPath(projectID), nil
}

// reverter implements gitops.Reverter with the forge, which checks that the
// caller may push.
type reverter struct {
	forge *forge.Service
	url   string // the forge's external URL
}

// Revert implements gitops.Reverter.
func (a reverter) Revert(ctx context.Context, r gitops.Reversal, by delivery.Identity) (string, error) {
	path, ok := gitops.ProjectPath(a.url, r.RepoURL)
	if !ok {
		return "", delivery.Errorf(delivery.Invalid, "The repository %s is not on this platform; revert the commit where it is.", r.RepoURL)
	}
	project, err := a.forge.ProjectByPath(ctx, path)
	if err != nil {
		return "", err
	}
	if r.Branch == "" {
		r.Branch = project.DefaultBranch
	}
	c, err := a.forge.Restore(ctx, by, project, forge.RestoreOptions{Branch: r.Branch, Paths: r.Paths, Good: r.Good, Bad: r.Bad, Message: r.Message})
	return c.SHA, err
}

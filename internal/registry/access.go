package registry

import (
	"context"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Actions on a repository, as the distribution token specification names them.
const (
	actionPull   = "pull"
	actionPush   = "push"
	actionDelete = "delete"
)

// accessEntry is what a token allows on one repository. The meta member is
// GitLab's.
type accessEntry struct {
	Type    string      `json:"type"`
	Name    string      `json:"name"`
	Actions []string    `json:"actions"`
	Meta    *accessMeta `json:"meta,omitempty"`
}

type accessMeta struct {
	ProjectID   int64  `json:"project_id"`
	ProjectPath string `json:"project_path"`
	// Level is what the project's protection rules ask for.
	Level delivery.Role `json:"level,omitempty"`
}

func (e accessEntry) allows(action string) bool {
	for _, a := range e.Actions {
		if a == action || a == "*" {
			return true
		}
	}
	return false
}

// projectOf finds the project that a repository belongs to: the longest prefix
// of the path that is a project the caller may see.
func (r *Registry) projectOf(ctx context.Context, who delivery.Identity, name string) (delivery.Project, delivery.Role, error) {
	for path := name; strings.Contains(path, "/"); path = path[:strings.LastIndexByte(path, '/')] {
		project, role, err := r.projects.VisibleProject(ctx, who, path)
		if err == nil && !strings.EqualFold(project.FullPath, path) {
			continue // a numeric path was taken for an id
		}
		if !delivery.IsNotFound(err) {
			return project, role, err
		}
	}
	return delivery.Project{}, delivery.NoAccess, delivery.Errorf(delivery.NotFound, "There is no project for the repository %s.", name)
}

// grant returns which of the wanted actions the caller has on a repository.
// The rules are GitLab's: pulling asks for Reporter in a private project and
// for nothing where the project is public; pushing and deleting ask for
// Developer. A job pushes to its own project only.
func (r *Registry) grant(ctx context.Context, who delivery.Identity, name string, want []string) (accessEntry, error) {
	entry := accessEntry{Type: "repository", Name: name, Actions: []string{}}
	if !ValidName(name) {
		return entry, nil
	}
	if _, _, ok := r.cache.split(name); ok {
		entry.Actions = r.cache.allowed(who, want)
		return entry, nil
	}
	if r.isNode(who) {
		entry.Actions = only(want, func(a string) bool { return a == actionPull })
		return entry, nil
	}
	project, role, err := r.projectOf(ctx, who, name)
	if delivery.IsNotFound(err) || delivery.KindOf(err) == delivery.Forbidden || delivery.KindOf(err) == delivery.Unauthenticated {
		return entry, nil
	}
	if err != nil {
		return entry, err
	}
	entry.Meta = &accessMeta{ProjectID: project.ID, ProjectPath: project.FullPath, Level: levelOf(who, role)}
	entry.Actions = only(want, func(a string) bool { return mayAct(who, project, role, a) })
	return entry, nil
}

func mayAct(who delivery.Identity, project delivery.Project, role delivery.Role, action string) bool {
	job := who.Kind == delivery.JobToken
	if who.ProjectID != 0 && who.ProjectID != project.ID && (who.Kind == delivery.ProjectToken || who.Kind == delivery.DeployToken) {
		return project.Visibility == delivery.Public && action == actionPull
	}
	switch action {
	case actionPull:
		if project.Visibility == delivery.Public {
			return true
		}
		if !who.Signed() || !job && !who.HasScope("read_registry", "write_registry") {
			return false
		}
		return role >= delivery.Reporter || project.Visibility == delivery.Internal && who.User != nil ||
			who.ProjectID == project.ID && (job || who.Kind == delivery.DeployToken)
	case actionPush, actionDelete, "*":
		if !who.Signed() || project.Archived || !job && !who.HasScope("write_registry") {
			return false
		}
		if job {
			return who.ProjectID == project.ID && role >= delivery.Developer && action != "*"
		}
		return role >= delivery.Developer || who.Kind == delivery.DeployToken && who.ProjectID == project.ID
	}
	return false
}

func only(actions []string, keep func(string) bool) []string {
	out := []string{}
	for _, a := range actions {
		if keep(a) {
			out = append(out, a)
		}
	}
	return out
}

// isAdmin reports whether an administrator acts in person: what a pipeline or
// a project's token does is never an administrator's act, whoever started it.
func isAdmin(who delivery.Identity) bool {
	return who.User != nil && who.User.Admin && (who.Kind == delivery.SessionUser || who.Kind == delivery.PersonalToken)
}

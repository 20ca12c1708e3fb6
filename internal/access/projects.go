package access

import (
	"context"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
)

var errNoProject = &delivery.Error{Kind: delivery.NotFound, Message: "404 Project Not Found"}

// VisibleProject implements api.Projects.
func (s *Service) VisibleProject(ctx context.Context, who delivery.Identity, ref string) (delivery.Project, delivery.Role, error) {
	p, err := s.Project(ctx, ref)
	if delivery.IsNotFound(err) {
		return delivery.Project{}, 0, errNoProject
	}
	if err != nil {
		return delivery.Project{}, 0, err
	}
	role, err := s.RoleIn(ctx, who, p)
	if err != nil {
		return delivery.Project{}, 0, err
	}
	if !Visible(who, p, role) {
		return delivery.Project{}, 0, errNoProject
	}
	return p, role, nil
}

// Project finds a project by id or full path, without regard to any caller.
func (s *Service) Project(ctx context.Context, ref string) (delivery.Project, error) {
	if id, err := strconv.ParseInt(ref, 10, 64); err == nil {
		return s.store.ProjectByID(ctx, id)
	}
	return s.store.ProjectByPath(ctx, ref)
}

// Visible reports whether a caller with the role may know of the project.
func Visible(who delivery.Identity, p delivery.Project, role delivery.Role) bool {
	switch {
	case role >= delivery.Guest:
		return true
	case p.Visibility == delivery.Public:
		return true
	case p.Visibility == delivery.Internal:
		return who.User != nil && who.Kind != delivery.ProjectToken && who.Kind != delivery.GroupToken && who.Kind != delivery.JobToken
	}
	return false
}

// RoleIn is the caller's role in the project: what membership gives, limited
// by what the credentials are for.
func (s *Service) RoleIn(ctx context.Context, who delivery.Identity, p delivery.Project) (delivery.Role, error) {
	switch who.Kind {
	case "", delivery.Anonymous:
		return delivery.NoAccess, nil
	case delivery.SystemActor:
		return delivery.Owner, nil
	case delivery.ProjectToken, delivery.DeployToken:
		switch {
		case who.ProjectID == p.ID:
			return who.Role, nil
		case who.GroupID != 0:
			in, err := s.store.ProjectInGroup(ctx, p.ID, who.GroupID)
			if err != nil || !in {
				return delivery.NoAccess, err
			}
			return who.Role, nil
		case who.Kind == delivery.DeployToken && who.ProjectID == 0 && who.TokenID != 0:
			return who.Role, nil // the platform's own, for reading
		}
		return delivery.NoAccess, nil
	case delivery.SSHKey:
		if who.User == nil {
			if who.ProjectID == p.ID {
				return who.Role, nil
			}
			return delivery.NoAccess, nil
		}
	case delivery.JobToken:
		if who.ProjectID != p.ID {
			allowed, _, err := s.store.Allowance(ctx, p.ID, who.ProjectID)
			if err != nil || !allowed {
				return delivery.NoAccess, err
			}
		}
	}
	if who.User == nil {
		return delivery.NoAccess, nil
	}
	return s.UserRole(ctx, *who.User, p.ID)
}

// UserRole is the user's role in a project by membership.
func (s *Service) UserRole(ctx context.Context, u delivery.User, projectID int64) (delivery.Role, error) {
	if u.Blocked {
		return delivery.NoAccess, nil
	}
	if u.Admin {
		return delivery.Owner, nil
	}
	return s.store.ProjectRole(ctx, projectID, u.ID, s.now())
}

// JobMayPush reports whether a job token may push to the project: the project
// (its own included) must have listed the job's project with the right to push.
func (s *Service) JobMayPush(ctx context.Context, who delivery.Identity, projectID int64) (bool, error) {
	if who.Kind != delivery.JobToken {
		return true, nil
	}
	_, push, err := s.store.Allowance(ctx, projectID, who.ProjectID)
	return push, err
}

// Allowances lists the projects whose jobs may act in the project.
func (s *Service) Allowances(ctx context.Context, projectID int64) ([]Allowance, error) {
	return s.store.Allowances(ctx, projectID)
}

// SetAllowance lets the jobs of source act in the project.
func (s *Service) SetAllowance(ctx context.Context, who delivery.Identity, projectID, sourceID int64, push bool) error {
	if err := s.store.SetAllowance(ctx, projectID, sourceID, push); err != nil {
		return err
	}
	s.audit(ctx, who, "project.job_token_allowed", "project", projectID, strconv.FormatInt(sourceID, 10), "push="+strconv.FormatBool(push))
	return nil
}

// DeleteAllowance takes the right of the source's jobs away.
func (s *Service) DeleteAllowance(ctx context.Context, who delivery.Identity, projectID, sourceID int64) error {
	if err := s.store.DeleteAllowance(ctx, projectID, sourceID); err != nil {
		return err
	}
	s.audit(ctx, who, "project.job_token_disallowed", "project", projectID, strconv.FormatInt(sourceID, 10), "")
	return nil
}

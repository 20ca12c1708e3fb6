package access

import (
	"context"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
)

var errNoGroup = &delivery.Error{Kind: delivery.NotFound, Message: "404 Group Not Found"}

// NewGroup describes a group to be made.
type NewGroup struct {
	Path        string
	Name        string // empty: the path
	Description string
	ParentID    int64
	Visibility  delivery.Visibility // empty: the parent's, or private
}

// CreateGroup makes a group with the caller as its owner.
func (s *Service) CreateGroup(ctx context.Context, who delivery.Identity, n NewGroup) (delivery.Group, error) {
	if who.User == nil {
		return delivery.Group{}, ErrWrongCredentials
	}
	if who.User.Bot || who.Kind == delivery.JobToken {
		return delivery.Group{}, delivery.Errorf(delivery.Forbidden, "403 Forbidden")
	}
	if n.Name == "" {
		n.Name = n.Path
	}
	if err := CheckPath(n.Path, n.ParentID == 0); err != nil {
		return delivery.Group{}, err
	}
	if err := checkName(n.Name); err != nil {
		return delivery.Group{}, err
	}
	parent := delivery.Visibility("")
	if n.ParentID != 0 {
		g, role, err := s.VisibleGroup(ctx, who, strconv.FormatInt(n.ParentID, 10))
		if err != nil {
			return delivery.Group{}, err
		}
		if role < delivery.Maintainer {
			return delivery.Group{}, delivery.Errorf(delivery.Forbidden, "403 Forbidden")
		}
		parent = g.Visibility
	}
	if n.Visibility == "" {
		n.Visibility = delivery.Private
		if parent != "" {
			n.Visibility = parent
		}
	}
	if err := checkVisibility(n.Visibility, parent); err != nil {
		return delivery.Group{}, err
	}
	g, err := s.store.CreateGroup(ctx, delivery.Group{ParentID: n.ParentID, Path: n.Path, Name: n.Name, Description: n.Description, Visibility: n.Visibility, CreatedAt: s.now()}, who.User.ID)
	if err != nil {
		return delivery.Group{}, err
	}
	s.audit(ctx, who, "group.created", "group", g.ID, g.FullPath, "")
	return g, nil
}

// GroupChange changes a group; nil fields stay.
type GroupChange struct {
	Path, Name, Description *string
	Visibility              *delivery.Visibility
}

// UpdateGroup changes a group. The caller has checked the right to.
func (s *Service) UpdateGroup(ctx context.Context, who delivery.Identity, g delivery.Group, c GroupChange) (delivery.Group, error) {
	if c.Path != nil && *c.Path != g.Path {
		if err := CheckPath(*c.Path, g.ParentID == 0); err != nil {
			return g, err
		}
		if err := s.checkMove(ctx, g.ID); err != nil {
			return g, err
		}
		g.Path = *c.Path
	}
	if c.Name != nil {
		if err := checkName(*c.Name); err != nil {
			return g, err
		}
		g.Name = *c.Name
	}
	if c.Description != nil {
		g.Description = *c.Description
	}
	if c.Visibility != nil {
		parent := delivery.Visibility("")
		if g.ParentID != 0 {
			p, err := s.store.GroupByID(ctx, g.ParentID)
			if err != nil {
				return g, err
			}
			parent = p.Visibility
		}
		if err := checkVisibility(*c.Visibility, parent); err != nil {
			return g, err
		}
		g.Visibility = *c.Visibility
	}
	g, err := s.store.UpdateGroup(ctx, g)
	if err != nil {
		return g, err
	}
	s.audit(ctx, who, "group.updated", "group", g.ID, g.FullPath, "")
	return g, nil
}

// DeleteGroup deletes a group without projects.
func (s *Service) DeleteGroup(ctx context.Context, who delivery.Identity, g delivery.Group) error {
	if err := s.store.DeleteGroup(ctx, g.ID); err != nil {
		return err
	}
	s.audit(ctx, who, "group.deleted", "group", g.ID, g.FullPath, "")
	return nil
}

// VisibleGroup finds a group by id or full path on behalf of a caller, with
// the caller's role in it. Where the caller may not know of it the error is of
// kind NotFound.
func (s *Service) VisibleGroup(ctx context.Context, who delivery.Identity, ref string) (delivery.Group, delivery.Role, error) {
	var g delivery.Group
	var err error
	if id, perr := strconv.ParseInt(ref, 10, 64); perr == nil {
		g, err = s.store.GroupByID(ctx, id)
	} else {
		g, err = s.store.GroupByPath(ctx, ref)
	}
	return s.visibleGroup(ctx, who, g, err)
}

// VisibleGroupByPath is VisibleGroup for a full path, digits or not.
func (s *Service) VisibleGroupByPath(ctx context.Context, who delivery.Identity, full string) (delivery.Group, delivery.Role, error) {
	g, err := s.store.GroupByPath(ctx, full)
	return s.visibleGroup(ctx, who, g, err)
}

// visibleGroup checks that the caller may know of a group that was looked up.
func (s *Service) visibleGroup(ctx context.Context, who delivery.Identity, g delivery.Group, err error) (delivery.Group, delivery.Role, error) {
	if delivery.IsNotFound(err) {
		return delivery.Group{}, 0, errNoGroup
	}
	if err != nil {
		return delivery.Group{}, 0, err
	}
	role, err := s.GroupRoleIn(ctx, who, g.ID)
	if err != nil {
		return delivery.Group{}, 0, err
	}
	switch {
	case role >= delivery.MinimalAccess, g.Visibility == delivery.Public:
		return g, role, nil
	case g.Visibility == delivery.Internal && who.User != nil && !who.User.Bot:
		return g, role, nil
	case who.User != nil:
		below, err := s.store.GroupHasMemberBelow(ctx, g.ID, who.User.ID, s.now())
		if err != nil {
			return delivery.Group{}, 0, err
		}
		if below {
			return g, role, nil
		}
	}
	return delivery.Group{}, 0, errNoGroup
}

// Group returns a group by id, whoever asks.
func (s *Service) Group(ctx context.Context, id int64) (delivery.Group, error) {
	return s.store.GroupByID(ctx, id)
}

// GroupRoleIn is the caller's role in a group.
func (s *Service) GroupRoleIn(ctx context.Context, who delivery.Identity, groupID int64) (delivery.Role, error) {
	if who.Kind == delivery.SystemActor {
		return delivery.Owner, nil
	}
	if who.User == nil || who.Kind == delivery.JobToken || who.Kind == delivery.ProjectToken {
		return delivery.NoAccess, nil
	}
	if who.User.Admin {
		return delivery.Owner, nil
	}
	return s.store.GroupRole(ctx, groupID, who.User.ID, s.now())
}

// Groups lists the groups that the filter's viewer may see.
func (s *Service) Groups(ctx context.Context, f GroupFilter, limit, offset int) ([]delivery.Group, int, error) {
	return s.store.Groups(ctx, f, limit, offset)
}

// NamespaceForProjects finds the namespace by id or full path and checks that
// the caller may create projects in it (Developer of the group, or its own
// namespace). An id of 0 and an empty path mean the caller's own. The second
// result is the visibility of the group, empty for a user's namespace.
func (s *Service) NamespaceForProjects(ctx context.Context, who delivery.Identity, id int64, path string) (delivery.Namespace, delivery.Visibility, error) {
	if who.User == nil && who.Kind != delivery.SystemActor {
		return delivery.Namespace{}, "", ErrWrongCredentials
	}
	if who.Kind == delivery.JobToken || who.User != nil && who.User.Bot && who.Kind != delivery.GroupToken {
		return delivery.Namespace{}, "", delivery.Errorf(delivery.Forbidden, "403 Forbidden")
	}
	var ns delivery.Namespace
	var owner int64
	var err error
	switch {
	case id != 0:
		ns, owner, err = s.store.NamespaceByID(ctx, id)
	case path != "":
		ns, owner, err = s.store.NamespaceByPath(ctx, path)
	case who.User != nil:
		ns, owner, err = s.store.NamespaceByPath(ctx, who.User.Username)
	}
	if delivery.IsNotFound(err) {
		return ns, "", invalid("namespace", "is not valid")
	}
	if err != nil {
		return ns, "", err
	}
	if ns.Kind == "user" {
		if who.Kind != delivery.SystemActor && owner != who.User.ID && !who.User.Admin {
			return ns, "", invalid("namespace", "is not valid")
		}
		return ns, "", nil
	}
	g, role, err := s.VisibleGroup(ctx, who, strconv.FormatInt(ns.ID, 10))
	if delivery.IsNotFound(err) {
		return ns, "", invalid("namespace", "is not valid")
	}
	if err != nil {
		return ns, "", err
	}
	if role < delivery.Developer {
		return ns, "", delivery.Errorf(delivery.Forbidden, "403 Forbidden")
	}
	return ns, g.Visibility, nil
}

// Namespaces lists where the caller may create projects.
func (s *Service) Namespaces(ctx context.Context, who delivery.Identity, search string, limit, offset int) ([]delivery.Namespace, int, error) {
	if who.User == nil {
		return nil, 0, nil
	}
	return s.store.Namespaces(ctx, who.User.ID, who.User.Admin, search, limit, offset)
}

// SetMember adds a member or changes the role. granter is the caller's own
// role there, which bounds what can be given and whose role can be changed.
func (s *Service) SetMember(ctx context.Context, who delivery.Identity, granter delivery.Role, m Member) (Member, error) {
	if !validRole(m.Role) {
		return m, invalid("access_level", "is not included in the list")
	}
	if m.Role > granter {
		return m, delivery.Errorf(delivery.Forbidden, "403 Forbidden - you cannot give a role above your own")
	}
	if !m.ExpiresAt.IsZero() && !m.ExpiresAt.After(s.now()) {
		return m, invalid("expires_at", "must be in the future")
	}
	old, err := s.store.MemberOf(ctx, m.GroupID, m.ProjectID, m.User.ID, false)
	if err == nil && old.Role > granter {
		return m, delivery.Errorf(delivery.Forbidden, "403 Forbidden - the member's role is above your own")
	}
	if err != nil && !delivery.IsNotFound(err) {
		return m, err
	}
	if err == nil && old.Role == delivery.Owner && m.Role < delivery.Owner {
		if err := s.keepsOwner(ctx, m.GroupID); err != nil {
			return m, err
		}
	}
	m.CreatedAt = s.now()
	if err := s.store.SetMember(ctx, m, actorID(who)); err != nil {
		return m, err
	}
	s.audit(ctx, who, "member.set", memberTarget(m), m.GroupID+m.ProjectID, m.User.Username, m.Role.String())
	return m, nil
}

func memberTarget(m Member) string {
	if m.GroupID != 0 {
		return "group"
	}
	return "project"
}

func (s *Service) keepsOwner(ctx context.Context, groupID int64) error {
	if groupID == 0 {
		return nil
	}
	n, err := s.store.CountOwners(ctx, groupID)
	if err != nil {
		return err
	}
	if n <= 1 {
		return delivery.Errorf(delivery.Forbidden, "403 Forbidden - a group keeps at least one owner")
	}
	return nil
}

// RemoveMember ends a direct membership.
func (s *Service) RemoveMember(ctx context.Context, who delivery.Identity, granter delivery.Role, groupID, projectID, userID int64) error {
	m, err := s.store.MemberOf(ctx, groupID, projectID, userID, false)
	if err != nil {
		return err
	}
	if m.Role > granter {
		return delivery.Errorf(delivery.Forbidden, "403 Forbidden - the member's role is above your own")
	}
	if m.Role == delivery.Owner {
		if err := s.keepsOwner(ctx, groupID); err != nil {
			return err
		}
	}
	if err := s.store.DeleteMember(ctx, groupID, projectID, userID); err != nil {
		return err
	}
	s.audit(ctx, who, "member.removed", memberTarget(m), groupID+projectID, m.User.Username, "")
	return nil
}

// Members lists the members of a group or project (the other id is 0).
func (s *Service) Members(ctx context.Context, groupID, projectID int64, inherited bool, search string, limit, offset int) ([]Member, int, error) {
	return s.store.Members(ctx, groupID, projectID, inherited, search, limit, offset)
}

// MemberOf returns one membership.
func (s *Service) MemberOf(ctx context.Context, groupID, projectID, userID int64, inherited bool) (Member, error) {
	return s.store.MemberOf(ctx, groupID, projectID, userID, inherited)
}

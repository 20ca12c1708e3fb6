package forge

import (
	"context"
	"fmt"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// matchPattern reports whether a branch or tag name matches a rule's pattern,
// in which * stands for any characters, slashes included (doc/user/project/
// protected_branches.md).
func matchPattern(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(name, p)
		if i < 0 {
			return false
		}
		name = name[i+len(p):]
	}
	return strings.HasSuffix(name, last) && len(name) >= len(last)
}

func protects(rules []Protection, tags bool, name string) bool {
	_, ok := effective(rules, tags, name)
	return ok
}

// effective merges the rules that match a name; as in GitLab the most
// permissive one wins.
func effective(rules []Protection, tags bool, name string) (Protection, bool) {
	var out Protection
	found := false
	lower := func(a, b delivery.Role) delivery.Role {
		switch {
		case a == Nobody:
			return b
		case b == Nobody:
			return a
		}
		return min(a, b)
	}
	for _, r := range rules {
		if r.Tags != tags || !matchPattern(r.Pattern, name) {
			continue
		}
		if !found {
			out, found = r, true
			continue
		}
		out.PushRole = lower(out.PushRole, r.PushRole)
		out.MergeRole = lower(out.MergeRole, r.MergeRole)
		out.AllowForce = out.AllowForce || r.AllowForce
	}
	return out, found
}

// RefProtected reports whether a branch (refs/heads/...), a tag
// (refs/tags/...) or a short branch name is protected.
func (s *Service) RefProtected(ctx context.Context, projectID int64, ref string) (bool, error) {
	rules, err := s.store.Protections(ctx, projectID)
	if err != nil {
		return false, err
	}
	if tag, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
		return protects(rules, true, tag), nil
	}
	return protects(rules, false, strings.TrimPrefix(ref, "refs/heads/")), nil
}

// BranchProtected reports whether a branch is protected.
func (s *Service) BranchProtected(ctx context.Context, projectID int64, branch string) (bool, error) {
	return s.RefProtected(ctx, projectID, "refs/heads/"+branch)
}

// TagProtected reports whether a tag is protected.
func (s *Service) TagProtected(ctx context.Context, projectID int64, tag string) (bool, error) {
	return s.RefProtected(ctx, projectID, "refs/tags/"+tag)
}

// Protections lists the project's rules for branches and tags.
func (s *Service) Protections(ctx context.Context, projectID int64) ([]Protection, error) {
	return s.store.Protections(ctx, projectID)
}

// Protect adds or replaces a rule. The caller has checked that it comes from a
// Maintainer.
func (s *Service) Protect(ctx context.Context, who delivery.Identity, p Protection) (Protection, error) {
	if p.Pattern == "" || len(p.Pattern) > 255 {
		return p, delivery.Errorf(delivery.Invalid, "The name of a protection is a branch or tag name, or a pattern such as release/*.")
	}
	for _, r := range []delivery.Role{p.PushRole, p.MergeRole} {
		switch r {
		case Nobody, delivery.Developer, delivery.Maintainer, delivery.Owner:
		default:
			return p, delivery.Errorf(delivery.Invalid, "access level %d does not have a valid value", r)
		}
	}
	p.CreatedAt = s.now()
	p, err := s.store.SetProtection(ctx, p)
	if err == nil {
		s.access.Audit(ctx, who, "project.protection_set", "project", p.ProjectID, p.Pattern, fmt.Sprintf("tags=%t push=%s merge=%s", p.Tags, p.PushRole, p.MergeRole))
	}
	return p, err
}

// Unprotect removes a rule.
func (s *Service) Unprotect(ctx context.Context, who delivery.Identity, projectID int64, tags bool, pattern string) error {
	if err := s.store.DeleteProtection(ctx, projectID, tags, pattern); err != nil {
		return err
	}
	s.access.Audit(ctx, who, "project.protection_removed", "project", projectID, pattern, fmt.Sprintf("tags=%t", tags))
	return nil
}

// CanRead reports whether a caller with the role may read the project's
// repository: guests of a private project see the project but not its code.
func CanRead(p delivery.Project, role delivery.Role) bool {
	return role >= delivery.Reporter || p.Visibility != delivery.Private
}

// CanPush reports whether the caller may push to the branch; reason says why
// not.
func (s *Service) CanPush(ctx context.Context, who delivery.Identity, p delivery.Project, branch string) (ok bool, reason string, err error) {
	err = s.authorizeUpdates(ctx, who, p, []RefUpdate{{Ref: "refs/heads/" + branch, Old: strings.Repeat("1", 40), New: strings.Repeat("1", 40)}}, nil, true)
	if delivery.KindOf(err) == delivery.Forbidden {
		return false, delivery.UserMessage(err), nil
	}
	return err == nil, "", err
}

// authorizePush checks what does not depend on the refs.
func (s *Service) authorizePush(ctx context.Context, who delivery.Identity, p delivery.Project) (delivery.Role, error) {
	deny := func(msg string) error {
		return &delivery.Error{Kind: delivery.Forbidden, Op: "forge: push", Message: msg}
	}
	role, err := s.access.RoleIn(ctx, who, p)
	if err != nil {
		return 0, err
	}
	if p.Archived {
		return 0, deny("You can't push to an archived project.")
	}
	if !who.HasScope("write_repository") && who.Kind != delivery.SystemActor {
		return 0, deny("The token's scopes do not allow pushing (write_repository is needed).")
	}
	if role < delivery.Developer {
		return 0, deny("You are not allowed to push code to this project.")
	}
	may, err := s.access.JobMayPush(ctx, who, p.ID)
	if err != nil {
		return 0, err
	}
	if !may {
		return 0, deny("This project does not let the job's token push: list the job's project under Settings, CI/CD, Job token permissions, with the right to push.")
	}
	return role, nil
}

// authorizeUpdates checks ref updates against roles and protections. env leads
// git to the quarantined objects of a push. byAPI allows what protection only
// forbids to git (deleting a protected branch).
func (s *Service) authorizeUpdates(ctx context.Context, who delivery.Identity, p delivery.Project, updates []RefUpdate, env []string, byAPI bool) error {
	role, err := s.authorizePush(ctx, who, p)
	if err != nil {
		return err
	}
	rules, err := s.store.Protections(ctx, p.ID)
	if err != nil {
		return err
	}
	for _, u := range updates {
		var err error
		if name, ok := strings.CutPrefix(u.Ref, "refs/heads/"); ok {
			err = s.authorizeBranch(ctx, p, role, rules, name, u, env, byAPI)
		} else if name, ok := strings.CutPrefix(u.Ref, "refs/tags/"); ok {
			err = authorizeTag(role, rules, name, u, byAPI)
		} else if !strings.HasPrefix(u.Ref, "refs/notes/") {
			err = denied(u.Ref, "Only branches, tags and notes can be pushed.")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func denied(_ string, msg string) error {
	return &delivery.Error{Kind: delivery.Forbidden, Op: "forge: push", Message: msg}
}

func (s *Service) authorizeBranch(ctx context.Context, p delivery.Project, role delivery.Role, rules []Protection, name string, u RefUpdate, env []string, byAPI bool) error {
	creates, deletes := u.Old == delivery.ZeroSHA, u.New == delivery.ZeroSHA
	if creates {
		if err := CheckRefName(name); err != nil {
			return denied(u.Ref, delivery.UserMessage(err))
		}
	}
	if deletes && name == p.DefaultBranch {
		return denied(u.Ref, "The default branch of a project cannot be deleted.")
	}
	rule, protected := effective(rules, false, name)
	if !protected {
		return nil
	}
	if deletes {
		if byAPI && role >= delivery.Maintainer {
			return nil
		}
		return denied(u.Ref, fmt.Sprintf("You can't delete the protected branch %s with git. A maintainer can do it on the project's page.", clip(name, 80)))
	}
	// The first push of an empty project is how it begins.
	if p.Empty && creates {
		return nil
	}
	if rule.PushRole == Nobody || role < rule.PushRole {
		return denied(u.Ref, fmt.Sprintf("You are not allowed to push code to the protected branch %s. Push another branch and open a merge request.", clip(name, 80)))
	}
	if creates || rule.AllowForce || u.Old == u.New {
		return nil
	}
	_, err := s.git.runEnv(ctx, s.RepositoryPath(p.ID), env, nil, "merge-base", "--is-ancestor", u.Old, u.New)
	if exitCode(err) == 1 {
		return denied(u.Ref, fmt.Sprintf("You are not allowed to force push code to the protected branch %s.", clip(name, 80)))
	}
	if err != nil {
		return fmt.Errorf("forge: check for a force push: %w", err)
	}
	return nil
}

func authorizeTag(role delivery.Role, rules []Protection, name string, u RefUpdate, byAPI bool) error {
	creates, deletes := u.Old == delivery.ZeroSHA, u.New == delivery.ZeroSHA
	if creates {
		if err := CheckRefName(name); err != nil {
			return denied(u.Ref, delivery.UserMessage(err))
		}
	}
	rule, protected := effective(rules, true, name)
	switch {
	case protected && deletes && byAPI && role >= delivery.Maintainer:
		return nil
	case protected && deletes:
		return denied(u.Ref, fmt.Sprintf("The protected tag %s can't be deleted with git. A maintainer can do it on the project's page.", clip(name, 80)))
	case protected && !creates:
		return denied(u.Ref, fmt.Sprintf("The protected tag %s can't be updated.", clip(name, 80)))
	case protected && (rule.PushRole == Nobody || role < rule.PushRole):
		return denied(u.Ref, fmt.Sprintf("You are not allowed to create the tag %s as it is protected.", clip(name, 80)))
	case !protected && !creates && !deletes && role < delivery.Maintainer:
		return denied(u.Ref, fmt.Sprintf("You are not allowed to change the existing tag %s.", clip(name, 80)))
	}
	return nil
}

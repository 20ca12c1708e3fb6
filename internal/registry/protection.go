package registry

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Administrator is above every role, as in GitLab's protection rules: what an
// administrator does in person.
const Administrator delivery.Role = 60

// Protection restricts who may push and delete images of a project, as GitLab's
// protection rules for container repositories and for container tags do. Of
// several rules that match, the strictest counts.
type Protection struct {
	ID        int64
	ProjectID int64
	// Tags says that the rule is about tags of any repository of the project,
	// else it is about repositories.
	Tags bool
	// Pattern of tags is a regular expression (RE2) that matches somewhere in the
	// name; that of repositories is the rest of the path below the project's, in
	// which * stands for any characters.
	Pattern string
	// Push and Delete are the lowest roles that may: Maintainer, Owner or
	// Administrator; 0, for repositories only, restricts nothing.
	Push, Delete delivery.Role
	// Immutable tags can be made, by whom Push lets, and then neither moved nor
	// deleted by anybody.
	Immutable bool
}

const (
	maxTagRules   = 5   // of a project, as in GitLab
	maxTagPattern = 100 // characters, as in GitLab
	maxPathRule   = 255 // characters, as in GitLab
)

// PatternField is the name of a rule's pattern in GitLab's API.
func PatternField(tags bool) string {
	if tags {
		return "tag_name_pattern"
	}
	return "repository_path_pattern"
}

// Caller is who changes a project's images.
type Caller struct {
	Project delivery.Project
	Level   delivery.Role // the role in the project, or Administrator
}

// CallerOf is the caller with a role in a project.
func CallerOf(who delivery.Identity, project delivery.Project, role delivery.Role) Caller {
	return Caller{project, levelOf(who, role)}
}

func levelOf(who delivery.Identity, role delivery.Role) delivery.Role {
	if isAdmin(who) {
		return Administrator
	}
	return role
}

// LevelName is a level as GitLab's API writes it.
func LevelName(level delivery.Role) string {
	if level >= Administrator {
		return "admin"
	}
	return level.String()
}

// ParseLevel reads what LevelName writes, of those that rules may have.
func ParseLevel(name string) (delivery.Role, error) {
	for _, level := range []delivery.Role{delivery.Maintainer, delivery.Owner, Administrator} {
		if name == LevelName(level) {
			return level, nil
		}
	}
	return 0, delivery.Errorf(delivery.Invalid, "The level %q is none of maintainer, owner and admin.", name)
}

// Protections lists the rules of a project, the oldest first.
func (r *Registry) Protections(ctx context.Context, projectID int64) ([]Protection, error) {
	return r.index.Protections(ctx, projectID)
}

// Protect adds a rule to the caller's project and returns it with its id. An
// error of kind Invalid says what is wrong with it, one of kind Conflict that
// there is one with the pattern, or that there are too many.
func (r *Registry) Protect(ctx context.Context, by Caller, p Protection) (Protection, error) {
	p.ProjectID = by.Project.ID
	if err := p.check(); err != nil {
		return p, err
	}
	if p.Immutable && by.Level < delivery.Owner {
		return p, errImmutableOwner
	}
	atMost := 0
	if p.Tags {
		atMost = maxTagRules
	}
	var err error
	if p.ID, err = r.index.AddProtection(ctx, p, atMost); err == nil {
		r.log.Info("registry: images are protected", "project", by.Project.FullPath, "rule", p.ID, "tags", p.Tags, "pattern", p.Pattern)
	}
	return p, err
}

var errImmutableOwner = &delivery.Error{Kind: delivery.Forbidden, Message: "A rule for immutable tags is made and deleted by owners of the project only."}

// protection returns one rule of a project.
func (r *Registry) protection(ctx context.Context, projectID, id int64, tags bool) (Protection, error) {
	rules, err := r.index.Protections(ctx, projectID)
	if err != nil {
		return Protection{}, err
	}
	for _, p := range rules {
		if p.ID == id && p.Tags == tags {
			return p, nil
		}
	}
	return Protection{}, delivery.Errorf(delivery.NotFound, "Protection rule Not Found")
}

// ChangeProtection sets pattern and levels of a rule. Rules for immutable tags
// do not change.
func (r *Registry) ChangeProtection(ctx context.Context, by Caller, p Protection) error {
	now, err := r.protection(ctx, by.Project.ID, p.ID, p.Tags)
	if err != nil {
		return err
	}
	if now.Immutable {
		return delivery.Errorf(delivery.Conflict, "Operation not allowed: a rule for immutable tags does not change. An owner may delete it and make another.")
	}
	if p.Tags && p.Push == 0 && p.Delete == 0 {
		return delivery.Errorf(delivery.Conflict, "Cannot create an immutable tag rule from a protection rule")
	}
	p.ProjectID, p.Immutable = by.Project.ID, false
	if err := p.check(); err != nil {
		return err
	}
	return r.index.SetProtection(ctx, p)
}

// Unprotect deletes a rule of the caller's project.
func (r *Registry) Unprotect(ctx context.Context, by Caller, id int64, tags bool) error {
	now, err := r.protection(ctx, by.Project.ID, id, tags)
	if err != nil {
		return err
	}
	if now.Immutable && by.Level < delivery.Owner {
		return errImmutableOwner
	}
	if err := r.index.DeleteProtection(ctx, by.Project.ID, id); err != nil {
		return err
	}
	r.log.Info("registry: images are no longer protected", "project", by.Project.FullPath, "rule", id, "tags", tags, "pattern", now.Pattern)
	return nil
}

var pathRule = regexp.MustCompile(`^[a-z0-9._/*-]*$`)

// check reports what is wrong with a rule, by field.
func (p Protection) check() error {
	fields := map[string][]string{}
	wrong := func(field, why string) { fields[field] = append(fields[field], why) }
	field := PatternField(p.Tags)
	if p.Tags {
		if _, err := regexp.Compile(p.Pattern); err != nil {
			wrong(field, "not valid RE2 syntax: "+err.Error())
		}
		switch {
		case p.Pattern == "":
			wrong(field, "can't be blank")
		case utf8.RuneCountInString(p.Pattern) > maxTagPattern:
			wrong(field, fmt.Sprintf("is too long (maximum is %d characters)", maxTagPattern))
		}
	} else if !pathRule.MatchString(p.Pattern) || p.Pattern != "" && p.Pattern[0] != '/' && p.Pattern[0] != '*' || len(p.Pattern) > maxPathRule {
		wrong(field, "should be a valid container repository path with optional wildcard characters, of this project")
	}
	valid := func(level delivery.Role) bool {
		return level == 0 || level == delivery.Maintainer || level == delivery.Owner || level == Administrator
	}
	switch {
	case !valid(p.Push) || !valid(p.Delete):
		wrong("minimum_access_level_for_push", "must be maintainer, owner or admin, like that for delete")
	case p.Immutable && (p.Push != 0 || p.Delete != 0 || !p.Tags):
		wrong("immutable", "is for tags, without levels: nobody may move or delete them")
	case p.Immutable:
	case p.Tags && (p.Push == 0) != (p.Delete == 0):
		wrong("base", "Access levels should either both be present or both be nil")
	case p.Push == 0 && p.Delete == 0:
		wrong("base", "A rule must have at least a minimum access role for push or delete.")
	}
	return invalid("The protection rule", fields)
}

// Matches reports whether a rule of tags is about a tag.
func (p Protection) Matches(tag string) bool {
	expr, err := regexp.Compile(p.Pattern)
	return p.Tags && (err != nil || expr.MatchString(tag)) // a rule that cannot be read protects
}

// ProtectionOf is "immutable" or "protected" for a tag that one of the rules is
// about, and empty for others.
func ProtectionOf(rules []Protection, tag string) string {
	found := ""
	for _, p := range rules {
		if !p.Matches(tag) {
			continue
		}
		if found = "protected"; p.Immutable {
			return "immutable"
		}
	}
	return found
}

// covers reports whether a rule of repositories is about one, of which rest is
// the path below the project's.
func (p Protection) covers(rest string) bool {
	expr, err := regexp.Compile(`\A` + strings.ReplaceAll(regexp.QuoteMeta(p.Pattern), `\*`, `.*`) + `\z`)
	return !p.Tags && (err != nil || expr.MatchString(rest))
}

// guard holds what the rules of a project demand of one caller.
type guard struct {
	Caller
	rules []Protection
}

func (r *Registry) guard(ctx context.Context, by Caller) (guard, error) {
	rules, err := r.index.Protections(ctx, by.Project.ID)
	return guard{by, rules}, err
}

// below is a repository's path below the project's.
func (g guard) below(path string) string {
	return strings.TrimPrefix(path, strings.ToLower(g.Project.FullPath))
}

// push refuses to change a repository that is for higher roles.
func (g guard) push(path string) error {
	for _, p := range g.rules {
		if !p.Tags && p.covers(g.below(path)) && g.Level < p.Push {
			return g.denied("The repository "+path, "pushed to", p.Push, "*"+p.Pattern)
		}
	}
	return nil
}

// pushTag refuses to make a tag that is for higher roles.
func (g guard) pushTag(path, tag string) error {
	for _, p := range g.rules {
		if p.Matches(tag) && g.Level < p.Push {
			return g.denied("The tag "+tag+" of "+path, "pushed", p.Push, p.Pattern)
		}
	}
	return nil
}

// immutable returns the rule that keeps a tag as it is, or nil.
func (g guard) immutable(tag string) *Protection {
	for i, p := range g.rules {
		if p.Immutable && p.Matches(tag) {
			return &g.rules[i]
		}
	}
	return nil
}

// delete refuses to delete from a repository that is for higher roles.
func (g guard) delete(path string) error {
	for _, p := range g.rules {
		if !p.Tags && p.covers(g.below(path)) && g.Level < p.Delete {
			return g.denied("Images of "+path, "deleted", p.Delete, "*"+p.Pattern)
		}
	}
	return nil
}

// deleteTags refuses to delete tags of a repository of which one must stay.
func (g guard) deleteTags(path string, tags ...string) error {
	if err := g.delete(path); err != nil {
		return err
	}
	for _, tag := range tags {
		if p := g.immutable(tag); p != nil {
			return errImmutable("deleted", path, tag, *p)
		}
		for _, p := range g.rules {
			if p.Matches(tag) && g.Level < p.Delete {
				return g.denied("The tag "+tag+" of "+path, "deleted", p.Delete, p.Pattern)
			}
		}
	}
	return nil
}

func (g guard) denied(what, done string, level delivery.Role, pattern string) error {
	needed := LevelName(level) + "s and above"
	if level >= Administrator {
		needed = "administrators"
	}
	return &delivery.Error{Kind: delivery.Forbidden,
		Message: fmt.Sprintf("%s may be %s by %s only, by the protection rule %q of %s; you are %s.", what, done, needed, pattern, g.Project.FullPath, LevelName(g.Level)),
		Next:    "Ask one of them, or have a maintainer change the rule in the project's settings, Registry."}
}

func errImmutable(done, path, tag string, p Protection) error {
	return &delivery.Error{Kind: delivery.Forbidden,
		Message: fmt.Sprintf("The tag %s of %s is immutable by the protection rule %q and cannot be %s.", tag, path, p.Pattern, done),
		Next:    "Push under another tag; an owner may delete the rule in the project's settings, Registry."}
}

// RemoveTag is DeleteTag where the project's protection rules let the caller.
func (r *Registry) RemoveTag(ctx context.Context, by Caller, repo Repository, tag string) error {
	g, err := r.guard(ctx, by)
	if err == nil {
		err = g.deleteTags(repo.Path, tag)
	}
	if err != nil {
		return err
	}
	return r.DeleteTag(ctx, repo.ID, tag)
}

// RemoveImage is DeleteImage where the project's protection rules let the caller
// delete all of its tags.
func (r *Registry) RemoveImage(ctx context.Context, by Caller, repo Repository, dgst string) error {
	image, err := r.index.Image(ctx, repo.ID, dgst)
	if err != nil {
		return err
	}
	g, err := r.guard(ctx, by)
	if err == nil {
		err = g.deleteTags(repo.Path, image.Tags...)
	}
	if err != nil {
		return err
	}
	return r.DeleteImage(ctx, repo.ID, dgst)
}

// RemoveRepository is DeleteRepository where the project's protection rules let
// the caller delete all of its tags.
func (r *Registry) RemoveRepository(ctx context.Context, by Caller, repo Repository) error {
	tags, err := r.index.Tags(ctx, repo.ID)
	if err != nil {
		return err
	}
	names := make([]string, len(tags))
	for i, t := range tags {
		names[i] = t.Name
	}
	g, err := r.guard(ctx, by)
	if err == nil {
		err = g.deleteTags(repo.Path, names...)
	}
	if err != nil {
		return err
	}
	return r.DeleteRepository(ctx, repo.ID)
}

// unprotected returns those of the tags that no rule of the project protects:
// what clean-up policies may remove.
func (g guard) unprotected(tags []Tag) []Tag {
	var out []Tag
next:
	for _, t := range tags {
		for _, p := range g.rules {
			if p.Matches(t.Name) {
				continue next
			}
		}
		out = append(out, t)
	}
	return out
}

// callerOf is the bearer of a token that names the repository's project.
func (c *claims) caller(name string) (Caller, error) {
	entry, _ := c.entry(name)
	if entry.Meta == nil {
		return Caller{}, fmt.Errorf("registry: token for %s names no project", name)
	}
	return Caller{delivery.Project{ID: entry.Meta.ProjectID, FullPath: entry.Meta.ProjectPath}, entry.Meta.Level}, nil
}

// admitTag asks the project's rules about a push of a manifest. Where the tag is
// immutable, pushes wait for each other until release is called.
func (r *Registry) admitTag(ctx context.Context, c *claims, rt route, dgst string) (release func(), err error) {
	release = func() {}
	by, err := c.caller(rt.name)
	if err != nil {
		return release, err
	}
	g, err := r.guard(ctx, by)
	if err != nil {
		return release, err
	}
	if err := g.push(rt.name); err != nil || validDigest(rt.reference) {
		return release, err
	}
	if err := g.pushTag(rt.name, rt.reference); err != nil {
		return release, err
	}
	rule := g.immutable(rt.reference)
	if rule == nil {
		return release, nil
	}
	r.tagging.Lock()
	if now := r.root.tagged(rt.name, rt.reference); now != "" && now != dgst {
		r.tagging.Unlock()
		return release, errImmutable("pushed again", rt.name, rt.reference, *rule)
	}
	return r.tagging.Unlock, nil
}

// admitDelete asks the project's rules about the deletion of a manifest or tag.
func (r *Registry) admitDelete(ctx context.Context, c *claims, rt route) error {
	by, err := c.caller(rt.name)
	if err != nil {
		return err
	}
	g, err := r.guard(ctx, by)
	if err != nil {
		return err
	}
	if !validDigest(rt.reference) {
		return g.deleteTags(rt.name, rt.reference)
	}
	image, err := r.Image(ctx, rt.name, rt.reference)
	if delivery.IsNotFound(err) {
		return g.delete(rt.name)
	}
	if err != nil {
		return err
	}
	return g.deleteTags(rt.name, image.Tags...)
}

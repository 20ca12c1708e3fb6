package registry

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Policy returns the clean-up policy of a project; one that was never set is
// not enabled.
func (r *Registry) Policy(ctx context.Context, projectID int64) (Policy, error) {
	return r.index.Policy(ctx, projectID)
}

// SetPolicy checks and stores a clean-up policy and plans its next run. An
// invalid one gives an error of kind Invalid with the fields.
func (r *Registry) SetPolicy(ctx context.Context, p Policy) error {
	if p.Cadence == 0 {
		p.Cadence = 24 * time.Hour
	}
	if err := p.check(); err != nil {
		return err
	}
	p.NextRun = r.now().Add(p.Cadence)
	return r.index.SetPolicy(ctx, p)
}

// Expiring is a tag that a policy would remove.
type Expiring struct {
	Repository string // full path
	Tag
}

// Preview returns the tags that a policy of a project would remove if it ran
// now, by repository, the newest first, and removes nothing. It is of use
// before a policy is set; whether it is enabled does not matter.
func (r *Registry) Preview(ctx context.Context, p Policy) ([]Expiring, error) {
	p.Enabled = true
	if p.Cadence == 0 {
		p.Cadence = 24 * time.Hour
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	used, err := r.inUse(ctx)
	if err != nil {
		return nil, err
	}
	g, err := r.guard(ctx, Caller{Project: delivery.Project{ID: p.ProjectID}})
	if err != nil {
		return nil, err
	}
	repos, err := r.index.Repositories(ctx, p.ProjectID)
	if err != nil {
		return nil, err
	}
	out := []Expiring{}
	for _, repo := range repos {
		tags, err := r.index.Tags(ctx, repo.ID)
		if err != nil {
			return nil, err
		}
		expired, err := p.expired(repo.Path, tags, used, r.now())
		if err != nil {
			return nil, err
		}
		for _, t := range g.unprotected(expired) {
			out = append(out, Expiring{repo.Path, t})
		}
	}
	return out, nil
}

// check reports what is wrong with a policy, by field.
func (p Policy) check() error {
	fields := map[string][]string{}
	if p.Cadence < time.Hour {
		fields["cadence"] = []string{"must be at least an hour"}
	}
	if p.KeepN < 0 {
		fields["keep_n"] = []string{"must not be negative"}
	}
	if p.OlderThan < 0 {
		fields["older_than"] = []string{"must not be negative"}
	}
	for name, expr := range map[string]string{"name_regex": p.NameRegex, "name_regex_keep": p.KeepRegex} {
		if _, err := anchored(expr); err != nil {
			fields[name] = []string{"is not a valid regular expression: " + err.Error()}
		}
	}
	if p.Enabled && p.NameRegex == "" {
		fields["name_regex"] = []string{"must say which tags may go, for example .*"}
	}
	return invalid("The clean-up policy", fields)
}

// invalid is an error of kind Invalid that says what is wrong with which field,
// or nil.
func invalid(what string, fields map[string][]string) error {
	if len(fields) == 0 {
		return nil
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		for _, why := range fields[name] {
			words = append(words, strings.TrimPrefix(name+" "+why, "base "))
		}
	}
	return &delivery.Error{Kind: delivery.Invalid, Message: what + " is not valid: " + strings.Join(words, "; "), Fields: fields}
}

// anchored compiles an expression that must match the whole name, as GitLab's
// does.
func anchored(expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, nil
	}
	return regexp.Compile(`\A(?:` + expr + `)\z`)
}

// expired returns the tags that a policy removes.
func (p Policy) expired(path string, tags []Tag, used inUse, now time.Time) ([]Tag, error) {
	may, err := anchored(p.NameRegex)
	if err != nil {
		return nil, fmt.Errorf("registry: policy of project %d: %w", p.ProjectID, err)
	}
	keep, err := anchored(p.KeepRegex)
	if err != nil {
		return nil, fmt.Errorf("registry: policy of project %d: %w", p.ProjectID, err)
	}
	var matching []Tag
	for _, t := range tags {
		if may != nil && may.MatchString(t.Name) && (keep == nil || !keep.MatchString(t.Name)) && t.Name != "latest" {
			matching = append(matching, t)
		}
	}
	sort.SliceStable(matching, func(i, j int) bool { return matching[i].PushedAt.After(matching[j].PushedAt) })
	var out []Tag
	for i, t := range matching {
		if i < p.KeepN || p.OlderThan > 0 && t.PushedAt.After(now.Add(-p.OlderThan)) || used.tag(path, t.Name, t.Digest) {
			continue
		}
		out = append(out, t)
	}
	return out, nil
}

// applyPolicy removes the tags that a policy names and plans its next run.
func (r *Registry) applyPolicy(ctx context.Context, p Policy, used inUse) (int, error) {
	repos, err := r.index.Repositories(ctx, p.ProjectID)
	if err != nil {
		return 0, err
	}
	g, err := r.guard(ctx, Caller{Project: delivery.Project{ID: p.ProjectID}})
	if err != nil {
		return 0, err
	}
	removed := 0
	for _, repo := range repos {
		tags, err := r.index.Tags(ctx, repo.ID)
		if err != nil {
			return removed, err
		}
		expired, err := p.expired(repo.Path, tags, used, r.now())
		if err != nil {
			return removed, err
		}
		for _, t := range g.unprotected(expired) {
			if err := r.DeleteTag(ctx, repo.ID, t.Name); err != nil && !delivery.IsNotFound(err) {
				return removed, err
			}
			removed++
		}
	}
	p.NextRun = r.now().Add(max(p.Cadence, time.Hour))
	return removed, r.index.SetPolicy(ctx, p)
}

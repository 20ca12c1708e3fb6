// Package pipelinetest holds stand-ins for what package pipeline asks of other
// stages: projects, users and repositories in memory, a clock that is moved by
// hand, and a runner that speaks the protocol over HTTP. Tests and benchmarks
// only.
package pipelinetest

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Forge is a forge in memory. It is safe for concurrent use.
type Forge struct {
	mu       sync.Mutex
	projects map[int64]*repo
	users    map[int64]delivery.User
	roles    map[[2]int64]delivery.Role // user, project
	allowed  map[[2]int64]bool          // project, the project whose jobs it lets in
	Merges   []delivery.MergeRequest
	Releases []string
	Pinned   map[string]string // full ref name -> commit, as SetRef left them
}

type repo struct {
	project   delivery.Project
	ancestors []delivery.Group
	refs      map[string]string // full name -> commit
	commits   map[string]commit
	protected map[string]bool
}

type commit struct {
	delivery.Commit
	files map[string]string
}

// NewForge returns a forge with user 1, an administrator named root.
func NewForge() *Forge {
	return &Forge{projects: map[int64]*repo{}, roles: map[[2]int64]delivery.Role{}, allowed: map[[2]int64]bool{}, Pinned: map[string]string{},
		users: map[int64]delivery.User{1: {ID: 1, Username: "root", Name: "Root", Email: "root@example.com", Admin: true}}}
}

// AddProject adds a project group/name.
func (f *Forge) AddProject(id int64, fullPath string) delivery.Project {
	f.mu.Lock()
	defer f.mu.Unlock()
	ns, name := fullPath[:strings.LastIndex(fullPath, "/")], fullPath[strings.LastIndex(fullPath, "/")+1:]
	p := delivery.Project{ID: id, Path: name, Name: name, FullPath: fullPath, Visibility: delivery.Private, DefaultBranch: "main",
		Namespace: delivery.Namespace{ID: 100, Kind: "group", Path: ns, FullPath: ns, Name: ns}}
	f.projects[id] = &repo{project: p, ancestors: []delivery.Group{{ID: 100, Path: ns, FullPath: ns}}, refs: map[string]string{},
		commits: map[string]commit{}, protected: map[string]bool{"main": true}}
	return p
}

// AddUser adds a user with a role in a project.
func (f *Forge) AddUser(u delivery.User, projectID int64, role delivery.Role) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users[u.ID] = u
	f.roles[[2]int64{u.ID, projectID}] = role
}

// Commit changes files of a branch, an empty content deletes one, and returns
// the new commit and the one before.
func (f *Forge) Commit(projectID int64, branch, message string, files map[string]string) (sha, before string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.projects[projectID]
	full := branch
	if !strings.HasPrefix(full, "refs/") {
		full = "refs/heads/" + branch
	}
	before = r.refs[full]
	c := commit{files: map[string]string{}}
	if old, ok := r.commits[before]; ok {
		maps.Copy(c.files, old.files)
		c.Parents = []string{before}
	} else {
		before = delivery.ZeroSHA
	}
	for path, text := range files {
		if text == "" {
			delete(c.files, path)
		} else {
			c.files[path] = text
		}
	}
	sum := sha1.Sum(fmt.Appendf(nil, "%d %s %s %s %v", len(r.commits), branch, message, before, c.files))
	c.SHA, c.Message = hex.EncodeToString(sum[:]), message
	c.Author = delivery.Signature{Name: "Ann", Email: "ann@example.com", When: time.Unix(1700000000, 0).UTC()}
	c.Committer = c.Author
	r.commits[c.SHA] = c
	r.refs[full] = c.SHA
	return c.SHA, before
}

func (f *Forge) repo(id int64) (*repo, error) {
	r := f.projects[id]
	if r == nil {
		return nil, &delivery.Error{Kind: delivery.NotFound, Message: "Project Not Found"}
	}
	return r, nil
}

// Project implements pipeline.Projects.
func (f *Forge) Project(_ context.Context, id int64) (delivery.Project, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return delivery.Project{}, err
	}
	return r.project, nil
}

// ProjectByPath implements pipeline.Projects.
func (f *Forge) ProjectByPath(_ context.Context, path string) (delivery.Project, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.projects {
		if strings.EqualFold(r.project.FullPath, path) {
			return r.project, nil
		}
	}
	return delivery.Project{}, &delivery.Error{Kind: delivery.NotFound, Message: "Project Not Found"}
}

// Ancestors implements pipeline.Projects.
func (f *Forge) Ancestors(_ context.Context, id int64) ([]delivery.Group, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return nil, err
	}
	return r.ancestors, nil
}

// RoleIn implements pipeline.Projects.
func (f *Forge) RoleIn(_ context.Context, userID, projectID int64) (delivery.Role, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users[userID].Admin {
		return delivery.Owner, nil
	}
	return f.roles[[2]int64{userID, projectID}], nil
}

// JobRoleIn implements pipeline.Projects: Allow lets
// others' jobs in.
func (f *Forge) JobRoleIn(ctx context.Context, userID, jobProjectID, projectID int64) (delivery.Role, error) {
	f.mu.Lock()
	allowed := jobProjectID == projectID || f.allowed[[2]int64{projectID, jobProjectID}]
	f.mu.Unlock()
	if !allowed {
		return delivery.NoAccess, nil
	}
	return f.RoleIn(ctx, userID, projectID)
}

// Allow puts a project on the job token allowlist of another.
func (f *Forge) Allow(projectID, jobProjectID int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allowed[[2]int64{projectID, jobProjectID}] = true
}

// User implements pipeline.Users.
func (f *Forge) User(_ context.Context, id int64) (delivery.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u, ok := f.users[id]
	if !ok {
		return u, &delivery.Error{Kind: delivery.NotFound, Message: "User Not Found"}
	}
	return u, nil
}

func (r *repo) find(revision string) (commit, error) {
	for _, name := range []string{revision, "refs/heads/" + revision, "refs/tags/" + revision} {
		if sha, ok := r.refs[name]; ok {
			return r.commits[sha], nil
		}
	}
	if c, ok := r.commits[revision]; ok {
		return c, nil
	}
	return commit{}, &delivery.Error{Kind: delivery.NotFound, Message: "Commit Not Found"}
}

// ReadFile implements pipeline.Repositories.
func (f *Forge) ReadFile(_ context.Context, id int64, revision, path string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return nil, err
	}
	c, err := r.find(revision)
	if err != nil {
		return nil, err
	}
	text, ok := c.files[path]
	if !ok {
		return nil, &delivery.Error{Kind: delivery.NotFound, Message: "File Not Found"}
	}
	return []byte(text), nil
}

// Paths implements pipeline.Repositories.
func (f *Forge) Paths(_ context.Context, id int64, revision string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return nil, err
	}
	c, err := r.find(revision)
	return slices.Sorted(maps.Keys(c.files)), err
}

// ChangedPaths implements pipeline.Repositories.
func (f *Forge) ChangedPaths(_ context.Context, id int64, from, to string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return nil, err
	}
	a, err := r.find(from)
	if err != nil {
		return nil, err
	}
	b, err := r.find(to)
	if err != nil {
		return nil, err
	}
	var out []string
	for path, text := range b.files {
		if a.files[path] != text {
			out = append(out, path)
		}
	}
	for path := range a.files {
		if _, ok := b.files[path]; !ok {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out, nil
}

// CommitOf implements the Commit method of pipeline.Repositories; see Repositories.
func (f *Forge) commitOf(id int64, revision string) (delivery.Commit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return delivery.Commit{}, err
	}
	c, err := r.find(revision)
	return c.Commit, err
}

// Ref implements pipeline.Repositories.
func (f *Forge) Ref(_ context.Context, id int64, name string) (delivery.Ref, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return delivery.Ref{}, err
	}
	for _, full := range []string{name, "refs/heads/" + name, "refs/tags/" + name} {
		if sha, ok := r.refs[full]; ok {
			short := strings.TrimPrefix(strings.TrimPrefix(full, "refs/heads/"), "refs/tags/")
			return delivery.Ref{Name: short, FullName: full, SHA: sha}, nil
		}
	}
	return delivery.Ref{}, &delivery.Error{Kind: delivery.NotFound, Message: "Ref Not Found"}
}

// Tags implements pipeline.Repositories.
func (f *Forge) Tags(_ context.Context, id int64) ([]delivery.Ref, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return nil, err
	}
	var out []delivery.Ref
	for full, sha := range r.refs {
		if name, ok := strings.CutPrefix(full, "refs/tags/"); ok {
			out = append(out, delivery.Ref{Name: name, FullName: full, SHA: sha})
		}
	}
	return out, nil
}

// MergeBase implements pipeline.Repositories for linear histories.
func (f *Forge) MergeBase(_ context.Context, id int64, a, b string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return "", err
	}
	seen := map[string]bool{}
	for at := a; at != ""; {
		seen[at] = true
		c := r.commits[at]
		at = ""
		if len(c.Parents) > 0 {
			at = c.Parents[0]
		}
	}
	for at := b; at != ""; {
		if seen[at] {
			return at, nil
		}
		c := r.commits[at]
		at = ""
		if len(c.Parents) > 0 {
			at = c.Parents[0]
		}
	}
	return "", nil
}

// SetRef implements pipeline.Repositories.
func (f *Forge) SetRef(_ context.Context, id int64, name, sha string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sha == "" {
		delete(f.Pinned, name)
	} else {
		f.Pinned[name] = sha
	}
	return nil
}

// Protected implements pipeline.Repositories: main is.
func (f *Forge) Protected(_ context.Context, id int64, name string, tag bool) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, err := f.repo(id)
	if err != nil {
		return false, err
	}
	return !tag && r.protected[name], nil
}

// Protect makes a branch a protected one.
func (f *Forge) Protect(id int64, branch string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.projects[id].protected[branch] = true
}

// MayUpdate implements pipeline.Repositories.
func (f *Forge) MayUpdate(ctx context.Context, userID, id int64, name string, tag bool) (bool, error) {
	role, err := f.RoleIn(ctx, userID, id)
	protected, perr := f.Protected(ctx, id, name, tag)
	if err == nil {
		err = perr
	}
	return role >= delivery.Maintainer || role >= delivery.Developer && !protected, err
}

// MergeRequest implements pipeline.MergeRequests.
func (f *Forge) MergeRequest(_ context.Context, id, iid int64) (delivery.MergeRequest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.Merges {
		if m.ProjectID == id && m.IID == iid {
			return m, nil
		}
	}
	return delivery.MergeRequest{}, &delivery.Error{Kind: delivery.NotFound, Message: "Merge Request Not Found"}
}

// OpenMergeRequests implements pipeline.MergeRequests.
func (f *Forge) OpenMergeRequests(_ context.Context, id int64, branch string) ([]delivery.MergeRequest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []delivery.MergeRequest
	for _, m := range f.Merges {
		if m.SourceProjectID == id && m.SourceBranch == branch && m.State == "opened" {
			out = append(out, m)
		}
	}
	return out, nil
}

// Repositories is the Forge with the Commit method that reads.
type Repositories struct{ *Forge }

// Commit implements pipeline.Repositories.
func (r Repositories) Commit(_ context.Context, id int64, revision string) (delivery.Commit, error) {
	return r.Forge.commitOf(id, revision)
}

// Clock is moved by hand.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	timers []timer
}

type timer struct {
	at time.Time
	c  chan time.Time
}

// NewClock returns a clock that stands at a fixed time.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)} }

// Now implements pipeline.Clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// After implements pipeline.Clock.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- c.now
	} else {
		c.timers = append(c.timers, timer{c.now.Add(d), ch})
	}
	return ch
}

// Advance moves the clock and wakes those whose time has come.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	rest := c.timers[:0]
	for _, t := range c.timers {
		if t.at.After(c.now) {
			rest = append(rest, t)
		} else {
			t.c <- c.now
		}
	}
	c.timers = rest
}

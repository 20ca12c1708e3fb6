package forge

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// NewProject describes a project to be made.
type NewProject struct {
	NamespaceID   int64  // 0 with an empty NamespacePath: the caller's own
	NamespacePath string // full path of a group or user
	Path          string
	Name          string // empty: the path
	Description   string
	Visibility    delivery.Visibility // empty: private
	DefaultBranch string              // empty: main
	Readme        bool                // begin with a README
	CIConfigPath  string
	Settings      ProjectSettings
	ImportURL     string
	forkOf        *delivery.Project
}

// CreateProject makes a project with an empty repository. The caller needs to
// be Developer of the group.
func (s *Service) CreateProject(ctx context.Context, who delivery.Identity, n NewProject) (delivery.Project, error) {
	ns, parent, err := s.access.NamespaceForProjects(ctx, who, n.NamespaceID, n.NamespacePath)
	if err != nil {
		return delivery.Project{}, err
	}
	if n.Path == "" {
		n.Path = slug(n.Name)
	}
	if n.Name == "" {
		n.Name = n.Path
	}
	if n.Visibility == "" {
		n.Visibility = delivery.Private
	}
	if n.DefaultBranch == "" {
		n.DefaultBranch = "main"
	}
	if err := checkProject(n.Path, n.Name, n.Visibility, parent); err != nil {
		return delivery.Project{}, err
	}
	if err := CheckRefName(n.DefaultBranch); err != nil {
		return delivery.Project{}, err
	}
	if err := checkCIPath(n.CIConfigPath); err != nil {
		return delivery.Project{}, err
	}
	if n.ImportURL != "" {
		if _, err := s.checkRemote(ctx, n.ImportURL); err != nil {
			return delivery.Project{}, err
		}
	}
	now := s.now()
	p := delivery.Project{Namespace: ns, Path: n.Path, Name: n.Name, Description: n.Description, Visibility: n.Visibility, DefaultBranch: n.DefaultBranch, Empty: true, CIConfigPath: n.CIConfigPath, CreatedAt: now, LastActivity: now}
	if who.User != nil {
		p.CreatorID = who.User.ID
	}
	if n.forkOf != nil {
		p.ForkedFromID = n.forkOf.ID
	}
	p, err = s.store.CreateProject(ctx, p, n.Settings)
	if err != nil {
		return delivery.Project{}, err
	}
	// From here on a failure must not leave a project without a repository.
	if err := s.initProject(ctx, who, p, n); err != nil {
		undo := context.WithoutCancel(ctx)
		if derr := s.store.DeleteProject(undo, p.ID); derr != nil {
			s.log.Error("half-made project not removed", "project", p.ID, "err", derr)
		}
		os.RemoveAll(s.RepositoryPath(p.ID)) //nolint:errcheck // a left-over folder is never reused
		return delivery.Project{}, err
	}
	s.access.Audit(ctx, who, "project.created", "project", p.ID, p.FullPath, "")
	return s.store.ProjectByID(ctx, p.ID)
}

func (s *Service) initProject(ctx context.Context, who delivery.Identity, p delivery.Project, n NewProject) error {
	if err := s.initRepository(ctx, p.ID, n.DefaultBranch); err != nil {
		return err
	}
	_, err := s.store.SetProtection(ctx, Protection{ProjectID: p.ID, Pattern: n.DefaultBranch, PushRole: delivery.Maintainer, MergeRole: delivery.Maintainer, CreatedAt: s.now()})
	if err != nil {
		return err
	}
	switch {
	case n.forkOf != nil:
		return s.copyRepository(ctx, who, *n.forkOf, p)
	case n.ImportURL != "":
		return s.importRepository(ctx, who, p, n.ImportURL)
	case n.Readme:
		text := "# " + p.Name + "\n"
		if p.Description != "" {
			text += "\n" + p.Description + "\n"
		}
		_, err := s.CommitFiles(ctx, who, p, delivery.NewCommit{Branch: n.DefaultBranch, Message: "Initial commit", Actions: []delivery.CommitAction{{Action: "create", Path: "README.md", Content: []byte(text)}}})
		return err
	}
	return nil
}

func (s *Service) initRepository(ctx context.Context, id int64, branch string) error {
	dir := s.RepositoryPath(id)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("forge: create repository: %w", err)
	}
	if _, err := s.git.run(ctx, "", nil, "init", "--quiet", "--bare", "--template=", "--initial-branch="+branch, dir); err != nil {
		return fmt.Errorf("forge: create repository: %w", err)
	}
	return nil
}

// slug turns a name into a path.
func slug(name string) string {
	var b strings.Builder
	dash := false
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '.':
			if dash && b.Len() > 0 {
				b.WriteByte('-')
			}
			b.WriteRune(r)
			dash = false
		default:
			dash = true
		}
	}
	return strings.Trim(b.String(), ".")
}

func invalidField(field, message string) error {
	return &delivery.Error{Kind: delivery.Invalid, Message: field + " " + message + ".", Fields: map[string][]string{field: {message}}}
}

func checkProject(path, name string, v, parent delivery.Visibility) error {
	low := strings.ToLower(path)
	ok := path != "" && len(path) <= 255 && path[0] != '-' && path[0] != '.' && !strings.HasSuffix(path, ".") && !strings.Contains(path, "..")
	for _, r := range path {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.') {
			ok = false
		}
	}
	if !ok {
		return invalidField("path", "can contain only letters, digits, '_', '-' and '.', and cannot start with '-' or '.' or end with '.'")
	}
	if strings.HasSuffix(low, ".git") || strings.HasSuffix(low, ".atom") || strings.HasSuffix(low, ".lock") {
		return invalidField("path", "cannot end with .git, .atom or .lock")
	}
	if strings.TrimSpace(name) == "" || len(name) > 255 {
		return invalidField("name", "must have 1 to 255 characters")
	}
	rank := map[delivery.Visibility]int{delivery.Private: 1, delivery.Internal: 2, delivery.Public: 3}
	if rank[v] == 0 {
		return invalidField("visibility", "is not one of private, internal, public")
	}
	if parent != "" && rank[v] > rank[parent] {
		return invalidField("visibility_level", string(v)+" is not allowed in a "+string(parent)+" group")
	}
	return nil
}

func checkCIPath(p string) error {
	if len(p) > 255 || strings.HasPrefix(p, "/") || strings.Contains(p, "..") {
		return invalidField("ci_config_path", "must be a relative path inside the repository")
	}
	return nil
}

// Project returns a project by id, whoever asks.
func (s *Service) Project(ctx context.Context, id int64) (delivery.Project, error) {
	return s.store.ProjectByID(ctx, id)
}

// ProjectByPath returns a project by its full path, whoever asks.
func (s *Service) ProjectByPath(ctx context.Context, fullPath string) (delivery.Project, error) {
	return s.store.ProjectByPath(ctx, fullPath)
}

// VisibleProject returns the project that ref (an id or a full path) names and
// the caller's role in it; NotFound where the caller may not know of it.
func (s *Service) VisibleProject(ctx context.Context, who delivery.Identity, ref string) (delivery.Project, delivery.Role, error) {
	return s.access.VisibleProject(ctx, who, ref)
}

// Projects lists what the filter's viewer may see.
func (s *Service) Projects(ctx context.Context, f ProjectFilter, limit, offset int) ([]delivery.Project, int, error) {
	return s.store.Projects(ctx, f, limit, offset)
}

// FilterFor returns a filter for what the caller may see.
func FilterFor(who delivery.Identity) ProjectFilter {
	var f ProjectFilter
	switch who.Kind {
	case delivery.ProjectToken, delivery.DeployToken, delivery.JobToken:
		f.Only = who.ProjectID
	case delivery.SystemActor:
		f.All = true
	default:
		if who.User != nil {
			f.Viewer, f.All, f.External = who.User.ID, who.User.Admin, who.Kind == delivery.GroupToken
		}
	}
	return f
}

// Settings returns the forge's settings of a project.
func (s *Service) Settings(ctx context.Context, projectID int64) (ProjectSettings, error) {
	return s.store.ProjectSettings(ctx, projectID)
}

// ProjectChange changes a project; nil fields stay.
type ProjectChange struct {
	Name, Path, Description, DefaultBranch, CIConfigPath *string
	Visibility                                           *delivery.Visibility
	Archived                                             *bool
	Settings                                             *ProjectSettings
}

// UpdateProject changes a project. The caller's role was checked: Maintainer,
// and Owner for path, visibility and archiving.
func (s *Service) UpdateProject(ctx context.Context, who delivery.Identity, p delivery.Project, c ProjectChange) (delivery.Project, error) {
	settings, err := s.store.ProjectSettings(ctx, p.ID)
	if err != nil {
		return p, err
	}
	if c.Name != nil {
		p.Name = *c.Name
	}
	if c.Path != nil && *c.Path != p.Path {
		if err := s.checkMove(ctx, p.ID); err != nil {
			return p, err
		}
		p.Path = *c.Path
	}
	if c.Description != nil {
		p.Description = *c.Description
	}
	if c.Visibility != nil {
		p.Visibility = *c.Visibility
	}
	if c.Archived != nil {
		p.Archived = *c.Archived
	}
	if c.CIConfigPath != nil {
		if err := checkCIPath(*c.CIConfigPath); err != nil {
			return p, err
		}
		p.CIConfigPath = *c.CIConfigPath
	}
	parent := delivery.Visibility("")
	if c.Visibility != nil && p.Namespace.Kind == "group" {
		if _, parent, err = s.access.NamespaceForProjects(ctx, delivery.Identity{Kind: delivery.SystemActor}, p.Namespace.ID, ""); err != nil {
			return p, err
		}
	}
	if err := checkProject(p.Path, p.Name, p.Visibility, parent); err != nil {
		return p, err
	}
	if c.Settings != nil {
		settings = *c.Settings
	}
	if c.DefaultBranch != nil && *c.DefaultBranch != p.DefaultBranch {
		if _, ok, err := s.RefExists(ctx, p.ID, "refs/heads/"+*c.DefaultBranch); err != nil {
			return p, err
		} else if !ok && !p.Empty {
			return p, invalidField("default_branch", "Could not set the default branch. Do you have a branch named '"+clip(*c.DefaultBranch, 80)+"' in your repository?")
		}
		if err := CheckRefName(*c.DefaultBranch); err != nil {
			return p, err
		}
		if err := s.setDefaultBranch(ctx, p, *c.DefaultBranch); err != nil {
			return p, err
		}
	}
	p, err = s.store.UpdateProject(ctx, p, settings)
	if err != nil {
		return p, err
	}
	s.access.Audit(ctx, who, "project.updated", "project", p.ID, p.FullPath, "")
	return p, nil
}

// TransferProject moves a project to another namespace, in which the caller
// may create projects.
func (s *Service) TransferProject(ctx context.Context, who delivery.Identity, p delivery.Project, namespaceID int64, namespacePath string) (delivery.Project, error) {
	ns, parent, err := s.access.NamespaceForProjects(ctx, who, namespaceID, namespacePath)
	if err != nil {
		return p, err
	}
	if err := checkProject(p.Path, p.Name, p.Visibility, parent); err != nil {
		return p, err
	}
	settings, err := s.store.ProjectSettings(ctx, p.ID)
	if err != nil {
		return p, err
	}
	if ns.ID == p.Namespace.ID {
		return p, invalidField("namespace", "is where the project is already")
	}
	if err := s.checkMove(ctx, p.ID); err != nil {
		return p, err
	}
	old := p.FullPath
	p.Namespace = ns
	if p, err = s.store.UpdateProject(ctx, p, settings); err != nil {
		return p, err
	}
	s.access.Audit(ctx, who, "project.transferred", "project", p.ID, p.FullPath, "from "+old)
	return p, nil
}

// DeleteProject deletes a project, its repository and its records.
func (s *Service) DeleteProject(ctx context.Context, who delivery.Identity, p delivery.Project) error {
	if err := s.store.DeleteProject(ctx, p.ID); err != nil {
		return err
	}
	s.access.Audit(ctx, who, "project.deleted", "project", p.ID, p.FullPath, "")
	dir := s.RepositoryPath(p.ID)
	s.readers.forget(dir)
	if err := os.RemoveAll(dir); err != nil {
		// The maintenance removes what is left.
		s.log.Warn("repository not fully removed", "project", p.ID, "err", err)
	}
	return nil
}

// Fork copies a project into another namespace and remembers where it is from.
func (s *Service) Fork(ctx context.Context, who delivery.Identity, source delivery.Project, n NewProject) (delivery.Project, error) {
	if n.Path == "" {
		n.Path = source.Path
	}
	if n.Name == "" {
		n.Name = source.Name
	}
	if n.Visibility == "" {
		n.Visibility = source.Visibility
	}
	if n.Description == "" {
		n.Description = source.Description
	}
	n.DefaultBranch, n.CIConfigPath, n.forkOf = source.DefaultBranch, source.CIConfigPath, &source
	return s.CreateProject(ctx, who, n)
}

// copyRepository fills a fork with the branches and tags of its source.
func (s *Service) copyRepository(ctx context.Context, who delivery.Identity, from, to delivery.Project) error {
	dir := s.RepositoryPath(to.ID)
	_, err := s.git.run(ctx, dir, nil, "fetch", "--quiet", "--no-write-fetch-head", "--no-auto-maintenance", s.RepositoryPath(from.ID), "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
	if err != nil {
		return fmt.Errorf("forge: fork: %w", err)
	}
	if err := s.store.CopyLFSObjects(ctx, from.ID, to.ID); err != nil {
		return err
	}
	return s.announceRefs(ctx, who, to, false)
}

// announceRefs marks a filled repository as not empty. Pushed events are
// emitted for all branches and tags where asked for.
func (s *Service) announceRefs(ctx context.Context, who delivery.Identity, p delivery.Project, events bool) error {
	out, err := s.git.run(ctx, s.RepositoryPath(p.ID), nil, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/", "refs/tags/")
	if err != nil {
		return fmt.Errorf("forge: list refs: %w", err)
	}
	var updates []RefUpdate
	for line := range strings.Lines(string(out)) {
		sha, ref, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok {
			updates = append(updates, RefUpdate{Ref: ref, Old: delivery.ZeroSHA, New: sha})
		}
	}
	if len(updates) == 0 {
		return nil
	}
	if !events {
		// One branch is enough to tell that the project is no longer empty.
		for _, u := range updates {
			if strings.HasPrefix(u.Ref, "refs/heads/") {
				updates = []RefUpdate{u}
				if u.Ref == "refs/heads/"+p.DefaultBranch {
					break
				}
			}
		}
	}
	push := Push{ProjectID: p.ID, At: s.now(), Updates: updates}
	if who.User != nil {
		push.UserID = who.User.ID
	}
	if !events {
		push.Options = map[string]string{"ci.skip": ""}
	}
	if push.ID, err = s.store.BeginPush(ctx, push); err != nil {
		return err
	}
	return s.finishPush(ctx, p, push, updates)
}

func parseID(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id <= 0 {
		return 0, &delivery.Error{Kind: delivery.NotFound, Message: "404 Not Found"}
	}
	return id, nil
}

package web

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

const maxForks = 100 // projects to choose from in a form

// newRequestView is the form of a new merge request, with what it would merge.
type newRequestView struct {
	From, Into         *delivery.Project
	Sources, Targets   []delivery.Project
	Source, Target     string // branches
	Title, Description string
	Squash, Remove     bool
	SquashOption       string
	Labels             string
	Branches           []delivery.Ref // of From
	TargetBranches     []delivery.Ref // of Into
	Assignees          []pickView
	Reviewers          []pickView
	KnownLabels        []string
	Commits            []delivery.Commit
	Diff               *diffView
	Error              string

	assignees, reviewers []int64
}

// field reads a value of the form; GitLab's addresses, such as those that a
// push prints, write merge_request[name].
func field(r *Request, name string) string {
	if v := r.FormValue(name); v != "" {
		return v
	}
	return r.FormValue("merge_request[" + name + "]")
}

// ends finds the two projects: the page's own is one of them.
func (s *Server) ends(r *Request, v *newRequestView) error {
	ctx, p := r.Context(), *r.Project
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in as a person to ask for a merge."}
	}
	if err := readable(r); err != nil {
		return err
	}
	if r.Role >= delivery.Developer {
		v.Sources = append(v.Sources, p)
	}
	f := forge.FilterFor(r.Who)
	f.ForkedFrom, f.MinRole = p.ID, delivery.Developer
	forks, _, err := s.Forge.Projects(ctx, f, maxForks, 0)
	if err != nil {
		return err
	}
	v.Sources = append(v.Sources, forks...)
	v.Targets = append(v.Targets, p)
	if p.ForkedFromID != 0 {
		parent, role, err := s.Access.VisibleProject(ctx, r.Who, strconv.FormatInt(p.ForkedFromID, 10))
		if err != nil && !delivery.IsNotFound(err) {
			return err
		}
		if err == nil && forge.CanRead(parent, role) {
			v.Targets = append([]delivery.Project{parent}, v.Targets...)
		}
	}
	if len(v.Sources) == 0 {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "You may not push to " + p.FullPath + ", and you have no fork of it.", Next: "Fork the project and push a branch to your fork."}
	}
	choose := func(name string, list []delivery.Project) *delivery.Project {
		id, err := strconv.ParseInt(field(r, name), 10, 64)
		for i := range list {
			if err == nil && list[i].ID == id {
				return &list[i]
			}
		}
		return &list[0]
	}
	v.From, v.Into = choose("source_project_id", v.Sources), choose("target_project_id", v.Targets)
	if v.From.ID != p.ID {
		v.Into = &p // a fork into this project
	}
	return nil
}

func (s *Server) newRequestPage(w http.ResponseWriter, r *Request) error {
	v := newRequestView{Source: field(r, "source_branch"), Target: field(r, "target_branch"), Title: field(r, "title"), Description: field(r, "description"), Remove: true}
	if err := s.ends(r, &v); err != nil {
		return err
	}
	return s.showNewRequest(w, r, http.StatusOK, v)
}

func (s *Server) showNewRequest(w http.ResponseWriter, r *Request, status int, v newRequestView) error {
	ctx := r.Context()
	var err error
	if v.Branches, err = s.Forge.Branches(ctx, *v.From, forge.RefOptions{Sort: "updated"}); err != nil {
		return err
	}
	if v.TargetBranches = v.Branches; v.Into.ID != v.From.ID {
		if v.TargetBranches, err = s.Forge.Branches(ctx, *v.Into, forge.RefOptions{Sort: "updated"}); err != nil {
			return err
		}
	}
	if v.Target == "" {
		v.Target = v.Into.DefaultBranch
	}
	if v.Source != "" && !v.same() {
		err := s.previewRequest(w, r, &v)
		if err != nil && !delivery.IsNotFound(err) {
			return err
		}
		if err != nil && v.Error == "" {
			v.Error, status = "One of the branches does not exist.", http.StatusUnprocessableEntity
		}
		if v.Diff != nil && v.Diff.alone(r) {
			return s.fragment(w, "forge_newrequest", "diff", v.Diff)
		}
	}
	return s.render(w, r, status, "forge_newrequest", Page{Title: "New merge request", Active: "merge_requests", Data: &v})
}

func (v *newRequestView) same() bool { return v.From.ID == v.Into.ID && v.Source == v.Target }

// Same reports whether the source is the target.
func (v *newRequestView) Same() bool { return v.same() }

// previewRequest shows what would be merged.
func (s *Server) previewRequest(w http.ResponseWriter, r *Request, v *newRequestView) error {
	ctx := r.Context()
	base, start, head, err := s.Forge.CompareForks(ctx, *v.From, v.Source, *v.Into, v.Target)
	if err != nil {
		return err
	}
	if v.Commits, err = s.Forge.CommitsBetween(ctx, v.From.ID, start, head, 250); err != nil {
		return err
	}
	if v.Diff, err = s.loadDiff(w, r, v.From.ID, base, head, nil); err != nil {
		return err
	}
	settings, err := s.Forge.Settings(ctx, v.Into.ID)
	if err != nil {
		return err
	}
	if v.SquashOption = settings.SquashOption; v.Error == "" {
		v.Squash = settings.SquashOption == "always" || settings.SquashOption == "default_on"
		v.Remove = !settings.KeepSourceBranch
	}
	if v.Assignees, err = s.picks(r, v.Into.ID, v.assignees); err != nil {
		return err
	}
	if v.Reviewers, err = s.picks(r, v.Into.ID, v.reviewers); err != nil {
		return err
	}
	if v.Title != "" || v.Description != "" || v.Error != "" {
		return nil
	}
	v.Title = strings.ReplaceAll(strings.ReplaceAll(v.Source, "-", " "), "_", " ")
	if len(v.Commits) == 1 {
		c := v.Commits[0]
		v.Title, v.Description = c.Title(), strings.TrimSpace(strings.TrimPrefix(c.Message, c.Title()))
	}
	return nil
}

func (s *Server) createRequest(w http.ResponseWriter, r *Request) error {
	c, err := s.change(r)
	if err != nil {
		return err
	}
	v := newRequestView{Source: field(r, "source_branch"), Target: field(r, "target_branch"), Title: r.FormValue("title"), Description: strings.ReplaceAll(r.FormValue("description"), "\r\n", "\n"),
		Squash: r.FormValue("squash") != "", Remove: r.FormValue("remove_source_branch") != "", Labels: r.FormValue("labels")}
	if err := s.ends(r, &v); err != nil {
		return err
	}
	n := forge.NewMergeRequest{SourceProject: *v.From, SourceBranch: v.Source, TargetBranch: v.Target, Title: v.Title, Description: v.Description, Squash: &v.Squash, RemoveSourceBranch: &v.Remove, Labels: splitLabels(v.Labels)}
	if c.AssigneeIDs != nil {
		n.AssigneeIDs = *c.AssigneeIDs
	}
	if c.ReviewerIDs != nil {
		n.ReviewerIDs = *c.ReviewerIDs
	}
	v.assignees, v.reviewers = n.AssigneeIDs, n.ReviewerIDs
	m, err := s.Forge.CreateMergeRequest(r.Context(), r.Who, *v.Into, n)
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showNewRequest(w, r, status, v)
	}
	return redirect(w, r, requestLink(v.Into, m.IID), "")
}

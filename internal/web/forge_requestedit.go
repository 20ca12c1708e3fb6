package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

const maxPicked = 200 // members that can be chosen from

// editRequestView is the form of a merge request's fields.
type editRequestView struct {
	Request            delivery.MergeRequest
	Link               string
	Title, Description string
	Target             string
	Labels             string
	Squash, Remove     bool
	SquashOption       string
	Branches           []delivery.Ref
	Assignees          []pickView
	Reviewers          []pickView
	KnownLabels        []string
	Error              string
}

// pickView is a member that can be chosen.
type pickView struct {
	delivery.User
	Chosen bool
}

// picks lists the members of a project that merge requests can be given to.
func (s *Server) picks(r *Request, project int64, chosen []int64) ([]pickView, error) {
	members, _, err := s.Access.Members(r.Context(), 0, project, true, "", maxPicked, 0)
	if err != nil {
		return nil, err
	}
	var out []pickView
	seen := map[int64]bool{}
	add := func(u delivery.User) {
		if !seen[u.ID] {
			seen[u.ID] = true
			out = append(out, pickView{u, slices.Contains(chosen, u.ID)})
		}
	}
	for _, m := range members {
		if m.Role >= delivery.Reporter || slices.Contains(chosen, m.User.ID) {
			add(m.User)
		}
	}
	for _, id := range chosen {
		u, err := s.Access.User(r.Context(), id)
		if err != nil && !delivery.IsNotFound(err) {
			return nil, err
		}
		if err == nil {
			add(u)
		}
	}
	slices.SortFunc(out, func(a, b pickView) int { return strings.Compare(a.Username, b.Username) })
	return out, nil
}

func (s *Server) editRequestPage(w http.ResponseWriter, r *Request, m delivery.MergeRequest) error {
	v := editRequestView{Title: m.Title, Description: m.Description, Target: m.TargetBranch, Labels: strings.Join(m.Labels, ", "), Squash: m.Squash, Remove: m.RemoveSourceBranch}
	return s.showEditRequest(w, r, http.StatusOK, m, v)
}

func (s *Server) showEditRequest(w http.ResponseWriter, r *Request, status int, m delivery.MergeRequest, v editRequestView) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	if r.Role < delivery.Developer && r.Who.User.ID != m.AuthorID {
		return &delivery.Error{Kind: delivery.Forbidden, Message: "Only its author and developers of the project may change it."}
	}
	v.Request, v.Link = m, requestLink(r.Project, m.IID)
	var err error
	if v.Branches, err = s.Forge.Branches(r.Context(), *r.Project, forge.RefOptions{Sort: "updated"}); err != nil {
		return err
	}
	if v.Assignees, err = s.picks(r, m.ProjectID, m.AssigneeIDs); err != nil {
		return err
	}
	if v.Reviewers, err = s.picks(r, m.ProjectID, m.ReviewerIDs); err != nil {
		return err
	}
	if v.KnownLabels, err = s.labels(r); err != nil {
		return err
	}
	settings, err := s.Forge.Settings(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	v.SquashOption = settings.SquashOption
	return s.render(w, r, status, "forge_editrequest", Page{Title: "Edit !" + strconv.FormatInt(m.IID, 10), Active: "merge_requests", Data: v})
}

// labels are those that the project's newest merge requests carry.
func (s *Server) labels(r *Request) ([]string, error) {
	list, _, err := s.Forge.MergeRequests(r.Context(), forge.MergeRequestFilter{ProjectIDs: []int64{r.Project.ID}}, 200, 0)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range list {
		for _, l := range m.Labels {
			if !slices.Contains(out, l) {
				out = append(out, l)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// ids reads the numbers of a field that may come several times. The form says
// by a field "has" which lists it has, since none chosen sends nothing.
func ids(r *Request, field string) *[]int64 {
	if !slices.Contains(r.Form["has"], field) {
		return nil
	}
	out := []int64{}
	for _, v := range r.Form[field] {
		if id, err := strconv.ParseInt(v, 10, 64); err == nil && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return &out
}

// splitLabels reads "one, two".
func splitLabels(text string) []string {
	out := []string{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.Join(strings.Fields(part), " "); part != "" && !slices.Contains(out, part) {
			out = append(out, part)
		}
	}
	return out
}

// change reads the fields that a form has.
func (s *Server) change(r *Request) (forge.MergeRequestChange, error) {
	if err := r.ParseForm(); err != nil {
		return forge.MergeRequestChange{}, &delivery.Error{Kind: delivery.Invalid, Message: "The form is damaged.", Err: err}
	}
	var c forge.MergeRequestChange
	text := func(name string) *string {
		if !r.Form.Has(name) {
			return nil
		}
		v := strings.ReplaceAll(r.Form.Get(name), "\r\n", "\n")
		return &v
	}
	c.Title, c.Description, c.TargetBranch = text("title"), text("description"), text("target_branch")
	c.AssigneeIDs, c.ReviewerIDs = ids(r, "assignee"), ids(r, "reviewer")
	if l := text("labels"); l != nil {
		list := splitLabels(*l)
		c.Labels = &list
	}
	for name, to := range map[string]**bool{"squash": &c.Squash, "remove_source_branch": &c.RemoveSourceBranch} {
		if slices.Contains(r.Form["has"], name) {
			on := r.Form.Get(name) != ""
			*to = &on
		}
	}
	return c, nil
}

func (s *Server) updateRequest(w http.ResponseWriter, r *Request, m delivery.MergeRequest) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	c, err := s.change(r)
	if err != nil {
		return err
	}
	_, err = s.Forge.UpdateMergeRequest(r.Context(), r.Who, *r.Project, m.IID, c)
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message == "" {
		return redirect(w, r, requestLink(r.Project, m.IID), "")
	}
	or := func(p *string, other string) string {
		if p == nil {
			return other
		}
		return *p
	}
	return s.showEditRequest(w, r, status, m, editRequestView{Error: message, Title: or(c.Title, m.Title), Description: or(c.Description, m.Description), Target: or(c.TargetBranch, m.TargetBranch),
		Labels: r.FormValue("labels"), Squash: r.FormValue("squash") != "", Remove: r.FormValue("remove_source_branch") != ""})
}

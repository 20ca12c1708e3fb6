package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// revisionsView is the changes between two revisions: since they parted
// (from...to), or all (from..to).
type revisionsView struct {
	From, To string
	Straight bool
	Refs     []string
	Swap     string // the address of the other direction
	Request  string // where a merge request for it begins; empty where there is none
	Commits  []delivery.Commit
	Diff     *diffView
}

func compareLink(p *delivery.Project, from, to string, straight bool) string {
	dots := "..."
	if straight {
		dots = ".."
	}
	return projectPath(p.FullPath, "compare", escapePath(from)+dots+escapePath(to))
}

func (s *Server) comparePage(w http.ResponseWriter, r *Request) error {
	if err := readable(r); err != nil {
		return err
	}
	ctx, p := r.Context(), r.Project
	v := revisionsView{From: r.FormValue("from"), To: r.FormValue("to"), Straight: r.FormValue("straight") != ""}
	if from, to, ok := strings.Cut(r.PathValue("range"), "..."); ok {
		v.From, v.To = from, to
	} else if from, to, ok := strings.Cut(r.PathValue("range"), ".."); ok {
		v.From, v.To, v.Straight = from, to, true
	} else if v.From != "" && v.To != "" {
		return redirect(w, r, compareLink(p, v.From, v.To, v.Straight), "")
	}
	branches, err := s.Forge.Branches(ctx, *p, forge.RefOptions{Sort: "updated"})
	if err != nil {
		return err
	}
	tags, err := s.Forge.Tags(ctx, *p, forge.RefOptions{})
	if err != nil {
		return err
	}
	for _, ref := range append(branches, tags...) {
		v.Refs = append(v.Refs, ref.Name)
	}
	title := "Compare"
	if v.From == "" || v.To == "" {
		if v.From == "" {
			v.From = p.DefaultBranch
		}
		return s.render(w, r, http.StatusOK, "compare", Page{Title: title, Active: "branches", Data: v})
	}
	if err := s.compare(w, r, &v); err != nil {
		return err
	}
	if v.Diff.alone(r) {
		return s.fragment(w, "compare", "diff", v.Diff)
	}
	branch := func(name string) bool {
		return slices.ContainsFunc(branches, func(b delivery.Ref) bool { return b.Name == name })
	}
	if len(v.Commits) > 0 && branch(v.From) && branch(v.To) && r.Who.User != nil && r.Role >= delivery.Developer {
		v.Request = withQuery(projectPath(p.FullPath, "merge_requests", "new"), "source_branch", v.To, "target_branch", v.From)
	}
	v.Swap = compareLink(p, v.To, v.From, v.Straight)
	return s.render(w, r, http.StatusOK, "compare", Page{Title: v.From + " … " + v.To, Active: "branches", Data: v})
}

func (s *Server) compare(w http.ResponseWriter, r *Request, v *revisionsView) error {
	ctx, id := r.Context(), r.Project.ID
	from, err := s.Forge.ResolveRef(ctx, id, v.From)
	if err != nil {
		return err
	}
	head, err := s.Forge.ResolveRef(ctx, id, v.To)
	if err != nil {
		return err
	}
	base := from
	if !v.Straight {
		if base, err = s.Forge.MergeBase(ctx, id, from, head); err != nil {
			return err
		}
	}
	if v.Commits, err = s.Forge.CommitsBetween(ctx, id, from, head, 250); err != nil {
		return err
	}
	v.Diff, err = s.loadDiff(w, r, id, base, head, nil)
	return err
}

package web

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// applicationsView is the list, with what narrows it.
type applicationsView struct {
	Rows                 []applicationRow
	Total                int // before narrowing
	By                   appFilter
	Counts               []statusCount
	Projects, Namespaces []string // to choose from
	Live                 string
	Behind, Mine         int // of the rows: out of sync, and those that the caller may act on
}

// appFilter narrows the list; empty fields do not.
type appFilter struct{ Search, Status, Health, Sync, Project, Namespace string }

func readAppFilter(r *Request) appFilter {
	return appFilter{
		Search: strings.TrimSpace(r.FormValue("search")), Status: r.FormValue("status"), Health: r.FormValue("health"), Sync: r.FormValue("sync"),
		Project: r.FormValue("project"), Namespace: r.FormValue("namespace"),
	}
}

// fits reports whether a row is in the list, apart from its status.
func (f appFilter) fits(row applicationRow) bool {
	return row.has(f.Search) && (f.Project == "" || f.Project == row.Application.Project) && (f.Namespace == "" || f.Namespace == row.Destination.Namespace)
}

func (f appFilter) fitsStatus(a *gitops.Application) bool {
	return (f.Status == "" || f.Status == a.Health.Status || f.Status == a.Sync.Status) &&
		(f.Health == "" || f.Health == a.Health.Status) && (f.Sync == "" || f.Sync == a.Sync.Status)
}

// Link is the list narrowed so.
func (f appFilter) Link() string {
	q := url.Values{}
	for k, v := range map[string]string{"search": f.Search, "status": f.Status, "health": f.Health, "sync": f.Sync, "project": f.Project, "namespace": f.Namespace} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if len(q) == 0 {
		return "/-/applications"
	}
	return "/-/applications?" + q.Encode()
}

// All is the list with every status.
func (f appFilter) All() string {
	f.Status, f.Health, f.Sync = "", "", ""
	return f.Link()
}

// statusCount is how many Applications have a health or sync status.
type statusCount struct {
	Status string
	Count  int
	Link   string
	Now    bool
}

// applicationRow is one line.
type applicationRow struct {
	*gitops.Application
	Project *delivery.Project
	Place   string // folder or chart
	Act     bool   // the caller may refresh and sync it
}

// narrowing are the statuses that the list can be narrowed by, worst first.
var narrowing = []string{"Degraded", "OutOfSync", "Missing", "Unknown", "Progressing", "Suspended", "Healthy", "Synced"}

// applicationRows are all that the caller may see.
func (s *Server) applicationRows(r *Request) ([]applicationRow, error) {
	gate, err := s.appGate(r)
	if err != nil {
		return nil, err
	}
	all, err := s.allApplications(r.Context())
	if err != nil {
		return nil, err
	}
	var rows []applicationRow
	for _, a := range all {
		rights, err := gate.rights(r.Context(), a)
		if err != nil {
			return nil, err
		}
		if rights.Look {
			rows = append(rows, applicationRow{Application: a, Project: rights.Project, Place: appPlace(a), Act: rights.Act})
		}
	}
	return rows, nil
}

func (s *Server) applicationsPage(w http.ResponseWriter, r *Request) error {
	rows, err := s.applicationRows(r)
	if err != nil {
		return err
	}
	v := applicationsView{By: readAppFilter(r), Total: len(rows)}
	v.narrow(rows)
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "applications", "applications", v)
	}
	return s.render(w, r, http.StatusOK, "applications", Page{Title: "Applications", Data: v})
}

// narrow chooses the rows and counts their statuses.
func (v *applicationsView) narrow(rows []applicationRow) {
	counts, projects, namespaces := map[string]int{}, map[string]bool{}, map[string]bool{}
	for _, row := range rows {
		projects[row.Application.Project], namespaces[row.Destination.Namespace] = true, true
		if !v.By.fits(row) {
			continue
		}
		for _, status := range slices.Compact([]string{row.Health.Status, row.Sync.Status}) {
			counts[status]++
		}
		if !v.By.fitsStatus(row.Application) {
			continue
		}
		v.Rows = append(v.Rows, row)
		if row.Act {
			v.Mine++
			if row.Sync.Status == "OutOfSync" {
				v.Behind++
			}
		}
	}
	delete(namespaces, "")
	v.Projects, v.Namespaces = slices.Sorted(maps.Keys(projects)), slices.Sorted(maps.Keys(namespaces))
	for _, status := range narrowing {
		if counts[status] > 0 {
			to := v.By
			to.Status, to.Health, to.Sync = status, "", ""
			v.Counts = append(v.Counts, statusCount{status, counts[status], to.Link(), status == v.By.Status})
		}
	}
	v.Live = v.By.Link()
}

// applicationsAction refreshes all that the list shows and the caller may act
// on, or syncs those of them that are out of sync.
func (s *Server) applicationsAction(w http.ResponseWriter, r *Request) error {
	action := r.FormValue("action")
	if action != "refresh" && action != "sync" {
		return notFound()
	}
	rows, err := s.applicationRows(r)
	if err != nil {
		return err
	}
	client, err := s.Operations.Apps()
	if err != nil {
		return err
	}
	v := applicationsView{By: readAppFilter(r)}
	v.narrow(rows)
	done, failed, why := 0, 0, ""
	for _, row := range v.Rows {
		if !row.Act || action == "sync" && row.Sync.Status != "OutOfSync" {
			continue
		}
		if action == "sync" {
			err = client.Sync(r.Context(), row.Name, gitops.SyncOptions{Prune: row.Automated.Prune, By: "@" + r.Who.User.Username})
		} else {
			err = client.Refresh(r.Context(), row.Name, false)
		}
		if err != nil {
			failed++
			why = row.Name + ": " + delivery.UserMessage(err)
			continue
		}
		done++
		s.Access.Audit(r.Context(), r.Who, "application."+action, "application", 0, row.Name, "")
	}
	notice := fmt.Sprintf("Argo CD compares %d again.", done)
	if action == "sync" {
		notice = fmt.Sprintf("%d syncs have started.", done)
	}
	if failed > 0 {
		notice += fmt.Sprintf(" %d failed; the last: %s", failed, why)
	}
	return redirect(w, r, v.By.Link(), notice)
}

// has finds a word in what the row shows.
func (row applicationRow) has(word string) bool {
	if word == "" {
		return true
	}
	text := row.Name + " " + row.Destination.Namespace + " " + row.Application.Project
	for _, s := range row.Sources {
		text += " " + s.RepoURL + " " + s.Path + s.Chart
	}
	return strings.Contains(strings.ToLower(text), strings.ToLower(word))
}

// appPlace names where in its repository an Application comes from.
func appPlace(a *gitops.Application) string {
	switch {
	case len(a.Sources) == 0:
		return ""
	case len(a.Sources) > 1:
		return "several sources"
	case a.Sources[0].Chart != "":
		return a.Sources[0].Chart
	}
	return a.Sources[0].Path
}

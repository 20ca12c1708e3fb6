package web

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// applicationsView is the list, with what narrows it.
type applicationsView struct {
	Rows           []applicationRow
	Total          int // before narrowing
	Search, Status string
	Counts         []statusCount
	Live           string
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
}

// narrowing are the statuses that the list can be narrowed by, worst first.
var narrowing = []string{"Degraded", "OutOfSync", "Missing", "Unknown", "Progressing", "Suspended", "Healthy"}

func (s *Server) applicationsPage(w http.ResponseWriter, r *Request) error {
	gate, err := s.appGate(r)
	if err != nil {
		return err
	}
	all, err := s.allApplications(r.Context())
	if err != nil {
		return err
	}
	v := applicationsView{Search: strings.TrimSpace(r.FormValue("search")), Status: r.FormValue("status")}
	counts := map[string]int{}
	for _, a := range all {
		rights, err := gate.rights(r.Context(), a)
		if err != nil {
			return err
		}
		if !rights.Look {
			continue
		}
		v.Total++
		row := applicationRow{Application: a, Project: rights.Project, Place: appPlace(a)}
		if !row.has(v.Search) {
			continue
		}
		counts[a.Health.Status]++
		if a.Sync.Status == "OutOfSync" {
			counts["OutOfSync"]++
		}
		if v.Status == "" || v.Status == a.Health.Status || v.Status == a.Sync.Status {
			v.Rows = append(v.Rows, row)
		}
	}
	for _, status := range narrowing {
		if counts[status] > 0 {
			v.Counts = append(v.Counts, statusCount{status, counts[status], v.link(status), status == v.Status})
		}
	}
	v.Live = v.link(v.Status)
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "applications", "applications", v)
	}
	return s.render(w, r, http.StatusOK, "applications", Page{Title: "Applications", Data: v})
}

// link is the list with another status.
func (v applicationsView) link(status string) string {
	q := url.Values{}
	if v.Search != "" {
		q.Set("search", v.Search)
	}
	if status != "" {
		q.Set("status", status)
	}
	if len(q) == 0 {
		return "/-/applications"
	}
	return "/-/applications?" + q.Encode()
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

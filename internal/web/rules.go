package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/observe"
)

// rulesView lists the alerts that fire or are about to, and all rules.
type rulesView struct {
	Alerts []alertRow
	Groups []observe.RuleGroup
	Firing int
}

type alertRow struct {
	observe.Alert
	Name, Text, Summary string
}

// rulesPage shows what the rules found. Everybody who is signed in may read
// it, as the query API.
func (s *Server) rulesPage(w http.ResponseWriter, r *Request) error {
	if !r.Who.Signed() {
		return signInFirst()
	}
	v := rulesView{Groups: s.Metrics.Rules()}
	for _, g := range v.Groups {
		for _, rule := range g.Rules {
			for _, a := range rule.Alerts {
				row := alertRow{Alert: a, Name: rule.Name, Summary: a.Annotations["summary"]}
				if row.Summary == "" {
					row.Summary = a.Annotations["description"]
				}
				labels := map[string]string{}
				for k, value := range a.Labels {
					if k != "alertname" {
						labels[k] = value
					}
				}
				row.Text = labelText(labels)
				if a.State == "firing" {
					v.Firing++
				}
				v.Alerts = append(v.Alerts, row)
			}
		}
	}
	slices.SortStableFunc(v.Alerts, func(a, b alertRow) int {
		if a.State != b.State {
			return strings.Compare(a.State, b.State) // firing before pending
		}
		return strings.Compare(a.Name+a.Text, b.Name+b.Text)
	})
	slices.SortStableFunc(v.Groups, func(a, b observe.RuleGroup) int { return strings.Compare(a.Source+a.Name, b.Source+b.Name) })
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "metrics_rules", "rules", v)
	}
	return s.render(w, r, http.StatusOK, "metrics_rules", Page{Title: "Rules and alerts", Active: "metrics", Wide: true, Data: v})
}

package web

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/ingress/route"
	"github.com/slipwayhq/slipway/internal/observe"
)

// Metrics answers what the metrics pages ask.
type Metrics interface {
	// Query evaluates a PromQL expression at one time.
	Query(ctx context.Context, expr string, at time.Time) (observe.Result, error)
	// Targets lists what is scraped, with the outcome of the last scrape.
	Targets() []observe.TargetState
	// Problems lists monitors and rules that are not honoured.
	Problems() []observe.Problem
	// Rules lists the groups of rules with their alerts.
	Rules() []observe.RuleGroup
}

// metricsRoutes registers the pages about metrics and addresses. Everybody
// who is signed in may read them, as the query API.
func (s *Server) metricsRoutes() {
	if s.Metrics != nil {
		s.handle("GET /-/metrics", s.metricsPage)
		s.handle("GET /-/metrics/targets", s.targetsPage)
		s.handle("GET /-/metrics/rules", s.rulesPage)
	}
	if s.Authority != nil {
		s.handle("GET /-/ca", s.authorityPage)
	}
	if s.Routes != nil {
		s.handle("GET /-/metrics/addresses", s.addressesPage)
	}
}

// metricsExample is a query worth starting from.
type metricsExample struct{ Name, Query, Unit string }

var metricsExamples = []metricsExample{
	{"Requests per second by service", "sum by (namespace, service, revision) (rate(slipway_ingress_requests_total[1m]))", "reqps"},
	{"Share of failed requests", "service:slipway_ingress_errors:ratio_rate1m", "percentunit"},
	{"Slowest 5 % of requests", "service:slipway_ingress_request_duration_seconds:p95_1m", "s"},
	{"CPU by pod", `sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{container!=""}[5m]))`, "short"},
	{"Memory by pod", `sum by (namespace, pod) (container_memory_working_set_bytes{container!=""})`, "bytes"},
	{"Restarts in the last hour", "increase(kube_pod_container_status_restarts_total[1h]) > 0", "short"},
	{"CPU of the server", "instance:node_cpu_utilisation:rate5m", "percentunit"},
	{"Memory of the server", "instance:node_memory_utilisation:ratio", "percentunit"},
}

// metricsSpans are the lengths of time to plot, in minutes.
var metricsSpans = []struct {
	Minutes int
	Name    string
}{{15, "15 minutes"}, {60, "1 hour"}, {360, "6 hours"}, {1440, "1 day"}, {10080, "7 days"}}

type metricsView struct {
	Queries  []metricsQuery // at least one, maybe empty
	More     bool           // another expression may be added
	Unit     string
	Minutes  int
	End      string // as a field datetime-local writes it, in UTC; empty for now
	EndAt    int64  // seconds; 0 for now
	Step     int    // seconds; 0 for one that fits
	Spans    any
	Examples []metricsExample
	Asked    bool
}

// metricsQuery is one expression with its answer.
type metricsQuery struct {
	Query  string
	Error  string
	Result observe.Result
	Rows   []metricsRow
	More   int // series that are not shown
}

type metricsRow struct{ Labels, Value string }

// metricsRows is how many series the table shows; metricsQueries how many
// expressions one page takes.
const (
	metricsRows    = 100
	metricsQueries = 6
)

// metricsPage evaluates a query and plots it. The table is made here, so that
// the page answers without JavaScript too.
func (s *Server) metricsPage(w http.ResponseWriter, r *Request) error {
	if !r.Who.Signed() {
		return signInFirst()
	}
	v := metricsView{Unit: r.FormValue("unit"), Minutes: 60, Spans: metricsSpans, Examples: metricsExamples}
	if n, err := strconv.Atoi(r.FormValue("minutes")); err == nil && n > 0 && n <= 60*24*90 {
		v.Minutes = n
	}
	if n, err := strconv.Atoi(r.FormValue("step")); err == nil && n > 0 && n <= 24*3600 {
		v.Step = n
	}
	at := time.Now()
	if t, err := time.Parse("2006-01-02T15:04", r.FormValue("end")); err == nil {
		at, v.End, v.EndAt = t, r.FormValue("end"), t.Unix()
	}
	for _, expr := range r.Form["query"] {
		if expr = strings.TrimSpace(expr); expr != "" && len(v.Queries) < metricsQueries {
			v.Queries = append(v.Queries, s.metricsAnswer(r.Context(), expr, at))
		}
	}
	v.Asked = len(v.Queries) > 0
	if !v.Asked || r.FormValue("add") != "" && len(v.Queries) < metricsQueries {
		v.Queries = append(v.Queries, metricsQuery{})
	}
	v.More = len(v.Queries) < metricsQueries
	return s.render(w, r, http.StatusOK, "metrics", Page{Title: "Metrics", Active: "metrics", Wide: true, Data: v})
}

func (s *Server) metricsAnswer(ctx context.Context, expr string, at time.Time) metricsQuery {
	q := metricsQuery{Query: expr}
	result, err := s.Metrics.Query(ctx, expr, at)
	if err != nil {
		q.Error = err.Error() // PromQL's own words name the place
		return q
	}
	q.Result, q.Rows = result, rowsOf(result)
	if len(q.Rows) > metricsRows {
		q.More, q.Rows = len(q.Rows)-metricsRows, q.Rows[:metricsRows]
	}
	return q
}

func rowsOf(result observe.Result) []metricsRow {
	var rows []metricsRow
	if result.Text != "" {
		rows = append(rows, metricsRow{Value: result.Text})
	}
	for _, series := range result.Series {
		row := metricsRow{Labels: labelText(series.Labels)}
		if n := len(series.Points); n > 0 {
			row.Value = strconv.FormatFloat(series.Points[n-1].Value, 'g', 8, 64)
		}
		rows = append(rows, row)
	}
	return rows
}

// labelText writes labels as PromQL does.
func labelText(labels map[string]string) string {
	var parts []string
	for name, value := range labels {
		if name != "__name__" {
			parts = append(parts, name+"="+strconv.Quote(value))
		}
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return labels["__name__"]
	}
	return labels["__name__"] + "{" + strings.Join(parts, ", ") + "}"
}

type targetsView struct {
	Problems []observe.Problem
	Pools    []targetPool
	Up, Down int
}

type targetPool struct {
	Name    string
	Up      int
	Targets []targetRow
}

type targetRow struct {
	observe.TargetState
	Text  string // the labels
	State string // for the badge: ok, failed, waiting
}

// targetsPage lists the targets, those with errors first.
func (s *Server) targetsPage(w http.ResponseWriter, r *Request) error {
	if !r.Who.Signed() {
		return signInFirst()
	}
	v := targetsView{Problems: s.Metrics.Problems()}
	pools := map[string]*targetPool{}
	for _, t := range s.Metrics.Targets() {
		p := pools[t.Pool]
		if p == nil {
			p = &targetPool{Name: t.Pool}
			pools[t.Pool] = p
		}
		row := targetRow{TargetState: t, Text: labelText(t.Labels), State: "waiting"}
		switch t.Health {
		case "up":
			row.State = "ok"
			p.Up++
			v.Up++
		case "down":
			row.State = "failed"
			v.Down++
		}
		p.Targets = append(p.Targets, row)
	}
	for _, p := range pools {
		v.Pools = append(v.Pools, *p)
	}
	slices.SortFunc(v.Pools, func(a, b targetPool) int {
		if bad := (len(b.Targets) - b.Up) - (len(a.Targets) - a.Up); bad != 0 {
			return bad
		}
		return strings.Compare(a.Name, b.Name)
	})
	return s.render(w, r, http.StatusOK, "metrics_targets", Page{Title: "Targets", Active: "metrics", Wide: true, Data: v})
}

type addressRow struct {
	route.Route
	CanaryWeight int
}

// addressesPage lists where applications are reached.
func (s *Server) addressesPage(w http.ResponseWriter, r *Request) error {
	if !r.Who.Signed() {
		return signInFirst()
	}
	var rows []addressRow
	for _, one := range s.Routes() {
		row := addressRow{Route: one}
		if one.Canary != nil {
			row.CanaryWeight = int(math.Round(one.Canary.Weight))
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b addressRow) int {
		return strings.Compare(a.Host+a.Path+a.Namespace+a.Ingress, b.Host+b.Path+b.Namespace+b.Ingress)
	})
	return s.render(w, r, http.StatusOK, "metrics_addresses", Page{Title: "Addresses", Active: "metrics", Wide: true, Data: rows})
}

func signInFirst() error {
	return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
}

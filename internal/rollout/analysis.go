package rollout

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
)

// Analysis is one run of measurements against limits.
type Analysis struct {
	Name     string
	Kind     string // Step, Background, Pre Promotion, Post Promotion
	Phase    string // Pending, Running, Successful, Failed, Inconclusive, Error
	Message  string
	Started  time.Time
	Finished time.Time // zero while it runs
	Metrics  []Metric
}

// Metric is one measured quantity of an analysis.
type Metric struct {
	Name             string
	Phase            string
	Message          string
	SuccessCondition string // arguments filled in
	FailureCondition string
	// Limit is the number in the success condition that the value is compared
	// with, and Operator the comparison; without a success condition those of
	// the failure condition, with Fails. Operator is "" where there is no such
	// simple comparison to draw.
	Limit        float64
	Operator     string
	Fails        bool
	FailureLimit int
	DryRun       bool // measured, but without effect on the analysis
	Query        string
	Measurements []Measurement
}

// Measurement is one value. Value is NaN where there is no number, and Text
// what the provider answered.
type Measurement struct {
	At      time.Time
	Value   float64
	Text    string
	Phase   string
	Message string
}

func analysis(run *v1alpha1.AnalysisRun) Analysis {
	a := Analysis{
		Name: run.Name, Kind: run.Labels["rollout-type"], Phase: string(run.Status.Phase), Message: run.Status.Message,
		Started: run.CreationTimestamp.Time,
	}
	if t := run.Status.StartedAt; t != nil {
		a.Started = t.Time
	}
	if t := run.Status.CompletedAt; t != nil {
		a.Finished = t.Time
	}
	fill := arguments(run.Spec.Args)
	for i := range run.Spec.Metrics {
		spec := &run.Spec.Metrics[i]
		m := Metric{
			Name: spec.Name, Phase: string(v1alpha1.AnalysisPhasePending),
			SuccessCondition: fill.Replace(spec.SuccessCondition), FailureCondition: fill.Replace(spec.FailureCondition),
		}
		m.Operator, m.Limit = comparison(m.SuccessCondition)
		if m.Operator == "" {
			m.Operator, m.Limit = comparison(m.FailureCondition)
			m.Fails = m.Operator != ""
		}
		if l := spec.FailureLimit; l != nil {
			// A limit that is no number after filling in is refused by the controller.
			m.FailureLimit, _ = strconv.Atoi(fill.Replace(l.String()))
		}
		if p := spec.Provider.Prometheus; p != nil {
			m.Query = strings.TrimSpace(fill.Replace(p.Query))
		}
		for _, r := range run.Status.MetricResults {
			if r.Name == spec.Name {
				m.Phase, m.Message, m.DryRun = string(r.Phase), r.Message, r.DryRun
				m.Measurements = measurements(r.Measurements)
			}
		}
		a.Metrics = append(a.Metrics, m)
	}
	return a
}

func arguments(args []v1alpha1.Argument) *strings.Replacer {
	var pairs []string
	for _, a := range args {
		if a.Value != nil {
			pairs = append(pairs, "{{args."+a.Name+"}}", *a.Value, "{{ args."+a.Name+" }}", *a.Value)
		}
	}
	return strings.NewReplacer(pairs...)
}

func measurements(list []v1alpha1.Measurement) []Measurement {
	var out []Measurement
	for _, m := range list {
		v := Measurement{Value: number(m.Value), Text: m.Value, Phase: string(m.Phase), Message: m.Message}
		if m.FinishedAt != nil {
			v.At = m.FinishedAt.Time
		} else if m.StartedAt != nil {
			v.At = m.StartedAt.Time
		}
		out = append(out, v)
	}
	return out
}

// number reads "0.98" and Prometheus' vector form "[0.98]".
func number(s string) float64 {
	s = strings.Trim(strings.TrimSpace(s), "[]")
	s, _, _ = strings.Cut(s, ",")
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return math.NaN()
	}
	return v
}

var comparisonPattern = regexp.MustCompile(`result(?:\[0\])?\s*(>=|<=|>|<)\s*(-?[0-9.]+)`)

func comparison(condition string) (string, float64) {
	m := comparisonPattern.FindStringSubmatch(condition)
	if m == nil {
		return "", 0
	}
	v, err := strconv.ParseFloat(m[2], 64)
	if err != nil {
		return "", 0
	}
	return m[1], v
}

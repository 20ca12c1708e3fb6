package metrics

import (
	"strings"

	"github.com/prometheus/prometheus/rules"

	"github.com/slipwayhq/slipway/internal/observe"
)

// Rules lists the groups of rules with the outcome of their last evaluation.
func (m *Metrics) Rules() []observe.RuleGroup {
	if !m.opened.Load() {
		return nil
	}
	var out []observe.RuleGroup
	for _, g := range m.rules.RuleGroups() {
		group := observe.RuleGroup{Name: g.Name(), Source: g.File(), Interval: g.Interval(), LastAt: g.GetLastEvaluation(), Took: g.GetEvaluationTime()}
		if strings.HasPrefix(group.Source, "rules/") {
			group.Source = "built in"
		}
		for _, r := range g.Rules() {
			one := observe.Rule{Name: r.Name(), Query: r.Query().String(), Health: string(r.Health())}
			if err := r.LastError(); err != nil {
				one.LastError = err.Error()
			}
			if a, ok := r.(*rules.AlertingRule); ok {
				one.Alerting, one.For, one.State = true, a.HoldDuration(), a.State().String()
				for _, alert := range a.ActiveAlerts() {
					one.Alerts = append(one.Alerts, observe.Alert{
						State: alert.State.String(), Labels: alert.Labels.Map(), Annotations: alert.Annotations.Map(), Since: alert.ActiveAt, Value: alert.Value,
					})
				}
			}
			group.Rules = append(group.Rules, one)
		}
		out = append(out, group)
	}
	return out
}

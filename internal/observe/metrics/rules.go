package metrics

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

//go:embed rules/*.yaml
var ownRules embed.FS

// ruleLoader gives the rule manager its groups: where Prometheus reads files,
// it reads our own rules and the PrometheusRules of the cluster.
type ruleLoader struct{ m *Metrics }

// Load implements rules.GroupLoader. The identifier is one of ruleFiles.
func (l *ruleLoader) Load(identifier string, _ bool, scheme model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	data, err := l.m.ruleText(identifier)
	if err != nil {
		return nil, []error{err}
	}
	return rulefmt.Parse(data, false, scheme, l.m.parser, slog.New(slog.DiscardHandler))
}

// Parse implements rules.GroupLoader.
func (l *ruleLoader) Parse(query string) (parser.Expr, error) { return l.m.parser.ParseExpr(query) }

// ruleFiles names all sources of rules. PrometheusRules that Prometheus would
// refuse are left out and reported, so that one does not stop the others.
func (m *Metrics) ruleFiles() ([]string, []Problem) {
	var files []string
	var problems []Problem
	entries, err := ownRules.ReadDir("rules")
	if err != nil {
		problems = append(problems, Problem{Object: "built-in rules", Message: err.Error()})
	}
	for _, e := range entries {
		files = append(files, "rules/"+e.Name())
	}
	s := m.cluster.current()
	if s == nil || s.monitors == nil {
		return files, problems
	}
	loader := &ruleLoader{m}
	keys := s.monitors["prometheusrules"].GetStore().ListKeys()
	slices.Sort(keys)
	for _, key := range keys {
		id := "PrometheusRule " + key
		if _, errs := loader.Load(id, false, model.UTF8Validation); len(errs) > 0 {
			problems = append(problems, Problem{Object: id, Message: errors.Join(errs...).Error()})
			continue
		}
		files = append(files, id)
	}
	return files, problems
}

// ruleText returns a source of rules in Prometheus' file format.
func (m *Metrics) ruleText(identifier string) ([]byte, error) {
	key, ok := strings.CutPrefix(identifier, "PrometheusRule ")
	if !ok {
		return ownRules.ReadFile(identifier)
	}
	s := m.cluster.current()
	if s == nil || s.monitors == nil {
		return nil, fmt.Errorf("%s: the cluster is away", identifier)
	}
	o, found, err := s.monitors["prometheusrules"].GetStore().GetByKey(key)
	if err != nil || !found {
		return nil, errors.Join(fmt.Errorf("%s is gone", identifier), err)
	}
	var rule monitoringv1.PrometheusRule
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.(*unstructured.Unstructured).Object, &rule); err != nil {
		return nil, fmt.Errorf("%s: %w", identifier, err)
	}
	for i := range rule.Spec.Groups {
		rule.Spec.Groups[i].PartialResponseStrategy = "" // Thanos' alone
	}
	return json.Marshal(rule.Spec) // JSON is YAML, and the keys are the same
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

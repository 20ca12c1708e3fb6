package gitlabci

import (
	"context"
	"strings"
)

// facts answers questions about the event, each at most once.
type facts struct {
	Context
	src        Sources
	predefined map[string]string
	pipeline   map[string]Variable
	configured map[string]map[string]Variable // by environment
	trees      map[Location][]string
	changes    map[string]changeAnswer
	globs      map[*changesClause]globSet
	include    Lookup
}

type changeAnswer struct {
	paths []string
	known bool
	err   error
}

func newFacts(c Context, src Sources) *facts {
	return &facts{
		Context: c, src: src, predefined: c.Predefined, pipeline: byKey(c.Pipeline),
		configured: map[string]map[string]Variable{}, trees: map[Location][]string{}, changes: map[string]changeAnswer{},
		globs: map[*changesClause]globSet{},
	}
}

func byKey(vs Variables) map[string]Variable {
	if len(vs) == 0 {
		return nil
	}
	m := make(map[string]Variable, len(vs))
	for _, v := range vs {
		m[v.Key] = v
	}
	return m
}

func (f *facts) configuredFor(environment string) map[string]Variable {
	if f.Configured == nil {
		return nil
	}
	m, ok := f.configured[environment]
	if !ok {
		m = byKey(f.Configured(environment))
		f.configured[environment] = m
	}
	return m
}

// scope is what variables mean at one place of the configuration, by the specified precedence.
type scope struct {
	f           *facts
	environment string
	global      map[string]Variable // global variables and those of the workflow rule
	yaml        Variables           // variables of the job
	predefined  Variables           // predefined for the job
	open        []string            // names being expanded
}

func (s *scope) get(name string) (Variable, bool) {
	if v, ok := s.f.pipeline[name]; ok {
		return v, true
	}
	if v, ok := s.f.configuredFor(s.environment)[name]; ok {
		return v, true
	}
	if v, ok := s.yaml.Get(name); ok {
		return v, true
	}
	if v, ok := s.global[name]; ok {
		return v, true
	}
	if v, ok := s.predefined.Get(name); ok {
		return v, true
	}
	if v, ok := s.f.predefined[name]; ok {
		return Variable{Key: name, Value: v, Raw: true}, true
	}
	return Variable{}, false
}

// raw is the Lookup of rules:if, which does not expand what variables hold.
func (s *scope) raw(name string) (string, bool) {
	v, ok := s.get(name)
	return v.Value, ok
}

// expanded is the Lookup of everything else: references inside values are followed.
func (s *scope) expanded(name string) (string, bool) {
	v, ok := s.get(name)
	if !ok || v.Raw || !strings.ContainsAny(v.Value, "$%") || contains(s.open, name) {
		return v.Value, ok
	}
	s.open = append(s.open, name)
	value := Expand(v.Value, s.expanded)
	s.open = s.open[:len(s.open)-1]
	return value, true
}

// includeLookup knows what is known before the file is read: no variables of the file itself.
func (f *facts) includeLookup() Lookup {
	if f.include == nil {
		f.include = (&scope{f: f}).expanded
	}
	return f.include
}

// includeRules decides whether a file is included: by the first rule that matches.
func (f *facts) includeRules(ctx context.Context, d *decoder, rules []rule) bool {
	s := &scope{f: f}
	for i := range rules {
		if rules[i].matches(ctx, d, f, s) {
			return rules[i].when != "never"
		}
	}
	return false
}

func (f *facts) tree(ctx context.Context, at Location) ([]string, error) {
	if paths, ok := f.trees[at]; ok {
		return paths, nil
	}
	paths, err := f.src.Paths(ctx, at)
	if err == nil {
		f.trees[at] = paths
	}
	return paths, err
}

func (f *facts) changed(d *decoder, at place, c *changesClause, s *scope) bool {
	if f.ChangedPaths == nil {
		return true
	}
	compareTo := ExpandExisting(c.compareTo, s.expanded)
	answer, ok := f.changes[compareTo]
	if !ok {
		answer.paths, answer.known, answer.err = f.ChangedPaths(compareTo)
		f.changes[compareTo] = answer
	}
	if answer.err != nil {
		d.at(&node{place: at}, "changes", "cannot be compared with %s: %s", compareTo, answer.err)
		return false
	}
	if !answer.known {
		return true
	}
	if len(answer.paths) == 0 {
		return false
	}
	globs, ok := f.globs[c]
	if !ok {
		globs = f.globSet(c.paths, s)
		if !hasReference(c.paths) {
			f.globs[c] = globs
		}
	}
	return globs.matchAny(answer.paths)
}

func hasReference(patterns []string) bool {
	for _, p := range patterns {
		if strings.ContainsAny(p, "$%") {
			return true
		}
	}
	return false
}

func (f *facts) globSet(patterns []string, s *scope) globSet {
	expanded := make([]string, len(patterns))
	for i, p := range patterns {
		expanded[i] = ExpandExisting(p, s.expanded)
	}
	return newGlobSet(expanded)
}

func (f *facts) exist(ctx context.Context, d *decoder, at place, c *existsClause, s *scope) bool {
	if len(c.paths) == 0 {
		return false
	}
	where := Location{Project: Expand(c.project, s.expanded), Ref: Expand(c.ref, s.expanded)}
	paths, err := f.tree(ctx, where)
	if err != nil {
		d.at(&node{place: at}, "exists", "cannot look into %s: %s", orText(where.Project, "the repository"), err)
		return false
	}
	return f.globSet(c.paths, s).matchAny(paths)
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

package pipeline

import (
	"context"
	"fmt"
	"path"
	"sort"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// VariableValue is a variable that somebody gives a pipeline or a job.
type VariableValue struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	File   bool   `json:"file,omitempty"`
	Raw    bool   `json:"raw,omitempty"`
	Masked bool   `json:"masked,omitempty"`
}

func (e *Engine) sealValues(vars []VariableValue) []SealedVariable {
	out := make([]SealedVariable, 0, len(vars))
	for _, v := range vars {
		out = append(out, SealedVariable{Key: v.Key, Sealed: e.seal.Seal(v.Value), File: v.File, Raw: v.Raw, Masked: v.Masked})
	}
	return out
}

// openValues decrypts stored variables.
func (e *Engine) openValues(sealed []SealedVariable) ([]VariableValue, error) {
	out := make([]VariableValue, 0, len(sealed))
	for _, s := range sealed {
		v, err := e.seal.Open(s.Sealed)
		if err != nil {
			return nil, err
		}
		out = append(out, VariableValue{Key: s.Key, Value: v, File: s.File, Raw: s.Raw, Masked: s.Masked})
	}
	return out, nil
}

func (e *Engine) openVariables(sealed []SealedVariable) (gitlabci.Variables, error) {
	values, err := e.openValues(sealed)
	if err != nil {
		return nil, err
	}
	out := make(gitlabci.Variables, 0, len(values))
	for _, v := range values {
		out = append(out, gitlabci.Variable{Key: v.Key, Value: v.Value, Raw: v.Raw})
	}
	return out, nil
}

// configured are the variables of the instance, groups and project that a
// pipeline may see, decrypted, lowest precedence first.
type configured []Variable

// loadConfigured reads them. groups are the project's ancestors, the nearest
// first; protected says whether the pipeline's ref is.
func (e *Engine) loadConfigured(tx Tx, projectID int64, groups []int64, protected bool) (configured, error) {
	vars, err := tx.ScopedVariables(projectID, groups)
	if err != nil {
		return nil, err
	}
	rank := map[int64]int{}
	for i, g := range groups {
		rank[g] = len(groups) - i
	}
	order := func(v *Variable) int {
		switch v.Owner {
		case OwnerInstance:
			return 0
		case OwnerGroup:
			return rank[v.OwnerID]
		}
		return len(groups) + 1
	}
	sort.SliceStable(vars, func(a, b int) bool { return order(&vars[a]) < order(&vars[b]) })
	var all configured
	for _, v := range vars {
		if v.Protected && !protected {
			continue
		}
		if v.Value, err = e.seal.Open(v.Sealed); err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.Key, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// forEnvironment selects the variables whose scope matches an environment; ""
// is a job without one. Of several scopes of one owner the most specific wins.
func (c configured) forEnvironment(environment string) []Variable {
	var out []Variable
	for _, v := range c {
		if scopeMatches(v.Environment, environment) {
			out = append(out, v)
		}
	}
	rank := map[string]int{}
	for i := range out {
		key := out[i].Owner + " " + fmt.Sprint(out[i].OwnerID)
		if _, ok := rank[key]; !ok {
			rank[key] = len(rank)
		}
	}
	sort.SliceStable(out, func(a, b int) bool {
		ra, rb := rank[out[a].Owner+" "+fmt.Sprint(out[a].OwnerID)], rank[out[b].Owner+" "+fmt.Sprint(out[b].OwnerID)]
		if ra != rb {
			return ra < rb
		}
		return specificity(out[a].Environment) < specificity(out[b].Environment)
	})
	return out
}

func (c configured) variables(environment string) gitlabci.Variables {
	var out gitlabci.Variables
	for _, v := range c.forEnvironment(environment) {
		out = append(out, gitlabci.Variable{Key: v.Key, Value: v.Value, Raw: v.Raw})
	}
	return out
}

// scopeMatches reports whether an environment scope covers a name: * stands
// for any characters.
func scopeMatches(scope, name string) bool {
	if scope == "" || scope == "*" {
		return true
	}
	if name == "" {
		return false
	}
	parts := strings.Split(scope, "*")
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	rest := name[len(parts[0]):]
	for i, part := range parts[1:] {
		if i == len(parts)-2 {
			return strings.HasSuffix(rest, part)
		}
		at := strings.Index(rest, part)
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return rest == ""
}

func specificity(scope string) int {
	if scope == "" || scope == "*" {
		return 0
	}
	n := len(strings.ReplaceAll(scope, "*", ""))
	if !strings.Contains(scope, "*") {
		n += 1 << 20
	}
	return n
}

// jobVariables builds the environment of a job in the specified precedence:
// predefined, deployment, YAML, dotenv, instance, groups, project, pipeline,
// given when played.
func (e *Engine) jobVariables(ctx context.Context, c *jobContext) ([]delivery.JobVariable, error) {
	var list []delivery.JobVariable
	add := func(v delivery.JobVariable) { list = append(list, v) }
	for _, v := range c.predefined {
		v.Public = !v.Masked
		add(v)
	}
	for _, v := range c.options.Variables {
		add(delivery.JobVariable{Key: v.Key, Value: v.Value, Public: true, Raw: v.Raw})
	}
	for _, v := range c.dotenv {
		add(delivery.JobVariable{Key: v.Key, Value: v.Value, Public: true, Raw: v.Raw})
	}
	for _, v := range c.configured.forEnvironment(c.job.Environment) {
		add(delivery.JobVariable{Key: v.Key, Value: v.Value, File: v.File, Masked: v.Masked, Raw: v.Raw})
	}
	for _, given := range [][]SealedVariable{c.pipeline.Variables, c.job.Variables} {
		values, err := e.openValues(given)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			add(delivery.JobVariable{Key: v.Key, Value: v.Value, File: v.File, Masked: v.Masked, Raw: v.Raw})
		}
	}
	return mergeJobVariables(list), nil
}

// mergeJobVariables keeps the last of every key, at the place of the first.
func mergeJobVariables(list []delivery.JobVariable) []delivery.JobVariable {
	at := make(map[string]int, len(list))
	out := make([]delivery.JobVariable, 0, len(list))
	for _, v := range list {
		if i, ok := at[v.Key]; ok {
			out[i] = v
			continue
		}
		at[v.Key] = len(out)
		out = append(out, v)
	}
	return out
}

// plainVariables drops what expansion does not look at.
func plainVariables(list []delivery.JobVariable) gitlabci.Variables {
	out := make(gitlabci.Variables, 0, len(list))
	for _, v := range list {
		out = append(out, gitlabci.Variable{Key: v.Key, Value: v.Value, Raw: v.Raw || v.File})
	}
	return out
}

// factVariables turns persisted predefined variables into a list.
func factVariables(facts map[string]string) gitlabci.Variables {
	keys := make([]string, 0, len(facts))
	for k := range facts {
		if !strings.HasPrefix(k, "slipway:") {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	out := make(gitlabci.Variables, 0, len(keys))
	for _, k := range keys {
		out = append(out, gitlabci.Variable{Key: k, Value: facts[k]})
	}
	return out
}

func environmentVariables(env *Environment) gitlabci.Variables {
	return gitlabci.Variables{{Key: "CI_ENVIRONMENT_NAME", Value: env.Name}, {Key: "CI_ENVIRONMENT_SLUG", Value: env.Slug}, {Key: "CI_ENVIRONMENT_TIER", Value: env.Tier}}
}

// checkVariable validates a variable as GitLab does.
func checkVariable(v *Variable) error {
	fields := map[string][]string{}
	if !validKey(v.Key) {
		fields["key"] = append(fields["key"], "can contain only letters, digits and '_'.")
	}
	if len(v.Key) > 255 {
		fields["key"] = append(fields["key"], "is too long (maximum is 255 characters)")
	}
	if len(v.Value) > 65536 {
		fields["value"] = append(fields["value"], "is too long (maximum is 65536 bytes)")
	}
	if v.Masked && !maskable(v.Value) {
		fields["value"] = append(fields["value"], "is invalid: a masked value is one line of at least 8 characters without spaces")
	}
	if v.Environment == "" {
		v.Environment = "*"
	}
	if len(fields) > 0 {
		return &delivery.Error{Kind: delivery.Invalid, Message: "The variable is not valid.", Fields: fields}
	}
	return nil
}

func validKey(key string) bool {
	if key == "" {
		return false
	}
	for _, c := range key {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

func maskable(value string) bool {
	return len(value) >= 8 && !strings.ContainsAny(value, " \t\r\n")
}

// cleanPath turns a path of a configuration into one from the root of the tree.
func cleanPath(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

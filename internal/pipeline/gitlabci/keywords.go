package gitlabci

import (
	"regexp"
	"strings"
)

// readScript reads script, before_script and the like: a string, or strings in nested lists.
func readScript(d *decoder, n *node) []string {
	switch n.kind {
	case stringKind:
		return []string{n.text}
	case listKind:
		return d.flat(n)
	}
	d.errorf(n, "must be a string or a list of strings, not %s", n.describe())
	return nil
}

// readMainScript is readScript for script:, which must not be empty.
func readMainScript(d *decoder, n *node) []string {
	out := readScript(d, n)
	if n.kind == stringKind && strings.TrimSpace(n.text) == "" || n.kind == listKind && len(n.items) == 0 {
		d.errorf(n, "must not be empty")
	}
	return out
}

func readHooks(d *decoder, n *node) []string {
	var out []string
	if d.mapping(n, "pre_get_sources_script") {
		d.optional(n, "pre_get_sources_script", func(v *node) { out = readScript(d, v) })
	}
	return out
}

type variableSet uint8

const (
	globalVariables variableSet = iota // value, description, options, expand
	jobVariables                       // value, expand
	ruleVariables                      // scalars only
)

// FormField is a global variable as the form of a manual run shows it.
type FormField struct {
	Key         string   `json:"key"`
	Value       string   `json:"value"`
	Description string   `json:"description"`
	Options     []string `json:"options,omitempty"`
}

func readVariables(d *decoder, n *node, set variableSet) (Variables, []FormField) {
	if !d.anyMapping(n) {
		return nil, nil
	}
	out := make(Variables, 0, len(n.fields))
	var form []FormField
	for i := range n.fields {
		f := &n.fields[i]
		switch {
		case f.value.scalar():
			out = append(out, Variable{Key: f.key, Value: f.value.text})
		case f.value.kind == mapKind && set != ruleVariables:
			d.in(f.key, func() {
				v, field := readVariable(d, f.key, f.value, set)
				out = append(out, v)
				if field != nil {
					form = append(form, *field)
				}
			})
		default:
			d.at(f.value, f.key, "must be a string, not %s", f.value.describe())
		}
	}
	return out, form
}

func readVariable(d *decoder, key string, n *node, set variableSet) (Variable, *FormField) {
	v := Variable{Key: key}
	keys := []string{"value", "expand"}
	if set == globalVariables {
		keys = append(keys, "description", "options")
	}
	d.known(n, keys)
	d.field(n, "value", func(c *node) {
		if !c.scalar() {
			d.errorf(c, "must be a string, not %s", c.describe())
		}
		v.Value = c.text
	})
	d.field(n, "expand", func(c *node) { v.Raw = !d.boolean(c) })
	if set != globalVariables {
		if n.get("value") == nil {
			d.errorf(n, "needs a value")
		}
		return v, nil
	}
	field := &FormField{Key: key}
	d.field(n, "description", func(c *node) { field.Description = d.str(c) })
	d.field(n, "options", func(c *node) {
		field.Options = d.strings(c)
		if c.kind == listKind && len(c.items) == 0 {
			d.errorf(c, "must not be empty")
		}
		d.unique(c, field.Options)
		if n.get("value") == nil {
			d.clash(c, "needs a value, one of the options")
		} else if len(field.Options) > 0 && !contains(field.Options, v.Value) {
			d.clash(n.get("value"), "has the value %q, which is not one of its options %s", v.Value, strings.Join(field.Options, ", "))
		}
	})
	field.Value = v.Value
	if n.get("description") == nil && n.get("options") == nil {
		field = nil
	}
	return v, field
}

// allowFailure is allow_failure: a flag, or the codes that are allowed.
type allowFailure struct {
	always    bool
	exitCodes []int
}

func readAllowFailure(d *decoder, n *node) *allowFailure {
	a := &allowFailure{}
	switch n.kind {
	case boolKind:
		a.always = n.text == "true"
	case mapKind:
		d.known(n, []string{"exit_codes"})
		if n.get("exit_codes") == nil {
			d.errorf(n, "needs exit_codes")
		}
		d.field(n, "exit_codes", func(v *node) { a.exitCodes = d.integers(v) })
	default:
		d.errorf(n, "must be true, false or a mapping with exit_codes, not %s", n.describe())
	}
	return a
}

var imageKeys = []string{"name", "entrypoint", "docker", "kubernetes", "pull_policy"}

func readImage(d *decoder, n *node) *Image {
	switch n.kind {
	case stringKind:
		return &Image{Name: d.filled(n)}
	case mapKind:
		d.known(n, imageKeys)
		i := readImageOptions(d, n)
		return &i
	}
	d.errorf(n, "must be the name of an image or a mapping with name, not %s", n.describe())
	return nil
}

func readImageOptions(d *decoder, n *node) Image {
	var i Image
	if n.get("name") == nil {
		d.errorf(n, "needs a name")
	}
	d.field(n, "name", func(v *node) { i.Name = d.filled(v) })
	d.optional(n, "entrypoint", func(v *node) {
		if i.Entrypoint = d.strings(v); v.kind == listKind && len(v.items) == 0 {
			d.errorf(v, `must not be empty; [""] clears the entrypoint of the image`)
		}
	})
	d.optional(n, "docker", func(v *node) {
		if !d.mapping(v, "platform", "user") {
			return
		}
		i.Docker = &DockerOptions{}
		d.field(v, "platform", func(c *node) { i.Docker.Platform = d.filled(c) })
		d.field(v, "user", func(c *node) { i.Docker.User = d.userName(c) })
	})
	d.optional(n, "kubernetes", func(v *node) {
		if !d.mapping(v, "user") {
			return
		}
		i.Kubernetes = &KubernetesOptions{}
		d.field(v, "user", func(c *node) {
			if c.kind == intKind {
				i.Kubernetes.User = c.text
				return
			}
			i.Kubernetes.User = d.userName(c)
		})
	})
	d.optional(n, "pull_policy", func(v *node) {
		i.PullPolicy = d.enums(v, "always", "never", "if-not-present")
	})
	return i
}

func (d *decoder) userName(n *node) string {
	s := d.filled(n)
	if len(s) > 255 {
		d.errorf(n, "is longer than 255 characters")
	}
	return s
}

// enums reads one value or a list of different ones.
func (d *decoder) enums(n *node, values ...string) []string {
	if n.kind != listKind {
		return []string{d.enum(n, values...)}
	}
	if len(n.items) == 0 {
		d.errorf(n, "must not be empty")
	}
	out := make([]string, 0, len(n.items))
	for _, c := range n.items {
		out = append(out, d.enum(c, values...))
	}
	d.unique(n, out)
	return out
}

func readServices(d *decoder, n *node) []Service {
	if n.kind != listKind {
		d.errorf(n, "must be a list of services, not %s", n.describe())
		return nil
	}
	list := flattenItems(n, nil)
	out := make([]Service, 0, len(list))
	for _, c := range list {
		switch c.kind {
		case stringKind:
			out = append(out, Service{Image: Image{Name: d.filled(c)}})
		case mapKind:
			d.known(c, append([]string{"alias", "command", "variables"}, imageKeys...))
			s := Service{Image: readImageOptions(d, c)}
			d.optional(c, "alias", func(v *node) { s.Alias = d.filled(v) })
			d.optional(c, "command", func(v *node) { s.Command = readMainScript(d, v) })
			d.optional(c, "variables", func(v *node) { s.Variables, _ = readVariables(d, v, jobVariables) })
			out = append(out, s)
		default:
			d.errorf(c, "must hold names of images or mappings with name, not %s", c.describe())
		}
	}
	return out
}

const maxCaches = 4

func readCaches(d *decoder, n *node) []Cache {
	switch n.kind {
	case mapKind:
		if len(n.fields) == 0 {
			return []Cache{}
		}
		return []Cache{readCache(d, n)}
	case listKind:
		list := flattenItems(n, nil)
		d.limit(n, len(list), maxCaches, "caches")
		out := make([]Cache, 0, len(list))
		for _, c := range list {
			if c.kind != mapKind {
				d.errorf(c, "must hold mappings, not %s", c.describe())
				continue
			}
			out = append(out, readCache(d, c))
		}
		return out
	}
	d.errorf(n, "must be a mapping or a list of them, not %s", n.describe())
	return nil
}

var cachePolicy = regexp.MustCompile(`^\$\{?\w{1,255}\}?$`)

func readCache(d *decoder, n *node) Cache {
	c := Cache{Key: "default", When: "on_success", Policy: "pull-push"}
	d.known(n, []string{"key", "paths", "untracked", "unprotect", "when", "policy", "fallback_keys"})
	d.optional(n, "key", func(v *node) { readCacheKey(d, v, &c) })
	d.optional(n, "paths", func(v *node) { c.Paths = d.flat(v) })
	d.optional(n, "untracked", func(v *node) { c.Untracked = d.boolean(v) })
	d.optional(n, "unprotect", func(v *node) { c.Unprotect = d.boolean(v) })
	d.optional(n, "when", func(v *node) { c.When = d.enum(v, "on_success", "on_failure", "always") })
	d.optional(n, "policy", func(v *node) {
		if v.kind == stringKind && cachePolicy.MatchString(v.text) {
			c.Policy = v.text
			return
		}
		c.Policy = d.enum(v, "pull-push", "pull", "push")
	})
	d.optional(n, "fallback_keys", func(v *node) {
		c.FallbackKeys = d.strings(v)
		d.limit(v, len(c.FallbackKeys), 5, "keys")
	})
	return c
}

func readCacheKey(d *decoder, n *node, c *Cache) {
	switch n.kind {
	case stringKind:
		switch {
		case strings.Contains(n.text, "/") || strings.Contains(strings.ToLower(n.text), "%2f"):
			d.errorf(n, "must not contain a slash: %s", n.describe())
		case strings.Trim(n.text, ".") == "":
			d.errorf(n, "must not be empty or dots only: %s", n.describe())
		}
		c.Key = n.text
	case mapKind:
		d.known(n, []string{"files", "files_commits", "prefix"})
		files := "files"
		if n.get("files_commits") != nil {
			files = "files_commits"
		}
		if n.get(files) == nil {
			d.errorf(n, "needs files")
		}
		d.field(n, files, func(v *node) {
			c.KeyFiles = d.strings(v)
			if v.kind == listKind && len(v.items) == 0 {
				d.errorf(v, "must not be empty")
			}
			d.limit(v, len(c.KeyFiles), 2, "files")
		})
		d.optional(n, "prefix", func(v *node) { c.KeyPrefix = d.str(v) })
		c.Key = ""
	default:
		d.errorf(n, "must be a string, or a mapping with files, not %s", n.describe())
	}
}

// retryReasons are the failures of the specification, with those GitLab added later.
var retryReasons = []string{
	"always", "unknown_failure", "script_failure", "api_failure", "stuck_or_timeout_failure",
	"runner_system_failure", "runner_unsupported", "stale_schedule", "job_execution_timeout",
	"archived_failure", "unmet_prerequisites", "scheduler_failure", "data_integrity_failure",
	"runner_provisioning_timeout", "job_router_failure", "runner_interrupted", "image_pull_failure",
	"runner_configuration_error", "runner_external_dependency_failure",
}

const maxRetry = 2

func readRetry(d *decoder, n *node) *Retry {
	r := &Retry{When: []string{"always"}}
	if n.kind == intKind {
		r.Max = d.integer(n, 0, maxRetry)
		return r
	}
	if n.kind != mapKind {
		d.errorf(n, "must be a number from 0 to %d or a mapping with max, not %s", maxRetry, n.describe())
		return nil
	}
	d.known(n, []string{"max", "when", "exit_codes"})
	if n.get("max") == nil {
		d.warnf(n, "has no effect without max, which is 0 by default")
	}
	d.optional(n, "max", func(v *node) { r.Max = d.integer(v, 0, maxRetry) })
	when := n.has("when")
	d.optional(n, "when", func(v *node) {
		list := []*node{v}
		if v.kind == listKind {
			list = v.items
		}
		r.When = r.When[:0]
		for _, c := range list {
			if reason := d.enum(c, retryReasons...); !contains(r.When, reason) {
				r.When = append(r.When, reason)
			}
		}
	})
	d.optional(n, "exit_codes", func(v *node) {
		if r.ExitCodes = d.integers(v); !when {
			r.When = []string{}
		}
	})
	return r
}

func readIDTokens(d *decoder, n *node) []IDToken {
	if !d.anyMapping(n) {
		return nil
	}
	out := make([]IDToken, 0, len(n.fields))
	for _, f := range n.fields {
		d.in(f.key, func() {
			if !d.mapping(f.value, "aud") {
				return
			}
			t := IDToken{Name: f.key}
			if f.value.get("aud") == nil {
				d.errorf(f.value, "needs aud")
			}
			d.field(f.value, "aud", func(v *node) {
				if t.Aud = d.oneOrMore(v); v.kind == listKind && len(v.items) == 0 {
					d.errorf(v, "must not be empty")
				}
				d.unique(v, t.Aud)
			})
			out = append(out, t)
		})
	}
	return out
}

func readTags(d *decoder, n *node) []string {
	tags := d.flat(n)
	for _, t := range tags {
		if strings.TrimSpace(t) == "" {
			d.errorf(n, "must not hold an empty tag")
		}
	}
	d.limit(n, len(tags), 50, "tags")
	return tags
}

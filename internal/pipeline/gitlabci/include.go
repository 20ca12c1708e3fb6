package gitlabci

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strings"
)

// maxIncludes is how many files one pipeline may include in total.
const maxIncludes = 150

// loader reads the root file and everything it includes into one tree.
type loader struct {
	ctx       context.Context
	src       Sources
	facts     *facts
	diags     *Diagnostics
	included  int
	exhausted bool
	texts     map[string][]byte // files read already, by identity
}

// fileID is a file that can be read: its name for messages and where its own includes are looked up.
type fileID struct {
	name      string
	location  Location
	component map[string]string // facts for $[[ component.* ]]
	root      bool              // the pipeline's own file, whose inputs come from Context
}

// load parses one file, fills in its inputs and merges its includes under it. It returns nil after
// an error.
func (l *loader) load(id fileID, text []byte, values *node, given place) *node {
	d := &decoder{diags: l.diags}
	head, rest, line := splitHeader(string(text))
	at := func(ln, col int) (int, int) { return ln + line - 1, col }
	failed := len(*l.diags)
	if head == "" {
		if values != nil && len(values.fields) > 0 {
			d.missing(&node{place: given}, "inputs are given, but %s declares none; it needs a header with spec:inputs", id.name)
		}
	} else {
		headNode := readDocument(id.name, []byte(head), nil, l.diags)
		if headNode == nil {
			return nil
		}
		h := readHeader(d, headNode)
		if l.failedSince(failed) {
			return nil
		}
		ip := &interpolation{inputs: h.bind(d, values, given, id.name, !id.root), variables: l.facts.includeLookup(), component: map[string]string{}}
		for _, in := range h.inputs {
			ip.names = append(ip.names, in.name)
		}
		for _, name := range h.component {
			ip.component[name] = id.component[name]
		}
		if l.failedSince(failed) {
			return nil
		}
		result, m := ip.apply(rest, line, func(ln, col int, message string) {
			*l.diags = append(*l.diags, Diagnostic{Message: message, File: id.name, Line: ln, Column: col})
		})
		if l.failedSince(failed) {
			return nil
		}
		rest, at = result, m.at
	}
	root := readDocument(id.name, []byte(rest), at, l.diags)
	if root == nil {
		return nil
	}
	if root.kind == nullKind {
		d.errorf(root, "the file is empty")
		return nil
	}
	if root.kind != mapKind {
		d.errorf(root, "the file must be a mapping of keywords and jobs, not %s", root.describe())
		return nil
	}
	return l.resolve(d, root, id.location)
}

func (l *loader) failedSince(n int) bool { return (*l.diags)[n:].Failed() }

// resolve merges the includes of a file under it. A failed include is left out, so that the rest is
// still checked.
func (l *loader) resolve(d *decoder, root *node, at Location) *node {
	inc := root.get("include")
	if inc == nil {
		return root
	}
	var under *node
	d.in("include", func() {
		list := []*node{inc}
		if inc.kind == listKind {
			list = flattenItems(inc, nil)
		} else if inc.kind == nullKind {
			list = nil
		}
		for _, item := range list {
			for _, n := range l.include(d, item, at) {
				under = merge(under, n)
			}
		}
	})
	return merge(under, root.without("include"))
}

func flattenItems(n *node, out []*node) []*node {
	for _, c := range n.items {
		if c.kind == listKind {
			out = flattenItems(c, out)
			continue
		}
		out = append(out, c)
	}
	return out
}

var includeKinds = []string{"local", "project", "remote", "template", "component"}

var includeKeys = map[string][]string{
	"local":     {"local", "inputs", "rules"},
	"project":   {"project", "file", "ref", "inputs", "rules"},
	"remote":    {"remote", "integrity", "inputs", "rules", "cache"},
	"template":  {"template", "inputs", "rules"},
	"component": {"component", "inputs", "rules"},
}

// include reads one entry; it may stand for several files.
func (l *loader) include(d *decoder, item *node, at Location) []*node {
	switch item.kind {
	case stringKind:
		if remoteAddress.MatchString(item.text) {
			return l.remote(d, item, item, nil)
		}
		if strings.Contains(item.text, "://") {
			d.errorf(item, "%s must be an http or https address, or a path in the repository", item.describe())
			return nil
		}
		return l.local(d, item, item, nil, at)
	case mapKind:
	default:
		d.errorf(item, "must be a path, an address or a mapping, not %s", item.describe())
		return nil
	}
	kind := includeKind(d, item)
	if kind == "" {
		return nil
	}
	d.known(item, includeKeys[kind])
	before := len(*l.diags)
	var rules []rule
	d.optional(item, "rules", func(n *node) { rules = readRules(d, n, includeRule) })
	inputs := readGivenInputs(d, item)
	if l.failedSince(before) {
		return nil
	}
	if item.has("rules") && !l.facts.includeRules(l.ctx, d, rules) {
		return nil
	}
	v := item.get(kind)
	var out []*node
	d.in(kind, func() {
		if kind != "project" && d.filled(v) == "" {
			return
		}
		switch kind {
		case "local":
			out = l.local(d, v, item, inputs, at)
		case "project":
			out = l.project(d, item, inputs)
		case "remote":
			out = l.remote(d, v, item, inputs)
		case "template":
			out = l.template(d, v, item, inputs)
		case "component":
			out = l.component(d, v, item, inputs)
		}
	})
	return out
}

// includeKind finds which of the ways to include an entry uses.
func includeKind(d *decoder, item *node) string {
	kind := ""
	for _, k := range includeKinds {
		if item.get(k) == nil {
			continue
		}
		if kind != "" {
			d.errorf(item, "has both %s and %s; use one of them", kind, k)
			return ""
		}
		kind = k
	}
	if kind == "" {
		d.errorf(item, "must have one of %s", strings.Join(includeKinds, ", "))
		all := []string{"inputs", "rules", "ref", "file", "integrity"}
		d.known(item, append(all, includeKinds...))
	}
	return kind
}

// readGivenInputs reads the inputs: of an include or trigger, whose values are scalars, lists or
// mappings.
func readGivenInputs(d *decoder, item *node) *node {
	var out *node
	d.optional(item, "inputs", func(n *node) {
		if !d.anyMapping(n) {
			return
		}
		for _, f := range n.fields {
			if !inputName.MatchString(f.key) {
				d.errorf(&node{place: f.place}, "has %q, which is not an input name; use letters, digits, - and _", f.key)
			}
		}
		out = n
	})
	return out
}

var (
	remoteAddress = regexp.MustCompile(`^https?://`)
	yamlPath      = regexp.MustCompile(`\.ya?ml$`)
	projectPath   = regexp.MustCompile(`\S/\S|\$\S+`)
	integritySum  = regexp.MustCompile(`^sha256-[A-Za-z0-9+/]{43}=$`)
)

// path expands a path and checks that it names a YAML file.
func (l *loader) path(d *decoder, n *node) string {
	p := strings.TrimPrefix(Expand(n.text, l.facts.includeLookup()), "/")
	if !yamlPath.MatchString(p) {
		d.errorf(n, "%q must end in .yml or .yaml", p)
		return ""
	}
	return p
}

func (l *loader) local(d *decoder, n, item *node, inputs *node, at Location) []*node {
	p := l.path(d, n)
	if p == "" {
		return nil
	}
	names := []string{p}
	if strings.Contains(p, "*") {
		paths, err := l.facts.tree(l.ctx, at)
		if err != nil {
			d.missing(n, "%s cannot be searched: %s", p, err)
			return nil
		}
		names = matchIncludes(p, paths)
		if len(names) == 0 {
			d.warnf(n, "%s matches no file", p)
		}
	}
	var out []*node
	for _, name := range names {
		id := fileID{name: at.display(name), location: at}
		out = l.read(d, n, item, inputs, id, func() ([]byte, error) { return l.src.ReadFile(l.ctx, at, name) }, out)
	}
	return out
}

// display names a file for messages.
func (at Location) display(path string) string {
	if at.Project == "" {
		return path
	}
	if at.Ref == "" {
		return at.Project + ":" + path
	}
	return at.Project + "@" + at.Ref + ":" + path
}

// matchIncludes finds the files of a local include with wildcards: * stops at a slash, ** does not.
func matchIncludes(pattern string, paths []string) []string {
	source := regexp.QuoteMeta(pattern)
	source = strings.ReplaceAll(source, `\*\*`, `.*?`)
	source = strings.ReplaceAll(source, `\*`, `[^/]*?`)
	re, err := regexp.Compile(`^` + source + `$`)
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range paths {
		if re.MatchString(p) {
			out = append(out, p)
		}
	}
	sort.Strings(out)
	return out
}

func (l *loader) project(d *decoder, item, inputs *node) []*node {
	v, lookup := item.get("project"), l.facts.includeLookup()
	ok := true
	if v.kind != stringKind || !projectPath.MatchString(v.text) {
		d.errorf(v, "must be a path such as group/project, not %s", v.describe())
		ok = false
	}
	at := Location{Project: strings.Trim(Expand(v.text, lookup), "/")}
	parent := d.path
	d.path = d.path[:len(d.path)-1]
	defer func() { d.path = parent }()
	d.optional(item, "ref", func(n *node) { at.Ref = Expand(d.str(n), lookup) })
	files := item.get("file")
	if files == nil {
		d.errorf(item, "of a project needs file, the path of the file in it")
		return nil
	}
	list := []*node{files}
	if files.kind == listKind {
		list = files.items
	}
	var out []*node
	d.in("file", func() {
		for _, n := range list {
			if d.filled(n) == "" || !ok {
				continue
			}
			p := l.path(d, n)
			if p == "" {
				continue
			}
			id := fileID{name: at.display(p), location: at}
			out = l.read(d, n, item, inputs, id, func() ([]byte, error) { return l.src.ReadFile(l.ctx, at, p) }, out)
		}
	})
	return out
}

func (l *loader) remote(d *decoder, n, item *node, inputs *node) []*node {
	url := Expand(n.text, l.facts.includeLookup())
	if !remoteAddress.MatchString(url) {
		d.errorf(n, "%q must be an http or https address", url)
		return nil
	}
	sum := ""
	if v := item.get("integrity"); v != nil {
		if sum = d.str(v); !integritySum.MatchString(sum) {
			d.errorf(v, "has an integrity that is not sha256- followed by the sum in base64")
			return nil
		}
	}
	return l.read(d, n, item, inputs, fileID{name: url}, func() ([]byte, error) {
		text, err := l.src.Remote(l.ctx, url)
		if err != nil || sum == "" {
			return text, err
		}
		got := sha256.Sum256(text)
		if have := "sha256-" + base64.StdEncoding.EncodeToString(got[:]); have != sum {
			return nil, fmt.Errorf("its content has the integrity %s, not the expected %s", have, sum)
		}
		return text, nil
	}, nil)
}

func (l *loader) template(d *decoder, n, item *node, inputs *node) []*node {
	name := l.path(d, n)
	if name == "" {
		return nil
	}
	return l.read(d, n, item, inputs, fileID{name: "template:" + name}, func() ([]byte, error) {
		return l.src.Template(l.ctx, name)
	}, nil)
}

func (l *loader) component(d *decoder, n, item *node, inputs *node) []*node {
	address := Expand(n.text, l.facts.includeLookup())
	c, err := parseComponent(address)
	if err != nil {
		d.missing(n, "%s", err)
		return nil
	}
	var file ComponentFile
	id := fileID{name: address}
	return l.read(d, n, item, inputs, id, func() ([]byte, error) {
		var err error
		file, err = l.src.Component(l.ctx, c)
		return file.Content, err
	}, nil, func(id *fileID) {
		id.location = file.Location
		id.component = map[string]string{"name": c.Name, "sha": file.SHA, "version": file.Version, "reference": c.Version}
		if file.Path != "" {
			id.name = file.Location.display(file.Path)
		}
	})
}

func parseComponent(address string) (Component, error) {
	path, version, ok := strings.Cut(address, "@")
	parts := strings.Split(path, "/")
	if !ok || version == "" || len(parts) < 3 {
		return Component{}, fmt.Errorf("%q must be written host/group/project/name@version", address)
	}
	for _, p := range parts {
		if p == "" {
			return Component{}, fmt.Errorf("%q must be written host/group/project/name@version", address)
		}
	}
	last := len(parts) - 1
	return Component{Host: parts[0], Project: strings.Join(parts[1:last], "/"), Name: parts[last], Version: version}, nil
}

// read fetches one file, within the limit, loads it and appends it to out.
func (l *loader) read(d *decoder, n, item, inputs *node, id fileID, fetch func() ([]byte, error), out []*node, resolved ...func(*fileID)) []*node {
	if l.exhausted {
		return out
	}
	if l.included++; l.included > maxIncludes {
		l.exhausted = true
		d.errorf(n, "leads to more than %d included files", maxIncludes)
		return out
	}
	key := fmt.Sprintf("%s\x00%s\x00%s", id.location.Project, id.location.Ref, id.name)
	text, ok := l.texts[key]
	if !ok || len(resolved) > 0 {
		var err error
		if text, err = fetch(); err != nil {
			if errors.Is(err, ErrNotFound) {
				d.missing(n, "%s does not exist, or you may not read it", strings.TrimPrefix(id.name, "template:"))
			} else {
				d.missing(n, "%s cannot be read: %s", id.name, err)
			}
			return out
		}
		l.texts[key] = text
	}
	for _, f := range resolved {
		f(&id)
	}
	given := n.place
	if inputs != nil {
		given = item.get("inputs").place
	}
	path := d.path
	if loaded := l.load(id, text, inputs, given); loaded != nil {
		out = append(out, loaded)
	}
	d.path = path
	return out
}

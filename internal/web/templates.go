package web

import (
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"path"
	"strings"
	"sync"
	"text/template/parse"
)

// templates holds what the pages are made of. html/template rewrites the trees
// of a set when it is first executed, so each page needs copies of its own: a
// page gets them when it is first shown, and only of what it can reach, because
// sixty pages with copies of every partial took 18 MB. Its methods may be
// called at once.
type templates struct {
	funcs  template.FuncMap
	shared map[string]*parse.Tree            // the layout and the partials
	own    map[string]map[string]*parse.Tree // by page

	mu   sync.Mutex
	sets map[string]*template.Template // by page and entry
}

// layoutFile is where a whole page begins.
const layoutFile = "layout.html"

// newTemplates parses every file of dir: layout.html, the partials (files that
// begin with _) and the pages. A broken one, or one that uses a template that
// does not exist, is an error.
func newTemplates(files fs.FS, dir string, funcs template.FuncMap) (*templates, error) {
	t := &templates{funcs: funcs, own: map[string]map[string]*parse.Tree{}, sets: map[string]*template.Template{}}
	var err error
	if t.shared, err = t.parse(files, dir+"/"+layoutFile, dir+"/_*.html"); err != nil {
		return nil, err
	}
	names, err := fs.Glob(files, dir+"/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		page := strings.TrimSuffix(path.Base(name), ".html")
		if path.Base(name) == layoutFile || strings.HasPrefix(page, "_") {
			continue
		}
		if t.own[page], err = t.parse(files, name); err != nil {
			return nil, err
		}
		if _, err := t.reach(page, layoutFile); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *templates) parse(files fs.FS, patterns ...string) (map[string]*parse.Tree, error) {
	set, err := template.New("").Funcs(t.funcs).ParseFS(files, patterns...)
	if err != nil {
		return nil, err
	}
	trees := map[string]*parse.Tree{}
	for _, one := range set.Templates() {
		if one.Tree != nil {
			trees[one.Name()] = one.Tree
		}
	}
	return trees, nil
}

// page returns the set that entry, the layout or a block, of a page needs.
func (t *templates) page(name, entry string) (*template.Template, error) {
	if t.own[name] == nil {
		return nil, fmt.Errorf("there is no template %s", name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := name + "\x00" + entry
	if set := t.sets[key]; set != nil {
		return set, nil
	}
	trees, err := t.reach(name, entry)
	if err != nil {
		return nil, err
	}
	set := template.New("").Funcs(t.funcs)
	for name, tree := range trees {
		if _, err := set.AddParseTree(name, tree.Copy()); err != nil {
			return nil, err
		}
	}
	set = set.Lookup(entry)
	t.sets[key] = set
	return set, nil
}

// reach returns the trees that an entry of a page can get to. A page's own
// definitions go before shared ones of the same name.
func (t *templates) reach(page, entry string) (map[string]*parse.Tree, error) {
	found := map[string]*parse.Tree{}
	for todo := map[string]string{entry: page}; len(todo) > 0; {
		next := map[string]string{}
		for name, from := range todo {
			tree := t.own[page][name]
			if tree == nil {
				tree = t.shared[name]
			}
			if tree == nil {
				return nil, fmt.Errorf("%s uses the template %q, which does not exist", from, name)
			}
			found[name] = tree
			for used := range uses(tree.Root) {
				if found[used] == nil {
					next[used] = name
				}
			}
		}
		todo = next
	}
	return found, nil
}

// uses returns the names of the templates that a node calls.
func uses(node parse.Node) map[string]bool {
	names := map[string]bool{}
	branch := func(b *parse.BranchNode) {
		maps.Copy(names, uses(b.List))
		if b.ElseList != nil {
			maps.Copy(names, uses(b.ElseList))
		}
	}
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return names
		}
		for _, child := range n.Nodes {
			maps.Copy(names, uses(child))
		}
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	case *parse.TemplateNode:
		names[n.Name] = true
	}
	return names
}

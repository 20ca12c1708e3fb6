package gitlabci

import "strings"

type kind uint8

const (
	nullKind kind = iota
	boolKind
	intKind
	floatKind
	stringKind
	listKind
	mapKind
	referenceKind // a !reference list, replaced before keywords are read
)

func (k kind) String() string {
	switch k {
	case nullKind:
		return "nothing"
	case boolKind:
		return "a boolean"
	case intKind, floatKind:
		return "a number"
	case stringKind:
		return "a string"
	case listKind:
		return "a list"
	case mapKind:
		return "a mapping"
	}
	return "a !reference"
}

// place is where a node was written.
type place struct {
	file         string
	line, column int
}

// node is one YAML value. Nodes are shared by anchors, references and extends, so they are never
// changed once they are built.
type node struct {
	kind   kind
	text   string // scalars: the value as GitLab's Ruby would print it
	items  []*node
	fields []field
	index  map[string]int // fields by key, when there are many
	place  place
	weight int  // nodes in the tree below, shared ones counted every time, saturating
	depth  int  // levels below
	refs   bool // a !reference is somewhere below
	broken bool // stands for a !reference that was reported already
}

type field struct {
	key   string
	place place
	value *node
}

const indexedFrom = 12

// get returns the value of key, or nil. It is nil-safe and false for anything but a mapping.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	if i := n.find(key); i >= 0 {
		return n.fields[i].value
	}
	return nil
}

func (n *node) find(key string) int {
	if n.index != nil {
		if i, ok := n.index[key]; ok {
			return i
		}
		return -1
	}
	for i := range n.fields {
		if n.fields[i].key == key {
			return i
		}
	}
	return -1
}

// has reports whether key is present with a value other than null.
func (n *node) has(key string) bool {
	v := n.get(key)
	return v != nil && v.kind != nullKind
}

func (n *node) scalar() bool { return n.kind >= boolKind && n.kind <= stringKind }

const weightLimit = 1 << 40

// seal computes what depends on the children. It is called once, when the node is complete.
func (n *node) seal() *node {
	n.weight, n.depth = 1, 1
	add := func(c *node) {
		n.weight = min(n.weight+c.weight, weightLimit)
		n.depth = max(n.depth, c.depth+1)
		n.refs = n.refs || c.refs
	}
	for _, c := range n.items {
		add(c)
	}
	for i := range n.fields {
		add(n.fields[i].value)
	}
	if len(n.fields) >= indexedFrom {
		n.index = make(map[string]int, len(n.fields))
		for i := range n.fields {
			n.index[n.fields[i].key] = i
		}
	}
	n.refs = n.refs || n.kind == referenceKind
	return n
}

// without returns a mapping with the given key left out.
func (n *node) without(key string) *node {
	i := n.find(key)
	if i < 0 {
		return n
	}
	out := &node{kind: mapKind, place: n.place, fields: make([]field, 0, len(n.fields)-1)}
	out.fields = append(append(out.fields, n.fields[:i]...), n.fields[i+1:]...)
	return out.seal()
}

// merge lays over over under, as GitLab does for include and extends: mappings merge key by key to
// any depth, everything else is replaced.
func merge(under, over *node) *node {
	if under == nil {
		return over
	}
	if over == nil {
		return under
	}
	if under.kind != mapKind || over.kind != mapKind {
		return over
	}
	out := &node{kind: mapKind, place: over.place, fields: make([]field, len(under.fields), len(under.fields)+len(over.fields))}
	copy(out.fields, under.fields)
	for _, f := range over.fields {
		if i := under.find(f.key); i >= 0 {
			out.fields[i] = field{key: f.key, place: f.place, value: merge(under.fields[i].value, f.value)}
			continue
		}
		out.fields = append(out.fields, f)
	}
	return out.seal()
}

// describe names a value for a message: its text when short, else its kind.
func (n *node) describe() string {
	switch {
	case n == nil || n.kind == nullKind:
		return "nothing"
	case n.kind == stringKind && len(n.text) <= 60 && !strings.Contains(n.text, "\n"):
		return `"` + n.text + `"`
	case n.kind == boolKind, n.kind == intKind, n.kind == floatKind:
		return n.text
	}
	return n.kind.String()
}

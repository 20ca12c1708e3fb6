package gitlabci

// Variable is one CI/CD variable.
type Variable struct {
	Key   string
	Value string
	// Raw is expand: false in the file: references in Value are left alone.
	Raw bool
}

// Variables is an ordered list; a later entry of the same key overrides an earlier one. It encodes
// to a JSON object in order, as in YAML: a plain variable is a string, a raw one
// {"value": ..., "expand": false}.
type Variables []Variable

// Get returns the variable that is in force for key.
func (vs Variables) Get(key string) (Variable, bool) {
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].Key == key {
			return vs[i], true
		}
	}
	return Variable{}, false
}

// Merge returns one list in which later layers override earlier ones and every key occurs once, in
// the order of its first appearance. The layers are not changed.
func Merge(layers ...Variables) Variables {
	size := 0
	for _, l := range layers {
		size += len(l)
	}
	out := make(Variables, 0, size)
	index := make(map[string]int, size)
	for _, layer := range layers {
		for _, v := range layer {
			if i, ok := index[v.Key]; ok {
				out[i] = v
				continue
			}
			index[v.Key] = len(out)
			out = append(out, v)
		}
	}
	return out
}

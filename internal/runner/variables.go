package runner

import (
	"os"
	"path"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Variables are a job's variables in rising precedence: of two with one key
// the later counts. File variables have their content as value until the shell
// script writes it to a file.
type Variables struct {
	list  []delivery.JobVariable
	index map[string]int
	tmp   string // where file variables are written, as the job sees it
}

// NewVariables keeps the last of each key, in order of first appearance.
func NewVariables(tmp string, lists ...[]delivery.JobVariable) Variables {
	v := Variables{index: map[string]int{}, tmp: tmp}
	for _, list := range lists {
		for _, one := range list {
			v.set(one)
		}
	}
	return v
}

func (v *Variables) set(one delivery.JobVariable) {
	if at, known := v.index[one.Key]; known {
		v.list[at] = one
		return
	}
	v.index[one.Key] = len(v.list)
	v.list = append(v.list, one)
}

// With returns a copy with one more variable.
func (v Variables) With(key, value string) Variables {
	return NewVariables(v.tmp, v.list, []delivery.JobVariable{{Key: key, Value: value, Public: true, Raw: true}})
}

// All returns the variables in order. The caller must not change them.
func (v Variables) All() []delivery.JobVariable { return v.list }

// Get returns the value as the job sees it: the path for a file variable, ""
// for an unknown one.
func (v Variables) Get(key string) string {
	at, known := v.index[key]
	if !known {
		return ""
	}
	if v.list[at].File {
		return path.Join(v.tmp, key)
	}
	return v.list[at].Value
}

// Value is Get, but a file variable's content.
func (v Variables) Value(key string) string {
	if at, known := v.index[key]; known {
		return v.list[at].Value
	}
	return ""
}

// Bool reports whether the variable is set to true or 1.
func (v Variables) Bool(key string) bool {
	value := strings.ToLower(v.Get(key))
	return value == "true" || value == "1"
}

// Expand replaces $name and ${name} in s. Unknown names become empty and $$
// stays, as in the official runner.
func (v Variables) Expand(s string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	return os.Expand(s, func(name string) string {
		if name == "$" {
			return "$"
		}
		return v.Get(name)
	})
}

// Expanded returns the variables with every value that is not raw expanded
// once.
func (v Variables) Expanded() Variables {
	expanded := NewVariables(v.tmp)
	for _, one := range v.list {
		if !one.Raw {
			one.Value = v.Expand(one.Value)
		}
		expanded.set(one)
	}
	return expanded
}

// Environ returns KEY=value pairs for a container, file variables as paths.
func (v Variables) Environ() []string {
	environ := make([]string, 0, len(v.list))
	for _, one := range v.list {
		if validName(one.Key) {
			environ = append(environ, one.Key+"="+v.Get(one.Key))
		}
	}
	return environ
}

// validName reports whether a shell can export the name.
func validName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

package gitlabci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// JobInput is an entry of a job's inputs: a value that whoever starts the job
// may choose.
type JobInput struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"` // string, number, boolean, array
	Default     string   `json:"default"`
	Description string   `json:"description,omitempty"`
	Options     []string `json:"options,omitempty"`
	Regex       string   `json:"regex,omitempty"` // RE2 source
}

// jobInputUse is a use of a job's input in its keywords.
var jobInputUse = regexp.MustCompile(`\$\{\{\s*job\.inputs\.([A-Za-z0-9_-]+)\s*\}\}`)

// readJobInputs reads inputs: of a job; each needs a default.
func readJobInputs(d *decoder, n *node) []JobInput {
	if !d.anyMapping(n) {
		return nil
	}
	var out []JobInput
	for _, f := range n.fields {
		d.in(f.key, func() {
			in := readInput(d, f, false)
			switch {
			case f.value.kind != mapKind && f.value.kind != nullKind:
				return // refused already
			case in.value == nil:
				d.errorf(&node{place: f.place}, "needs a default")
				return
			}
			one := JobInput{Name: f.key, Type: in.kind, Default: inputText(in.value), Description: in.description, Regex: in.source}
			for _, o := range in.options {
				one.Options = append(one.Options, o.text)
			}
			out = append(out, one)
		})
	}
	return out
}

// inputText is a value as it stands in a command: lists are JSON.
func inputText(n *node) string {
	if n.kind != listKind {
		return n.text
	}
	raw, err := json.Marshal(n.value())
	if err != nil {
		return n.text // values of YAML are values of JSON
	}
	return string(raw)
}

// Check tells what is wrong with a value for the input.
func (in *JobInput) Check(value string) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("the input %s "+format, append([]any{in.Name}, args...)...)
	}
	switch in.Type {
	case "number":
		var n json.Number
		if json.Unmarshal([]byte(value), &n) != nil {
			return bad("must be a number, not %q", value)
		}
	case "boolean":
		if value != "true" && value != "false" {
			return bad("must be true or false, not %q", value)
		}
	case "array":
		var list []any
		if json.Unmarshal([]byte(value), &list) != nil {
			return bad("must be an array in JSON, not %q", value)
		}
	}
	if len(in.Options) > 0 && !contains(in.Options, value) {
		return bad("is %q, which is not among the allowed values %s", value, strings.Join(in.Options, ", "))
	}
	if in.Regex != "" {
		re, err := compileInputPattern(in.Regex)
		if err != nil {
			return bad("has a pattern that cannot be read: %v", err)
		}
		if !re.MatchString(value) {
			return bad("is %q, which does not match the pattern %s", value, in.Regex)
		}
	}
	return nil
}

// FillJobInputs fills the values of inputs into a planned job written as JSON.
// Values that are not given are the defaults; a name that the job does not
// declare stays as it is written.
func FillJobInputs(raw []byte, given map[string]string) ([]byte, error) {
	if !bytes.Contains(raw, []byte("job.inputs.")) {
		return raw, nil
	}
	var declared struct {
		Inputs []JobInput `json:"inputs"`
	}
	if err := json.Unmarshal(raw, &declared); err != nil {
		return nil, fmt.Errorf("inputs of a job: %w", err)
	}
	values := make(map[string]string, len(declared.Inputs))
	for _, in := range declared.Inputs {
		values[in.Name] = in.Default
		if v, ok := given[in.Name]; ok {
			values[in.Name] = v
		}
	}
	var failed error
	out := jobInputUse.ReplaceAllFunc(raw, func(use []byte) []byte {
		value, ok := values[string(jobInputUse.FindSubmatch(use)[1])]
		if !ok {
			return use
		}
		quoted, err := json.Marshal(value)
		if err != nil {
			failed = err
			return use
		}
		return quoted[1 : len(quoted)-1] // within a string already
	})
	return out, failed
}

// WithInputs returns a planned job with the values of its inputs filled in.
func (j *Job) WithInputs(given map[string]string) (*Job, error) {
	if len(j.Inputs) == 0 {
		return j, nil
	}
	raw, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("inputs of job %s: %w", j.Name, err)
	}
	if raw, err = FillJobInputs(raw, given); err != nil {
		return nil, err
	}
	var out Job
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("inputs of job %s: %w", j.Name, err)
	}
	return &out, nil
}

package gitlabci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

// conformanceFolder finds the data that judges the engine, or skips the test.
func conformanceFolder(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("SLIPWAY_CONFORMANCE")
	if folder == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			if root == filepath.Dir(root) {
				t.Skip("no go.mod above the test: the folder of the conformance data is unknown")
			}
			root = filepath.Dir(root)
		}
		folder = filepath.Join(root, "../shared/conformance")
	}
	if _, err := os.Stat(folder); err != nil {
		t.Skipf("no conformance data: %v (set SLIPWAY_CONFORMANCE)", err)
	}
	return folder
}

// tableRows reads the rows of a table, split at tabs.
func tableRows(t *testing.T, name string, columns int) [][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(conformanceFolder(t), "tables", name))
	if os.IsNotExist(err) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || strings.HasPrefix(line, "# ") {
			continue
		}
		cells := strings.Split(line, "\t")
		if len(cells) != columns {
			t.Fatalf("%s:%d: %d columns instead of %d", name, i+1, len(cells), columns)
		}
		rows = append(rows, cells)
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no rows", name)
	}
	return rows
}

var conformanceVariables = map[string]string{
	"PRESENT_VARIABLE": "my variable", "PATH_VARIABLE": "a/path/variable/value",
	"FULL_PATH_VARIABLE": "/a/full/path/variable/value", "EMPTY_VARIABLE": "",
	"teststring": "abcde", "pattern1": "/^ab.*/", "pattern2": "/^at.*/",
}

func mapLookup(m map[string]string) Lookup {
	return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
}

func rubyText(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case string:
		return "'" + v + "'"
	}
	return fmt.Sprint(v)
}

func TestConformanceExpressionStatement(t *testing.T) {
	t.Parallel()
	for _, row := range tableRows(t, "expression_statement.tsv", 2) {
		e, err := ParseExpression(row[0])
		if err != nil {
			t.Errorf("%s: %v", row[0], err)
			continue
		}
		if got := rubyText(e.Value(mapLookup(conformanceVariables))); got != row[1] {
			t.Errorf("%s = %s, want %s", row[0], got, row[1])
		}
	}
}

func TestConformanceExpressionTruthful(t *testing.T) {
	t.Parallel()
	for _, row := range tableRows(t, "expression_truthful.tsv", 2) {
		e, err := ParseExpression(row[0])
		got := err == nil && e.True(mapLookup(conformanceVariables))
		if fmt.Sprint(got) != row[1] {
			t.Errorf("%s is %v, want %s (%v)", row[0], got, row[1], err)
		}
	}
}

func TestConformanceExpandVariables(t *testing.T) {
	t.Parallel()
	for _, row := range tableRows(t, "expand_variables.tsv", 4) {
		var vars map[string]string
		if err := json.Unmarshal([]byte(row[1]), &vars); err != nil {
			t.Fatalf("%s: %v", row[1], err)
		}
		if got := Expand(row[0], mapLookup(vars)); got != row[2] {
			t.Errorf("Expand(%s) with %s = %s, want %s", row[0], row[1], got, row[2])
		}
		if got := ExpandExisting(row[0], mapLookup(vars)); got != row[3] {
			t.Errorf("ExpandExisting(%s) with %s = %s, want %s", row[0], row[1], got, row[3])
		}
	}
}

// schemaCase is one top-level key of a file under schema/.
type schemaCase struct {
	file, key string
	document  []byte
}

// ignoredCases contradict the specification, as the data's own notes say.
var ignoredCases = map[string]bool{"positive/services.yml invalid_command": true}

func schemaCases(t *testing.T, kind string) []schemaCase {
	t.Helper()
	root := filepath.Join(conformanceFolder(t), "schema", kind)
	var out []schemaCase
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		switch filepath.Ext(path) {
		case ".yml", ".yaml", ".json":
		default:
			return fmt.Errorf("%s is not a YAML or JSON file", path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(filepath.Dir(root), path)
		for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var doc yaml.Node
			if err := dec.Decode(&doc); err == io.EOF {
				return nil
			} else if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if out, err = appendCases(out, name, withoutAliases(doc.Content[0])); err != nil {
				return err
			}
		}
	})
	if os.IsNotExist(err) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("no cases in %s", root)
	}
	return out
}

// withoutAliases copies a tree with aliases filled in, since a case may use another case's anchor.
func withoutAliases(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return withoutAliases(n.Alias)
	}
	out := *n
	out.Anchor, out.Content = "", nil
	for _, c := range n.Content {
		out.Content = append(out.Content, withoutAliases(c))
	}
	return &out
}

func appendCases(out []schemaCase, name string, top *yaml.Node) ([]schemaCase, error) {
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if ignoredCases[name+" "+key.Value] {
			continue
		}
		whole := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{key, withScript(key.Value, value)}}
		if strings.Contains(name, "/workflow/") {
			whole = value
		}
		b, err := yaml.Marshal(whole)
		if err != nil {
			return nil, err
		}
		out = append(out, schemaCase{name, key.Value, b})
	}
	return out, nil
}

// TestConformanceKinds fails on data of a kind that no test reads, so that none is passed over.
func TestConformanceKinds(t *testing.T) {
	t.Parallel()
	known := map[string]bool{
		"README.md": true, "schema/positive": true, "schema/negative": true,
		"tables/expression_statement.tsv": true, "tables/expression_truthful.tsv": true, "tables/expand_variables.tsv": true,
		"pipeline-processing": true, // read by the tests of the state machine
	}
	root := conformanceFolder(t)
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		switch {
		case known[name] && entry.IsDir():
			return filepath.SkipDir
		case !known[name] && !entry.IsDir():
			t.Errorf("no test reads %s", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// withScript gives a job that has nothing to run a script, so that it is judged by its other keys.
func withScript(key string, job *yaml.Node) *yaml.Node {
	if job.Kind != yaml.MappingNode || contains(globalKeys, key) || strings.HasPrefix(key, ".") {
		return job
	}
	for i := 0; i < len(job.Content); i += 2 {
		switch job.Content[i].Value {
		case "script", "trigger", "run":
			return job
		}
	}
	script := []*yaml.Node{{Kind: yaml.ScalarNode, Value: "script"}, {Kind: yaml.ScalarNode, Value: "exit 0"}}
	return &yaml.Node{Kind: yaml.MappingNode, Content: append(script, job.Content...)}
}

// emptySources answers every include with a file of one hidden job.
type emptySources struct{}

func (emptySources) ReadFile(context.Context, Location, string) ([]byte, error) {
	return []byte(".included: {}\n"), nil
}
func (emptySources) Paths(context.Context, Location) ([]string, error) { return nil, nil }
func (emptySources) Remote(context.Context, string) ([]byte, error) {
	return []byte(".included: {}\n"), nil
}
func (emptySources) Template(context.Context, string) ([]byte, error) {
	return []byte(".included: {}\n"), nil
}
func (emptySources) Component(context.Context, Component) (ComponentFile, error) {
	return ComponentFile{Content: []byte(".included: {}\n")}, nil
}

// keywordErrors are the errors of a document that are not about names of other jobs, stages and
// files: a case holds one key of a file, so such names lead nowhere.
func keywordErrors(document []byte) (errors []Diagnostic, all Diagnostics) {
	_, all = Compile(context.Background(), "case.yml", document, emptySources{}, Context{})
	for _, d := range all.Errors() {
		if d.kind == keywordFinding {
			errors = append(errors, d)
		}
	}
	return errors, all
}

func TestConformanceSchemaPositive(t *testing.T) {
	t.Parallel()
	for _, c := range schemaCases(t, "positive") {
		if found, _ := keywordErrors(c.document); len(found) > 0 {
			t.Errorf("%s: %s is refused: %v\n%s", c.file, c.key, found, c.document)
		}
	}
}

func TestConformanceSchemaNegative(t *testing.T) {
	t.Parallel()
	for _, c := range schemaCases(t, "negative") {
		found, _ := keywordErrors(c.document)
		if len(found) == 0 {
			t.Errorf("%s: %s is accepted\n%s", c.file, c.key, c.document)
			continue
		}
		if !names(found, c) {
			t.Errorf("%s: no message names %s: %v", c.file, c.key, found)
		}
		for _, d := range found {
			if d.Line == 0 || d.Column == 0 || d.File == "" {
				t.Errorf("%s: %s: no place in: %s", c.file, c.key, d)
			}
		}
	}
}

// names reports whether a message names the key of the case, or, for a whole document, its first key.
func names(found []Diagnostic, c schemaCase) bool {
	key := c.key
	if strings.Contains(c.file, "/workflow/") {
		key, _, _ = strings.Cut(string(c.document), ":")
	}
	for _, d := range found {
		if strings.Contains(d.Message, key) {
			return true
		}
	}
	return false
}

// TestConformanceSchemaDocuments reads negative cases whose value is a document of its own, such as
// a header with spec, also as that document.
func TestConformanceSchemaDocuments(t *testing.T) {
	t.Parallel()
	for _, c := range schemaCases(t, "negative") {
		var whole map[string]yaml.Node
		if err := yaml.Unmarshal(c.document, &whole); err != nil {
			t.Fatal(err)
		}
		value := whole[c.key]
		var inner map[string]yaml.Node
		if value.Kind != yaml.MappingNode || value.Decode(&inner) != nil {
			continue
		}
		delete(inner, "script") // added by the cases
		document := false
		for key := range inner {
			document = document || key == "spec" || key == "include" || key == "workflow"
		}
		if !document {
			continue
		}
		text, err := yaml.Marshal(inner)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := inner["spec"]; ok {
			text = append(text, "---\njob: {script: exit 0}\n"...)
		}
		if found, _ := keywordErrors(text); len(found) == 0 {
			t.Errorf("%s: %s is accepted as a document\n%s", c.file, c.key, text)
		}
	}
}

package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestDefaultsAreValidAndComplete(t *testing.T) {
	t.Parallel()
	c, err := Parse("test", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, limit := c.Budgets.Total(), int64(12)<<30; got > limit {
		t.Errorf("the budgets add up to %s, not far below a 15 GB server", Size(got))
	}
	if c.Budgets.Headroom < 3<<30 {
		t.Errorf("headroom is %s, less than 3Gi", c.Budgets.Headroom)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(defaults, &doc); err != nil {
		t.Fatal(err)
	}
	missing(t, "", reflect.TypeFor[Config](), doc)
	if len(c.Budgets.Table()) != reflect.TypeFor[Budgets]().NumField() {
		t.Error("the budget table misses a field")
	}
}

// missing reports keys of the struct that default.yaml does not document.
func missing(t *testing.T, prefix string, typ reflect.Type, doc map[string]any) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		key := f.Tag.Get("yaml")
		v, ok := doc[key]
		if !ok {
			t.Errorf("default.yaml does not document %s%s", prefix, key)
		}
		if f.Type.Kind() == reflect.Struct {
			sub, _ := v.(map[string]any)
			missing(t, prefix+key+".", f.Type, sub)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ yaml, want string }{
		{"web:\n  prot: 1", `f.yaml: line 2: unknown key "prot"`},
		{"web:\n  port: http", "f.yaml: line 2: cannot unmarshal"},
		{"budgets:\n  jobs: lots", `f.yaml: line 2: "lots" is not a size such as 512Mi`},
		{"metrics: {retention: never}", `f.yaml: line 1: "never" is not a duration such as 30m or 15d`},
		{"name: Slip_way", "name: \"Slip_way\" must be 1 to 9 lower-case letters"},
		{"data_dir: here", `data_dir: "here" must be an absolute path`},
		{"ssh: {port: 8080}", "ssh.port: port 8080 is already taken by web.port"},
		{"cluster: {pod_cidr: 10.43.0.0/16}", "overlaps"},
		{"cluster: {dns_address: 1.1.1.1}", "cluster.dns_address"},
		{"cluster: {enabled: false}", "gitops.enabled: Argo CD needs the cluster"},
		{"external_url: example.com", "external_url"},
		{"registry: {mirrors: [\"registry.example.com:5000\"]}", "without scheme, port and path"},
		{"registry: {mirrors: [\"https://docker.io\"]}", "registry.mirrors"},
		{"name: a\n---\nname: b", "only one YAML document"},
		{"budgets: {jobs: 1Mi}", "budgets.jobs: 1Mi is less than 16Mi"},
		{"name: [", "f.yaml: line 1"},
		{"mail: {host: smtp.example.com, from: nobody}", "mail.from: \"nobody\" is not an address"},
		{"mail: {host: smtp.example.com, from: a@example.com, encryption: ssl}", "mail.encryption: \"ssl\" is none of"},
		{"mail: {host: smtp.example.com, from: a@example.com, username: a}", "mail: username and password_file belong together"},
	} {
		_, err := Parse("f.yaml", []byte(c.yaml))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v; want %q", c.yaml, err, c.want)
		}
	}
	if _, err := Load("/does/not/exist.yaml"); err == nil {
		t.Error("a missing file was accepted")
	}
}

func TestSizesPrintAsWritten(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"0", "5", "512Mi", "3Gi", "1536Mi", "2Ti", "7Ki"} {
		var v Size
		if err := yaml.Unmarshal([]byte(s), &v); err != nil || v.String() != s {
			t.Errorf("%s became %s (%v)", s, v, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name: a"))
	f.Add(defaults)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := Parse("f", b); err == nil && c.Validate() != nil {
			t.Error("an invalid configuration was accepted")
		}
	})
}

// settings calls fn with the dotted key and the Go name of every setting.
func settings(prefix string, typ reflect.Type, fn func(key, name string)) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		key := prefix + f.Tag.Get("yaml")
		fn(key, f.Name)
		if f.Type.Kind() == reflect.Struct {
			settings(key+".", f.Type, fn)
		}
	}
}

// TestSettingsAreRead: a setting that no program reads would promise what
// nothing keeps. The budgets are read by the names of their programs.
func TestSettingsAreRead(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../cmd/slipway/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	own, err := os.ReadFile("config.go")
	if err != nil {
		t.Fatal(err)
	}
	var programs strings.Builder
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		programs.Write(raw)
	}
	settings("", reflect.TypeFor[Config](), func(key, name string) {
		read := regexp.MustCompile(`\.` + name + `\b`)
		if !read.MatchString(programs.String()) && !(strings.HasPrefix(key, "budgets.") && read.Match(own)) {
			t.Errorf("nothing reads %s", key)
		}
	})
}

// TestDocumentedSettings: the settings that the documentation names exist.
func TestDocumentedSettings(t *testing.T) {
	t.Parallel()
	known, sections := map[string]bool{}, map[string]bool{}
	settings("", reflect.TypeFor[Config](), func(key, _ string) {
		known[key] = true
		if section, _, nested := strings.Cut(key, "."); nested {
			sections[section] = true
		}
	})
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	n := 0
	for _, file := range append(files, "../../README.md") {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`([a-z]+)\\.([a-z_.]+)(?:: [^`]*)?`").FindAllStringSubmatch(string(raw), -1) {
			if key := m[1] + "." + m[2]; sections[m[1]] && !known[key] {
				t.Errorf("%s names the setting %s, which there is not", filepath.Base(file), key)
			} else if known[key] {
				n++
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d settings found", n)
	}
}

package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// IgnoreFile is the conventional name of the ignore file, Trivy's.
const IgnoreFile = ".trivyignore.yaml"

// Ignore is one entry of an ignore file.
type Ignore struct {
	Kind      Kind
	ID        string
	Paths     []string // patterns of path.Match for the target; empty: everywhere
	Packages  []string // package names; empty: every package
	Statement string   // the reason
	ExpiredAt time.Time
	Line      int
}

// Ignores is a parsed ignore file.
type Ignores []Ignore

// ignoreDocument has the shape of Trivy's .trivyignore.yaml (docs: "Filtering
// results"). Trivy takes statement and expired_at as optional; here a finding
// is only set aside for a reason and until a date.
type ignoreDocument struct {
	Vulnerabilities   []ignoreEntry `yaml:"vulnerabilities"`
	Misconfigurations []ignoreEntry `yaml:"misconfigurations"`
	Secrets           []ignoreEntry `yaml:"secrets"`
}

type ignoreEntry struct {
	line      int
	ID        string   `yaml:"id"`
	Paths     []string `yaml:"paths"`
	PURLs     []string `yaml:"purls"`
	Packages  []string `yaml:"packages"`
	Statement string   `yaml:"statement"`
	ExpiredAt string   `yaml:"expired_at"`
}

// UnmarshalYAML notes the entry's line and refuses unknown keys, which a
// custom unmarshaler would otherwise let pass.
func (e *ignoreEntry) UnmarshalYAML(node *yaml.Node) error {
	known := map[string]bool{"id": true, "paths": true, "purls": true, "packages": true, "statement": true, "expired_at": true}
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: an entry must have the keys id, statement and expired_at", node.Line)
	}
	for i := 0; i < len(node.Content); i += 2 {
		if !known[node.Content[i].Value] {
			return fmt.Errorf("line %d: unknown key %q; use id, paths, packages, purls, statement, expired_at", node.Content[i].Line, node.Content[i].Value)
		}
	}
	type plain ignoreEntry
	if err := node.Decode((*plain)(e)); err != nil {
		return err
	}
	e.line = node.Line
	return nil
}

// maxIgnoreFile bounds the file's size in bytes.
const maxIgnoreFile = 1 << 20

// ParseIgnores reads an ignore file. Every problem is reported, each with its
// line; then no entry is returned.
func ParseIgnores(name string, content []byte) (Ignores, error) {
	if len(content) > maxIgnoreFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, maxIgnoreFile)
	}
	var doc ignoreDocument
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, placed(name, err)
	}
	var out Ignores
	var problems []error
	for _, section := range []struct {
		kind    Kind
		entries []ignoreEntry
	}{{Vulnerability, doc.Vulnerabilities}, {Misconfiguration, doc.Misconfigurations}, {Secret, doc.Secrets}} {
		for _, e := range section.entries {
			entry, err := e.ignore(section.kind)
			if err != nil {
				problems = append(problems, fmt.Errorf("%s:%d: %w", name, e.line, err))
				continue
			}
			out = append(out, entry)
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return out, nil
}

// yamlPlace finds the line in an error of the YAML decoder.
var yamlPlace = regexp.MustCompile(`line (\d+): `)

// yamlUnknown is how the decoder says that a key is not known.
var yamlUnknown = regexp.MustCompile(`field (\S+) not found in type \S+`)

// placed says file:line: what is wrong.
func placed(name string, err error) error {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n")
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = yamlUnknown.ReplaceAllString(text, `unknown key "$1"; use vulnerabilities, misconfigurations, secrets`)
	text = strings.ReplaceAll(text, "report.ignoreDocument", "a mapping with the keys vulnerabilities, misconfigurations, secrets")
	text = strings.ReplaceAll(text, "[]report.ignoreEntry", "a list of entries")
	if m := yamlPlace.FindStringSubmatchIndex(text); m != nil {
		return fmt.Errorf("%s:%s: %s", name, text[m[2]:m[3]], text[:m[0]]+text[m[1]:])
	}
	return fmt.Errorf("%s: %s", name, text)
}

func (e ignoreEntry) ignore(kind Kind) (Ignore, error) {
	out := Ignore{Kind: kind, ID: e.ID, Paths: e.Paths, Packages: e.Packages, Statement: strings.TrimSpace(e.Statement), Line: e.line}
	if e.ID == "" {
		return out, errors.New("an entry has no id")
	}
	if out.Statement == "" {
		return out, fmt.Errorf("%s is ignored without a reason: add statement: why it does not matter here", e.ID)
	}
	if e.ExpiredAt == "" {
		return out, fmt.Errorf("%s is ignored for ever: add expired_at: the day on which to look again, such as 2027-06-30", e.ID)
	}
	day, err := time.Parse(time.DateOnly, e.ExpiredAt)
	if err != nil {
		if day, err = time.Parse(time.RFC3339, e.ExpiredAt); err != nil {
			return out, fmt.Errorf("%s: expired_at %q is not a date such as 2027-06-30", e.ID, e.ExpiredAt)
		}
	}
	out.ExpiredAt = day
	for _, p := range e.Paths {
		if _, err := path.Match(p, ""); err != nil {
			return out, fmt.Errorf("%s: %q is not a valid pattern", e.ID, p)
		}
	}
	for _, purl := range e.PURLs {
		name, ok := purlName(purl)
		if !ok {
			return out, fmt.Errorf("%s: %q is not a package URL such as pkg:deb/debian/zlib1g", e.ID, purl)
		}
		out.Packages = append(out.Packages, name)
	}
	return out, nil
}

// purlName returns the name of a package URL (purl-spec).
func purlName(purl string) (string, bool) {
	rest, ok := strings.CutPrefix(purl, "pkg:")
	if !ok {
		return "", false
	}
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "#")
	if at := strings.LastIndexByte(rest, '@'); at > 0 {
		rest = rest[:at]
	}
	i := strings.LastIndexByte(rest, '/')
	return rest[i+1:], i > 0 && i < len(rest)-1
}

func (i Ignore) matches(f Finding) bool {
	if i.Kind != f.Kind || !strings.EqualFold(i.ID, f.ID) {
		return false
	}
	if len(i.Packages) > 0 && !contains(i.Packages, f.Package) {
		return false
	}
	if len(i.Paths) == 0 {
		return true
	}
	for _, p := range i.Paths {
		if ok, err := path.Match(p, f.Target); err == nil && ok || p == f.Target || strings.HasSuffix(p, "/") && strings.HasPrefix(f.Target, p) {
			return true
		}
	}
	return false
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// Gate decides whether what was found lets a pipeline go on.
type Gate struct {
	Threshold     Severity // findings as bad as this, or worse, stop it; empty: none does
	IgnoreUnfixed bool     // vulnerabilities without a fix do not stop it
	Ignores       Ignores
}

// Ignored is a finding that an entry sets aside.
type Ignored struct {
	Finding
	By Ignore
}

// Verdict is a gate's decision.
type Verdict struct {
	Stopping []Finding // at or above the threshold, not ignored
	Others   []Finding // below it
	Ignored  []Ignored
	Expired  []Ignore // entries that would have applied and are past their date
	Unused   []Ignore // entries that match nothing any more
}

// Pass reports whether nothing stops the pipeline.
func (v Verdict) Pass() bool { return len(v.Stopping) == 0 }

// Judge applies the gate. An entry applies up to and including its day.
func (g Gate) Judge(findings []Finding, now time.Time) Verdict {
	var v Verdict
	used := make([]bool, len(g.Ignores))
	expired := make([]bool, len(g.Ignores))
	for _, f := range findings {
		ignored := false
		for i, entry := range g.Ignores {
			if !entry.matches(f) {
				continue
			}
			used[i] = true
			if now.After(entry.ExpiredAt.Add(24 * time.Hour)) {
				expired[i] = true
				continue
			}
			v.Ignored = append(v.Ignored, Ignored{f, entry})
			ignored = true
			break
		}
		switch {
		case ignored:
		case g.Threshold != "" && f.Severity.AtLeast(g.Threshold) && !(g.IgnoreUnfixed && f.Kind == Vulnerability && f.Fixed == ""):
			v.Stopping = append(v.Stopping, f)
		default:
			v.Others = append(v.Others, f)
		}
	}
	for i, entry := range g.Ignores {
		if expired[i] {
			v.Expired = append(v.Expired, entry)
		}
		if !used[i] {
			v.Unused = append(v.Unused, entry)
		}
	}
	return v
}

// CheckPlainIgnores holds a .trivyignore file, one id a line, against the rule
// that a finding is only set aside for a reason and until a date: the reason is
// the comment before the entry or behind it, the date Trivy's exp:2027-06-30.
func CheckPlainIgnores(name string, content []byte) error {
	if len(content) > maxIgnoreFile {
		return fmt.Errorf("%s: larger than %d bytes", name, maxIgnoreFile)
	}
	var problems []error
	reason := false
	for i, line := range strings.Split(string(content), "\n") {
		entry, comment, _ := strings.Cut(line, "#")
		fields := strings.Fields(entry)
		if len(fields) == 0 {
			reason = strings.TrimSpace(comment) != "" || reason && strings.TrimSpace(line) != ""
			continue
		}
		if strings.TrimSpace(comment) == "" && !reason {
			problems = append(problems, fmt.Errorf("%s:%d: %s is ignored without a reason: write it as a comment in the line before", name, i+1, fields[0]))
		}
		dated := false
		for _, f := range fields[1:] {
			if day, ok := strings.CutPrefix(f, "exp:"); ok {
				_, err := time.Parse(time.DateOnly, day)
				dated = err == nil
			}
		}
		if !dated {
			problems = append(problems, fmt.Errorf("%s:%d: %s is ignored for ever: add exp:2027-06-30, the day on which to look again", name, i+1, fields[0]))
		}
		reason = false
	}
	return errors.Join(problems...)
}

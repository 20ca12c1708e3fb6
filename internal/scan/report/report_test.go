package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestParseIgnores(t *testing.T) {
	t.Parallel()
	good := `
vulnerabilities:
  - id: CVE-2023-45853
    statement: MiniZip is not shipped
    expired_at: 2026-11-23
    purls: [pkg:deb/debian/zlib1g@1.2]
secrets:
  - id: github-pat
    paths: [testdata/*.env, fixtures/]
    statement: made up
    expired_at: 2027-01-01
`
	list, err := ParseIgnores("i.yaml", []byte(good))
	if err != nil || len(list) != 2 || list[0].Packages[0] != "zlib1g" || list[0].Line != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	if list, err := ParseIgnores("i.yaml", nil); err != nil || len(list) != 0 {
		t.Errorf("an empty file: %v, %v", list, err)
	}
	entry := func(s string) string {
		return "vulnerabilities:\n  - {id: CVE-1, statement: why, expired_at: 2027-01-01" + s + "}\n"
	}
	for content, want := range map[string]string{
		"vulnerabilities:\n  - id: CVE-1\n    expired_at: 2027-01-01\n":           "i.yaml:2: CVE-1 is ignored without a reason",
		"vulnerabilities:\n  - id: CVE-1\n    statement: \" \"\n":                 "i.yaml:2: CVE-1 is ignored without a reason",
		"vulnerabilities:\n  - id: CVE-1\n    statement: x\n":                     "i.yaml:2: CVE-1 is ignored for ever",
		"vulnerabilities:\n  - statement: x\n":                                    "an entry has no id",
		"vulnerabilities:\n  - {id: CVE-1, statement: x, expired_at: tomorrow}\n": `"tomorrow" is not a date`,
		"vulnerabilities:\n  - {id: CVE-1, reason: x}\n":                          `i.yaml:2: unknown key "reason"`,
		"vulnerabilities:\n  - CVE-1\n":                                           "i.yaml:2: an entry must have the keys",
		"vulnerability:\n  - id: CVE-1\n":                                         `i.yaml:1: unknown key "vulnerability"; use vulnerabilities`,
		"- CVE-1":                                                                 "i.yaml:1: cannot unmarshal !!seq into a mapping with the keys vulnerabilities",
		"vulnerabilities:\n  - id: CVE-1\n     statement: x\n":                    "i.yaml:3: mapping values are not allowed",
		"vulnerabilities: none\n":                                                 "i.yaml:1: cannot unmarshal !!str `none` into a list of entries",
		"\t":                                                                      "i.yaml: ",
		entry(", paths: [\"[\"]"):                                                 "not a valid pattern",
		entry(", purls: [zlib]"):                                                  "not a package URL",
	} {
		if _, err := ParseIgnores("i.yaml", []byte(content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

func TestCheckPlainIgnores(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"": "",
		"# MiniZip is not shipped\nCVE-1 exp:2027-01-01\n":    "",
		"CVE-1 exp:2027-01-01 # not shipped\n":                "",
		"CVE-1 exp:2027-01-01\n":                              ".trivyignore:1: CVE-1 is ignored without a reason",
		"# why\nCVE-1\n":                                      ".trivyignore:2: CVE-1 is ignored for ever",
		"# why\nCVE-1 exp:2027-01-01\nCVE-2 exp:2027-01-01\n": ".trivyignore:3: CVE-2 is ignored without a reason",
		"# why\n\nCVE-1 exp:soon\n":                           "is ignored for ever",
	} {
		err := CheckPlainIgnores(".trivyignore", []byte(content))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

var sample = []Finding{
	{Kind: Vulnerability, ID: "CVE-1", Severity: High, Package: "a", Installed: "1", Fixed: "2", Title: "first", URL: "https://example.org/CVE-1", References: []string{"https://example.org", "javascript:x"}},
	{Kind: Vulnerability, ID: "CVE-2", Severity: Critical, Package: "b", Installed: "1", Title: "second"},
	{Kind: Vulnerability, ID: "CVE-2", Severity: Medium, Package: "b", Installed: "1", Title: "second, in another layer"},
	{Kind: Secret, ID: "token", Severity: Low, Target: "x/y.env", Line: 3, Title: "a token"},
}

func TestNormalizeAndNew(t *testing.T) {
	t.Parallel()
	list := Normalize(sample)
	if len(list) != 3 || list[0].ID != "CVE-2" || list[0].Severity != Critical || list[2].Kind != Secret {
		t.Errorf("%+v", list)
	}
	if c := Counts(list); c["CRITICAL"] != 1 || c["HIGH"] != 1 || c["LOW"] != 1 || CountsText(c) != "1 critical, 1 high, 1 low" {
		t.Errorf("%v", c)
	}
	if fresh := New(list, list[1:]); len(fresh) != 1 || fresh[0].ID != "CVE-2" {
		t.Errorf("%+v", fresh)
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	list := Normalize(sample)
	day := func(s string) time.Time { d, _ := time.Parse(time.DateOnly, s); return d }
	for name, c := range map[string]struct {
		gate                                        Gate
		stopping, ignored, expired, unused, passing int
	}{
		"no threshold":      {gate: Gate{}, passing: 3},
		"critical":          {gate: Gate{Threshold: Critical}, stopping: 1, passing: 2},
		"low":               {gate: Gate{Threshold: Low}, stopping: 3},
		"fixable only":      {gate: Gate{Threshold: High, IgnoreUnfixed: true}, stopping: 1, passing: 2},
		"ignored today":     {gate: Gate{Threshold: High, Ignores: Ignores{{Kind: Vulnerability, ID: "cve-2", ExpiredAt: day("2026-11-23")}}}, stopping: 1, ignored: 1, passing: 1},
		"expired yesterday": {gate: Gate{Threshold: High, Ignores: Ignores{{Kind: Vulnerability, ID: "CVE-2", ExpiredAt: day("2026-11-21")}}}, stopping: 2, expired: 1, passing: 1},
		"another package":   {gate: Gate{Threshold: High, Ignores: Ignores{{Kind: Vulnerability, ID: "CVE-2", Packages: []string{"z"}, ExpiredAt: day("2099-01-01")}}}, stopping: 2, unused: 1, passing: 1},
		"by path":           {gate: Gate{Threshold: Low, Ignores: Ignores{{Kind: Secret, ID: "token", Paths: []string{"x/*.env"}, ExpiredAt: day("2099-01-01")}}}, stopping: 2, ignored: 1},
	} {
		v := c.gate.Judge(list, now)
		if len(v.Stopping) != c.stopping || len(v.Ignored) != c.ignored || len(v.Expired) != c.expired || len(v.Unused) != c.unused || len(v.Others) != c.passing || v.Pass() != (c.stopping == 0) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	r := Report{Artifact: "g/app:1", Digest: "sha256:1", OS: "debian 12.4", Scanner: "Trivy 0.65.0", Findings: Normalize(sample), StartedAt: now, EndedAt: now,
		Database: Database{UpdatedAt: now.AddDate(0, 0, -10), Origin: "file", Demonstration: true, Note: "A note."}}
	sarif, err := r.SARIF()
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
			Results []struct {
				RuleID, Level string
				RuleIndex     int
			}
		}
	}
	if err := json.Unmarshal(sarif, &s); err != nil || s.Version != "2.1.0" || len(s.Runs) != 1 || len(s.Runs[0].Results) != 3 {
		t.Fatalf("%s", sarif)
	}
	for _, res := range s.Runs[0].Results {
		if s.Runs[0].Tool.Driver.Rules[res.RuleIndex].ID != res.RuleID {
			t.Errorf("rule %d is not %s", res.RuleIndex, res.RuleID)
		}
	}
	gitlab, err := r.GitLab()
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Scan            struct{ Type string }
		Vulnerabilities []struct {
			Severity, Solution string
			Links              []any
			Location           struct{ Image string }
		}
	}
	if err := json.Unmarshal(gitlab, &g); err != nil || g.Scan.Type != "container_scanning" || len(g.Vulnerabilities) != 2 || g.Vulnerabilities[0].Severity != "Critical" ||
		g.Vulnerabilities[1].Solution != "Upgrade a to 2" || len(g.Vulnerabilities[1].Links) != 1 || g.Vulnerabilities[0].Location.Image != "g/app:1" {
		t.Errorf("%s", gitlab)
	}
	var table bytes.Buffer
	old := r
	old.Database.UpdatedAt, old.Database.Demonstration = now.Add(-8*24*time.Hour), false
	if err := old.Table(&table, Verdict{}, now); err != nil || !strings.Contains(table.String(), "WARNING: The vulnerability database is 8 days old") {
		t.Errorf("an old database: %v\n%s", err, table.String())
	}
	table.Reset()
	without := r
	without.Database = Database{}
	if err := without.Table(&table, Verdict{}, now); err != nil || strings.Contains(table.String(), "database") || strings.Contains(table.String(), "WARNING") {
		t.Errorf("a scan that needs no database: %v\n%s", err, table.String())
	}
	table.Reset()
	if err := r.Table(&table, Gate{Threshold: High}.Judge(r.Findings, now), now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 critical, 1 high, 1 low", "10 days old", "demonstration database. A note.", "Stopping:", "CVE-2", "x/y.env:3"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &table)
		}
	}
}

// TestNewAgainstABase: a package's new version with an old problem, and a line
// that moved, bring nothing in; one more secret in a file does.
func TestNewAgainstABase(t *testing.T) {
	t.Parallel()
	vulnerable := func(id, version string) Finding {
		return Finding{Kind: Vulnerability, ID: id, Package: "libc6", Installed: version, Severity: Low}
	}
	secret := func(line int) Finding {
		return Finding{Kind: Secret, ID: "token", Target: "app.env", Line: line, Severity: High}
	}
	base := []Finding{vulnerable("CVE-1", "1"), secret(3)}
	got := New([]Finding{vulnerable("CVE-1", "2"), vulnerable("CVE-2", "2"), secret(7), secret(9)}, base)
	if len(got) != 2 || got[0].ID != "CVE-2" || got[1].Line != 9 {
		t.Errorf("new: %+v", got)
	}
	if gone := New(base, got); len(gone) != 1 || gone[0].ID != "CVE-1" {
		t.Errorf("gone: %+v", gone)
	}
}

// Package report holds what a scan finds and what is made of it: severities,
// the gate with its ignore file, tables, SARIF and GitLab's container-scanning
// report.
//
// It is pure: it receives findings and files' contents and emits decisions and
// bytes. It must stay light, because the small client in a job's container
// links it, and it must not import any other package of this module.
package report

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// Severity is Trivy's, in capitals.
type Severity string

// Severities in falling order.
const (
	Critical Severity = "CRITICAL"
	High     Severity = "HIGH"
	Medium   Severity = "MEDIUM"
	Low      Severity = "LOW"
	Unknown  Severity = "UNKNOWN"
)

// Severities lists all severities, the worst first.
func Severities() []Severity { return []Severity{Critical, High, Medium, Low, Unknown} }

// rank orders severities; the worst is 0.
func (s Severity) rank() int {
	for i, v := range Severities() {
		if v == s {
			return i
		}
	}
	return len(Severities()) - 1
}

// AtLeast reports whether s is as bad as the threshold or worse.
func (s Severity) AtLeast(threshold Severity) bool { return s.rank() <= threshold.rank() }

// ParseSeverity reads a severity in any case.
func ParseSeverity(s string) (Severity, error) {
	for _, v := range Severities() {
		if strings.EqualFold(s, string(v)) {
			return v, nil
		}
	}
	return "", fmt.Errorf("%q is not a severity: use CRITICAL, HIGH, MEDIUM, LOW or UNKNOWN", s)
}

// Kind says what sort of thing a finding is.
type Kind string

// Kinds of findings.
const (
	Vulnerability    Kind = "vulnerability"
	Secret           Kind = "secret"
	Misconfiguration Kind = "misconfiguration"
)

// Finding is one thing that a scan found.
type Finding struct {
	Kind        Kind     `json:"kind"`
	ID          string   `json:"id"` // CVE-2024-2961, aws-access-key-id, AVD-DS-0002
	Severity    Severity `json:"severity"`
	Title       string   `json:"title"`
	Description string   `json:"description,omitempty"`
	Package     string   `json:"package,omitempty"`
	Installed   string   `json:"installed_version,omitempty"`
	Fixed       string   `json:"fixed_version,omitempty"` // empty: there is no fix yet
	Status      string   `json:"status,omitempty"`        // affected, fixed, will_not_fix, ...
	Target      string   `json:"target,omitempty"`        // the file, or the operating system
	Layer       string   `json:"layer,omitempty"`         // digest of the layer's blob or its content
	Line        int      `json:"line,omitempty"`
	Resolution  string   `json:"resolution,omitempty"`
	URL         string   `json:"url,omitempty"`
	References  []string `json:"references,omitempty"`
	Source      string   `json:"source,omitempty"` // where the advisory comes from
}

// Key identifies a finding across scans: the same problem in the same package
// or place has the same key, whatever the layer.
func (f Finding) Key() string {
	if f.Kind == Vulnerability {
		return string(f.Kind) + "|" + f.ID + "|" + f.Package + "|" + f.Installed
	}
	return fmt.Sprintf("%s|%s|%s|%d", f.Kind, f.ID, f.Target, f.Line)
}

// Report is the outcome of one scan.
type Report struct {
	Artifact  string    `json:"artifact"` // image reference, or what was scanned
	Digest    string    `json:"digest,omitempty"`
	OS        string    `json:"os,omitempty"` // such as "debian 12.11"
	Scanner   string    `json:"scanner"`      // such as "Trivy 0.65.0"
	Database  Database  `json:"database"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
	Findings  []Finding `json:"findings"`
	Notes     []string  `json:"notes,omitempty"` // what was not examined, and why
}

// Database says which vulnerability database a scan used.
type Database struct {
	UpdatedAt     time.Time `json:"updated_at"`              // when its contents were collected
	Origin        string    `json:"origin"`                  // a reference, or a file's name
	Demonstration bool      `json:"demonstration,omitempty"` // a small set for trying things out: proves nothing about security
	Note          string    `json:"note,omitempty"`
}

// StaleAfter is the age from which a database is warned of: the public one is
// built anew every six hours (trivy-db, "update interval").
const StaleAfter = 7 * 24 * time.Hour

// Warning says that a database is too old to rely on, or is "". A demonstration
// has a note of its own, and scans of configuration need no database.
func (d Database) Warning(now time.Time) string {
	age := now.Sub(d.UpdatedAt)
	if d.Demonstration || d.UpdatedAt.IsZero() || age <= StaleAfter {
		return ""
	}
	return fmt.Sprintf("The vulnerability database is %d days old: what has become known since is missing. Run \"slipway scan db update\", or \"slipway scan db import FILE\" without a network.", int(age/(24*time.Hour)))
}

// Normalize drops findings with the same key, keeping the worst, and sorts:
// worst first, then by id and package.
func Normalize(findings []Finding) []Finding {
	best := map[string]Finding{}
	for _, f := range findings {
		if have, ok := best[f.Key()]; !ok || f.Severity.rank() < have.Severity.rank() {
			best[f.Key()] = f
		}
	}
	out := make([]Finding, 0, len(best))
	for _, f := range best {
		out = append(out, f)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if a.Severity != b.Severity {
			return a.Severity.rank() < b.Severity.rank()
		}
		return a.ID+"\x00"+a.Key() < b.ID+"\x00"+b.Key()
	})
	return out
}

// Counts returns the number of findings per severity; severities without any
// are left out.
func Counts(findings []Finding) map[string]int {
	counts := map[string]int{}
	for _, f := range findings {
		counts[string(f.Severity)]++
	}
	return counts
}

// New returns the findings that base does not have: what a merge request brings
// in. A package's other version, and a line that moved, do not make an old
// problem new; the same problem once more in one file does.
func New(findings, base []Finding) []Finding {
	have := map[string]int{}
	for _, f := range base {
		have[f.problem()]++
	}
	var out []Finding
	for _, f := range findings {
		if have[f.problem()] > 0 {
			if f.Kind != Vulnerability {
				have[f.problem()]--
			}
			continue
		}
		out = append(out, f)
	}
	return out
}

// problem is Key without what changes while the problem stays.
func (f Finding) problem() string {
	if f.Kind == Vulnerability {
		return string(f.Kind) + "|" + f.ID + "|" + f.Package
	}
	return string(f.Kind) + "|" + f.ID + "|" + f.Target
}

// CountsText writes counts for people: "1 critical, 3 high" or "nothing".
func CountsText(counts map[string]int) string {
	var parts []string
	for _, s := range Severities() {
		if n := counts[string(s)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ToLower(string(s))))
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// SARIF writes the report in the Static Analysis Results Interchange Format
// 2.1.0.
func (r Report) SARIF() ([]byte, error) {
	type text struct {
		Text string `json:"text"`
	}
	type properties map[string]any
	type rule struct {
		ID         string     `json:"id"`
		Name       string     `json:"name"`
		Short      text       `json:"shortDescription"`
		Full       text       `json:"fullDescription"`
		HelpURI    string     `json:"helpUri,omitempty"`
		Properties properties `json:"properties"`
	}
	type result struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      text              `json:"message"`
		Locations    []any             `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
	}
	rules, results, index := []rule{}, []result{}, map[string]int{}
	for _, f := range r.Findings {
		i, ok := index[f.ID]
		if !ok {
			i = len(rules)
			index[f.ID] = i
			rules = append(rules, rule{ID: f.ID, Name: string(f.Kind), Short: text{f.Title}, Full: text{firstOf(f.Description, f.Title)}, HelpURI: f.URL,
				Properties: properties{"tags": []string{string(f.Kind), "security", string(f.Severity)}, "security-severity": securitySeverity(f.Severity)}})
		}
		region := map[string]any{"startLine": max(f.Line, 1)}
		location := map[string]any{"physicalLocation": map[string]any{
			"artifactLocation": map[string]any{"uri": locationURI(firstOf(f.Target, r.Artifact))}, "region": region,
		}, "message": text{strings.TrimSpace(f.Package + " " + f.Installed)}}
		sum := sha256.Sum256([]byte(f.Key()))
		results = append(results, result{RuleID: f.ID, RuleIndex: i, Level: sarifLevel(f.Severity), Message: text{f.sentence()},
			Locations: []any{location}, Fingerprints: map[string]string{"findingKey/v1": hex.EncodeToString(sum[:])}})
	}
	about := properties{"imageName": r.Artifact, "imageDigest": r.Digest}
	if !r.Database.UpdatedAt.IsZero() {
		about["databaseUpdatedAt"], about["databaseOrigin"], about["demonstrationDatabase"] = r.Database.UpdatedAt, r.Database.Origin, r.Database.Demonstration
	}
	return json.MarshalIndent(map[string]any{
		"version": "2.1.0",
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json",
		"runs": []any{map[string]any{
			"tool":       map[string]any{"driver": map[string]any{"name": "Trivy", "informationUri": "https://github.com/aquasecurity/trivy", "fullName": r.Scanner, "rules": rules}},
			"results":    results,
			"columnKind": "utf16CodeUnits",
			"properties": about,
		}},
	}, "", "  ")
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func locationURI(s string) string {
	s, _, _ = strings.Cut(s, " (")
	return strings.ReplaceAll(s, " ", "%20")
}

func sarifLevel(s Severity) string {
	switch s {
	case Critical, High:
		return "error"
	case Medium:
		return "warning"
	}
	return "note"
}

// securitySeverity is the score that GitHub and GitLab sort SARIF rules by.
func securitySeverity(s Severity) string {
	return map[Severity]string{Critical: "9.5", High: "8.0", Medium: "5.5", Low: "2.0", Unknown: "0.0"}[s]
}

// sentence says the finding in one line.
func (f Finding) sentence() string {
	switch f.Kind {
	case Vulnerability:
		fix := "there is no fix yet"
		if f.Fixed != "" {
			fix = "fixed in " + f.Fixed
		}
		return fmt.Sprintf("%s in %s %s (%s): %s", f.ID, f.Package, f.Installed, fix, firstOf(f.Title, f.Description))
	case Secret:
		return fmt.Sprintf("%s: a secret in %s", firstOf(f.Title, f.ID), f.Target)
	}
	return fmt.Sprintf("%s: %s %s", f.ID, f.Title, f.Resolution)
}

// GitLab writes the report in GitLab's container-scanning format (security
// report schemas 15.0.7). Only vulnerabilities belong there.
func (r Report) GitLab() ([]byte, error) {
	const format = "2006-01-02T15:04:05"
	vendor := map[string]string{"name": "Aqua Security"}
	version := strings.TrimPrefix(r.Scanner, "Trivy ")
	vulnerabilities := []any{}
	for _, f := range r.Findings {
		if f.Kind != Vulnerability {
			continue
		}
		sum := sha256.Sum256([]byte(f.Key()))
		solution := "No solution provided"
		if f.Fixed != "" {
			solution = "Upgrade " + f.Package + " to " + f.Fixed
		}
		links := []any{}
		for _, ref := range f.References {
			if strings.HasPrefix(ref, "https://") || strings.HasPrefix(ref, "http://") {
				links = append(links, map[string]string{"url": ref})
			}
		}
		identifier := map[string]string{"type": strings.ToLower(strings.SplitN(f.ID, "-", 2)[0]), "name": f.ID, "value": f.ID}
		if f.URL != "" {
			identifier["url"] = f.URL
		}
		vulnerabilities = append(vulnerabilities, map[string]any{
			"id": hex.EncodeToString(sum[:16]), "name": short(firstOf(f.Title, f.ID), maxName), "description": f.Description, "severity": gitlabSeverity(f.Severity), "solution": solution,
			"location": map[string]any{
				"dependency":       map[string]any{"package": map[string]string{"name": f.Package}, "version": f.Installed},
				"operating_system": firstOf(r.OS, "Unknown"), "image": r.Artifact,
			},
			"identifiers": []any{identifier}, "links": links,
		})
	}
	return json.MarshalIndent(map[string]any{
		"version": "15.0.7",
		"scan": map[string]any{
			"analyzer":   map[string]any{"id": "trivy", "name": "Trivy", "vendor": vendor, "version": version},
			"scanner":    map[string]any{"id": "trivy", "name": "Trivy", "url": "https://github.com/aquasecurity/trivy/", "vendor": vendor, "version": version},
			"start_time": r.StartedAt.UTC().Format(format), "end_time": r.EndedAt.UTC().Format(format), "status": "success", "type": "container_scanning",
		},
		"vulnerabilities": vulnerabilities,
		"remediations":    []any{},
	}, "", "  ")
}

// maxName is the schema's limit for a vulnerability's name, in characters.
const maxName = 255

func gitlabSeverity(s Severity) string { return string(s[:1]) + strings.ToLower(string(s[1:])) }

// Table writes the verdict for people: what stops the pipeline, what was set
// aside and why, and which database was asked.
func (r Report) Table(w io.Writer, v Verdict, now time.Time) error {
	fmt.Fprintf(w, "%s: %s\n", firstOf(r.Artifact, "scan"), CountsText(Counts(r.Findings)))
	if r.Database.UpdatedAt.IsZero() { // configuration and secrets need none
		fmt.Fprintln(w, r.Scanner)
	} else {
		fmt.Fprintf(w, "%s, database of %s (%s, %s)\n", r.Scanner, r.Database.UpdatedAt.UTC().Format(time.DateOnly), ageOf(r.Database.UpdatedAt, now), r.Database.Origin)
	}
	if r.Database.Demonstration {
		fmt.Fprintf(w, "NOTE: this is a demonstration database. %s\n", r.Database.Note)
	}
	if warning := r.Database.Warning(now); warning != "" {
		fmt.Fprintf(w, "WARNING: %s\n", warning)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "NOTE: %s\n", note)
	}
	rows := func(title string, list []Finding) {
		if len(list) == 0 {
			return
		}
		fmt.Fprintf(w, "\n%s\n", title)
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "SEVERITY\tID\tPACKAGE OR FILE\tINSTALLED\tFIXED IN\tTITLE")
		for _, f := range list {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Severity, f.ID, firstOf(f.Package, f.place()), f.Installed, f.Fixed, short(f.Title, 60))
		}
		t.Flush()
	}
	rows("Stopping:", v.Stopping)
	rows("Below the threshold:", v.Others)
	if len(v.Ignored) > 0 {
		fmt.Fprintf(w, "\nIgnored:\n")
		for _, f := range v.Ignored {
			fmt.Fprintf(w, "  %s %s %s until %s: %s\n", f.Severity, f.ID, firstOf(f.Package, f.place()), f.By.ExpiredAt.Format(time.DateOnly), f.By.Statement)
		}
	}
	for _, e := range v.Expired {
		fmt.Fprintf(w, "line %d: the exception for %s ended on %s: decide again\n", e.Line, e.ID, e.ExpiredAt.Format(time.DateOnly))
	}
	for _, e := range v.Unused {
		fmt.Fprintf(w, "line %d: the exception for %s matches nothing and can go\n", e.Line, e.ID)
	}
	_, err := fmt.Fprintln(w)
	return err
}

func (f Finding) place() string {
	if f.Line > 0 {
		return fmt.Sprintf("%s:%d", f.Target, f.Line)
	}
	return f.Target
}

func short(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return s
}

func ageOf(t, now time.Time) string {
	days := int(now.Sub(t) / (24 * time.Hour))
	switch {
	case days <= 0:
		return "of today"
	case days == 1:
		return "1 day old"
	}
	return fmt.Sprintf("%d days old", days)
}

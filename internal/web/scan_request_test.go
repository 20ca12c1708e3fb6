package web_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan/report"
)

// scanReport is GitLab's container-scanning report of an image with problems:
// "CVE-1 zlib1g 1.0 HIGH".
func scanReport(t *testing.T, problems ...string) []byte {
	t.Helper()
	var r report.Report
	for _, p := range problems {
		f := strings.Fields(p)
		r.Findings = append(r.Findings, report.Finding{Kind: report.Vulnerability, ID: f[0], Package: f[1], Installed: f[2], Severity: report.Severity(f[3]), Title: "about " + f[0]})
	}
	body, err := r.GitLab()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestScansAgainstTheTarget: a merge request shows what its pipeline's scans
// found and its target's did not; so does the pipeline, and both can be fetched.
func TestScansAgainstTheTarget(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("dev")
	s.person("guest")
	p := s.project("acme/scanned", map[string]string{".gitlab-ci.yml": "scan: {script: x}\n"}, map[string]delivery.Role{"dev": delivery.Developer, "guest": delivery.Guest})
	target := s.pushed(p)
	old := s.take()
	s.upload(old, "container_scanning", "raw", "gl.json", scanReport(t, "CVE-1 zlib1g 1.0 HIGH", "CVE-2 perl 5.36 CRITICAL"))
	s.end(old, "success", "")

	s.branch(p, "feature", map[string]string{"new.txt": "one\n"})
	link := s.post("dev", "/acme/scanned/-/merge_requests", "source_branch", "feature", "target_branch", "main", "title", "Change")
	s.count(s.page("dev", link), "#scan-diff", 0) // nothing was scanned yet
	spec := s.take()
	s.upload(spec, "container_scanning", "raw", "gl.json", scanReport(t, "CVE-1 zlib1g 1.0 HIGH", "CVE-3 curl 8.0 MEDIUM", "CVE-3 libcurl4 8.0 MEDIUM"))
	s.end(spec, "success", "")

	page := s.page("dev", link)
	s.has(page, "#scan-diff header", "2 new 1 fixed 1 as before")
	s.has(page, "#scan-diff", "Compared with pipeline #"+number(target.ID)+" of main.")
	s.count(page, "#scan-diff > .scroll tr", 2)
	s.has(page, "#scan-diff > .scroll", "CVE-3")
	s.has(page, "#scan-diff details", "CVE-2")

	made := "/acme/scanned/-/pipelines/" + number(spec.JobInfo.PipelineID)
	s.has(s.page("dev", made+"/security"), "#scan-diff header", "2 new 1 fixed 1 as before")
	for query, want := range map[string]string{"?format=sarif": `"ruleId": "CVE-1"`, "?format=gitlab": `"type": "container_scanning"`, "?format=json&new=1": `"id": "CVE-3"`} {
		resp := s.do("dev", http.MethodGet, made+"/scans"+query, nil)
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %v\n%s", query, resp.Status, err, body)
		}
		if fresh := strings.Contains(query, "new=1"); fresh == strings.Contains(string(body), "CVE-1") {
			t.Errorf("%s: what was there before: %v", query, !fresh)
		}
	}
	if got := s.status("dev", http.MethodGet, made+"/scans?format=pdf", nil); got != http.StatusUnprocessableEntity {
		t.Errorf("an unknown format: %d", got)
	}
	if got := s.status("guest", http.MethodGet, made+"/scans", nil); got != http.StatusForbidden {
		t.Errorf("a guest: %d", got)
	}
}

package web_test

import (
	"fmt"
	"strings"
	"testing"
)

const reportingJob = "job:\n  script: x\n  coverage: '/total (\\d+)%/'\n  artifacts:\n    reports:\n      junit: j.xml\n      codequality: q.json\n"

// reported runs the pipeline of a push, whose one job uploads reports: the
// failed tests among a, b and c, the findings by name, and a coverage.
func (s *site) reported(projectID int64, ref, failed, findings string, coverage int) {
	s.t.Helper()
	spec, err := s.runner.Request(s.ctx)
	s.must(err)
	if spec.GitInfo.Ref != ref || spec.JobInfo.ProjectID != projectID {
		s.t.Fatalf("a job of %s in project %d", spec.GitInfo.Ref, spec.JobInfo.ProjectID)
	}
	_, _, err = s.runner.Update(s.ctx, spec, "running", "", 0, nil)
	s.must(err)
	junit := "<testsuite>"
	for _, name := range []string{"a", "b", "c"} {
		junit += `<testcase classname="shop" name="test_` + name + `">`
		if strings.Contains(failed, name) {
			junit += `<failure message="no"/>`
		}
		junit += "</testcase>"
	}
	var quality []string
	for _, name := range strings.Fields(findings) {
		quality = append(quality, fmt.Sprintf(`{"description":%q,"fingerprint":%q,"severity":"major","location":{"path":"app.py","lines":{"begin":7}}}`, name, name))
	}
	for kind, body := range map[string]string{"junit": junit + "</testsuite>", "codequality": "[" + strings.Join(quality, ",") + "]"} {
		format, data := "raw", []byte(body)
		if kind == "junit" {
			format, data = "gzip", gzipped(body)
		}
		code, err := s.runner.Upload(s.ctx, spec, kind, format, "report", data)
		s.must(err)
		if code != 201 {
			s.t.Fatalf("upload of %s: %d", kind, code)
		}
	}
	log := fmt.Appendf(nil, "total %d%%\n", coverage)
	_, _, err = s.runner.Trace(s.ctx, spec, 0, log)
	s.must(err)
	code, _, err := s.runner.Update(s.ctx, spec, "success", "", 0, log)
	s.must(err)
	if code != 200 {
		s.t.Fatalf("end of the job: %d", code)
	}
}

func TestMergeRequestShowsReports(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	s.commit(p, "Add pipeline", map[string]string{".gitlab-ci.yml": reportingJob})
	s.reported(p.ID, "main", "ab", "old gone", 80)
	s.branch(p, "feature", map[string]string{"new.txt": "one\n"})
	const base = "/acme/plain/-/merge_requests"
	link := s.post("dev", base, "source_branch", "feature", "target_branch", "main", "title", "Add a file")
	s.count(s.page("dev", link), "#reports", 0)
	s.reported(p.ID, "feature", "bc", "old fresh", 85)
	page := s.page("dev", link)
	s.has(page, "#report-tests summary", "1 newly failed 1 fixed 3 in all")
	s.has(page, "#report-tests li", "new test_c")
	s.has(page, "#report-tests", "still test_b")
	s.has(page, "#report-tests", "fixed test_a")
	s.has(page, "#report-coverage", "85.00 % (+5.00)")
	s.has(page, "#report-codequality summary", "1 new 1 gone 1 as before")
	s.has(page, "#report-codequality li", "fresh app.py:7")
}

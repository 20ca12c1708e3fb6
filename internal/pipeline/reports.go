package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"
)

// maxReport bounds the bytes of a report that is parsed, unpacked.
const maxReport = 50 << 20

// parseReport reads an uploaded report and stores what is shown of it. A
// report that cannot be read keeps its file and shows the reason.
func (e *Engine) parseReport(ctx context.Context, a *Artifact) {
	parse := reportParsers[a.Type]
	if parse == nil {
		return
	}
	text, err := readReport(e.artifactPath(a.SHA256), maxReport)
	var result any
	if err == nil {
		result, err = parse(text)
	}
	if err != nil {
		e.log.Info("report not readable", "job", a.JobID, "type", a.Type, "err", err)
		result = map[string]string{"error": err.Error()}
	}
	body, err := json.Marshal(result)
	if err == nil {
		err = e.store.Update(ctx, func(tx Tx) error { return tx.SetReport(a.JobID, a.Type, body) })
	}
	if err != nil {
		e.log.Error("report not stored", "job", a.JobID, "type", a.Type, "err", err)
	}
}

var reportParsers = map[string]func([]byte) (any, error){
	"junit":               func(b []byte) (any, error) { return parseJUnit(b) },
	"cobertura":           func(b []byte) (any, error) { return parseCobertura(b) },
	"jacoco":              func(b []byte) (any, error) { return parseJaCoCo(b) },
	"codequality":         func(b []byte) (any, error) { return parseCodeQuality(b) },
	"sarif":               func(b []byte) (any, error) { return parseSARIF(b) },
	"container_scanning":  func(b []byte) (any, error) { return parseSecurity(b) },
	"dependency_scanning": func(b []byte) (any, error) { return parseSecurity(b) },
	"sast":                func(b []byte) (any, error) { return parseSecurity(b) },
	"secret_detection":    func(b []byte) (any, error) { return parseSecurity(b) },
	"dast":                func(b []byte) (any, error) { return parseSecurity(b) },
}

// TestReport is the outcome of a pipeline's tests, in the shape of GitLab's
// API (doc/api/pipelines). Times are seconds.
type TestReport struct {
	TotalTime    float64     `json:"total_time"`
	TotalCount   int         `json:"total_count"`
	SuccessCount int         `json:"success_count"`
	FailedCount  int         `json:"failed_count"`
	SkippedCount int         `json:"skipped_count"`
	ErrorCount   int         `json:"error_count"`
	Suites       []TestSuite `json:"test_suites"`
}

// TestSuite holds the tests of one job group.
type TestSuite struct {
	Name         string     `json:"name"`
	TotalTime    float64    `json:"total_time"`
	TotalCount   int        `json:"total_count"`
	SuccessCount int        `json:"success_count"`
	FailedCount  int        `json:"failed_count"`
	SkippedCount int        `json:"skipped_count"`
	ErrorCount   int        `json:"error_count"`
	Cases        []TestCase `json:"test_cases"`
	JobIDs       []int64    `json:"-"`
	Error        string     `json:"suite_error,omitempty"`
}

// TestCase is one test.
type TestCase struct {
	Status        string  `json:"status"` // success, failed, skipped or error
	Name          string  `json:"name"`
	Classname     string  `json:"classname"`
	File          string  `json:"file"`
	ExecutionTime float64 `json:"execution_time"`
	SystemOutput  string  `json:"system_output"`
	StackTrace    string  `json:"stack_trace"`
}

func (s *TestSuite) add(c TestCase) {
	s.Cases = append(s.Cases, c)
	s.TotalCount++
	s.TotalTime += c.ExecutionTime
	switch c.Status {
	case "success":
		s.SuccessCount++
	case "failed":
		s.FailedCount++
	case "skipped":
		s.SkippedCount++
	default:
		s.ErrorCount++
	}
}

// TestReport collects the JUnit reports of a pipeline: a suite for each job,
// instances of a parallel job together. Failed tests come first.
func (e *Engine) TestReport(ctx context.Context, pipelineID int64) (TestReport, error) {
	report := TestReport{Suites: []TestSuite{}}
	var bodies map[int64][]byte
	names := map[int64]string{}
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		if bodies, err = tx.Reports(pipelineID, "junit"); err != nil {
			return err
		}
		for id := range bodies {
			j, err := tx.Job(id)
			if err != nil {
				return err
			}
			names[id] = groupName(j.Name)
		}
		return nil
	})
	if err != nil {
		return report, err
	}
	ids := make([]int64, 0, len(bodies))
	for id := range bodies {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(a, b int) bool { return ids[a] < ids[b] })
	at := map[string]int{}
	for _, id := range ids {
		var part struct {
			Cases []TestCase `json:"cases"`
			Error string     `json:"error"`
		}
		if err := json.Unmarshal(bodies[id], &part); err != nil {
			return report, fmt.Errorf("pipeline: test report of job %d: %w", id, err)
		}
		i, ok := at[names[id]]
		if !ok {
			i = len(report.Suites)
			at[names[id]] = i
			report.Suites = append(report.Suites, TestSuite{Name: names[id], Cases: []TestCase{}})
		}
		s := &report.Suites[i]
		s.JobIDs = append(s.JobIDs, id)
		if part.Error != "" {
			s.Error = "JUnit XML parsing failed: " + part.Error
		}
		for _, c := range part.Cases {
			s.add(c)
		}
	}
	order := map[string]int{"failed": 0, "error": 1, "success": 2, "skipped": 3}
	for i := range report.Suites {
		s := &report.Suites[i]
		sort.SliceStable(s.Cases, func(a, b int) bool { return order[s.Cases[a].Status] < order[s.Cases[b].Status] })
		report.TotalTime += s.TotalTime
		report.TotalCount += s.TotalCount
		report.SuccessCount += s.SuccessCount
		report.FailedCount += s.FailedCount
		report.SkippedCount += s.SkippedCount
		report.ErrorCount += s.ErrorCount
	}
	return report, nil
}

// groupName is a job's name without its place among parallel instances.
func groupName(name string) string {
	if i := strings.Index(name, ": ["); i > 0 && strings.HasSuffix(name, "]") {
		return name[:i]
	}
	i := strings.LastIndexByte(name, ' ')
	if i < 0 {
		return name
	}
	var a, b int
	if n, err := fmt.Sscanf(name[i+1:], "%d/%d", &a, &b); n == 2 && err == nil {
		return name[:i]
	}
	return name
}

// Finding is one problem of a code quality or security report.
type Finding struct {
	Severity    string `json:"severity"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	File        string `json:"file,omitempty"`
	Line        int    `json:"line,omitempty"`
	Package     string `json:"package,omitempty"`
	Version     string `json:"version,omitempty"`
	Solution    string `json:"solution,omitempty"`
	Identifier  string `json:"identifier,omitempty"`
	Link        string `json:"link,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Job         string `json:"job,omitempty"`
}

// FindingKinds are the report types that hold findings.
var FindingKinds = []string{"codequality", "sarif", "container_scanning", "dependency_scanning", "sast", "secret_detection", "dast"}

// Findings collects the findings of one report type of a pipeline, the worst
// first. The texts are reasons why reports could not be read, by job.
func (e *Engine) Findings(ctx context.Context, pipelineID int64, kind string) ([]Finding, map[string]string, error) {
	var out []Finding
	failed := map[string]string{}
	err := e.store.View(ctx, func(tx Tx) error {
		bodies, err := tx.Reports(pipelineID, kind)
		if err != nil {
			return err
		}
		for id, body := range bodies {
			j, err := tx.Job(id)
			if err != nil {
				return err
			}
			var part struct {
				Findings []Finding `json:"findings"`
				Error    string    `json:"error"`
			}
			if err := json.Unmarshal(body, &part); err != nil {
				return fmt.Errorf("pipeline: %s report of job %d: %w", kind, id, err)
			}
			if part.Error != "" {
				failed[j.Name] = part.Error
			}
			for _, f := range part.Findings {
				f.Job = j.Name
				out = append(out, f)
			}
		}
		return nil
	})
	sort.SliceStable(out, func(a, b int) bool {
		if ra, rb := severityRank(out[a].Severity), severityRank(out[b].Severity); ra != rb {
			return ra < rb
		}
		if out[a].File != out[b].File {
			return out[a].File < out[b].File
		}
		return out[a].Line < out[b].Line
	})
	return out, failed, err
}

func severityRank(s string) int {
	for i, name := range []string{"blocker", "critical", "high", "major", "error", "medium", "warning", "minor", "low", "note", "info"} {
		if s == name {
			return i
		}
	}
	return 100
}

// FileCoverage says which lines of a file tests ran: hits by line.
type FileCoverage map[int]int

// LineCoverage collects the coverage reports of a pipeline by file.
func (e *Engine) LineCoverage(ctx context.Context, pipelineID int64) (map[string]FileCoverage, error) {
	out := map[string]FileCoverage{}
	err := e.store.View(ctx, func(tx Tx) error {
		for _, kind := range []string{"cobertura", "jacoco"} {
			bodies, err := tx.Reports(pipelineID, kind)
			if err != nil {
				return err
			}
			for id, body := range bodies {
				var part struct {
					Files map[string]FileCoverage `json:"files"`
				}
				if err := json.Unmarshal(body, &part); err != nil {
					return fmt.Errorf("pipeline: coverage report of job %d: %w", id, err)
				}
				for file, lines := range part.Files {
					if out[file] == nil {
						out[file] = FileCoverage{}
					}
					for line, hits := range lines {
						out[file][line] = max(out[file][line], hits)
					}
				}
			}
		}
		return nil
	})
	return out, err
}

// Coverage is the mean of what the pipeline's jobs found in their logs, in
// percent; nil when none did.
func (e *Engine) Coverage(ctx context.Context, pipelineID int64) (*float64, error) {
	var sum float64
	n := 0
	err := e.store.View(ctx, func(tx Tx) error {
		jobs, err := tx.PipelineJobs(pipelineID)
		for i := range jobs {
			if c := jobs[i].Coverage; c != nil {
				sum += *c
				n++
			}
		}
		return err
	})
	if err != nil || n == 0 {
		return nil, err
	}
	mean := sum / float64(n)
	return &mean, nil
}

// PipelineDuration is the time in which at least one job of the pipeline was
// running, which leaves out what it waited for people.
func (e *Engine) PipelineDuration(ctx context.Context, p *Pipeline) (time.Duration, error) {
	var jobs []Job
	if err := e.store.View(ctx, func(tx Tx) error {
		var err error
		jobs, err = tx.PipelineJobs(p.ID)
		return err
	}); err != nil {
		return 0, err
	}
	return busy(jobs, e.clock.Now()), nil
}

// busy is the length of the union of the times in which the jobs ran.
func busy(jobs []Job, now time.Time) time.Duration {
	type span struct{ from, to time.Time }
	var spans []span
	for i := range jobs {
		if jobs[i].StartedAt.IsZero() {
			continue
		}
		to := jobs[i].FinishedAt
		if to.IsZero() {
			to = now
		}
		spans = append(spans, span{jobs[i].StartedAt, to})
	}
	sort.Slice(spans, func(a, b int) bool { return spans[a].from.Before(spans[b].from) })
	var total time.Duration
	var end time.Time
	for _, s := range spans {
		if s.from.Before(end) {
			s.from = end
		}
		if s.to.After(s.from) {
			total += s.to.Sub(s.from)
			end = s.to
		}
	}
	return total
}

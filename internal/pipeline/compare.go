package pipeline

import (
	"context"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Comparison is what the reports of a pipeline say beside those of another, as
// a merge request shows it.
type Comparison struct {
	Head, Base             int64 // numbers; Base is 0 where there is nothing to compare with
	Tests                  *TestComparison
	Coverage, BaseCoverage *float64 // percent
	Findings               []FindingComparison
}

// Empty reports whether the pipeline has no report.
func (c *Comparison) Empty() bool {
	return c.Tests == nil && c.Coverage == nil && len(c.Findings) == 0
}

// TestComparison tells which tests fail since the base, still, and no more.
type TestComparison struct {
	Total, Failed         int
	Broken, Failing, Good []ComparedTest
}

// ComparedTest is a test and where it belongs.
type ComparedTest struct {
	Suite string
	TestCase
}

// FindingComparison is one kind of findings: those that are new, those that are
// gone, and how many are in both.
type FindingComparison struct {
	Kind      string // of FindingKinds
	New, Gone []Finding
	Same      int
}

// CompareReports compares the reports of two pipelines; base may be 0.
func (e *Engine) CompareReports(ctx context.Context, head, base int64) (Comparison, error) {
	c := Comparison{Head: head, Base: base}
	var err error
	if c.Tests, err = e.compareTests(ctx, head, base); err != nil {
		return c, err
	}
	if c.Coverage, err = e.Coverage(ctx, head); err != nil {
		return c, err
	}
	if base != 0 {
		if c.BaseCoverage, err = e.Coverage(ctx, base); err != nil {
			return c, err
		}
	}
	for _, kind := range FindingKinds {
		// A pipeline without such a report did not look: nothing is gone.
		if looked, err := e.hasReport(ctx, head, kind); err != nil || !looked {
			if err != nil {
				return c, err
			}
			continue
		}
		found, _, err := e.Findings(ctx, head, kind)
		if err != nil {
			return c, err
		}
		var before []Finding
		if base != 0 {
			if before, _, err = e.Findings(ctx, base, kind); err != nil {
				return c, err
			}
		}
		c.Findings = append(c.Findings, compareFindings(kind, found, before))
	}
	return c, nil
}

func (e *Engine) hasReport(ctx context.Context, pipelineID int64, kind string) (bool, error) {
	found := false
	err := e.store.View(ctx, func(tx Tx) error {
		bodies, err := tx.Reports(pipelineID, kind)
		found = len(bodies) > 0
		return err
	})
	return found, err
}

func (e *Engine) compareTests(ctx context.Context, head, base int64) (*TestComparison, error) {
	now, err := e.TestReport(ctx, head)
	if err != nil {
		return nil, err
	}
	if len(now.Suites) == 0 {
		return nil, nil
	}
	var before TestReport
	if base != 0 {
		if before, err = e.TestReport(ctx, base); err != nil {
			return nil, err
		}
	}
	failed := func(t *TestCase) bool { return t.Status == "failed" || t.Status == "error" }
	each := func(r *TestReport, fn func(key string, t ComparedTest)) {
		for i := range r.Suites {
			for _, t := range r.Suites[i].Cases {
				fn(strings.Join([]string{r.Suites[i].Name, t.Classname, t.File, t.Name}, "\x00"), ComparedTest{r.Suites[i].Name, t})
			}
		}
	}
	failedBefore := map[string]bool{}
	each(&before, func(key string, t ComparedTest) {
		if failed(&t.TestCase) {
			failedBefore[key] = true
		}
	})
	c := &TestComparison{Total: now.TotalCount, Failed: now.FailedCount + now.ErrorCount}
	each(&now, func(key string, t ComparedTest) {
		switch {
		case failed(&t.TestCase) && failedBefore[key]:
			c.Failing = append(c.Failing, t)
		case failed(&t.TestCase):
			c.Broken = append(c.Broken, t)
		case failedBefore[key] && t.Status == "success":
			c.Good = append(c.Good, t)
		}
	})
	return c, nil
}

// findingKey is what makes two findings the same: the report's own fingerprint,
// or what it is and where; lines move.
func findingKey(f *Finding) string {
	if f.Fingerprint != "" {
		return f.Fingerprint
	}
	return strings.Join([]string{f.Identifier, f.Name, f.File, f.Package, f.Version}, "\x00")
}

func compareFindings(kind string, now, before []Finding) FindingComparison {
	c := FindingComparison{Kind: kind}
	left := map[string]int{}
	for i := range before {
		left[findingKey(&before[i])]++
	}
	for i := range now {
		if key := findingKey(&now[i]); left[key] > 0 {
			left[key]--
			c.Same++
		} else {
			c.New = append(c.New, now[i])
		}
	}
	for i := range before {
		if key := findingKey(&before[i]); left[key] > 0 {
			left[key]--
			c.Gone = append(c.Gone, before[i])
		}
	}
	return c
}

// CompareMergeRequest compares the newest pipeline of a merge request's head
// with that of the commit it started from or, where none ran for that, the
// newest one of the target branch. An empty comparison means that there is
// nothing to show.
func (e *Engine) CompareMergeRequest(ctx context.Context, m *delivery.MergeRequest) (Comparison, error) {
	head, _, err := e.HeadPipeline(ctx, m.ProjectID, m.HeadSHA)
	if err != nil || head == 0 {
		return Comparison{}, err
	}
	var base Pipeline
	err = e.store.View(ctx, func(tx Tx) error {
		err := error(&delivery.Error{Kind: delivery.NotFound})
		if m.BaseSHA != "" {
			base, err = tx.LatestPipeline(m.ProjectID, "", m.BaseSHA)
		}
		if delivery.IsNotFound(err) {
			base, err = tx.LatestPipeline(m.ProjectID, m.TargetBranch, "")
		}
		return err
	})
	if err != nil && !delivery.IsNotFound(err) {
		return Comparison{}, err
	}
	if base.ID == head {
		base.ID = 0
	}
	return e.CompareReports(ctx, head, base.ID)
}

package web

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// reportsShown is how many entries of a list a merge request shows.
const reportsShown = 50

// reportsView is what the reports of a merge request's pipeline say, beside
// those of its target.
type reportsView struct {
	pipeline.Comparison
	Link     string // of the pipeline
	Coverage string // with the change since the target
	Findings []reportsFindings
	More     int // tests that are not listed
}

type reportsFindings struct {
	pipeline.FindingComparison
	Name string
	More int // new findings that are not listed
}

// ciCompare compares the reports for a merge request's page; nil where there
// are none.
func (s *Server) ciCompare(project *delivery.Project, m delivery.MergeRequest) (*reportsView, error) {
	if s.Pipelines == nil || project == nil || m.HeadSHA == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := s.Pipelines.CompareMergeRequest(ctx, &m)
	if err != nil || c.Empty() {
		return nil, err
	}
	v := &reportsView{Comparison: c, Link: projectPath(project.FullPath, "pipelines", strconv.FormatInt(c.Head, 10))}
	if c.Coverage != nil {
		v.Coverage = fmt.Sprintf("%.2f %%", *c.Coverage)
		if c.BaseCoverage != nil {
			v.Coverage += fmt.Sprintf(" (%+.2f)", *c.Coverage-*c.BaseCoverage)
		}
	}
	if c.Tests != nil {
		v.More = max(0, len(c.Tests.Broken)-reportsShown)
		c.Tests.Broken = c.Tests.Broken[:len(c.Tests.Broken)-v.More]
		c.Tests.Failing = c.Tests.Failing[:min(len(c.Tests.Failing), reportsShown)]
		c.Tests.Good = c.Tests.Good[:min(len(c.Tests.Good), reportsShown)]
	}
	for _, f := range c.Findings {
		one := reportsFindings{FindingComparison: f, Name: findingNames[f.Kind], More: max(0, len(f.New)-reportsShown)}
		one.New = one.New[:len(one.New)-one.More]
		one.Gone = one.Gone[:min(len(one.Gone), reportsShown)]
		v.Findings = append(v.Findings, one)
	}
	return v, nil
}

package metrics

import (
	"context"
	"errors"
	"net/url"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/slipwayhq/slipway/internal/observe"
)

// The words of results are shared with the pages.
type (
	Series      = observe.Series
	Point       = observe.Point
	Result      = observe.Result
	TargetState = observe.TargetState
	Problem     = observe.Problem
)

// ErrNotOpen says that queries cannot be answered yet.
var ErrNotOpen = errors.New("metrics: the time series database is being opened")

// Query evaluates a PromQL expression at one time.
func (m *Metrics) Query(ctx context.Context, expr string, at time.Time) (Result, error) {
	if !m.opened.Load() {
		return Result{}, ErrNotOpen
	}
	q, err := m.engine.NewInstantQuery(ctx, m.db, promql.NewPrometheusQueryOpts(false, 0), expr, at)
	if err != nil {
		return Result{}, err
	}
	return evaluate(ctx, q, at)
}

// QueryRange evaluates a PromQL expression from start to end, every step.
func (m *Metrics) QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (Result, error) {
	if !m.opened.Load() {
		return Result{}, ErrNotOpen
	}
	if step <= 0 {
		return Result{}, errors.New("metrics: the step must be positive")
	}
	if end.Sub(start)/step > 11000 {
		return Result{}, errors.New("metrics: more than 11000 points per series; choose a longer step")
	}
	q, err := m.engine.NewRangeQuery(ctx, m.db, promql.NewPrometheusQueryOpts(false, 0), expr, start, end, step)
	if err != nil {
		return Result{}, err
	}
	return evaluate(ctx, q, end)
}

func evaluate(ctx context.Context, q promql.Query, at time.Time) (Result, error) {
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return Result{}, res.Err
	}
	out := Result{Kind: string(res.Value.Type())}
	warnings, infos := res.Warnings.AsStrings(q.String(), 10, 10)
	out.Warnings = append(warnings, infos...)
	switch v := res.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			value := s.F
			if s.H != nil {
				value = s.H.Sum
			}
			out.Series = append(out.Series, Series{Labels: s.Metric.Map(), Points: []Point{{At: time.UnixMilli(s.T), Value: value}}})
		}
	case promql.Matrix:
		for _, s := range v {
			series := Series{Labels: s.Metric.Map()}
			for _, p := range s.Floats {
				series.Points = append(series.Points, Point{At: time.UnixMilli(p.T), Value: p.F})
			}
			for _, p := range s.Histograms {
				series.Points = append(series.Points, Point{At: time.UnixMilli(p.T), Value: p.H.Sum})
			}
			out.Series = append(out.Series, series)
		}
	case promql.Scalar:
		out.Series = []Series{{Points: []Point{{At: time.UnixMilli(v.T), Value: v.V}}}}
	case promql.String:
		out.Text = v.V
	}
	return out, nil
}

// Targets lists the targets with the outcome of their last scrape.
func (m *Metrics) Targets() []TargetState {
	if !m.opened.Load() {
		return nil
	}
	var out []TargetState
	b := labels.NewBuilder(labels.EmptyLabels())
	for pool, targets := range m.scrapes.TargetsActive() {
		for _, t := range targets {
			full, short := addressOf(t.URL())
			s := TargetState{
				Pool: pool, URL: short, Labels: t.Labels(b).Map(), Health: string(t.Health()),
				LastAt: t.LastScrape(), Took: t.LastScrapeDuration(),
			}
			if err := t.LastError(); err != nil {
				s.LastError = strings.ReplaceAll(err.Error(), full, short)
			}
			out = append(out, s)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Pool != out[j].Pool {
			return out[i].Pool < out[j].Pool
		}
		return out[i].URL < out[j].URL
	})
	return out
}

// addressOf returns the address of a scrape, and the same without the names of
// the metrics that are asked for, which nobody could read.
func addressOf(u *url.URL) (full, short string) {
	full = u.String()
	q := u.Query()
	if !q.Has(paramNames) {
		return full, full
	}
	q.Del(paramNames)
	without := *u
	without.RawQuery = q.Encode()
	return full, without.String()
}

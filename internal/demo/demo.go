// Package demo plays the seed story on a running instance: a sample application
// goes from git push to a watched, reversible release, four times, and every
// step is checked on what a user would see.
//
// It uses only what users have: the REST API, git over HTTP, the ingress, and
// the cluster's resources through the clients of gitops and rollout. It emits a
// Report. It must not reach into the store or into any stage.
package demo

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go"

	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/rollout"
)

// Options say which instance to use and what to push.
type Options struct {
	URL        string // base URL of web, API, git and registry
	Token      string // a personal access token of an administrator
	Ingress    string // host:port of the applications' ingress
	Domain     string // domain of the applications
	Files      fs.FS  // folders sample-fastapi-app and gitops-configs
	Apps       *gitops.Client
	Rollouts   *rollout.Client
	Prepare    func(ctx context.Context, say func(format string, args ...any)) error // base images, scan database
	Group      string                                                                // default "demo"
	Say        func(format string, args ...any)                                      // progress for people
	StepWithin time.Duration                                                         // deadline of one step; default 10 min
}

// Step is one proven (or failed) step.
type Step struct {
	Name    string  `json:"name"`
	Proven  string  `json:"proven,omitempty"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
	Look    string  `json:"look,omitempty"` // where to look when it failed
}

// Share is the part of a release that one stage took. Stages overlap: a share
// is the time by which a stage ended after all that ended before it.
type Share struct {
	Stage   string  `json:"stage"`
	Seconds float64 `json:"seconds"` // from the push to the stage's end
	Share   float64 `json:"share"`   // seconds; the shares add up to the last end
}

// apart puts shares in the order of their ends and tells them apart.
func apart(list []Share) []Share {
	slices.SortStableFunc(list, func(a, b Share) int { return cmp.Compare(a.Seconds, b.Seconds) })
	before := 0.0
	for i := range list {
		list[i].Share = list[i].Seconds - before
		before = list[i].Seconds
	}
	return list
}

// Report is the outcome of the whole story.
type Report struct {
	Steps     []Step            `json:"steps"`
	Seconds   float64           `json:"seconds"`
	Release   []Share           `json:"release,omitempty"` // of the second release, push to first request served
	Addresses map[string]string `json:"addresses"`
	OK        bool              `json:"ok"`
}

// Demo is one run.
type Demo struct {
	Options
	api    *gitlab.Client
	app    *repository
	config *repository
	report Report
	shares []Share
}

// New checks the options.
func New(o Options) (*Demo, error) {
	if o.Group == "" {
		o.Group = "demo"
	}
	if o.StepWithin == 0 {
		o.StepWithin = 10 * time.Minute
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	api, err := gitlab.NewClient(o.Token, gitlab.WithBaseURL(o.URL+"/api/v4"))
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return &Demo{Options: o, api: api}, nil
}

// chapter is a step of the story.
type chapter struct {
	name string
	look string
	play func(ctx context.Context) (proven string, err error)
}

// Run plays the story. It stops at the first step that does not hold; the
// report then names it. The error is only for a context that ended.
func (d *Demo) Run(ctx context.Context) (Report, error) {
	began := time.Now()
	d.report = Report{Addresses: d.addresses()}
	for _, c := range []chapter{
		{"prepare", "slipway logs slipway", d.prepare},
		{"create projects", d.URL + "/" + d.Group, d.createProjects},
		{"v1.0.0: first release", d.URL + "/" + d.Group + "/shortener/-/pipelines", d.firstRelease},
		{"v1.1.0: canary, promoted", d.URL + "/-/rollouts", d.goodCanary},
		{"v1.2.0-bad: rolled back", d.URL + "/-/rollouts", d.badCanary},
		{"blue-green: switch and back", d.URL + "/-/rollouts", d.blueGreen},
	} {
		d.Say("\n== %s", c.name)
		step := Step{Name: c.name}
		start := time.Now()
		within, cancel := context.WithTimeout(ctx, d.StepWithin)
		proven, err := c.play(within)
		cancel()
		step.Seconds = time.Since(start).Seconds()
		if err != nil {
			step.Error, step.Look = err.Error(), c.look
			d.report.Steps = append(d.report.Steps, step)
			d.report.Seconds = time.Since(began).Seconds()
			return d.report, ctx.Err()
		}
		step.Proven = proven
		d.Say("   %s (%.1f s)", proven, step.Seconds)
		d.report.Steps = append(d.report.Steps, step)
	}
	d.report.OK = true
	d.report.Release = apart(d.shares)
	d.report.Seconds = time.Since(began).Seconds()
	return d.report, nil
}

func (d *Demo) host(name string) string { return name + "." + d.Domain }

func (d *Demo) addresses() map[string]string {
	_, port := splitPort(d.Ingress)
	url := func(name string) string {
		if port == "80" {
			return "http://" + d.host(name)
		}
		return "http://" + d.host(name) + ":" + port
	}
	return map[string]string{
		"web":                 d.URL + "/" + d.Group + "/shortener",
		"production":          url("shortener"),
		"staging":             url("shortener-staging"),
		"blue-green":          url("shortener-blue-green"),
		"blue-green, preview": url("shortener-preview"),
	}
}

// prepare makes what the pipelines start from.
func (d *Demo) prepare(ctx context.Context) (string, error) {
	if d.Prepare == nil {
		return "nothing to prepare", nil
	}
	if err := d.Prepare(ctx, d.Say); err != nil {
		return "", err
	}
	return "base image and vulnerability database are there", nil
}

package ci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// coordinator hands the jobs of one plan to a runner in this process, by the same state machine as a
// server. It implements delivery.Coordinator. A job's ID is its index in the plan plus one.
type coordinator struct {
	plan      *gitlabci.Pipeline
	event     gitlabci.Context
	snapshot  *snapshot
	artifacts string // folder
	printer   *printer
	// credentials let jobs pull images.
	credentials []delivery.JobCredential
	done        chan struct{} // closed when no job is left

	mu     sync.Mutex
	state  *process.Pipeline
	jobs   []localJob
	wake   chan struct{} // closed and replaced when the state changes
	closed bool
}

// localJob is what the coordinator knows of a job besides its state.
type localJob struct {
	handedOut      bool
	started, ended time.Time
	exitCode       int
	reason         string
	note           string // why it was not run
	trace          []byte // what is not printed yet
	traceSize      int64
	archive        string // file, when it uploaded one
	dotenv         gitlabci.Variables
}

func newCoordinator(plan *gitlabci.Pipeline, event gitlabci.Context, s *snapshot, dir string, p *printer, wanted []string) (*coordinator, error) {
	c := &coordinator{
		plan: plan, event: event, snapshot: s, artifacts: filepath.Join(dir, "artifacts"), printer: p,
		done: make(chan struct{}), wake: make(chan struct{}), jobs: make([]localJob, len(plan.Jobs)),
	}
	if err := os.MkdirAll(c.artifacts, 0o700); err != nil {
		return nil, err
	}
	index := make(map[string]int, len(plan.Jobs))
	for i := range plan.Jobs {
		index[plan.Jobs[i].Name] = i
	}
	jobs := make([]process.Job, len(plan.Jobs))
	for i := range plan.Jobs {
		g := &plan.Jobs[i]
		when, err := process.ParseWhen(g.When)
		if err != nil {
			return nil, err
		}
		jobs[i] = process.Job{
			Name: g.Name, Stage: g.StageIndex, When: when, AllowFailure: g.AllowFailure, DAG: g.Needs != nil, Bridge: g.Trigger != nil,
			Immediate: namedAny(g, wanted),
		}
		for _, n := range g.Needs {
			if k, ok := index[n.Job]; ok {
				jobs[i].Needs = append(jobs[i].Needs, k)
			}
		}
		c.jobs[i].note = c.refuse(g, namedAny(g, wanted))
	}
	var err error
	if c.state, err = process.New(plan.Stages, jobs); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Process()
	c.settle()
	return c, nil
}

func namedAny(g *gitlabci.Job, names []string) bool {
	for _, name := range names {
		if named(g, name) {
			return true
		}
	}
	return false
}

// refuse says why a job is not run here, or "".
func (c *coordinator) refuse(g *gitlabci.Job, wanted bool) string {
	switch {
	case g.Trigger != nil:
		return "other pipelines are not started from a working copy"
	case len(g.Script) == 0:
		return "it has no script"
	case g.Environment != nil && !wanted && (g.Environment.Action == "start" || g.Environment.Action == "stop"):
		return "it deploys to " + g.Environment.Name + "; name it to run it"
	}
	return ""
}

// settle moves on what needs no runner: jobs that are not run here and delayed ones, which start at
// once. It tells waiting requests about the change. The lock is held.
func (c *coordinator) settle() {
	for moved := true; moved; {
		moved = false
		for i := range c.state.Jobs {
			j := &c.state.Jobs[i]
			switch {
			case j.Status == process.Scheduled:
				moved = c.state.Apply(i, process.EventDue) == nil || moved
			case j.Status == process.Pending && c.jobs[i].note != "":
				event := process.EventSkip
				if c.plan.Jobs[i].Trigger != nil {
					event = process.EventSuccess
				}
				moved = c.state.Apply(i, event) == nil || moved
			}
		}
	}
	close(c.wake)
	c.wake = make(chan struct{})
	for i := range c.state.Jobs {
		if s := c.state.Jobs[i].Status; s != process.Created && s.Alive() {
			return
		}
	}
	if !c.closed {
		c.closed = true
		close(c.done)
	}
}

// RequestJob implements delivery.Coordinator.
func (c *coordinator) RequestJob(ctx context.Context, _ delivery.RunnerSession) (*delivery.JobSpec, error) {
	for {
		c.mu.Lock()
		for i := range c.state.Jobs {
			if c.state.Jobs[i].Status == process.Pending && !c.jobs[i].handedOut {
				c.jobs[i].handedOut = true
				spec := c.spec(i)
				c.mu.Unlock()
				return spec, nil
			}
		}
		wake := c.wake
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-wake:
		}
	}
}

// job finds a job by its ID; the lock is held.
func (c *coordinator) job(id int64) (int, *localJob, error) {
	if id < 1 || id > int64(len(c.jobs)) {
		return 0, nil, delivery.Errorf(delivery.NotFound, "there is no job %d", id)
	}
	return int(id - 1), &c.jobs[id-1], nil
}

// UpdateJob implements delivery.Coordinator.
func (c *coordinator) UpdateJob(_ context.Context, id int64, _ string, u delivery.JobUpdate) (delivery.JobAck, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, l, err := c.job(id)
	if err != nil {
		return delivery.JobAck{}, err
	}
	if u.State == delivery.JobPending { // it waits for its share of the memory
		return delivery.JobAck{Status: c.state.Jobs[i].Status.String()}, nil
	}
	if u.State == delivery.JobRunning {
		if c.state.Jobs[i].Status == process.Pending {
			l.started = time.Now()
			c.printer.start(c.plan.Jobs[i].Name)
			err = c.state.Apply(i, process.EventRun)
		}
		return delivery.JobAck{Status: c.state.Jobs[i].Status.String(), TraceSize: l.traceSize}, err
	}
	l.ended, l.exitCode, l.reason = time.Now(), u.ExitCode, u.FailureReason
	c.printer.trace(c.plan.Jobs[i].Name, l.trace, true)
	l.trace = nil
	if u.State == delivery.JobSuccess {
		err = c.state.Apply(i, process.EventSuccess)
	} else {
		err = c.failed(i, u)
	}
	c.settle()
	return delivery.JobAck{Status: c.state.Jobs[i].Status.String(), TraceSize: l.traceSize}, err
}

// failed lets a job fail, and tries it again where its retry says so.
func (c *coordinator) failed(i int, u delivery.JobUpdate) error {
	g := &c.plan.Jobs[i]
	for _, code := range g.AllowFailureExitCodes {
		if code == u.ExitCode {
			c.state.Jobs[i].AllowFailure = true
		}
	}
	if g.Retry == nil || c.state.Jobs[i].Attempt >= g.Retry.Max || !retried(g.Retry, u) {
		return c.state.Apply(i, process.EventDrop)
	}
	if err := c.state.Change(i, process.EventDrop); err != nil {
		return err
	}
	c.jobs[i] = localJob{}
	c.printer.note(g.Name, "failed; it is tried again")
	return c.state.Apply(i, process.EventRetry)
}

func retried(r *gitlabci.Retry, u delivery.JobUpdate) bool {
	for _, code := range r.ExitCodes {
		if code == u.ExitCode {
			return true
		}
	}
	for _, reason := range r.When {
		if reason == "always" || reason == u.FailureReason {
			return true
		}
	}
	return false
}

// AppendTrace implements delivery.Coordinator.
func (c *coordinator) AppendTrace(_ context.Context, id int64, _ string, offset int64, data []byte) (delivery.JobAck, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, l, err := c.job(id)
	if err != nil {
		return delivery.JobAck{}, err
	}
	ack := delivery.JobAck{Status: c.state.Jobs[i].Status.String(), TraceSize: l.traceSize}
	known := l.traceSize - offset
	if known < 0 {
		return ack, delivery.Errorf(delivery.Conflict, "the trace has %d bytes, not %d", l.traceSize, offset)
	}
	if known >= int64(len(data)) {
		return ack, nil
	}
	l.trace = append(l.trace, data[known:]...)
	l.traceSize += int64(len(data)) - known
	if end := bytes.LastIndexByte(l.trace, '\n'); end >= 0 {
		c.printer.trace(c.plan.Jobs[i].Name, l.trace[:end+1], false)
		l.trace = append([]byte(nil), l.trace[end+1:]...)
	}
	ack.TraceSize = l.traceSize
	return ack, nil
}

// UploadArtifact implements delivery.Coordinator.
func (c *coordinator) UploadArtifact(_ context.Context, id int64, _ string, a delivery.ArtifactUpload, body io.Reader) error {
	name := filepath.Join(c.artifacts, fmt.Sprintf("%d-%s-%s", id, filepath.Base(a.Type), filepath.Base(a.Filename)))
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, body)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, l, err := c.job(id)
	if err != nil {
		return err
	}
	switch a.Type {
	case "archive":
		l.archive = name
	case "dotenv":
		l.dotenv, err = readDotenv(name)
	}
	return err
}

// DownloadArtifact implements delivery.Coordinator.
func (c *coordinator) DownloadArtifact(_ context.Context, id int64, _ string) (delivery.ArtifactFile, error) {
	c.mu.Lock()
	_, l, err := c.job(id)
	name := ""
	if err == nil {
		name = l.archive
	}
	c.mu.Unlock()
	if err != nil {
		return delivery.ArtifactFile{}, err
	}
	if name == "" {
		return delivery.ArtifactFile{}, delivery.Errorf(delivery.NotFound, "the job has no artifacts")
	}
	file, err := os.Open(name)
	if err != nil {
		return delivery.ArtifactFile{}, err
	}
	info, err := file.Stat()
	if err != nil {
		return delivery.ArtifactFile{}, errors.Join(err, file.Close())
	}
	return delivery.ArtifactFile{Filename: filepath.Base(name), Size: info.Size(), Body: file}, nil
}

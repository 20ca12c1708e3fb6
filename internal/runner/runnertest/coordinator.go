// Package runnertest has what tests of the runner share: a coordinator in
// memory and the conformance suite that every executor must pass.
//
// It owns no production behaviour and is imported by tests only.
package runnertest

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"regexp"
	"strings"
	"sync"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Coordinator is a delivery.Coordinator in memory that checks the protocol's
// rules. It is safe for concurrent use.
type Coordinator struct {
	mu      sync.Mutex
	queue   []*delivery.JobSpec
	jobs    map[int64]*Job
	changed chan struct{}
	// LoseTraces makes that many final updates answer "trace invalid".
	LoseTraces int
}

// Job is what the coordinator knows of a job.
type Job struct {
	Spec      *delivery.JobSpec
	Status    string // pending, running, canceling, success, failed
	Update    delivery.JobUpdate
	Waiting   []string // what it waited for before it was accepted
	Trace     []byte
	Artifacts map[string][]byte // by type
	Names     map[string]string // file names by type
}

// NewCoordinator returns an empty coordinator.
func NewCoordinator() *Coordinator {
	return &Coordinator{jobs: map[int64]*Job{}, changed: make(chan struct{})}
}

// Push queues a job.
func (c *Coordinator) Push(spec *delivery.JobSpec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, spec)
	c.jobs[spec.ID] = &Job{Spec: spec, Status: "pending", Artifacts: map[string][]byte{}, Names: map[string]string{}}
	c.notify()
}

// Adopt makes a job known as running without queueing it.
func (c *Coordinator) Adopt(spec *delivery.JobSpec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs[spec.ID] = &Job{Spec: spec, Status: "running", Artifacts: map[string][]byte{}, Names: map[string]string{}}
}

// Cancel asks for a job's cancellation.
func (c *Coordinator) Cancel(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if job := c.jobs[id]; job.Status == "pending" || job.Status == "running" {
		job.Status = "canceling"
	}
	c.notify()
}

func (c *Coordinator) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Wait waits until the job is known and as the condition wants it and returns a
// copy.
func (c *Coordinator) Wait(ctx context.Context, id int64, condition func(Job) bool) (Job, error) {
	for {
		c.mu.Lock()
		var job Job
		known := c.jobs[id] != nil
		if known {
			job = *c.jobs[id]
			job.Trace = bytes.Clone(job.Trace)
		}
		changed := c.changed
		c.mu.Unlock()
		if known && condition(job) {
			return job, nil
		}
		select {
		case <-ctx.Done():
			return job, fmt.Errorf("job %d is %s: %w; trace:\n%s", id, job.Status, ctx.Err(), job.Trace)
		case <-changed:
		}
	}
}

// Finished waits for the job's final report.
func (c *Coordinator) Finished(ctx context.Context, id int64) (Job, error) {
	return c.Wait(ctx, id, func(job Job) bool { return job.Status == "success" || job.Status == "failed" })
}

// RequestJob implements delivery.Coordinator.
func (c *Coordinator) RequestJob(ctx context.Context, _ delivery.RunnerSession) (*delivery.JobSpec, error) {
	for {
		c.mu.Lock()
		if len(c.queue) > 0 {
			spec := c.queue[0]
			c.queue = c.queue[1:]
			c.mu.Unlock()
			return spec, nil
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

func (c *Coordinator) find(id int64, token string) (*Job, error) {
	job := c.jobs[id]
	if job == nil || job.Spec.Token != token {
		return nil, delivery.Errorf(delivery.Forbidden, "no such job")
	}
	return job, nil
}

// UpdateJob implements delivery.Coordinator.
func (c *Coordinator) UpdateJob(_ context.Context, id int64, token string, u delivery.JobUpdate) (delivery.JobAck, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	job, err := c.find(id, token)
	if err != nil {
		return delivery.JobAck{}, err
	}
	switch {
	case job.Status == "success" || job.Status == "failed":
		return delivery.JobAck{}, delivery.Errorf(delivery.Forbidden, "the job is finished")
	case u.State == delivery.JobPending:
		job.Waiting = append(job.Waiting, u.Waiting)
	case u.State == delivery.JobRunning && job.Status == "pending":
		job.Status = "running"
	case u.State == delivery.JobRunning:
	case c.LoseTraces > 0 || u.TraceChecksum != fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE(job.Trace)) || u.TraceSize != int64(len(job.Trace)):
		c.LoseTraces = max(0, c.LoseTraces-1)
		job.Trace = nil
		return delivery.JobAck{Status: job.Status, TraceInvalid: true}, nil
	default:
		job.Status, job.Update = string(u.State), u
	}
	c.notify()
	return delivery.JobAck{Status: job.Status, TraceSize: int64(len(job.Trace))}, nil
}

// AppendTrace implements delivery.Coordinator.
func (c *Coordinator) AppendTrace(_ context.Context, id int64, token string, offset int64, data []byte) (delivery.JobAck, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	job, err := c.find(id, token)
	if err != nil {
		return delivery.JobAck{}, err
	}
	if offset != int64(len(job.Trace)) {
		return delivery.JobAck{Status: job.Status, TraceSize: int64(len(job.Trace))}, delivery.Errorf(delivery.Conflict, "offset %d of %d", offset, len(job.Trace))
	}
	job.Trace = append(job.Trace, data...)
	c.notify()
	return delivery.JobAck{Status: job.Status, TraceSize: int64(len(job.Trace))}, nil
}

// UploadArtifact implements delivery.Coordinator.
func (c *Coordinator) UploadArtifact(_ context.Context, id int64, token string, a delivery.ArtifactUpload, body io.Reader) error {
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	job, err := c.find(id, token)
	if err != nil {
		return err
	}
	job.Artifacts[a.Type], job.Names[a.Type] = raw, a.Filename
	return nil
}

// DownloadArtifact implements delivery.Coordinator.
func (c *Coordinator) DownloadArtifact(_ context.Context, id int64, token string) (delivery.ArtifactFile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	job, err := c.find(id, token)
	if err != nil {
		return delivery.ArtifactFile{}, err
	}
	raw, found := job.Artifacts["archive"]
	if !found {
		return delivery.ArtifactFile{}, delivery.Errorf(delivery.NotFound, "job %d has no artifacts", id)
	}
	return delivery.ArtifactFile{Filename: job.Names["archive"], Size: int64(len(raw)), Body: io.NopCloser(bytes.NewReader(raw))}, nil
}

var (
	header  = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [0-9a-f]{2}[OE]([ +])`)
	section = regexp.MustCompile(`section_(start|end):\d+:([a-z_]+)\r`)
	escape  = regexp.MustCompile("\x1b\\[[0-9;]*[mK]")
)

// Plain is a trace without line headers, colours and times: what a person
// reads, and what can be compared.
func Plain(trace []byte) string {
	text := string(trace)
	var out strings.Builder
	for line := range strings.Lines(text) {
		match := header.FindStringSubmatch(line)
		if match != nil {
			line = line[len(match[0]):]
			if match[1] == "+" && out.Len() > 0 {
				joined := strings.TrimSuffix(out.String(), "\n")
				out.Reset()
				out.WriteString(joined)
			}
		}
		out.WriteString(line)
	}
	text = section.ReplaceAllString(out.String(), "<$1 $2>")
	return escape.ReplaceAllString(text, "")
}

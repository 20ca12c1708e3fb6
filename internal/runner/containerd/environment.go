package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	cnins "github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/runner"
)

// createBuild makes the job's container.
func (env *environment) createBuild(ctx context.Context, image *image) error {
	e, r := env.executor, env.request
	endpoint, err := env.segment.attach()
	if err != nil {
		return err
	}
	env.endpoint = endpoint
	hosts := map[string]string{r.Hostname: endpoint.address.String(), "build": endpoint.address.String()}
	for _, service := range env.services {
		for _, alias := range service.aliases {
			hosts[alias] = service.endpoint.address.String()
		}
	}
	files, err := e.networkFiles(env.dir, hosts, slices.Sorted(maps.Keys(hosts)))
	if err != nil {
		return err
	}
	env.mounts = append(files, bind(r.BuildsDir, BuildsDir, false))
	for _, tool := range r.Tools {
		env.mounts = append(env.mounts, bind(tool.Source, tool.Target, true))
	}
	if e.config.Endpoint != nil {
		dir, closeEnd, err := e.config.Endpoint.Open(ctx, EndpointScope{Request: r, Beside: env.beside})
		if err != nil {
			return fmt.Errorf("open the job's endpoint: %w", err)
		}
		env.closeEnd = closeEnd
		env.mounts = append(env.mounts, bind(dir, EndpointDir, true))
	}
	spec := containerSpec{
		id: env.name("build"), job: r.JobID, image: image, entrypoint: r.Image.Entrypoint, args: []string{"sh", "-c", runner.DetectShell},
		env: r.Variables.Environ(), hostname: r.Hostname, endpoint: endpoint, mounts: env.mounts, limits: r.Limits, privileged: r.Privileged,
	}
	if options := r.Image.ExecutorOpts; options != nil && options.Docker != nil {
		spec.user = options.Docker.User
	}
	env.build, err = e.create(ctx, spec)
	return err
}

// name is the id of one of the job's containers.
func (env *environment) name(role string) string {
	return fmt.Sprintf("%s-job-%d-%s", env.executor.config.Network.Instance, env.request.JobID, role)
}

// BuildsDir implements runner.Environment.
func (*environment) BuildsDir() string { return BuildsDir }

// InNetwork implements runner.Environment.
func (env *environment) InNetwork(fn func() error) error {
	return env.endpoint.ns.Do(func(cnins.NetNS) error { return fn() })
}

// Used implements runner.Usage: what the job's containers wrote into their own
// file systems.
func (env *environment) Used(ctx context.Context) (int64, error) {
	snapshots := env.executor.client.SnapshotService(env.executor.config.Snapshotter)
	env.mu.Lock()
	names := []string{env.name("build")}
	for name := range env.extra {
		names = append(names, name)
	}
	env.mu.Unlock()
	for i := range env.request.Services {
		names = append(names, env.name("service-"+strconv.Itoa(i)))
	}
	var sum int64
	for _, name := range names {
		used, err := snapshots.Usage(ctx, name)
		if err != nil && !errdefs.IsNotFound(err) {
			return sum, fmt.Errorf("size of %s: %w", name, err)
		}
		sum += used.Size
	}
	return sum, nil
}

// prelaunch creates the first process of the job's container while the runner
// gets the sources: making a container takes longer than starting it.
func (env *environment) prelaunch() {
	pending := make(chan launched, 1)
	env.pending = pending
	go func() { pending <- env.launch(context.Background()) }()
}

func (env *environment) launch(ctx context.Context) launched {
	l := launched{input: newLateReader(), stdout: &lateWriter{}, stderr: &lateWriter{}}
	l.process, l.err = env.build.launch(ctx, l.input, l.stdout, l.stderr)
	return l
}

// Exec implements runner.Environment.
func (env *environment) Exec(ctx context.Context, s runner.Script) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var next launched
	if env.pending != nil {
		select {
		case next = <-env.pending:
			env.pending = nil
		case <-ctx.Done():
			env.hung = true
			return context.Cause(ctx) // Close takes what comes yet
		}
	} else {
		next = env.launch(ctx)
	}
	if next.err != nil {
		return env.startError(next.err)
	}
	env.executor.oom.forget(env.build.ID())
	next.stdout.set(s.Stdout)
	next.stderr.set(s.Stderr)
	next.input.set(strings.NewReader(s.Text))
	code, err := next.process.run(ctx, env.executor.config.StopGrace)
	switch {
	case err != nil && ctx.Err() == nil:
		return env.startError(err)
	case err != nil:
		env.hung = !errors.Is(err, context.Cause(ctx))
		return err
	case code != 0 && env.executor.oom.happened(env.build.ID()):
		return &runner.JobError{Reason: runner.ReasonScript, ExitCode: int(code),
			Message: fmt.Sprintf("exit code %d: the job used more memory than its limit of %.1f GB", code, float64(env.request.Limits.Memory)/1e9)}
	case code != 0:
		return &runner.ExitError{Code: int(code)}
	}
	return nil
}

// startError tells an image without a shell from a failure of the runtime.
func (*environment) startError(err error) error {
	if errdefs.IsUnavailable(err) {
		return fmt.Errorf("containerd was stopped or restarted while the job ran: %w", err)
	}
	text := err.Error()
	if strings.Contains(text, "executable file not found") || strings.Contains(text, "no such file or directory") && strings.Contains(text, "exec") {
		return &runner.JobError{Reason: runner.ReasonScript, Message: "the image has no shell to run the script: it needs sh or bash, or an entrypoint that runs them", ExitCode: 127}
	}
	return err
}

// Close implements runner.Environment. What cannot be removed until ctx ends is
// left to the executor, which tries again until it succeeds.
func (env *environment) Close(ctx context.Context) error {
	if env.hung {
		// The coordinator gives a job up a minute after its time: it must hear
		// from the runner before, what happened.
		brief, cancel := context.WithTimeout(ctx, env.executor.config.AnswerTimeout/4)
		defer cancel()
		ctx = brief
	}
	err := env.remove(ctx)
	if err == nil {
		return nil
	}
	env.executor.left.add(env)
	if ctx.Err() != nil {
		env.request.Log.Warn("containerd does not answer: what is left of this job is removed as soon as it does")
	}
	return err
}

// remove is one try to remove all that Prepare made.
func (env *environment) remove(ctx context.Context) error {
	env.closing.Lock()
	defer env.closing.Unlock()
	env.mu.Lock()
	env.closed = true
	extra := slices.Collect(maps.Values(env.extra))
	env.mu.Unlock()
	var errs []error
	if env.closeEnd != nil {
		if err := env.closeEnd(ctx); err != nil {
			errs = append(errs, err)
		} else {
			env.closeEnd = nil
		}
	}
	if env.pending != nil {
		select {
		case left := <-env.pending:
			env.pending = nil
			if left.err == nil {
				left.input.set(strings.NewReader(""))
				left.stdout.set(io.Discard)
				left.stderr.set(io.Discard)
				errs = append(errs, left.process.remove(ctx))
			}
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("create process: %w", ctx.Err()))
		}
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	remove := func(c *container) {
		group.Go(func() {
			if err := c.remove(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	if env.build != nil {
		remove(env.build)
		env.executor.oom.forget(env.build.ID())
	}
	for _, service := range env.services {
		if service.process != nil { // it has the pipes of the output
			errs = append(errs, service.process.remove(ctx))
		}
		if service.container != nil {
			remove(service.container)
		}
	}
	for _, one := range extra {
		remove(one)
	}
	if env.segment != nil && !env.detached {
		// The kernel takes its time to end interfaces, and needs no process gone.
		group.Go(func() {
			err := env.segment.close()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				env.detached = true
			}
		})
	}
	group.Wait()
	// A volume that is still mounted there must not be emptied.
	if err := mount.UnmountRecursive(env.dir, unix.MNT_DETACH); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, os.RemoveAll(env.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the environment of job %d: %w", env.request.JobID, err)
	}
	return nil
}

// lateReader is a reader whose source is set later, once.
type lateReader struct {
	source chan io.Reader
	r      io.Reader
}

func newLateReader() *lateReader { return &lateReader{source: make(chan io.Reader, 1)} }

func (l *lateReader) set(r io.Reader) { l.source <- r }

// Read waits for the source.
func (l *lateReader) Read(p []byte) (int, error) {
	if l.r == nil {
		l.r = <-l.source
	}
	return l.r.Read(p)
}

// lateWriter forwards to a writer that is set before anything is written.
type lateWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lateWriter) set(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = w
}

// Write forwards p.
func (l *lateWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	w := l.w
	l.mu.Unlock()
	if w == nil {
		return len(p), nil
	}
	return w.Write(p)
}

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipwayhq/slipway/internal/runner"
)

// runtimeName is containerd's runc shim.
const runtimeName = "io.containerd.runc.v2"

// containerSpec says what one container shall be.
type containerSpec struct {
	id         string
	job        int64
	image      *image
	entrypoint []string // nil: the image's
	args       []string // nil: the image's command, unless there is an entrypoint
	user       string   // empty: the image's
	workdir    string   // empty: the image's
	env        []string
	hostname   string
	endpoint   *endpoint
	mounts     []specs.Mount
	limits     runner.Limits
	privileged bool
}

// container is a containerd container whose task can be started again and
// again, as the official runner restarts its job container for each stage.
type container struct {
	executor *Executor
	spec     containerSpec
	client.Container
}

// create makes the container with its snapshot.
func (e *Executor) create(ctx context.Context, s containerSpec) (*container, error) {
	options, err := e.ociOptions(s)
	if err != nil {
		return nil, err
	}
	made, err := e.client.NewContainer(ctx, s.id,
		client.WithSnapshotter(e.config.Snapshotter),
		client.WithNewSnapshot(s.id, s.image.Image),
		client.WithRuntime(runtimeName, &runcoptions.Options{BinaryName: "runc", Root: e.config.RuncRoot}),
		client.WithContainerLabels(map[string]string{labelJob: fmt.Sprint(s.job), labelInstance: e.config.Network.Instance}),
		client.WithNewSpec(options...))
	if err != nil {
		return nil, fmt.Errorf("make container: %w", err)
	}
	return &container{executor: e, spec: s, Container: made}, nil
}

func (e *Executor) ociOptions(s containerSpec) ([]oci.SpecOpts, error) {
	args := s.args
	if len(args) == 0 && s.entrypoint == nil { // an entrypoint of one's own stands alone, as docker has it
		args = s.image.config.Cmd
	}
	entrypoint := s.image.config.Entrypoint
	if s.entrypoint != nil {
		entrypoint = nil
		for _, part := range s.entrypoint {
			if part != "" || len(s.entrypoint) > 1 {
				entrypoint = append(entrypoint, part)
			}
		}
	}
	command := append(append([]string(nil), entrypoint...), args...)
	s.env, s.mounts = e.config.Trust.apply(s.env, s.image.config.Env, s.mounts)
	if len(command) == 0 {
		return nil, &runner.JobError{Reason: runner.ReasonScript, Message: "the image has no command and no entrypoint"}
	}
	options := []oci.SpecOpts{
		oci.WithDefaultUnixDevices,
		oci.WithImageConfigArgs(s.image.Image, command),
		oci.WithProcessArgs(command...),
		oci.WithEnv(s.env),
		oci.WithHostname(s.hostname),
		oci.WithoutRunMount,
		oci.WithMounts(s.mounts),
		oci.WithNewPrivileges, // as Docker: sudo works, within the container's capabilities
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: s.endpoint.ns.GetPath()}),
		oci.WithCgroup(path.Join(e.config.CgroupParent, s.id)),
		withLimits(s.limits),
		withSysctl,
	}
	if s.user != "" {
		options = append(options, oci.WithUser(s.user), oci.WithAdditionalGIDs(s.user))
	}
	if s.workdir != "" {
		options = append(options, oci.WithProcessCwd(s.workdir))
	}
	if s.privileged {
		return append(options, oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices), nil
	}
	if e.apparmor {
		options = append(options, apparmor.WithDefaultProfile("slipway-jobs"))
	}
	return append(options, seccomp.WithDefaultProfile()), nil
}

func withLimits(l runner.Limits) oci.SpecOpts {
	return func(ctx context.Context, c oci.Client, container *containers.Container, s *oci.Spec) error {
		if l.Memory > 0 {
			if err := oci.WithMemoryLimit(uint64(l.Memory))(ctx, c, container, s); err != nil {
				return err
			}
			if swapLimits() {
				s.Linux.Resources.Memory.Swap = &l.Memory
			}
		}
		if l.CPU > 0 {
			const period = 100_000
			if err := oci.WithCPUCFS(int64(l.CPU*period), period)(ctx, c, container, s); err != nil {
				return err
			}
		}
		if l.PIDs > 0 {
			return oci.WithPidsLimit(l.PIDs)(ctx, c, container, s)
		}
		return nil
	}
}

// swapLimits reports whether the kernel accounts swap: without that, a limit
// on it is an error.
var swapLimits = sync.OnceValue(func() bool {
	for _, file := range []string{"/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "/sys/fs/cgroup/system.slice/memory.swap.max", "/sys/fs/cgroup/init.scope/memory.swap.max"} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return false
})

// withSysctl gives what Docker gives: any port and ping without privileges.
// Both belong to the container's network namespace.
func withSysctl(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
	return nil
}

// process is one run of a container.
type process struct {
	task    client.Task
	exited  <-chan client.ExitStatus
	done    func() // releases the input
	started func() // told when it runs; may be nil
	// patience is how long containerd may take to end the process.
	patience time.Duration
}

// outlast returns a context that ends a while after ctx, for what must be done
// when ctx has ended but not for ever.
func outlast(ctx context.Context, after time.Duration) (context.Context, context.CancelFunc) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(after)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-lasting.Done():
		}
	})
	return lasting, func() { stop(); cancel() }
}

// launch creates a task of the container with the streams given; start lets it
// run.
func (c *container) launch(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (*process, error) {
	p := &process{done: func() {}, patience: c.executor.config.AnswerTimeout}
	input := stdin
	if stdin != nil {
		reader := &closingReader{r: stdin, end: make(chan struct{})}
		input = reader
		p.done = reader.finish
	}
	creator := cio.NewCreator(cio.WithStreams(input, stdout, stderr), cio.WithFIFODir(c.executor.fifoDir()))
	task, err := c.NewTask(ctx, creator)
	if err != nil {
		return nil, fmt.Errorf("create process: %w", err)
	}
	p.task = task
	if reader, ok := input.(*closingReader); ok {
		reader.onEnd(func() {
			// The process may be gone: then nobody waits for the end of its input.
			lasting, cancel := outlast(ctx, c.executor.config.AnswerTimeout)
			defer cancel()
			_ = task.CloseIO(lasting, client.WithStdinCloser)
		})
	}
	// The exit is awaited in a context of its own: ctx ends the process, and
	// the exit follows.
	if p.exited, err = task.Wait(context.WithoutCancel(ctx)); err != nil {
		lasting, cancel := outlast(ctx, c.executor.config.AnswerTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("wait for process: %w", err), p.remove(lasting))
	}
	return p, nil
}

// closingReader tells when its source has ended.
type closingReader struct {
	r    io.Reader
	end  chan struct{}
	once sync.Once
	mu   sync.Mutex
	then func()
	over bool
}

func (c *closingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if err != nil {
		c.finish()
	}
	return n, err
}

func (c *closingReader) onEnd(then func()) {
	c.mu.Lock()
	c.then = then
	over := c.over
	c.mu.Unlock()
	if over {
		then()
	}
}

func (c *closingReader) finish() {
	c.once.Do(func() {
		c.mu.Lock()
		c.over = true
		then := c.then
		c.mu.Unlock()
		if then != nil {
			then()
		}
	})
}

// run starts the process and waits for its end, which ctx brings about when it
// is done: first by SIGTERM to all, after a grace by SIGKILL. When containerd
// does not answer to that, the process is left to the container's removal.
func (p *process) run(ctx context.Context, grace time.Duration) (code uint32, err error) {
	lasting, cancel := outlast(ctx, p.patience)
	defer cancel()
	if err := p.task.Start(lasting); err != nil {
		return 0, errors.Join(fmt.Errorf("start process: %w", err), p.remove(lasting))
	}
	if p.started != nil {
		p.started()
	}
	var status client.ExitStatus
	select {
	case status = <-p.exited:
	case <-ctx.Done():
		status = p.stop(lasting, grace)
	}
	if err := p.remove(lasting); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return status.ExitCode(), status.Error()
}

// stop ends every process of the task, or gives up when ctx ends.
func (p *process) stop(ctx context.Context, grace time.Duration) client.ExitStatus {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		// A task that is gone has its exit in the channel.
		_ = p.task.Kill(ctx, signal, client.WithKillAll)
		timer := time.NewTimer(grace)
		select {
		case status := <-p.exited:
			timer.Stop()
			return status
		case <-timer.C:
		}
	}
	select {
	case status := <-p.exited:
		return status
	case <-ctx.Done():
		return *client.NewExitStatus(client.UnknownExitStatus, time.Time{}, ctx.Err())
	}
}

// remove deletes the task, killing what is left of it, after its output has
// been read to the end.
func (p *process) remove(ctx context.Context) error {
	p.done()
	_, err := p.task.Delete(ctx, client.WithProcessKill)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove process: %w", err)
	}
	return nil
}

// remove deletes the container with its snapshot.
func (c *container) remove(ctx context.Context) error {
	task, err := c.Task(ctx, nil)
	switch {
	case err == nil:
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove process of container %s: %w", c.ID(), err)
		}
	case ctx.Err() != nil || errdefs.IsUnavailable(err) || errdefs.IsDeadlineExceeded(err):
		// A containerd that is silent may still read what it is sent now: without
		// its container nobody would find the process any more.
		return fmt.Errorf("remove process of container %s: %w", c.ID(), err)
	}
	if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", c.ID(), err)
	}
	return nil
}

// bind is a bind mount.
func bind(source, target string, readOnly bool) specs.Mount {
	options := []string{"rbind", "rprivate", "nosuid", "nodev"}
	if readOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Type: "bind", Source: source, Destination: target, Options: options}
}

// networkFiles writes hosts and resolv.conf of a job's containers.
func (e *Executor) networkFiles(dir string, hosts map[string]string, names []string) ([]specs.Mount, error) {
	var text strings.Builder
	text.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, name := range names {
		fmt.Fprintf(&text, "%s\t%s\n", hosts[name], name)
	}
	var resolv strings.Builder
	for _, server := range e.dns {
		fmt.Fprintf(&resolv, "nameserver %s\n", server)
	}
	var mounts []specs.Mount
	for name, content := range map[string]string{"hosts": text.String(), "resolv.conf": resolv.String()} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		mounts = append(mounts, bind(file, "/etc/"+name, false))
	}
	return mounts, nil
}

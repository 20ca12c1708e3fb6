package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	containerdclient "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
)

// RunRequest is one `docker run` of a job. It runs beside the job's container,
// in the job's network and within the job's limits.
type RunRequest struct {
	Image      string // pulled with the job's credentials unless present
	Local      bool   // the image is in the jobs' namespace under exactly this name
	Entrypoint []string
	Args       []string
	Env        []string
	User       string
	Workdir    string
	Volumes    []Volume
	Hostname   string   // empty: one is made up
	Names      []string // by which the job's containers know it
	Stdin      io.Reader
	Stdout     io.Writer
	Stderr     io.Writer
}

// Volume shows a part of the job's builds folder in another container.
type Volume struct {
	Source   string // a path below BuildsDir, as the job sees it
	Target   string
	ReadOnly bool
	Create   bool // make Source a folder when it is not there
}

// Beside is a container beside the job's. It belongs to one caller, but for Exec
// and Files, and must be removed; the end of the job removes it too.
type Beside struct {
	env       *environment
	name      string
	container *container
	endpoint  *endpoint
	hosts     []string // its line in the job's hosts file, as names
	release   func() error

	mu   sync.Mutex
	task containerdclient.Task // while it runs
}

// beside makes a container of `docker run` or `docker create`.
func (env *environment) beside(ctx context.Context, r RunRequest) (_ *Beside, err error) {
	images := &puller{executor: env.executor, credentials: env.request.Credentials, log: runner.NewLog(io.Discard, false, nil)}
	var found *image
	if r.Local {
		local, err := env.executor.client.GetImage(ctx, r.Image)
		if err != nil {
			return nil, fmt.Errorf("find image: %w", err)
		}
		if found, err = images.unpacked(ctx, local, r.Image); err != nil {
			return nil, err
		}
	} else if found, err = images.get(ctx, delivery.JobImage{Name: r.Image, PullPolicy: []string{pullIfNotPresent}}); err != nil {
		return nil, err
	}
	env.mu.Lock()
	if env.closed {
		env.mu.Unlock()
		return nil, errors.New("the job has ended")
	}
	env.sequence++
	role := "run-" + strconv.Itoa(env.sequence)
	env.mu.Unlock()
	b := &Beside{env: env, name: env.name(role), hosts: r.Names}
	var undo []func() error
	defer func() {
		for i := len(undo) - 1; i >= 0 && err != nil; i-- {
			err = errors.Join(err, undo[i]())
		}
	}()
	mounts, release, err := env.volumes(role, r.Volumes)
	if err != nil {
		return nil, err
	}
	b.release = release
	undo = append(undo, release)
	if b.endpoint, err = env.segment.attach(); err != nil {
		return nil, err
	}
	undo = append(undo, b.endpoint.detach)
	for _, file := range []string{"hosts", "resolv.conf"} {
		mounts = append(mounts, bind(filepath.Join(env.dir, file), "/etc/"+file, true))
	}
	hostname := r.Hostname
	if hostname == "" {
		hostname = b.name
	}
	b.container, err = env.executor.create(ctx, containerSpec{
		id: b.name, job: env.request.JobID, image: found, entrypoint: r.Entrypoint, args: r.Args, user: r.User, workdir: r.Workdir, env: r.Env,
		hostname: hostname, endpoint: b.endpoint, mounts: mounts, limits: env.request.Limits,
	})
	if err != nil {
		return nil, err
	}
	env.mu.Lock()
	defer env.mu.Unlock()
	env.extra[b.name] = b.container
	return b, env.nameHosts(b.endpoint.address.String(), b.hosts)
}

// nameHosts adds a line to the hosts file that the job's containers share. With
// no names it takes the address's line away. env.mu is held.
func (env *environment) nameHosts(address string, names []string) error {
	file := filepath.Join(env.dir, "hosts")
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read hosts: %w", err)
	}
	var text strings.Builder
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, address+"\t") {
			text.WriteString(line)
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(&text, "%s\t%s\n", address, strings.Join(names, " "))
	}
	if text.String() == string(raw) {
		return nil
	}
	// In place: the containers have the file itself.
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("write hosts: %w", err)
	}
	return nil
}

// Run starts the container and waits for its end, which that of ctx brings
// about: first by SIGTERM, then by SIGKILL.
func (b *Beside) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, started func()) (exitCode int, err error) {
	process, err := b.container.launch(ctx, stdin, stdout, stderr)
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	b.task = process.task
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.task = nil
	}()
	process.started = started
	code, err := process.run(ctx, b.env.executor.config.StopGrace)
	return int(code), err
}

// Exec runs a command in the running container.
func (b *Beside) Exec(ctx context.Context, r RunRequest) (exitCode int, err error) {
	b.mu.Lock()
	task := b.task
	b.mu.Unlock()
	if task == nil {
		return 0, errors.New("the container is not running")
	}
	spec, err := b.container.Spec(ctx)
	if err != nil {
		return 0, fmt.Errorf("read container: %w", err)
	}
	what := *spec.Process
	what.Args, what.Terminal = r.Args, false
	what.Env = append(append([]string(nil), what.Env...), r.Env...)
	if r.Workdir != "" {
		what.Cwd = r.Workdir
	}
	if r.User != "" {
		uid, gid, _ := strings.Cut(r.User, ":")
		for text, to := range map[string]*uint32{uid: &what.User.UID, gid: &what.User.GID} {
			number, err := strconv.ParseUint(text, 10, 32)
			if text != "" && err != nil && text != "root" {
				return 0, fmt.Errorf("user %q: docker exec takes numbers in jobs, such as -u 1000:1000", r.User)
			}
			*to = uint32(number)
		}
	}
	b.env.mu.Lock()
	b.env.sequence++
	id := "exec-" + strconv.Itoa(b.env.sequence)
	b.env.mu.Unlock()
	process, err := task.Exec(ctx, id, &what, cio.NewCreator(cio.WithStreams(r.Stdin, r.Stdout, r.Stderr), cio.WithFIFODir(b.env.executor.fifoDir())))
	if err != nil {
		return 0, fmt.Errorf("make process: %w", err)
	}
	lasting, cancel := outlast(ctx, b.env.executor.config.AnswerTimeout)
	defer cancel()
	defer func() {
		if _, gone := process.Delete(lasting, containerdclient.WithProcessKill); gone != nil && !errdefs.IsNotFound(gone) {
			err = errors.Join(err, fmt.Errorf("remove process: %w", gone))
		}
	}()
	exited, err := process.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return 0, fmt.Errorf("wait for process: %w", err)
	}
	if err := process.Start(ctx); err != nil {
		return 0, fmt.Errorf("start process: %w", err)
	}
	select {
	case status := <-exited:
		process.IO().Wait()
		return int(status.ExitCode()), status.Error()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// Files shows the container's files below a folder while fn runs, read-only.
func (b *Beside) Files(ctx context.Context, fn func(root *os.Root) error) (err error) {
	snapshots := b.env.executor.client.SnapshotService(b.env.executor.config.Snapshotter)
	mounts, err := snapshots.Mounts(ctx, b.name)
	if err != nil {
		return fmt.Errorf("find the container's files: %w", err)
	}
	dir, err := os.MkdirTemp(b.env.dir, "files-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, mount.UnmountRecursive(dir, unix.MNT_DETACH), os.RemoveAll(dir)) }()
	if err := mount.All(readOnly(mounts), dir); err != nil {
		return fmt.Errorf("mount the container's files: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fn(root)
}

// readOnly turns the mounts of a container's files into such as may be mounted
// beside it: overlayfs would not have its upper folder twice.
func readOnly(mounts []mount.Mount) []mount.Mount {
	list := make([]mount.Mount, 0, len(mounts))
	for _, one := range mounts {
		var options []string
		upper, lower := "", ""
		for _, option := range one.Options {
			switch {
			case strings.HasPrefix(option, "upperdir="):
				upper = strings.TrimPrefix(option, "upperdir=")
			case strings.HasPrefix(option, "lowerdir="):
				lower = strings.TrimPrefix(option, "lowerdir=")
			case strings.HasPrefix(option, "workdir="), option == "rw":
			default:
				options = append(options, option)
			}
		}
		if one.Type == "overlay" {
			if upper != "" {
				lower = upper + ":" + lower
			}
			options = append(options, "lowerdir="+lower)
		}
		one.Options = append(options, "ro")
		list = append(list, one)
	}
	return list
}

// Remove ends the container and takes all of it away.
func (b *Beside) Remove(ctx context.Context) error {
	err := errors.Join(b.container.remove(ctx), b.endpoint.detach(), b.release())
	b.env.mu.Lock()
	defer b.env.mu.Unlock()
	delete(b.env.extra, b.name)
	if b.env.closed {
		return err // the folder is going away
	}
	return errors.Join(err, b.env.nameHosts(b.endpoint.address.String(), nil))
}

// volumes maps paths of the job to the host. Only the builds folder can be
// shown, and a link that leads out of it is refused. The job's own processes
// run meanwhile and could exchange a folder for a link after a check: so the
// descriptor that was opened beneath the builds folder is mounted to a place of
// ours, which is what the container gets. release takes the mounts away.
func (env *environment) volumes(role string, wanted []Volume) (mounts []specs.Mount, release func() error, err error) {
	dir := filepath.Join(env.dir, role)
	release = func() error {
		if err := mount.UnmountRecursive(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount volumes: %w", err)
		}
		return os.RemoveAll(dir)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, release())
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, release, fmt.Errorf("make folder of volumes: %w", err)
	}
	root, err := os.OpenRoot(env.request.BuildsDir)
	if err != nil {
		return nil, release, fmt.Errorf("open builds folder: %w", err)
	}
	defer root.Close()
	for i, volume := range wanted {
		inside, ok := strings.CutPrefix(path.Clean(volume.Source)+"/", BuildsDir+"/")
		if !ok {
			return nil, release, fmt.Errorf("cannot mount %s: only folders below %s can be mounted", volume.Source, BuildsDir)
		}
		if inside = strings.Trim(inside, "/"); inside == "" {
			inside = "."
		}
		place := filepath.Join(dir, strconv.Itoa(i))
		if err := mountBeneath(root, inside, place, volume.Create); err != nil {
			return nil, release, fmt.Errorf("cannot mount %s: %w", volume.Source, err)
		}
		mounts = append(mounts, bind(place, volume.Target, volume.ReadOnly))
	}
	return mounts, release, nil
}

// mountBeneath binds a file or folder of root to place; one that is not there is
// made as a folder if create says so.
func mountBeneath(root *os.Root, name, place string, create bool) error {
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) && create {
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		file, err = root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(place, 0o755)
	} else {
		err = os.WriteFile(place, nil, 0o644)
	}
	if err != nil {
		return err
	}
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), place, "", unix.MS_BIND, "")
}

// activeSnapshots are the keys of writable snapshots.
func activeSnapshots(ctx context.Context, service snapshots.Snapshotter) (keys []string, err error) {
	err = service.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindActive {
			keys = append(keys, info.Name)
		}
		return nil
	})
	return keys, err
}

// serviceFiles are hosts and resolv.conf of one service.
func (e *Executor) serviceFiles(dir string, i int, hosts map[string]string, names []string) ([]specs.Mount, error) {
	own := filepath.Join(dir, "service-"+strconv.Itoa(i))
	if err := os.Mkdir(own, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of service: %w", err)
	}
	return e.networkFiles(own, hosts, names)
}

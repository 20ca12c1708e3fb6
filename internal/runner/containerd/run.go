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
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
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

// run starts a container of `docker run` and waits for it.
func (env *environment) run(ctx context.Context, r RunRequest) (exitCode int, err error) {
	images := &puller{executor: env.executor, credentials: env.request.Credentials, log: runner.NewLog(io.Discard, false, nil)}
	var found *image
	if r.Local {
		local, err := env.executor.client.GetImage(ctx, r.Image)
		if err != nil {
			return 0, fmt.Errorf("find image: %w", err)
		}
		if found, err = images.unpacked(ctx, local, r.Image); err != nil {
			return 0, err
		}
	} else if found, err = images.get(ctx, delivery.JobImage{Name: r.Image, PullPolicy: []string{pullIfNotPresent}}); err != nil {
		return 0, err
	}
	env.mu.Lock()
	if env.closed {
		env.mu.Unlock()
		return 0, errors.New("the job has ended")
	}
	env.sequence++
	role := "run-" + strconv.Itoa(env.sequence)
	name := env.name(role)
	env.mu.Unlock()
	mounts, release, err := env.volumes(role, r.Volumes)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	endpoint, err := env.segment.attach()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, endpoint.detach()) }()
	for _, file := range []string{"hosts", "resolv.conf"} {
		mounts = append(mounts, bind(filepath.Join(env.dir, file), "/etc/"+file, true))
	}
	limits := env.request.Limits
	made, err := env.executor.create(ctx, containerSpec{
		id: name, job: env.request.JobID, image: found, entrypoint: r.Entrypoint, args: r.Args, user: r.User, workdir: r.Workdir, env: r.Env,
		hostname: name, endpoint: endpoint, mounts: mounts, limits: limits,
	})
	if err != nil {
		return 0, err
	}
	env.mu.Lock()
	env.extra[name] = made
	env.mu.Unlock()
	defer func() {
		err = errors.Join(err, made.remove(context.WithoutCancel(ctx)))
		env.mu.Lock()
		defer env.mu.Unlock()
		delete(env.extra, name)
	}()
	process, err := made.launch(ctx, r.Stdin, r.Stdout, r.Stderr)
	if err != nil {
		return 0, err
	}
	code, err := process.run(ctx, env.executor.config.StopGrace)
	return int(code), err
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

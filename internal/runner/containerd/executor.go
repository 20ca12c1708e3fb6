package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
)

// Labels of everything that belongs to a job.
const (
	labelJob      = "slipway.dev/job"
	labelInstance = "slipway.dev/instance"
)

// Config configures the executor. Socket, Dir and Network are required.
type Config struct {
	Socket       string // containerd's
	Namespace    string // default slipway-jobs
	Snapshotter  string // default overlayfs
	Dir          string // small files of running jobs: network namespaces, pipes
	RuncRoot     string // runc's state (default <Dir>/runc)
	CgroupParent string // default /<instance>/jobs

	Network NetworkConfig

	DefaultImage string // for jobs that name none (default debian:bookworm-slim)
	Registry     string // host[:port] of the platform's registry, as in image names
	// RegistryLocal is the host:port at which RegistryHosts reaches that registry
	// on this host; may be empty.
	RegistryLocal string
	RegistryHosts string // folder of hosts.toml files (certs.d), as containerd's own
	// PullPolicy is tried in order (default always).
	PullPolicy []string
	// AllowedPullPolicies are what jobs may ask for (default all three).
	AllowedPullPolicies []string
	// UseLocalWhenUnreachable lets a public image that is present serve while
	// its registry cannot be reached.
	UseLocalWhenUnreachable bool

	// Images of jobs that nobody used for ImageKeep go (default 7 days), and the
	// ones used longest ago while all take more than ImageBudget bytes (default
	// 20 GB).
	ImageKeep   time.Duration
	ImageBudget int64

	ServiceLimits  runner.Limits // of each service
	ServiceTimeout time.Duration // to become ready (default 30 s)
	StopGrace      time.Duration // between SIGTERM and SIGKILL (default 2 s)
	// AnswerTimeout is how long containerd may take to end what belongs to a job
	// whose time is over (default 20 s). Then the job ends without it, and what
	// is left is removed when containerd answers again.
	AnswerTimeout time.Duration

	// Trust makes the jobs' clients trust the platform's certificate authority.
	Trust Trust

	// Endpoint serves a job's docker and trivy commands; nil offers none.
	Endpoint EndpointProvider

	// Logger tells what no job can be told; nil is silent.
	Logger *slog.Logger
}

// EndpointProvider opens what a job's tools talk to.
type EndpointProvider interface {
	// Open makes a folder with the endpoint's socket, shown to the job
	// read-only. The endpoint acts with the rights of that job only. close ends
	// it together with all that was started through it.
	Open(ctx context.Context, scope EndpointScope) (dir string, close func(context.Context) error, err error)
}

// EndpointScope is the job that an endpoint serves.
type EndpointScope struct {
	Request runner.EnvironmentRequest
	// Beside makes another container of the job: `docker run`.
	Beside func(ctx context.Context, r RunRequest) (*Beside, error)
}

// EndpointDir is where a job finds its endpoint's folder.
const EndpointDir = "/run/slipway"

// BuildsDir is where a job finds its builds folder.
const BuildsDir = "/builds"

// Executor runs jobs in containers.
type Executor struct {
	config   Config
	client   *client.Client
	network  *network
	dns      []string
	apparmor bool
	oom      *oomWatch
	pulls    keyedLock
	sweeper  *sweeper
	left     *leftovers
}

// New connects to containerd, which may still be starting: calls wait for it.
func New(config Config) (*Executor, error) {
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&config.Namespace, "slipway-jobs")
	fill(&config.Snapshotter, "overlayfs")
	fill(&config.RuncRoot, filepath.Join(config.Dir, "runc"))
	fill(&config.CgroupParent, "/"+config.Network.Instance+"/jobs")
	fill(&config.DefaultImage, "debian:bookworm-slim")
	if len(config.PullPolicy) == 0 {
		config.PullPolicy = []string{pullAlways}
	}
	if len(config.AllowedPullPolicies) == 0 {
		config.AllowedPullPolicies = []string{pullAlways, pullIfNotPresent, pullNever}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.ServiceTimeout == 0 {
		config.ServiceTimeout = 30 * time.Second
	}
	if config.ImageKeep == 0 {
		config.ImageKeep = 7 * 24 * time.Hour
	}
	if config.ImageBudget == 0 {
		config.ImageBudget = 20e9
	}
	if config.AnswerTimeout == 0 {
		config.AnswerTimeout = 20 * time.Second
	}
	if config.StopGrace == 0 {
		config.StopGrace = 2 * time.Second
	}
	dns, err := resolvers(config.Network.DNS)
	if err != nil {
		return nil, fmt.Errorf("job network: %w", err)
	}
	network, err := newNetwork(config.Network, filepath.Join(config.Dir, "netns"))
	if err != nil {
		return nil, fmt.Errorf("job network: %w", err)
	}
	connection, err := client.New(config.Socket, client.WithDefaultNamespace(config.Namespace), client.WithTimeout(time.Minute))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	e := &Executor{config: config, client: connection, network: network, dns: dns,
		apparmor: apparmor.HostSupports(), oom: newOOMWatch()}
	e.sweeper = newSweeper(e)
	e.left = newLeftovers(config.AnswerTimeout)
	return e, nil
}

// Close ends the connection and removes the fence. No job may be running.
func (e *Executor) Close(ctx context.Context) error {
	e.oom.stop()
	e.sweeper.stop()
	e.left.stop()
	return errors.Join(e.client.Close(), e.network.unfence(ctx))
}

// Name is the executor's name in traces.
func (*Executor) Name() string { return "containerd" }

func (e *Executor) fifoDir() string { return filepath.Join(e.config.Dir, "fifo") }

// Recover implements runner.Executor: whatever lives in the jobs' namespace is
// of an earlier process, because this one has not started yet.
func (e *Executor) Recover(ctx context.Context) error {
	left, err := e.client.Containers(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, one := range left {
		if err := (&container{executor: e, Container: one}).remove(ctx); err != nil {
			return err
		}
	}
	if err := e.removeSnapshots(ctx); err != nil {
		return err
	}
	if err := mount.UnmountRecursive(filepath.Join(e.config.Dir, "files"), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount volumes of jobs: %w", err)
	}
	for _, dir := range []string{e.fifoDir(), filepath.Join(e.config.Dir, "files")} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove files of jobs: %w", err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	if err := e.network.recover(ctx); err != nil {
		return err
	}
	e.oom.start(e.client)
	e.sweeper.start()
	e.left.start()
	return nil
}

// removeSnapshots removes active snapshots that no container has any more.
func (e *Executor) removeSnapshots(ctx context.Context) error {
	service := e.client.SnapshotService(e.config.Snapshotter)
	keys, err := activeSnapshots(ctx, service)
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for _, key := range keys {
		if err := service.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove snapshot %s: %w", key, err)
		}
	}
	return nil
}

// environment is one job's containers and network.
type environment struct {
	executor *Executor
	request  runner.EnvironmentRequest
	dir      string // small files of the job
	segment  *segment
	endpoint *endpoint
	build    *container
	services []*service
	closeEnd func(context.Context) error
	sequence int
	mounts   []specs.Mount

	hung     bool       // containerd did not answer to the end of the job's time
	closing  sync.Mutex // held while the environment is removed
	detached bool       // the segment is closed: another job may have its place

	mu      sync.Mutex
	extra   map[string]*container // containers of `docker run`
	pending chan launched
	closed  bool
}

type launched struct {
	process *process
	input   *lateReader
	stdout  *lateWriter
	stderr  *lateWriter
	err     error
}

// Prepare implements runner.Executor.
func (e *Executor) Prepare(ctx context.Context, r runner.EnvironmentRequest) (_ runner.Environment, err error) {
	if r.Image.Name == "" {
		r.Image.Name = e.config.DefaultImage
		r.Image.PullPolicy = nil
	}
	r.Log.Print("Using containerd executor with image %s ...", r.Image.Name)
	env := &environment{executor: e, request: r, extra: map[string]*container{},
		dir: filepath.Join(e.config.Dir, "files", strconv.FormatInt(r.JobID, 10))}
	defer func() {
		if err != nil {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.config.AnswerTimeout)
			defer cancel()
			err = errors.Join(err, env.Close(closing))
		}
	}()
	if err := os.MkdirAll(env.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of job: %w", err)
	}
	if env.segment, err = e.network.open(); err != nil {
		return nil, err
	}
	images := &puller{executor: e, credentials: r.Credentials, log: r.Log}
	r.Services = slices.DeleteFunc(r.Services, func(one delivery.JobImage) bool { return env.ignoredService(one) })
	if err := env.startServices(ctx, images, r.Services); err != nil {
		return nil, err
	}
	image, err := images.get(ctx, r.Image)
	if err != nil {
		return nil, err
	}
	if err := env.createBuild(ctx, image); err != nil {
		return nil, err
	}
	env.prelaunch()
	return env, nil
}

// DNS are the resolvers of jobs.
func (e *Executor) DNS() []string { return e.dns }

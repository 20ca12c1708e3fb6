package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"

	"github.com/slipwayhq/slipway/internal/toolwire"
)

// Config configures an Engine.
type Config struct {
	Daemon DaemonConfig
	// Dir holds the jobs' endpoints; its path must be short (a socket's path
	// has at most 107 bytes).
	Dir string
	// JobsNamespace is the containerd namespace in which `docker run` runs.
	JobsNamespace string // default slipway-jobs
	// RegistryHosts is a folder of hosts.toml files, as containerd's own.
	RegistryHosts string
	// Transport reaches registries for `docker login` (default http.DefaultTransport).
	Transport http.RoundTripper
	// Scanner carries out `trivy`; nil says that it is not offered.
	Scanner Scanner
}

// Scanner runs trivy for one job.
type Scanner interface {
	// Trivy runs the scanner with the rights of the job and returns its exit
	// code. An error is told to the job and makes the exit code 1.
	Trivy(ctx context.Context, call TrivyCall) (exitCode int, err error)
}

// TrivyCall is one `trivy` of a job.
type TrivyCall struct {
	JobID, ProjectID int64
	Args             []string
	Env              map[string]string // TRIVY_ variables of the job
	Dir              string            // working folder, as the job sees it
	BuildsPath       string            // where the job sees its builds folder
	BuildsDir        string            // the same on the host: to be read through os.Root only
	Credentials      []Credential      // of registries; never for a process's arguments
	Stdout, Stderr   io.Writer
	// WriteFile writes an output file inside the job.
	WriteFile func(path string, mode fs.FileMode, r io.Reader) error
}

// Credential is a job's access to one registry host.
type Credential struct {
	Host, Username, Password string
}

// Administrator stands in a Scope for the host's administrator, who is no job.
const Administrator = 0

// Scope is the job that an endpoint serves.
type Scope struct {
	JobID, ProjectID int64
	BuildsPath       string // where the job sees its builds folder
	BuildsDir        string // the same on the host
	Credentials      []Credential
	// Create makes a container beside the job, for `docker run` and others; nil
	// outside of jobs.
	Create func(ctx context.Context, r RunRequest) (Container, error)
}

// Container is one beside the job, known by a `docker` command. The end of the
// job removes it too.
type Container interface {
	// Run starts it, calls started when it runs, and waits for its end, which
	// that of ctx brings about.
	Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, started func()) (exitCode int, err error)
	// Exec runs Args in it while it runs.
	Exec(ctx context.Context, r RunRequest) (exitCode int, err error)
	// Files shows its files, read-only, while fn runs.
	Files(ctx context.Context, fn func(root *os.Root) error) error
	Remove(ctx context.Context) error
}

// RunRequest is a `docker run`.
type RunRequest struct {
	Image      string
	Local      bool // Image is a name in the jobs' containerd namespace
	Entrypoint []string
	Args       []string
	Env        []string
	User       string
	Workdir    string
	Hostname   string
	Names      []string // by which the job's containers know it
	Volumes    []Volume
	Stdin      io.Reader
	Stdout     io.Writer
	Stderr     io.Writer
}

// Volume shows a part of the job's builds folder in another container.
type Volume struct {
	Source, Target string
	ReadOnly       bool
	Create         bool // make Source a folder when it is not there
}

// Engine builds images and serves the endpoints of jobs.
type Engine struct {
	config     Config
	daemon     *daemon
	containerd *containerd.Client
}

// New connects to containerd. buildkitd is started by the first build.
func New(config Config) (*Engine, error) {
	if config.JobsNamespace == "" {
		config.JobsNamespace = "slipway-jobs"
	}
	if config.Transport == nil {
		config.Transport = http.DefaultTransport
	}
	d := newDaemon(config.Daemon)
	connection, err := containerd.New(d.config.ContainerdSocket, containerd.WithDefaultNamespace(d.config.Namespace))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	e := &Engine{config: config, daemon: d, containerd: connection}
	d.endSteps = e.endSteps
	return e, nil
}

// endSteps ends every container of a build step.
func (e *Engine) endSteps(ctx context.Context) error {
	steps, err := e.containerd.Containers(ctx)
	if err != nil {
		return fmt.Errorf("list build steps: %w", err)
	}
	for _, step := range steps {
		if task, err := step.Task(ctx, nil); err == nil {
			if _, err := task.Delete(ctx, containerd.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("end build step: %w", err)
			}
		}
		if err := step.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove build step: %w", err)
		}
	}
	return nil
}

// Recover removes what an earlier process left: buildkitd and its build steps,
// sockets and the images of ended jobs. No endpoint may be open.
func (e *Engine) Recover(ctx context.Context) error {
	if err := os.RemoveAll(e.config.Dir); err != nil {
		return fmt.Errorf("remove endpoints: %w", err)
	}
	if err := os.MkdirAll(e.config.Dir, 0o711); err != nil {
		return fmt.Errorf("make folder of endpoints: %w", err)
	}
	if err := os.MkdirAll(e.daemon.config.Dir, 0o700); err != nil {
		return fmt.Errorf("make folder of builds: %w", err)
	}
	if err := e.daemon.clean(ctx); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(e.daemon.config.Dir, contextPrefix+"*"))
	if err != nil {
		return fmt.Errorf("find contexts of builds: %w", err)
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove context of a build: %w", err)
		}
	}
	return e.removeImages(ctx, jobDomain+"/")
}

// contextPrefix starts the names of folders with the files of one build.
const contextPrefix = "context-"

// removeImages forgets all images whose name starts with prefix; containerd
// collects their content.
func (e *Engine) removeImages(ctx context.Context, prefix string) error {
	for _, ctx := range []context.Context{ctx, e.inJobs(ctx)} {
		images, err := e.containerd.ImageService().List(ctx)
		if err != nil {
			return fmt.Errorf("list images: %w", err)
		}
		for _, image := range images {
			if !strings.HasPrefix(image.Name, prefix) {
				continue
			}
			if err := e.containerd.ImageService().Delete(ctx, image.Name); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove image: %w", err)
			}
		}
	}
	return nil
}

// Check returns the process id of buildkitd, or 0 while none is needed, and an
// error when it does not answer before ctx ends.
func (e *Engine) Check(ctx context.Context) (pid int, err error) { return e.daemon.check(ctx) }

// Close stops buildkitd. No endpoint may be open.
func (e *Engine) Close() error {
	e.daemon.close()
	return e.containerd.Close()
}

// Open starts the endpoint of a job and returns the folder with its socket.
// close ends it with everything that runs through it, and removes the job's
// images.
func (e *Engine) Open(ctx context.Context, scope Scope) (dir string, closeEndpoint func(context.Context) error, err error) {
	dir = filepath.Join(e.config.Dir, strconv.FormatInt(scope.JobID, 10))
	// A job sees its folder only, whoever the job's user is; the folder of the
	// host's administrator stays closed to everybody else.
	mode := fs.FileMode(0o755)
	if scope.JobID == Administrator {
		mode = 0o700
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return "", nil, fmt.Errorf("make endpoint: %w", err)
	}
	socket := filepath.Join(dir, filepath.Base(toolwire.Socket))
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("listen: %w", err), os.RemoveAll(dir))
	}
	// Only this job sees the folder; within it every user may call.
	if err := os.Chmod(socket, 0o666); err != nil {
		return "", nil, errors.Join(err, listener.Close(), os.RemoveAll(dir))
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	end := &endpoint{engine: e, scope: scope, images: map[string]*jobImage{}, logins: map[string]Credential{}, manifests: map[string]*manifestList{}, containers: map[string]*jobContainer{}}
	end.lifetime, end.endLife = context.WithCancel(serving)
	for _, credential := range scope.Credentials {
		if _, given := end.logins[credential.Host]; !given {
			end.logins[credential.Host] = credential
		}
	}
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // closed
			}
			calls.Go(func() {
				if err := toolwire.Serve(serving, connection, end.handle); err != nil {
					e.daemon.config.Logger.Debug("call from job", "job", scope.JobID, "error", err)
				}
			})
		}
	})
	return dir, func(ctx context.Context) error {
		cancel()
		closeErr := listener.Close()
		if errors.Is(closeErr, net.ErrClosed) {
			closeErr = nil
		}
		calls.Wait()
		return errors.Join(closeErr, end.endContainers(ctx), os.RemoveAll(dir), end.forget(ctx))
	}, nil
}

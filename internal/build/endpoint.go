package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/slipwayhq/slipway/internal/toolwire"
)

// jobDomain starts the names under which images of jobs are kept in
// containerd: <domain>/<job>/<hash of the name>. A job knows its images by the
// names it gave them, and no others.
const jobDomain = "job.slipway.internal"

// endpoint carries out the calls of one job.
type endpoint struct {
	engine *Engine
	scope  Scope
	builds atomic.Int64 // how many were started: names their results

	mu     sync.Mutex
	images map[string]*jobImage  // by canonical name
	logins map[string]Credential // by registry host
}

// jobImage is an image that the job built, pulled or tagged.
type jobImage struct {
	name    string // canonical, with tag
	target  ocispec.Descriptor
	created time.Time
}

// command is one docker command.
type command struct {
	*endpoint
	*toolwire.Session
	flags *pflag.FlagSet
	name  string
}

// exitError ends a command with a code and no further words.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// handle carries out one call.
func (e *endpoint) handle(ctx context.Context, s *toolwire.Session) int {
	var err error
	switch s.Tool {
	case "docker":
		err = e.docker(ctx, s)
	case "trivy":
		err = e.trivy(ctx, s)
	default:
		err = fmt.Errorf("unknown command %q", s.Tool)
	}
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case ctx.Err() != nil:
		return 130
	}
	fmt.Fprintf(s.Stderr(), "ERROR: %v\n", err)
	return 1
}

func (e *endpoint) trivy(ctx context.Context, s *toolwire.Session) error {
	if e.engine.config.Scanner == nil {
		return errors.New("trivy is not offered on this installation")
	}
	env := map[string]string{}
	for name, value := range s.Env {
		if strings.HasPrefix(name, "TRIVY_") {
			env[name] = value
		}
	}
	code, err := e.engine.config.Scanner.Trivy(ctx, TrivyCall{
		JobID: e.scope.JobID, ProjectID: e.scope.ProjectID, Args: s.Args, Env: env, Dir: s.Dir,
		BuildsPath: e.scope.BuildsPath, BuildsDir: e.scope.BuildsDir, Credentials: e.credentials(), Stdout: s.Stdout(), Stderr: s.Stderr(),
		WriteFile: func(path string, mode fs.FileMode, r io.Reader) error { return s.WriteFile(ctx, path, mode, r) },
	})
	if err == nil && code != 0 {
		err = exitError{code}
	}
	return err
}

func (e *endpoint) credentials() []Credential {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]Credential, 0, len(e.logins))
	for _, one := range e.logins {
		list = append(list, one)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Host < list[j].Host })
	return list
}

// docker dispatches a command line. What docker itself would take and this
// platform does by other means is accepted with a notice; what it cannot do is
// refused by name.
func (e *endpoint) docker(ctx context.Context, s *toolwire.Session) error {
	args := globalFlags(s.Args)
	if len(args) == 0 {
		fmt.Fprint(s.Stdout(), usage)
		return nil
	}
	name, rest := args[0], args[1:]
	switch name {
	case "image", "builder", "buildx", "container", "manifest", "system":
		if len(rest) > 0 {
			name, rest = name+" "+rest[0], rest[1:]
		}
	}
	run, known := commands[name]
	if !known {
		return fmt.Errorf("docker %s is not offered in jobs; offered are build, buildx build, tag, push, pull, login, logout, images, inspect, rmi, run, save, load, version and info", name)
	}
	c := &command{endpoint: e, Session: s, name: name, flags: pflag.NewFlagSet("docker "+name, pflag.ContinueOnError)}
	c.flags.SetOutput(s.Stderr())
	c.Session.Args = rest
	err := run(ctx, c)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	return err
}

const usage = `Usage: docker COMMAND

The docker command of jobs: images are built by BuildKit and stored in the
platform's registry, without a docker daemon and without privileges.

Commands:
  build, buildx build   Build an image
  tag, push, pull       Name an image, move it to and from a registry
  login, logout         Sign in to a registry
  images, inspect, rmi  The images of this job
  run                   Run a container beside the job
  save, load            Images as archives
  version, info

Example: docker build -t "$CI_REGISTRY_IMAGE:$CI_COMMIT_SHORT_SHA" . && docker push "$CI_REGISTRY_IMAGE:$CI_COMMIT_SHORT_SHA"
`

// commands are the command lines that jobs use.
var commands = map[string]func(context.Context, *command) error{
	"build": buildImage, "buildx build": buildImage, "image build": buildImage, "builder build": buildImage, "buildx b": buildImage,
	"tag": tagImage, "image tag": tagImage,
	"push": pushImages, "image push": pushImages,
	"pull": pullImage, "image pull": pullImage,
	"login": login, "logout": logout,
	"images": listImages, "image ls": listImages, "image list": listImages,
	"inspect": inspectImages, "image inspect": inspectImages,
	"rmi": removeImages, "image rm": removeImages, "image prune": nothing,
	"run": runContainer, "container run": runContainer,
	"save": saveImages, "image save": saveImages,
	"load": loadImages, "image load": loadImages,
	"version": version, "info": info, "system info": info, "system prune": nothing, "builder prune": nothing,
	"ps": nothing, "container ls": nothing,
	"buildx create": builderName, "buildx use": nothing, "buildx inspect": nothing, "buildx rm": nothing, "buildx ls": builderList, "buildx version": version,
	"buildx du": nothing, "buildx prune": nothing,
}

// nothing is a command whose effect this platform gives without it.
func nothing(context.Context, *command) error { return nil }

func builderName(_ context.Context, c *command) error {
	fmt.Fprintln(c.Stdout(), "slipway")
	return nil
}

func builderList(_ context.Context, c *command) error {
	fmt.Fprintln(c.Stdout(), "NAME/NODE   DRIVER/ENDPOINT   STATUS    PLATFORMS\nslipway *   slipway\n \\_ slipway0           running   linux/amd64")
	return nil
}

func version(_ context.Context, c *command) error {
	c.flags.StringP("format", "f", "", "")
	if err := c.flags.Parse(c.Args); err != nil {
		return err
	}
	if c.flags.Changed("format") {
		fmt.Fprintln(c.Stdout(), "28.5.2")
		return nil
	}
	fmt.Fprintln(c.Stdout(), "Docker version 28.5.2, build slipway\nServer: BuildKit v0.33.1, started when a build needs it")
	return nil
}

func info(_ context.Context, c *command) error {
	fmt.Fprintln(c.Stdout(), "Client: docker command of Slipway\nServer:\n Builder: BuildKit, started when a build needs it\n Storage Driver: overlayfs\n Runtimes: io.containerd.runc.v2")
	return nil
}

// globalFlags drops docker's flags before the command: they choose a daemon.
func globalFlags(args []string) []string {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		takesValue := slices.Contains([]string{"-H", "--host", "--config", "-c", "--context", "-l", "--log-level", "--tlscacert", "--tlscert", "--tlskey"}, args[0])
		if takesValue && len(args) > 1 {
			args = args[1:]
		}
		args = args[1:]
	}
	return args
}

// canonical is the full form of an image name, with a tag or digest.
func canonical(name string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return nil, fmt.Errorf("invalid reference format: %q", name)
	}
	return named, nil
}

// internalName is an image's name in containerd.
func (e *endpoint) internalName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%s/%d/%s:latest", jobDomain, e.scope.JobID, hex.EncodeToString(sum[:16]))
}

// keep records an image of the job under a name.
func (e *endpoint) keep(ctx context.Context, named reference.Named, target ocispec.Descriptor) error {
	name := named.String()
	record := images.Image{Name: e.internalName(name), Target: target}
	if _, err := e.engine.containerd.ImageService().Create(ctx, record); err != nil {
		if !errdefs.IsAlreadyExists(err) {
			return fmt.Errorf("record image: %w", err)
		}
		if _, err := e.engine.containerd.ImageService().Update(ctx, record); err != nil {
			return fmt.Errorf("record image: %w", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.images[name] = &jobImage{name: name, target: target, created: time.Now()}
	return nil
}

// find returns an image of the job by name, digest or the beginning of its
// digest.
func (e *endpoint) find(name string) (*jobImage, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if named, err := canonical(name); err == nil {
		if image := e.images[named.String()]; image != nil {
			return image, nil
		}
	}
	wanted := strings.TrimPrefix(name, "sha256:")
	for _, image := range e.images {
		if len(wanted) >= 6 && strings.HasPrefix(image.target.Digest.Encoded(), wanted) {
			return image, nil
		}
	}
	return nil, fmt.Errorf("No such image: %s", name) //nolint:staticcheck // docker's own words
}

// all returns the job's images by name.
func (e *endpoint) all() []*jobImage {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]*jobImage, 0, len(e.images))
	for _, image := range e.images {
		list = append(list, image)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list
}

// forget removes all images of the job.
func (e *endpoint) forget(ctx context.Context) error {
	return e.engine.removeImages(ctx, fmt.Sprintf("%s/%d/", jobDomain, e.scope.JobID))
}

// inJobs is the context of the containerd namespace of the jobs' containers.
func (e *Engine) inJobs(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, e.config.JobsNamespace)
}

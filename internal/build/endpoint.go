package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
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

	// Containers outlive the command that starts them: lifetime ends with the
	// endpoint, and background has those that then end.
	lifetime   context.Context
	endLife    context.CancelFunc
	background sync.WaitGroup

	mu         sync.Mutex
	images     map[string]*jobImage     // by name
	logins     map[string]Credential    // by registry host
	manifests  map[string]*manifestList // by canonical name
	containers map[string]*jobContainer // by id
}

// jobImage is an image that the job built, pulled or tagged.
type jobImage struct {
	name    string          // canonical, with tag; its id when it has no name
	named   reference.Named // nil: it has no name
	id      digest.Digest   // of its configuration, as docker has it
	target  ocispec.Descriptor
	created time.Time
}

// command is one docker command.
type command struct {
	*endpoint
	*toolwire.Session
	flags *pflag.FlagSet
	name  string
	known known
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
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case ctx.Err() != nil:
		return 130
	case errors.As(err, &usage):
		fmt.Fprintln(s.Stderr(), usage)
		return usage.code
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

// keep records an image of the job under a name; nil: it is known by its id.
func (e *endpoint) keep(ctx context.Context, named reference.Named, target ocispec.Descriptor) (*jobImage, error) {
	image := &jobImage{named: named, id: target.Digest, target: target, created: time.Now()}
	store := e.engine.containerd.ContentStore()
	// An image for other platforms alone has no configuration that would count.
	if config, err := images.Config(ctx, store, target, platforms.Default()); err == nil {
		image.id = config.Digest
	}
	image.name = image.id.String()
	if named != nil {
		image.name = named.String()
	}
	record := images.Image{Name: e.internalName(image.name), Target: target}
	if _, err := e.engine.containerd.ImageService().Create(ctx, record); err != nil {
		if !errdefs.IsAlreadyExists(err) {
			return nil, fmt.Errorf("record image: %w", err)
		}
		if _, err := e.engine.containerd.ImageService().Update(ctx, record); err != nil {
			return nil, fmt.Errorf("record image: %w", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.images[image.name] = image
	return image, nil
}

// find returns an image of the job by name, id, digest or the beginning of its
// id.
func (e *endpoint) find(name string) (*jobImage, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if named, err := canonical(name); err == nil {
		if image := e.images[named.String()]; image != nil {
			return image, nil
		}
		if digested, ok := named.(reference.Digested); ok {
			for _, image := range e.images {
				if image.named != nil && image.named.Name() == named.Name() && image.target.Digest == digested.Digest() {
					return image, nil
				}
			}
		}
	}
	wanted := strings.TrimPrefix(name, "sha256:")
	var found *jobImage
	for _, image := range e.images {
		if len(wanted) < 4 || !strings.HasPrefix(image.id.Encoded(), wanted) && image.target.Digest.Encoded() != wanted {
			continue
		}
		if found == nil || image.name < found.name { // always the same of several names
			found = image
		}
	}
	if found == nil {
		return nil, fmt.Errorf("No such image: %s", name) //nolint:staticcheck // docker's own words
	}
	return found, nil
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

package scan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan/report"
)

// JobCall is `trivy ARGS` in a job's script. The command is carried out beside
// the platform, on copies of the files that it names, so that nothing of Trivy
// is needed in the job's image and nothing of the host can be reached.
type JobCall struct {
	JobID, ProjectID   int64
	Args               []string          // without the program's name
	Env                map[string]string // the job's; TRIVY_ variables are looked at
	Dir                string            // current folder as the job sees it, below BuildsPath
	BuildsPath         string            // where the job sees the tree: /builds
	BuildsDir          string            // the same tree on the host
	Username, Password string            // the job's credential for the registry
	Stdout, Stderr     io.Writer
	// WriteFile stores an output file in the job; the path is absolute there.
	WriteFile func(path string, mode fs.FileMode, r io.Reader) error
}

// jobRun is a JobCall on its way to a command line.
type jobRun struct {
	s       *Service
	call    JobCall
	root    *os.Root // the job's builds
	work    string   // private folder
	tree    string   // work/tree: copies, and Trivy's current folder
	command string
	flags   []string
	targets []string
	ignores string            // path of the ignore file in the tree
	outputs map[string]string // file in work -> path in the job
	copied  int64
}

// refusal is a call that is not carried out; it goes to the job's standard error.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

func refuse(format string, args ...any) error { return refusal{fmt.Sprintf(format, args...)} }

// RunForJob carries out a job's trivy command and returns its exit status. What
// is wrong with the call is written to its standard error, with status 1; an
// error is returned for what went wrong here.
func (s *Service) RunForJob(ctx context.Context, call JobCall) (int, error) {
	status, err := s.runForJob(ctx, call)
	var no refusal
	var known *delivery.Error
	switch {
	case errors.As(err, &no):
		fmt.Fprintln(call.Stderr, "trivy: "+no.text)
		return 1, nil
	case errors.As(err, &known):
		s.cfg.Log.Warn("scan: a job's scan failed", "job", call.JobID, "err", err)
		fmt.Fprintln(call.Stderr, "trivy: "+delivery.UserMessage(err))
		return 1, nil
	}
	return status, err
}

func (s *Service) runForJob(ctx context.Context, call JobCall) (int, error) {
	root, err := os.OpenRoot(call.BuildsDir)
	if err != nil {
		return 1, fmt.Errorf("scan: open the job's builds: %w", err)
	}
	defer root.Close()
	work, err := os.MkdirTemp(s.cfg.Dir, "run-")
	if err != nil {
		return 1, fmt.Errorf("scan: %w", err)
	}
	defer os.RemoveAll(work)
	run := &jobRun{s: s, call: call, root: root, work: work, tree: filepath.Join(work, "tree"), outputs: map[string]string{}}
	if err := os.Mkdir(run.tree, 0o700); err != nil {
		return 1, fmt.Errorf("scan: %w", err)
	}
	if err := run.parse(); err != nil {
		return 1, err
	}
	env, err := run.environment()
	if err != nil {
		return 1, err
	}
	if err := run.prepare(ctx); err != nil {
		return 1, err
	}
	if !s.running.TryLock() {
		fmt.Fprintln(call.Stderr, "Waiting for another scan to end.")
		s.hurry()
		s.running.Lock()
	}
	defer s.running.Unlock()
	if err := run.describeDatabase(); err != nil {
		return 1, err
	}
	args, err := run.arguments()
	if err != nil {
		return 1, err
	}
	status, err := s.execute(ctx, process{args: args, dir: run.tree, work: work, env: env, stdout: call.Stdout, stderr: call.Stderr})
	if err != nil {
		return 1, err
	}
	return status, run.deliver()
}

// prepare copies the targets, checks the ignore file and the image's name.
func (r *jobRun) prepare(ctx context.Context) error {
	switch r.command {
	case "image":
		for i, t := range r.targets {
			image, err := r.image(t)
			if err != nil {
				return err
			}
			if r.targets[i], err = r.pull(ctx, image); err != nil {
				return err
			}
		}
	case "filesystem", "rootfs", "config":
		if len(r.targets) != 1 {
			return refuse("name one file or folder, such as \".\"")
		}
		if strings.Contains(r.targets[0], "://") {
			return refuse("remote repositories are not scanned in jobs; check it out and scan the folder")
		}
		local, err := r.copyTree(ctx, r.targets[0])
		if err != nil {
			return err
		}
		r.targets[0] = local
	case "sbom", "convert":
		if len(r.targets) != 1 {
			return refuse("name one file")
		}
		local, err := r.fetch(r.targets[0])
		if err != nil {
			return err
		}
		r.targets[0] = local
	}
	return r.checkIgnores()
}

// image turns the name of an image into one that is pulled through the
// platform's registry; no other address is contacted.
func (r *jobRun) image(name string) (string, error) {
	host, rest, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = "docker.io", name
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if host == r.s.cfg.Registry {
		return name, nil
	}
	if !slices.Contains(r.s.cfg.CacheHosts, host) {
		return "", refuse("images of %s cannot be scanned here; push the image to %s first", host, r.s.cfg.Registry)
	}
	if host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return r.s.cfg.Registry + "/" + host + "/" + rest, nil
}

// pull fetches an image into an OCI layout in the private tree, under the
// image's own name, so that reports call it by that. Trivy would fetch it
// itself, but takes a single OCI image for something else: the client library
// that it is linked with reports the media type of the configuration as an
// artifact type.
func (r *jobRun) pull(ctx context.Context, image string) (string, error) {
	var opts []name.Option
	if r.s.cfg.RegistryInsecure {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(image, opts...)
	if err != nil {
		return "", refuse("%q is not the name of an image: %v", image, err)
	}
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if i := slices.Index(r.flags, "--platform"); i >= 0 && i+1 < len(r.flags) {
		parsed, err := v1.ParsePlatform(r.flags[i+1])
		if err != nil {
			return "", refuse("--platform: %v", err)
		}
		platform = *parsed
	}
	with := []remote.Option{remote.WithContext(ctx), remote.WithPlatform(platform)}
	if r.s.cfg.RegistryTransport != nil {
		transport, err := r.s.cfg.RegistryTransport()
		if err != nil {
			return "", fmt.Errorf("scan: reach %s: %w", r.s.cfg.Registry, err)
		}
		with = append(with, remote.WithTransport(transport))
	}
	if r.call.Username != "" {
		with = append(with, remote.WithAuth(&authn.Basic{Username: r.call.Username, Password: r.call.Password}))
	}
	pulled, err := remote.Image(ref, with...)
	if err != nil {
		return "", refuse("%s cannot be pulled: %v", image, err)
	}
	digest, err := pulled.Digest()
	if err != nil {
		return "", refuse("%s cannot be pulled: %v", image, err)
	}
	// Trivy takes what follows a colon or an @ for the image within the layout,
	// an @ first; so the digest is always named, and colons may stay.
	image, _, _ = strings.Cut(image, "@")
	dir := filepath.Join(r.tree, filepath.FromSlash(image))
	folder, err := layout.Write(dir, empty.Index)
	if err != nil {
		return "", fmt.Errorf("scan: %w", err)
	}
	if err := folder.AppendImage(pulled); err != nil {
		return "", refuse("%s cannot be pulled: %v", image, err)
	}
	return image + "@" + digest.String(), nil
}

// checkIgnores holds the ignore files against our rule: a reason and a date.
func (r *jobRun) checkIgnores() error {
	if r.ignores == "" {
		if r.command == "convert" || r.command == "help" || r.command == "version" {
			return nil
		}
		local, err := r.fetch(".trivyignore") // what Trivy reads by itself
		if err != nil {
			return nil // there is none
		}
		r.ignores = local
	}
	raw, err := os.ReadFile(filepath.Join(r.tree, r.ignores))
	if err != nil {
		return fmt.Errorf("scan: read ignore file: %w", err)
	}
	if ext := path.Ext(r.ignores); ext == ".yaml" || ext == ".yml" {
		_, err = report.ParseIgnores(r.ignores, raw)
	} else {
		err = report.CheckPlainIgnores(r.ignores, raw)
	}
	if err != nil {
		return refuse("%v", err)
	}
	return nil
}

func (r *jobRun) describeDatabase() error {
	if !r.needsDatabase() {
		return nil
	}
	db, err := r.s.Database()
	if err != nil {
		return err
	}
	days := int(r.s.cfg.Now().Sub(db.UpdatedAt) / (24 * time.Hour))
	fmt.Fprintf(r.call.Stderr, "Vulnerability database of %s (%d days old), from %s.\n", db.UpdatedAt.Format(time.DateOnly), days, db.Origin)
	if warning := db.Warning(r.s.cfg.Now()); warning != "" {
		fmt.Fprintln(r.call.Stderr, "WARNING: "+warning)
	}
	if db.Demonstration {
		fmt.Fprintln(r.call.Stderr, "NOTE: this is a demonstration database. "+db.Note)
	}
	return nil
}

// needsDatabase reports whether vulnerabilities are looked for.
func (r *jobRun) needsDatabase() bool {
	switch r.command {
	case "image", "filesystem", "rootfs", "sbom":
	default:
		return false
	}
	scanners := r.call.Env["TRIVY_SCANNERS"]
	for i, f := range r.flags {
		if (f == "--scanners" || f == "--security-checks") && i+1 < len(r.flags) {
			scanners = r.flags[i+1]
		}
	}
	return scanners == "" || slices.Contains(strings.Split(scanners, ","), "vuln")
}

// deliver copies the output files into the job.
func (r *jobRun) deliver() error {
	for file, target := range r.outputs {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Trivy failed before it wrote anything, and said why
		}
		if err != nil {
			return fmt.Errorf("scan: read output: %w", err)
		}
		err = r.call.WriteFile(target, 0o644, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return refuse("%s cannot be written: %v", target, err)
		}
	}
	return nil
}

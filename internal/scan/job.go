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
	"syscall"
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

// option says what may be done with one of Trivy's flags in a job.
type option int

const (
	switchOption  option = iota // takes no value, or =true and =false
	valueOption                 // takes a value that names no file
	inputOption                 // takes a file of the job
	outputOption                // takes a file to write in the job
	ignoredOption               // takes a value; is the platform's business
	ignoredSwitch
)

// jobOptions are the flags that a job may use. All others are refused: they
// reach files, servers or sockets of the host, or fetch and store things.
var jobOptions = map[string]option{
	"format": valueOption, "output": outputOption, "severity": valueOption, "exit-code": valueOption, "exit-on-eol": valueOption,
	"ignore-unfixed": switchOption, "ignore-status": valueOption, "ignorefile": inputOption, "scanners": valueOption, "security-checks": valueOption,
	"pkg-types": valueOption, "vuln-type": valueOption, "pkg-relationships": valueOption, "list-all-pkgs": switchOption, "dependency-tree": switchOption,
	"table-mode": valueOption, "template": valueOption, "report": valueOption, "show-suppressed": switchOption, "compliance": valueOption,
	"misconfig-scanners": valueOption, "image-config-scanners": valueOption, "include-non-failures": switchOption, "include-dev-deps": switchOption,
	"skip-dirs": valueOption, "skip-files": valueOption, "file-patterns": valueOption, "secret-config": inputOption, "timeout": valueOption,
	"platform": valueOption, "removed-pkgs": switchOption, "detection-priority": valueOption, "vuln-severity-source": valueOption, "distro": valueOption,
	"license-full": switchOption, "license-confidence-level": valueOption, "ignored-licenses": valueOption, "render-cause": valueOption, "max-image-size": valueOption,
	"quiet": switchOption, "debug": switchOption, "no-progress": switchOption, "insecure": switchOption, "username": valueOption, "password": valueOption,
	"input": inputOption, "helm-values": inputOption, "tf-vars": inputOption, "help": switchOption, "version": switchOption,
	"cache-dir": ignoredOption, "db-repository": ignoredOption, "java-db-repository": ignoredOption, "checks-bundle-repository": ignoredOption,
	"image-src": ignoredOption, "cache-backend": ignoredOption, "parallel": ignoredOption, "cache-ttl": ignoredOption,
	"skip-db-update": ignoredSwitch, "skip-java-db-update": ignoredSwitch, "skip-check-update": ignoredSwitch, "skip-policy-update": ignoredSwitch,
	"offline-scan": ignoredSwitch, "skip-version-check": ignoredSwitch, "disable-telemetry": ignoredSwitch, "slow": ignoredSwitch, "light": ignoredSwitch,
}

var shortOptions = map[string]string{"f": "format", "o": "output", "s": "severity", "q": "quiet", "d": "debug", "t": "template", "h": "help", "v": "version"}

// jobCommands are the subcommands that a job may use, by all their names.
var jobCommands = map[string]string{
	"image": "image", "i": "image", "filesystem": "filesystem", "fs": "filesystem", "rootfs": "rootfs", "config": "config", "conf": "config",
	"repository": "filesystem", "repo": "filesystem", "sbom": "sbom", "convert": "convert", "version": "version", "help": "help",
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

// parse sorts the arguments into the subcommand, flags and targets.
func (r *jobRun) parse() error {
	args := r.call.Args
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			if r.command == "" {
				if r.command = jobCommands[arg]; r.command == "" {
					return refuse("the command %q is not available in jobs; use image, fs, rootfs, config, sbom or convert", arg)
				}
			} else {
				r.targets = append(r.targets, arg)
			}
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if long := shortOptions[name]; long != "" && !strings.HasPrefix(arg, "--") {
			name = long
		}
		kind, known := jobOptions[name]
		if !known {
			return refuse("the flag %s is not available in jobs", arg)
		}
		takesValue := kind != switchOption && kind != ignoredSwitch
		if takesValue && !hasValue {
			if i++; i == len(args) {
				return refuse("the flag %s needs a value", arg)
			}
			value = args[i]
		}
		if err := r.flag(name, kind, value, hasValue); err != nil {
			return err
		}
	}
	if r.command == "" {
		r.command = "help"
		if slices.Contains(r.flags, "--version") {
			r.command, r.flags = "version", nil
		}
	}
	return nil
}

func (r *jobRun) flag(name string, kind option, value string, hasValue bool) error {
	switch kind {
	case ignoredOption, ignoredSwitch:
		return nil
	case switchOption:
		if hasValue {
			r.flags = append(r.flags, "--"+name+"="+value)
		} else {
			r.flags = append(r.flags, "--"+name)
		}
		return nil
	}
	value, err := r.value(name, kind, value)
	if err == nil {
		r.flags = append(r.flags, "--"+name, value)
	}
	return err
}

// value translates what a flag or its variable is set to.
func (r *jobRun) value(name string, kind option, value string) (string, error) {
	switch {
	case kind == inputOption:
		local, err := r.fetch(value)
		if name == "ignorefile" {
			r.ignores = local
		}
		return local, err
	case kind == outputOption:
		if strings.HasPrefix(value, "plugin=") {
			return "", refuse("output plugins are not available in jobs")
		}
		inJob, err := r.inJob(value)
		if err != nil {
			return "", err
		}
		file := filepath.Join(r.work, fmt.Sprintf("output-%d", len(r.outputs)))
		r.outputs[file] = inJob
		return file, nil
	case name == "template" && strings.HasPrefix(value, "@"):
		local, err := r.fetch(value[1:])
		return "@" + local, err
	case name == "compliance" && strings.HasPrefix(value, "@"):
		local, err := r.fetch(value[1:])
		return "@" + local, err
	}
	return value, nil
}

// environment passes the job's TRIVY_ variables on by the rules of the flags
// that they stand for.
func (r *jobRun) environment() ([]string, error) {
	var env []string
	for key, value := range r.call.Env {
		name, ok := strings.CutPrefix(key, "TRIVY_")
		if !ok || value == "" {
			continue
		}
		if name == "NON_SSL" {
			env = append(env, key+"="+value)
			continue
		}
		flag := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		kind, known := jobOptions[flag]
		if !known {
			return nil, refuse("the variable %s is not available in jobs", key)
		}
		if kind == ignoredOption || kind == ignoredSwitch {
			continue
		}
		if kind != switchOption {
			var err error
			if value, err = r.value(flag, kind, value); err != nil {
				return nil, err
			}
		}
		env = append(env, key+"="+value)
	}
	if r.command == "image" {
		if r.call.Env["TRIVY_USERNAME"] == "" && r.call.Username != "" {
			env = append(env, "TRIVY_USERNAME="+r.call.Username, "TRIVY_PASSWORD="+r.call.Password)
		}
		if r.s.cfg.RegistryInsecure && r.call.Env["TRIVY_NON_SSL"] == "" {
			env = append(env, "TRIVY_NON_SSL=true")
		}
	}
	return env, nil
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

// arguments is the command line.
func (r *jobRun) arguments() ([]string, error) {
	if r.command == "help" || r.command == "version" {
		return append([]string{r.command}, r.targets...), nil
	}
	// A trivy.yaml among the copied files must not be read: it can set
	// anything.
	config := filepath.Join(r.work, "config.yaml")
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	args := append([]string{r.command, "--config", "../config.yaml", "--cache-dir", r.s.cacheDir()}, r.flags...)
	if r.command != "convert" {
		args = append(args, "--skip-version-check", "--disable-telemetry")
		if r.command != "config" {
			args = append(args, "--offline-scan", "--parallel", "1", "--skip-db-update", "--skip-java-db-update")
		}
		if r.command != "sbom" {
			args = append(args, "--skip-check-update")
		}
	}
	if r.command == "image" && len(r.targets) == 1 {
		return append(args, "--input", r.targets[0]), nil
	}
	return append(args, r.targets...), nil
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

// inJob makes a path of the job absolute, as the job sees it.
func (r *jobRun) inJob(p string) (string, error) {
	if !path.IsAbs(p) {
		p = path.Join(r.call.Dir, p)
	}
	return path.Clean(p), nil
}

// inBuilds returns a path of the job relative to its builds.
func (r *jobRun) inBuilds(p string) (string, error) {
	abs, err := r.inJob(p)
	if err != nil {
		return "", err
	}
	rel, ok := strings.CutPrefix(abs, strings.TrimSuffix(r.call.BuildsPath, "/")+"/")
	if !ok {
		return "", refuse("%s is not in the job's build folder %s; only what lies there can be scanned", p, r.call.BuildsPath)
	}
	return rel, nil
}

// localName is where a path of the job goes in the private tree: in the same
// place below the job's current folder, so that reports name what people know.
func (r *jobRun) localName(p string) (string, error) {
	abs, err := r.inJob(p)
	if err != nil {
		return "", err
	}
	if abs == path.Clean(r.call.Dir) {
		return ".", nil
	}
	if rel, ok := strings.CutPrefix(abs, path.Clean(r.call.Dir)+"/"); ok {
		return rel, nil
	}
	return path.Join("outside", path.Base(abs)), nil
}

// places are where a path of the job lies in its build folder, and where it goes
// in the private tree.
func (r *jobRun) places(p string) (rel, local string, err error) {
	if rel, err = r.inBuilds(p); err != nil {
		return "", "", err
	}
	local, err = r.localName(p)
	return rel, local, err
}

// fetch copies one file of the job and returns its name in the private tree.
func (r *jobRun) fetch(p string) (string, error) {
	rel, local, err := r.places(p)
	if err != nil {
		return "", err
	}
	if err := r.copyFile(rel, local); err != nil {
		return "", refuse("%s cannot be read: %v", p, reason(err))
	}
	return local, nil
}

func reason(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// copyTree copies a file or folder of the job. Links are not followed and not
// copied: os.Root keeps a job that changes its files meanwhile from reaching
// anything outside.
func (r *jobRun) copyTree(ctx context.Context, p string) (string, error) {
	rel, local, err := r.places(p)
	if err != nil {
		return "", err
	}
	err = fs.WalkDir(r.root.FS(), rel, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir // Trivy skips it as well
		}
		if !d.Type().IsRegular() {
			return nil
		}
		sub := strings.TrimPrefix(strings.TrimPrefix(name, rel), "/")
		err = r.copyFile(name, path.Join(local, sub))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the job removed it meanwhile
		}
		return err
	})
	var no refusal
	if err != nil && !errors.As(err, &no) {
		return "", refuse("%s cannot be read: %v", p, reason(err))
	}
	return local, err
}

func (r *jobRun) copyFile(rel, local string) error {
	in, err := r.root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold us up
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", rel)
	}
	target := filepath.Join(r.tree, filepath.FromSlash(local))
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(in, r.s.cfg.MaxTree-r.copied+1))
	if r.copied += n; err == nil && r.copied > r.s.cfg.MaxTree {
		err = refuse("the files are larger than %d MB in all; name the folder that matters", r.s.cfg.MaxTree>>20)
	}
	return errors.Join(err, out.Close())
}

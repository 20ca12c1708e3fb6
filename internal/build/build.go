package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/distribution/reference"
	units "github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/util/progress/progressui"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"
)

// maxDockerfile and maxSecret bound what is read into memory (the latter is
// BuildKit's own bound).
const (
	maxDockerfile = 4 << 20
	maxSecret     = 500 << 10
)

// buildFlags are the flags of docker build and buildx build.
type buildFlags struct {
	tags, buildArgs, labels, secrets, cacheFrom, cacheTo, addHosts, contexts, outputs, platforms, noCacheFilter, attest, annotations, allow, ssh []string
	file, target, network, iidFile, metadataFile, progress, shmSize, provenance, sbom                                                            string
	noCache, pull, push, load, quiet                                                                                                             bool
	ulimits                                                                                                                                      []string
}

func (c *command) buildFlags() (*buildFlags, error) {
	b := &buildFlags{}
	f := c.flags
	f.StringArrayVarP(&b.tags, "tag", "t", nil, "")
	f.StringArrayVar(&b.buildArgs, "build-arg", nil, "")
	f.StringArrayVar(&b.labels, "label", nil, "")
	f.StringArrayVar(&b.secrets, "secret", nil, "")
	f.StringArrayVar(&b.cacheFrom, "cache-from", nil, "")
	f.StringArrayVar(&b.cacheTo, "cache-to", nil, "")
	f.StringArrayVar(&b.addHosts, "add-host", nil, "")
	f.StringArrayVar(&b.contexts, "build-context", nil, "")
	f.StringArrayVarP(&b.outputs, "output", "o", nil, "")
	f.StringArrayVar(&b.platforms, "platform", nil, "")
	f.StringArrayVar(&b.noCacheFilter, "no-cache-filter", nil, "")
	f.StringArrayVar(&b.attest, "attest", nil, "")
	f.StringArrayVar(&b.annotations, "annotation", nil, "")
	f.StringArrayVar(&b.allow, "allow", nil, "")
	f.StringArrayVar(&b.ulimits, "ulimit", nil, "")
	f.StringArrayVar(&b.ssh, "ssh", nil, "")
	f.StringVarP(&b.file, "file", "f", "", "")
	f.StringVar(&b.target, "target", "", "")
	f.StringVar(&b.network, "network", "", "")
	f.StringVar(&b.iidFile, "iidfile", "", "")
	f.StringVar(&b.metadataFile, "metadata-file", "", "")
	f.StringVar(&b.progress, "progress", c.Env["BUILDKIT_PROGRESS"], "")
	f.StringVar(&b.shmSize, "shm-size", "", "")
	f.StringVar(&b.provenance, "provenance", "", "")
	f.StringVar(&b.sbom, "sbom", "", "")
	f.Lookup("provenance").NoOptDefVal = "true"
	f.Lookup("sbom").NoOptDefVal = "true"
	f.BoolVar(&b.noCache, "no-cache", false, "")
	f.BoolVar(&b.pull, "pull", false, "")
	f.BoolVar(&b.push, "push", false, "")
	f.BoolVar(&b.load, "load", false, "")
	f.BoolVarP(&b.quiet, "quiet", "q", false, "")
	// Accepted for what they say about a daemon or a builder that is not there.
	for _, name := range []string{"rm", "force-rm", "compress", "disable-content-trust"} {
		f.Bool(name, false, "")
	}
	f.StringP("memory", "m", "", "")
	f.StringP("cpu-shares", "c", "", "")
	for _, name := range []string{"builder", "memory-swap", "cpu-quota", "cpu-period", "cpuset-cpus", "cpuset-mems", "cgroup-parent", "isolation"} {
		f.String(name, "", "")
	}
	f.StringArray("security-opt", nil, "")
	f.StringArray("cgroupns", nil, "")
	if err := c.parse(1, 1); err != nil {
		return nil, err
	}
	for _, entitlement := range b.allow {
		if entitlement != "network.host" {
			return nil, fmt.Errorf("--allow %s is not granted to jobs: build steps run without privileges", entitlement)
		}
	}
	if b.network == "host" {
		fmt.Fprintln(c.Stderr(), "NOTE: --network host is not granted to jobs: the steps have their own network, which reaches the internet and this platform")
	}
	if len(b.platforms) == 0 && c.Env["DOCKER_DEFAULT_PLATFORM"] != "" {
		b.platforms = []string{c.Env["DOCKER_DEFAULT_PLATFORM"]}
	}
	return b, nil
}

// buildImage is docker build.
func buildImage(ctx context.Context, c *command) error {
	b, err := c.buildFlags()
	if err != nil {
		return err
	}
	solve := client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{}, LocalMounts: map[string]fsutil.FS{},
		Session: []session.Attachable{&credentialsServer{endpoint: c.endpoint}},
	}
	var closers closers
	defer closers.close()
	if err := c.inputs(ctx, b, &solve, &closers); err != nil {
		return err
	}
	if err := c.attributes(ctx, b, &solve, &closers); err != nil {
		return err
	}
	names, err := canonicals(b.tags)
	if err != nil {
		return err
	}
	out, err := c.exports(ctx, b, &solve, names)
	if err != nil {
		return err
	}
	if names, err = canonicals(b.tags); err != nil { // an output may name the image too
		return err
	}
	buildkit, release, err := c.engine.daemon.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	response, err := c.solve(ctx, buildkit, b, solve)
	if err = errors.Join(err, out.wait(err)); err != nil {
		return err
	}
	return c.result(ctx, b, names, response, out)
}

// solve runs the build and prints its progress as docker does without a
// terminal.
func (c *command) solve(ctx context.Context, buildkit *client.Client, b *buildFlags, opt client.SolveOpt) (*client.SolveResponse, error) {
	mode := progressui.PlainMode
	if b.quiet || b.progress == "quiet" {
		mode = progressui.QuietMode
	} else if b.progress == "rawjson" {
		mode = progressui.RawJSONMode
	}
	display, err := progressui.NewDisplay(c.Stderr(), mode)
	if err != nil {
		return nil, fmt.Errorf("show progress: %w", err)
	}
	status := make(chan *client.SolveStatus)
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		// The display ends when the build does; what it could not print is lost
		// with the connection.
		_, _ = display.UpdateFrom(context.WithoutCancel(ctx), status)
	}()
	response, err := buildkit.Solve(ctx, nil, opt, status)
	<-shown
	if err != nil && strings.Contains(err.Error(), "exec format error") {
		return nil, fmt.Errorf("failed to build: %w (a step ran a program for another kind of processor: install qemu-user-static on the server, or cross-compile in a stage FROM --platform=$BUILDPLATFORM)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to build: %w", err)
	}
	return response, nil
}

// inputs opens the context, the Dockerfile and the secrets.
func (c *command) inputs(ctx context.Context, b *buildFlags, solve *client.SolveOpt, closers *closers) error {
	source := c.flags.Arg(0)
	file := b.file
	switch {
	case source == "-":
		return c.streamed(b, solve, closers)
	case strings.Contains(source, "://"), strings.HasPrefix(source, "git@"), strings.HasPrefix(source, "github.com/"):
		solve.FrontendAttrs["context"] = source
		if file != "" {
			solve.FrontendAttrs["filename"] = file
		}
		return nil
	}
	dir := c.path(source)
	root, err := c.folder(ctx, dir, closers)
	if err != nil {
		return fmt.Errorf("unable to prepare context: %w", err)
	}
	solve.LocalMounts["context"] = folderFS(root)
	// A Dockerfile outside the context is given a folder of its own.
	if file == "" {
		file = path.Join(dir, "Dockerfile")
	}
	var raw []byte
	inside, isInside := strings.CutPrefix(c.path(file), dir+"/")
	switch {
	case b.file == "-":
		raw, err = io.ReadAll(io.LimitReader(c.Stdin(), maxDockerfile))
	case isInside:
		raw, err = root.ReadFile(inside)
	default:
		var buffer bytes.Buffer
		err = c.CopyFile(ctx, &limited{w: &buffer, left: maxDockerfile}, c.path(file))
		raw = buffer.Bytes()
	}
	if err != nil {
		return fmt.Errorf("failed to read dockerfile: %w", err)
	}
	useOwnFrontend(raw, solve)
	if isInside && b.file != "-" {
		solve.LocalMounts["dockerfile"] = solve.LocalMounts["context"]
		solve.FrontendAttrs["filename"] = inside
		return nil
	}
	alone, err := c.temporary(closers)
	if err != nil {
		return err
	}
	if err := alone.WriteFile("Dockerfile", raw, 0o600); err != nil {
		return fmt.Errorf("store Dockerfile: %w", err)
	}
	if b.file != "-" {
		// FILE.dockerignore beside the Dockerfile takes precedence.
		var ignore bytes.Buffer
		if c.CopyFile(ctx, &limited{w: &ignore, left: maxDockerfile}, c.path(file)+".dockerignore") == nil {
			if err := alone.WriteFile("Dockerfile.dockerignore", ignore.Bytes(), 0o600); err != nil {
				return fmt.Errorf("store Dockerfile: %w", err)
			}
		}
	}
	solve.LocalMounts["dockerfile"] = folderFS(alone)
	solve.FrontendAttrs["filename"] = "Dockerfile"
	return nil
}

// streamed reads standard input: a Dockerfile alone, or the context as an
// archive, compressed or not.
func (c *command) streamed(b *buildFlags, solve *client.SolveOpt, closers *closers) error {
	if b.file == "-" {
		return errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	}
	plain, err := compression.DecompressStream(c.Stdin())
	if err != nil {
		return fmt.Errorf("read the context from standard input: %w", err)
	}
	defer plain.Close()
	input := bufio.NewReaderSize(plain, 1<<10)
	head, err := input.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the context from standard input: %w", err)
	}
	folder, err := c.temporary(closers)
	if err != nil {
		return err
	}
	name := "Dockerfile"
	if _, err := tar.NewReader(bytes.NewReader(head)).Next(); err == nil {
		if err := untar(folder, input); err != nil {
			return fmt.Errorf("read the context from standard input: %w", err)
		}
		if b.file != "" {
			name = path.Clean(b.file)
		}
	} else if raw, err := io.ReadAll(io.LimitReader(input, maxDockerfile)); err != nil {
		return fmt.Errorf("read Dockerfile from standard input: %w", err)
	} else if err := folder.WriteFile(name, raw, 0o600); err != nil {
		return fmt.Errorf("store Dockerfile: %w", err)
	}
	raw, err := folder.ReadFile(name)
	if err != nil {
		return fmt.Errorf("failed to read dockerfile: %w", err)
	}
	useOwnFrontend(raw, solve)
	solve.LocalMounts["context"], solve.LocalMounts["dockerfile"] = folderFS(folder), folderFS(folder)
	solve.FrontendAttrs["filename"] = name
	return nil
}

// useOwnFrontend keeps BuildKit from pulling the stock Dockerfile frontend that
// a `# syntax=` line names: the one built in is the same or newer. Any other
// frontend is honoured.
func useOwnFrontend(dockerfile []byte, solve *client.SolveOpt) {
	name, line, _, found := parser.DetectSyntax(dockerfile)
	if !found {
		return
	}
	named, err := reference.ParseDockerRef(name)
	if err != nil || named.Name() != "docker.io/docker/dockerfile" {
		return
	}
	if tagged, ok := named.(reference.Tagged); ok && (tagged.Tag() == "latest" || strings.HasPrefix(tagged.Tag(), "1")) && !strings.Contains(tagged.Tag(), "labs") {
		solve.FrontendAttrs["cmdline"] = line
	}
}

// folder opens a folder of the job: the builds folder's parts straight from
// the host's disk, anything else as the copy that the command sends.
func (c *command) folder(ctx context.Context, dir string, closers *closers) (*os.Root, error) {
	if inside, ok := strings.CutPrefix(dir+"/", c.scope.BuildsPath+"/"); ok {
		builds, err := os.OpenRoot(c.scope.BuildsDir)
		if err != nil {
			return nil, err
		}
		closers.add(builds)
		if inside = strings.TrimSuffix(inside, "/"); inside == "" {
			return builds, nil
		}
		root, err := builds.OpenRoot(inside)
		if err == nil {
			closers.add(root)
			return root, nil
		}
		// Perhaps a link to elsewhere in the job: the command can follow it.
	}
	isDir, err := c.IsDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	if !isDir {
		return nil, fmt.Errorf("%s is not a folder", dir)
	}
	root, err := c.temporary(closers)
	if err != nil {
		return nil, err
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(c.CopyTree(ctx, writer, dir)) }()
	err = untar(root, reader)
	reader.CloseWithError(err)
	return root, err
}

// temporary makes a folder that goes away with the command.
func (c *command) temporary(closers *closers) (*os.Root, error) {
	dir, err := os.MkdirTemp(c.engine.daemon.config.Dir, contextPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	closers.list = append(closers.list, func() error { return os.RemoveAll(dir) })
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	closers.add(root)
	return root, nil
}

func untar(root *os.Root, r io.Reader) error { return unpack(root, r, false) }

// untarOver is untar over files that are there.
func untarOver(root *os.Root, r io.Reader) error { return unpack(root, r, true) }

func unpack(root *os.Root, r io.Reader, over bool) error {
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(header.Name)
		if !fs.ValidPath(name) {
			return fmt.Errorf("invalid name %q", header.Name)
		}
		if over && header.Typeflag != tar.TypeDir {
			if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		switch header.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, header.FileInfo().Mode().Perm()|0o700)
		case tar.TypeSymlink:
			err = root.Symlink(header.Linkname, name)
		case tar.TypeReg:
			err = writeEntry(root, name, header, archive)
		}
		if err != nil {
			return err
		}
	}
}

func writeEntry(root *os.Root, name string, header *tar.Header, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, header.FileInfo().Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close(), root.Chtimes(name, header.ModTime, header.ModTime))
}

// attributes turns flags into attributes of the frontend.
func (c *command) attributes(ctx context.Context, b *buildFlags, solve *client.SolveOpt, closers *closers) error {
	attrs := solve.FrontendAttrs
	set := func(name, value string) {
		if value != "" {
			attrs[name] = value
		}
	}
	set("target", b.target)
	set("platform", strings.Join(b.platforms, ","))
	hosts := make([]string, 0, len(b.addHosts))
	for _, text := range b.addHosts {
		host, address, found := strings.Cut(text, "=")
		if !found {
			host, address, _ = strings.Cut(text, ":")
		}
		address = strings.Trim(address, "[]")
		if net.ParseIP(address) == nil {
			return fmt.Errorf("invalid --add-host %q: want HOST:IP, and host-gateway is not offered: jobs do not reach this host", text)
		}
		hosts = append(hosts, host+"="+address)
	}
	set("add-hosts", strings.Join(hosts, ","))
	set("ulimit", strings.Join(b.ulimits, ","))
	if b.shmSize != "" {
		size, err := units.RAMInBytes(b.shmSize)
		if err != nil {
			return fmt.Errorf("invalid --shm-size %q: %w", b.shmSize, err)
		}
		set("shm-size", strconv.FormatInt(size, 10))
	}
	if b.network == "none" {
		attrs["force-network-mode"] = "none"
	}
	if b.noCache {
		attrs["no-cache"] = ""
	} else {
		set("no-cache", strings.Join(b.noCacheFilter, ","))
	}
	if b.pull {
		attrs["image-resolve-mode"] = "pull"
	}
	for _, pair := range b.buildArgs {
		name, value, given := strings.Cut(pair, "=")
		if !given {
			if value, given = c.Env[name]; !given {
				continue
			}
		}
		attrs["build-arg:"+name] = value
	}
	for _, pair := range b.labels {
		name, value, _ := strings.Cut(pair, "=")
		attrs["label:"+name] = value
	}
	for kind, value := range map[string]string{"provenance": b.provenance, "sbom": b.sbom} {
		if value != "" && value != "false" {
			attrs["attest:"+kind] = strings.TrimPrefix(value, "true")
		}
	}
	for _, pair := range b.attest {
		given, err := fields(pair)
		if err != nil {
			return err
		}
		if given["disabled"] == "true" {
			continue
		}
		var rest []string
		for _, part := range strings.Split(pair, ",") {
			if !strings.HasPrefix(part, "type=") {
				rest = append(rest, part)
			}
		}
		attrs["attest:"+given["type"]] = strings.Join(rest, ",")
	}
	if attrs["build-arg:BUILDKIT_INLINE_CACHE"] == "1" || attrs["build-arg:BUILDKIT_INLINE_CACHE"] == "true" {
		solve.CacheExports = append(solve.CacheExports, client.CacheOptionsEntry{Type: "inline", Attrs: map[string]string{}})
	}
	if err := c.namedContexts(ctx, b, solve, closers); err != nil {
		return err
	}
	for list, to := range map[*[]string]*[]client.CacheOptionsEntry{&b.cacheFrom: &solve.CacheImports, &b.cacheTo: &solve.CacheExports} {
		for _, text := range *list {
			entry, note, err := cacheEntry(text)
			if err != nil {
				return err
			}
			if note != "" {
				fmt.Fprintln(c.Stderr(), "NOTE: "+note)
				continue
			}
			*to = append(*to, entry)
		}
	}
	if len(b.ssh) > 0 {
		agents, err := c.sshAgents(ctx, b.ssh)
		if err != nil {
			return err
		}
		solve.Session = append(solve.Session, agents)
	}
	return c.secrets(ctx, b, solve)
}

// namedContexts are --build-context and the job's own images: a FROM that names
// an image built earlier in the job means that image.
func (c *command) namedContexts(ctx context.Context, b *buildFlags, solve *client.SolveOpt, closers *closers) error {
	own := c.all()
	if len(own) > 0 {
		targets := make([]ocispec.Descriptor, len(own))
		for i, image := range own {
			targets[i] = image.target
		}
		store, err := newOwnStore(ctx, c.engine.containerd.ContentStore(), targets)
		if err != nil {
			return err
		}
		solve.OCIStores = map[string]content.Store{"job": store}
	}
	for _, image := range own {
		if image.named == nil {
			continue
		}
		layout := fmt.Sprintf("oci-layout://job@%s", image.target.Digest)
		solve.FrontendAttrs["context:"+reference.FamiliarString(image.named)] = layout
		solve.FrontendAttrs["context:"+image.name] = layout
	}
	for _, pair := range b.contexts {
		name, value, ok := strings.Cut(pair, "=")
		switch {
		case !ok:
			return fmt.Errorf("invalid --build-context %q: want NAME=VALUE", pair)
		case strings.HasPrefix(value, "oci-layout://"):
			return fmt.Errorf("--build-context %s: oci-layout:// is not offered: load the image with docker load, and name it with docker-image://", name)
		case strings.Contains(value, "://"):
			solve.FrontendAttrs["context:"+name] = value
			continue
		}
		root, err := c.folder(ctx, c.path(value), closers)
		if err != nil {
			return fmt.Errorf("--build-context %s: %w", name, err)
		}
		solve.LocalMounts["named-"+name] = folderFS(root)
		solve.FrontendAttrs["context:"+name] = "local:named-" + name
	}
	return nil
}

// cacheEntry reads --cache-from and --cache-to: an image name or type=...,. A
// note says why a cache is not needed.
func cacheEntry(text string) (entry client.CacheOptionsEntry, note string, err error) {
	if !strings.Contains(text, "=") {
		return client.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": text}}, "", nil
	}
	attrs, err := fields(text)
	if err != nil {
		return entry, "", err
	}
	kind := attrs["type"]
	delete(attrs, "type")
	switch kind {
	case "registry", "inline":
		return client.CacheOptionsEntry{Type: kind, Attrs: attrs}, "", nil
	case "local", "gha", "s3", "azblob":
		return entry, fmt.Sprintf("cache type %s is not needed: the platform's BuildKit keeps the layers of all builds within its budget", kind), nil
	}
	return entry, "", fmt.Errorf("cache type %q is not offered: use registry or inline", kind)
}

// fields reads docker's comma separated key=value lists.
func fields(text string) (map[string]string, error) {
	parts, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fmt.Errorf("invalid value %q: %w", text, err)
	}
	found := map[string]string{}
	for _, part := range parts {
		name, value, _ := strings.Cut(part, "=")
		found[strings.ToLower(strings.TrimSpace(name))] = value
	}
	return found, nil
}

// secrets are --secret id=ID[,src=PATH|,env=NAME].
func (c *command) secrets(ctx context.Context, b *buildFlags, solve *client.SolveOpt) error {
	values := map[string][]byte{}
	for _, text := range b.secrets {
		given, err := fields(text)
		if err != nil {
			return err
		}
		id, source := given["id"], given["src"]
		if source == "" {
			source = given["source"]
		}
		name := given["env"]
		if id == "" {
			return fmt.Errorf("invalid --secret %q: it has no id", text)
		}
		if _, set := c.Env[id]; source == "" && name == "" && set {
			name = id
		}
		if name != "" {
			values[id] = []byte(c.Env[name])
			continue
		}
		if source == "" {
			source = id
		}
		var buffer bytes.Buffer
		if err := c.CopyFile(ctx, &limited{w: &buffer, left: maxSecret}, c.path(source)); err != nil {
			return fmt.Errorf("secret %s: %w", id, err)
		}
		values[id] = buffer.Bytes()
	}
	solve.Session = append(solve.Session, secretsprovider.FromMap(values))
	return nil
}

// output is where a build's result goes besides the job's images.
type output struct {
	image bool   // the result becomes an image of the job
	name  string // its name in containerd until it has those of its tags
	push  bool
	pipes []chan error
	stop  func(error)
}

func (o *output) wait(buildErr error) error {
	if o.stop != nil {
		o.stop(buildErr)
	}
	var errs []error
	for _, pipe := range o.pipes {
		errs = append(errs, <-pipe)
	}
	if buildErr != nil {
		return nil
	}
	return errors.Join(errs...)
}

// exports decides what the build produces.
func (c *command) exports(ctx context.Context, b *buildFlags, solve *client.SolveOpt, names []reference.Named) (*output, error) {
	out := &output{push: b.push}
	layers := map[string]string{} // how they are compressed
	for _, text := range b.outputs {
		attrs, err := fields(text)
		if err != nil {
			return nil, err
		}
		kind, dest := attrs["type"], attrs["dest"]
		if !strings.Contains(text, "=") {
			if kind, dest = "local", text; dest == "-" {
				kind = "tar"
			}
		}
		switch kind {
		case "image", "registry", "docker":
			if kind != "docker" || dest == "" {
				out.image = true
				for _, key := range []string{"compression", "compression-level", "force-compression"} {
					if value := attrs[key]; value != "" {
						layers[key] = value
					}
				}
				for _, name := range strings.Split(attrs["name"], ",") {
					if name = strings.TrimSpace(name); name != "" {
						b.tags = append(b.tags, name)
					}
				}
				out.push = out.push || kind == "registry" || attrs["push"] == "true"
				continue
			}
			fallthrough
		case "oci", "tar", "local":
			if err := c.exportFile(ctx, solve, out, kind, dest, names); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("output type %q is not offered: use image, registry, docker, oci, tar or local", kind)
		}
	}
	if len(b.outputs) == 0 || out.image || out.push || b.load {
		out.image = true
		out.name = c.internalName(fmt.Sprintf("build:%d", c.builds.Add(1)))
		attrs := map[string]string{"name": out.name, "store": "true", "unpack": "false", "oci-mediatypes": "true"}
		if len(layers) == 0 {
			// Compressing takes up to a fifth of a first build: at this level a third
			// of the default's time, for layers that are 6 % larger.
			layers["compression-level"] = "3"
		}
		maps.Copy(attrs, layers)
		for _, pair := range b.annotations {
			name, value, _ := strings.Cut(pair, "=")
			attrs["annotation."+name] = value
		}
		solve.Exports = append(solve.Exports, client.ExportEntry{Type: client.ExporterImage, Attrs: attrs})
	}
	return out, nil
}

// exportFile sends a result into the job's file system: as one file, or, for a
// folder, as files unpacked there.
func (c *command) exportFile(ctx context.Context, solve *client.SolveOpt, out *output, kind, dest string, names []reference.Named) error {
	if dest == "" {
		return fmt.Errorf("output type %s needs dest=PATH", kind)
	}
	if kind == "local" {
		dir, isInside := strings.CutPrefix(c.path(dest)+"/", c.scope.BuildsPath+"/")
		if !isInside {
			return fmt.Errorf("output folder %s: only folders below %s are offered", dest, c.scope.BuildsPath)
		}
		return c.exportFolder(solve, out, strings.TrimSuffix(dir, "/"))
	}
	attrs := map[string]string{}
	if len(names) > 0 {
		attrs["name"] = names[0].String()
	}
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		var err error
		if dest == "-" {
			_, err = io.Copy(c.Stdout(), reader)
		} else {
			err = c.WriteFile(ctx, c.path(dest), 0o644, reader)
		}
		reader.CloseWithError(err)
		done <- err
	}()
	out.addPipe(done, writer)
	solve.Exports = append(solve.Exports, client.ExportEntry{Type: kind, Attrs: attrs,
		Output: func(map[string]string) (io.WriteCloser, error) { return writer, nil }})
	return nil
}

func (o *output) addPipe(done chan error, writer *io.PipeWriter) {
	before := o.stop
	o.stop = func(err error) {
		if before != nil {
			before(err)
		}
		writer.CloseWithError(err)
	}
	o.pipes = append(o.pipes, done)
}

// exportFolder unpacks a result below the builds folder.
func (c *command) exportFolder(solve *client.SolveOpt, out *output, dir string) error {
	builds, err := os.OpenRoot(c.scope.BuildsDir)
	if err != nil {
		return err
	}
	if dir != "" {
		if err := builds.MkdirAll(dir, 0o777); err != nil {
			return errors.Join(err, builds.Close())
		}
	} else {
		dir = "."
	}
	root, err := builds.OpenRoot(dir)
	if err := errors.Join(err, builds.Close()); err != nil {
		return err
	}
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := errors.Join(untar(root, reader), root.Close())
		reader.CloseWithError(err)
		done <- err
	}()
	out.addPipe(done, writer)
	solve.Exports = append(solve.Exports, client.ExportEntry{Type: client.ExporterTar,
		Output: func(map[string]string) (io.WriteCloser, error) { return writer, nil }})
	return nil
}

func canonicals(names []string) ([]reference.Named, error) {
	list := make([]reference.Named, 0, len(names))
	for _, name := range names {
		named, err := canonical(name)
		if err != nil {
			return nil, err
		}
		list = append(list, named)
	}
	return list, nil
}

// result records and pushes the image and writes the files that tell of it.
func (c *command) result(ctx context.Context, b *buildFlags, names []reference.Named, response *client.SolveResponse, out *output) error {
	if !out.image {
		return nil
	}
	built, err := c.engine.containerd.ImageService().Get(ctx, out.name)
	if err != nil {
		return fmt.Errorf("find the image: %w", err)
	}
	target := built.Target
	if len(names) == 0 {
		names = []reference.Named{nil}
	}
	var image *jobImage
	for _, named := range names {
		if image, err = c.keep(ctx, named, target); err != nil {
			return err
		}
	}
	if err := c.engine.containerd.ImageService().Delete(ctx, out.name); err != nil {
		return fmt.Errorf("name the image: %w", err)
	}
	if b.quiet {
		fmt.Fprintln(c.Stdout(), image.id)
	}
	if b.iidFile != "" {
		if err := c.WriteFile(ctx, c.path(b.iidFile), 0o644, strings.NewReader(image.id.String())); err != nil {
			return fmt.Errorf("write %s: %w", b.iidFile, err)
		}
	}
	if b.metadataFile != "" {
		metadata := map[string]any{}
		for key, value := range response.ExporterResponse {
			metadata[key] = value
		}
		metadata["image.name"] = strings.Join(b.tags, ",")
		raw, err := json.MarshalIndent(metadata, "", "  ")
		if err != nil {
			return err
		}
		if err := c.WriteFile(ctx, c.path(b.metadataFile), 0o644, bytes.NewReader(raw)); err != nil {
			return fmt.Errorf("write %s: %w", b.metadataFile, err)
		}
	}
	if !out.push {
		return nil
	}
	if len(b.tags) == 0 {
		return errors.New("tag is needed when pushing to registry: -t NAME")
	}
	for _, named := range names {
		image, err := c.find(named.String())
		if err != nil {
			return err
		}
		if err := c.push(ctx, image); err != nil {
			return err
		}
		fmt.Fprintf(c.Stderr(), "pushed %s@%s\n", reference.FamiliarString(named), target.Digest)
	}
	return nil
}

// credentialsServer gives BuildKit the logins of the job, while a build of the
// job runs and for it alone.
type credentialsServer struct {
	auth.UnimplementedAuthServer
	endpoint *endpoint
}

// Register implements session.Attachable.
func (s *credentialsServer) Register(server *grpc.Server) { auth.RegisterAuthServer(server, s) }

// Credentials returns the job's login for a host, or none.
func (s *credentialsServer) Credentials(_ context.Context, r *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	login := s.endpoint.login(r.Host)
	return &auth.CredentialsResponse{Username: login.Username, Secret: login.Password}, nil
}

// closers are closed in reverse order; their errors concern temporary files
// only.
type closers struct{ list []func() error }

func (c *closers) add(one io.Closer) { c.list = append(c.list, one.Close) }

func (c *closers) close() {
	for i := len(c.list) - 1; i >= 0; i-- {
		_ = c.list[i]() // the folder is removed at the next start at the latest
	}
}

// limited refuses more bytes than it may take.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, errors.New("the file is too large")
	}
	l.left -= len(p)
	return l.w.Write(p)
}

// folderFS is a folder as BuildKit reads it: never out of the folder.
func folderFS(root *os.Root) fsutil.FS { return fsutil.NewRootFS(fsutil.NewRoot(root)) }

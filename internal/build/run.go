package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// runContainer is docker run and docker create: a container beside the job, in
// its network and within its limits. The end of the job takes it away.
func runContainer(ctx context.Context, c *command) error {
	f := c.flags
	f.SetInterspersed(false)
	env := f.StringArrayP("env", "e", nil, "")
	envFiles := f.StringArray("env-file", nil, "")
	volumes := f.StringArrayP("volume", "v", nil, "")
	mounts := f.StringArray("mount", nil, "")
	entrypoint := f.String("entrypoint", "", "")
	workdir := f.StringP("workdir", "w", "", "")
	user := f.StringP("user", "u", "", "")
	interactive := f.BoolP("interactive", "i", false, "")
	detach := f.BoolP("detach", "d", false, "")
	privileged := f.Bool("privileged", false, "")
	network := f.String("network", "", "")
	f.StringVar(network, "net", "", "")
	name := f.String("name", "", "how it is called, also in the job's network")
	autoRemove := f.Bool("rm", false, "remove it when it ends")
	hostname := f.StringP("hostname", "h", "", "")
	idFile := f.String("cidfile", "", "")
	aliases := f.StringArray("network-alias", nil, "")
	f.StringArrayVar(aliases, "net-alias", nil, "")
	acceptedRunFlags(f)
	if err := c.parse(1, -1); err != nil {
		return err
	}
	if emulators.MatchString(f.Arg(0)) {
		fmt.Fprintln(c.Stderr(), "NOTE: emulators for other processors are the server's: where qemu-user-static is installed, builds for other platforms run; docker buildx inspect lists them")
		return nil
	}
	switch {
	case c.scope.Create == nil:
		return errors.New("docker run is offered in jobs only")
	case *privileged:
		return errors.New("docker run --privileged is not granted to jobs: an administrator may let a runner's jobs be privileged")
	case *network == "host":
		fmt.Fprintln(c.Stderr(), "NOTE: --network host is not granted to jobs: the container is in the network of the job, beside its services")
	}
	request := RunRequest{Image: f.Arg(0), Args: f.Args()[1:], User: *user, Workdir: *workdir, Hostname: *hostname, Names: *aliases, Stdout: c.Stdout(), Stderr: c.Stderr()}
	if f.Changed("entrypoint") {
		request.Entrypoint = []string{*entrypoint}
	}
	if *interactive {
		request.Stdin = c.Stdin()
	}
	var err error
	if request.Env, err = c.environment(ctx, *env, *envFiles); err != nil {
		return err
	}
	if request.Volumes, err = c.volumes(*volumes, *mounts); err != nil {
		return err
	}
	if image, err := c.find(request.Image); err == nil {
		if err := c.share(ctx, image); err != nil {
			return err
		}
		request.Image, request.Local = c.internalName(image.name), true
	}
	if strings.HasSuffix(c.name, "create") {
		one, err := c.makeContainer(ctx, *name, f.Arg(0), request)
		if err != nil {
			return runError(ctx, err)
		}
		fmt.Fprintln(c.Stdout(), one.id)
		return c.writeID(ctx, *idFile, one.id)
	}
	return c.launch(ctx, *name, f.Arg(0), request, *detach, *autoRemove)
}

func (c *command) writeID(ctx context.Context, file, id string) error {
	if file == "" {
		return nil
	}
	return c.WriteFile(ctx, c.path(file), 0o644, strings.NewReader(id))
}

// runError gives docker's exit codes to containers that did not start: 127 for
// a command that is not there, 126 for one that cannot be run, else 125.
func runError(ctx context.Context, err error) error {
	var exit exitError
	if err == nil || errors.As(err, &exit) || ctx.Err() != nil {
		return err
	}
	code, text := 125, err.Error()
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "exec: ") && strings.Contains(text, "no such file or directory"):
		code = 127
	case strings.Contains(text, "exec: ") && (strings.Contains(text, "permission denied") || strings.Contains(text, "is a directory")), strings.Contains(text, "exec format error"):
		code = 126
	}
	return usageError{code, "docker: Error response from daemon: " + text}
}

// emulators are images that install qemu for builds for other platforms; they
// need privileges, and do nothing for the job itself.
var emulators = regexp.MustCompile(`(^|/)(tonistiigi/binfmt|multiarch/qemu-user-static|linuxkit/binfmt|docker/binfmt)(:|@|$)`)

// acceptedRunFlags are flags of docker run that mean nothing here, or that the
// limits and the network of the job say already.
func acceptedRunFlags(f *pflag.FlagSet) {
	for _, name := range []string{"init", "read-only", "sig-proxy", "no-healthcheck", "oom-kill-disable", "disable-content-trust", "quiet"} {
		f.Bool(name, false, "")
	}
	f.BoolP("tty", "t", false, "")
	f.BoolP("publish-all", "P", false, "")
	f.StringP("memory", "m", "", "")
	f.StringP("cpu-shares", "c", "", "")
	for _, name := range []string{"pull", "platform", "cpus", "log-driver", "restart", "shm-size", "memory-swap", "memory-reservation", "cpuset-cpus", "cpu-period", "cpu-quota", "pids-limit",
		"stop-timeout", "stop-signal", "isolation", "ip", "runtime", "userns", "cgroupns", "domainname", "oom-score-adj", "gpus"} {
		f.String(name, "", "")
	}
	f.StringArrayP("label", "l", nil, "")
	f.StringArrayP("publish", "p", nil, "")
	f.StringArrayP("attach", "a", nil, "")
	for _, name := range []string{"add-host", "ulimit", "tmpfs", "cap-drop", "security-opt", "label-file", "expose", "dns", "dns-search", "dns-option", "log-opt",
		"link", "group-add", "annotation", "sysctl", "health-cmd"} {
		f.StringArray(name, nil, "")
	}
}

// environment reads -e and --env-file.
func (c *command) environment(ctx context.Context, pairs, files []string) ([]string, error) {
	var env []string
	add := func(pair string) {
		if strings.Contains(pair, "=") {
			env = append(env, pair)
		} else if value, set := c.Env[pair]; set {
			env = append(env, pair+"="+value)
		}
	}
	for _, file := range files {
		var raw bytes.Buffer
		if err := c.CopyFile(ctx, &limited{w: &raw, left: maxDockerfile}, c.path(file)); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		for lines := bufio.NewScanner(&raw); lines.Scan(); {
			if line := strings.TrimLeft(lines.Text(), " \t"); line != "" && !strings.HasPrefix(line, "#") {
				add(line)
			}
		}
	}
	for _, pair := range pairs {
		add(pair)
	}
	return env, nil
}

// volumes reads -v and --mount type=bind.
func (c *command) volumes(short, long []string) ([]Volume, error) {
	var list []Volume
	for _, text := range short {
		parts := strings.Split(text, ":")
		if strings.HasSuffix(parts[0], "/docker.sock") {
			return nil, errors.New("there is no /var/run/docker.sock in jobs: give the tool the image as an archive (docker save), or call it in the job itself")
		}
		if len(parts) < 2 || !strings.HasPrefix(parts[0], "/") && !strings.HasPrefix(parts[0], ".") {
			return nil, fmt.Errorf("volume %q is not offered: only folders below %s can be mounted, as -v SOURCE:TARGET[:ro]; for a volume of the job, take one such as $CI_PROJECT_DIR/.data", text, c.scope.BuildsPath)
		}
		list = append(list, Volume{Source: c.path(parts[0]), Target: parts[1], ReadOnly: len(parts) > 2 && slices.Contains(strings.Split(parts[2], ","), "ro"), Create: true})
	}
	for _, text := range long {
		given, err := fields(text)
		if err != nil {
			return nil, err
		}
		if given["type"] != "bind" {
			return nil, fmt.Errorf("mount type %q is not offered: use type=bind", given["type"])
		}
		first := func(names ...string) string {
			for _, name := range names {
				if given[name] != "" {
					return given[name]
				}
			}
			return ""
		}
		_, readOnly := given["readonly"]
		list = append(list, Volume{Source: c.path(first("source", "src")), Target: first("target", "destination", "dst"), ReadOnly: readOnly || given["ro"] == "true"})
	}
	return list, nil
}

// share makes an image of the job known in the jobs' namespace of containerd,
// where its containers run. No bytes are copied: containerd keeps one store.
func (c *command) share(ctx context.Context, image *jobImage) error {
	store := c.engine.containerd.ContentStore()
	jobs := c.engine.inJobs(ctx)
	jobs, done, err := c.engine.containerd.WithLease(jobs)
	if err != nil {
		return fmt.Errorf("lease image: %w", err)
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }() // the lease expires by itself
	handler := images.HandlerFunc(func(_ context.Context, descriptor ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := images.Children(ctx, store, descriptor)
		if err != nil {
			return nil, err
		}
		reader, err := store.ReaderAt(ctx, descriptor)
		if err != nil {
			return nil, err
		}
		defer reader.Close()
		labels := map[string]string{}
		for i, child := range children {
			for _, key := range images.ChildGCLabels(child) {
				if strings.HasSuffix(key, ".") {
					key = fmt.Sprintf("%s%d", key, i)
				}
				labels[key] = child.Digest.String()
			}
		}
		err = content.WriteBlob(jobs, store, "share-"+descriptor.Digest.String(), content.NewReader(reader), descriptor, content.WithLabels(labels))
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return nil, err
		}
		if errdefs.IsAlreadyExists(err) && len(labels) > 0 {
			_, err = store.Update(jobs, content.Info{Digest: descriptor.Digest, Labels: labels}, labelFields(labels)...)
			if err != nil {
				return nil, err
			}
		}
		return children, nil
	})
	if err := images.Walk(ctx, images.FilterPlatforms(handler, platforms.Default()), image.target); err != nil {
		return fmt.Errorf("share image: %w", err)
	}
	record := images.Image{Name: c.internalName(image.name), Target: image.target}
	if _, err := c.engine.containerd.ImageService().Create(jobs, record); errdefs.IsAlreadyExists(err) {
		_, err = c.engine.containerd.ImageService().Update(jobs, record)
		return err
	} else if err != nil {
		return fmt.Errorf("share image: %w", err)
	}
	return nil
}

func labelFields(labels map[string]string) []string {
	fields := make([]string, 0, len(labels))
	for name := range labels {
		fields = append(fields, "labels."+name)
	}
	return fields
}

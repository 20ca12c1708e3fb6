package build

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"
)

// maxContainers and maxContainerLog bound what the containers of one job keep in
// memory: the log's oldest bytes go first.
const (
	maxContainers   = 32
	maxContainerLog = 1 << 20
)

// jobContainer is a container of docker run or docker create. Its fields below
// mu change while it runs.
type jobContainer struct {
	id, name, image string
	request         RunRequest
	container       Container
	created         time.Time
	autoRemove      bool
	log             containerLog

	mu     sync.Mutex
	state  string // created, running, exited
	code   int
	err    error
	cancel context.CancelFunc
	ended  chan struct{} // nil until it is started
}

// containerLog keeps the end of what a container wrote.
type containerLog struct {
	mu     sync.Mutex
	pieces []logPiece
	size   int
}

type logPiece struct {
	stderr bool
	text   []byte
}

type logWriter struct {
	log    *containerLog
	stderr bool
}

// Write keeps p.
func (w logWriter) Write(p []byte) (int, error) {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.pieces = append(w.log.pieces, logPiece{w.stderr, append([]byte(nil), p...)})
	for w.log.size += len(p); w.log.size > maxContainerLog && len(w.log.pieces) > 1; w.log.pieces = w.log.pieces[1:] {
		w.log.size -= len(w.log.pieces[0].text)
	}
	return len(p), nil
}

// all returns what is kept.
func (l *containerLog) all() []logPiece {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]logPiece(nil), l.pieces...)
}

var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// makeContainer makes a container and gives it a name.
func (c *command) makeContainer(ctx context.Context, name, image string, r RunRequest) (*jobContainer, error) {
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	one := &jobContainer{id: hex.EncodeToString(random[:]), name: name, image: image, request: r, created: time.Now(), state: "created"}
	if name == "" {
		one.name = "job-" + one.id[:12]
	} else if !containerName.MatchString(name) {
		return nil, fmt.Errorf("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name) //nolint:staticcheck // docker's own words
	}
	for _, alias := range r.Names {
		if !containerName.MatchString(alias) {
			return nil, fmt.Errorf("invalid network alias %q", alias)
		}
	}
	one.request.Names = append([]string{one.name, one.id[:12]}, r.Names...)
	if r.Hostname == "" {
		one.request.Hostname = one.id[:12]
	}
	c.mu.Lock()
	count := len(c.containers)
	for _, other := range c.containers {
		if other.name == one.name {
			c.mu.Unlock()
			return nil, fmt.Errorf("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, other.id) //nolint:staticcheck // docker's own words
		}
	}
	if count >= maxContainers {
		c.mu.Unlock()
		return nil, fmt.Errorf("this job has %d containers already: remove some with docker rm", count)
	}
	c.containers[one.id] = one // the name is taken from now on
	c.mu.Unlock()
	var err error
	if one.container, err = c.scope.Create(ctx, one.request); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.containers, one.id)
		return nil, err
	}
	return one, nil
}

// start runs a container until it ends, with ctx or without a caller.
func (c *command) start(ctx context.Context, one *jobContainer, stdin io.Reader, stdout, stderr io.Writer) (started <-chan struct{}, err error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.state == "running" {
		return nil, nil
	}
	ctx, one.cancel = context.WithCancel(ctx)
	one.ended, one.state = make(chan struct{}), "running"
	running := make(chan struct{})
	ended := one.ended
	cancel := one.cancel
	c.background.Go(func() {
		defer cancel()
		code, err := one.container.Run(ctx, stdin, io.MultiWriter(logWriter{&one.log, false}, stdout), io.MultiWriter(logWriter{&one.log, true}, stderr), sync.OnceFunc(func() { close(running) }))
		one.mu.Lock()
		defer one.mu.Unlock()
		one.state, one.code, one.err = "exited", code, err
		if err != nil && ctx.Err() != nil {
			one.code, one.err = 143, nil // it was stopped
		}
		close(ended)
	})
	return running, nil
}

// wait waits for a container's end.
func (one *jobContainer) wait(ctx context.Context) (int, error) {
	one.mu.Lock()
	ended := one.ended
	one.mu.Unlock()
	if ended == nil {
		return 0, nil
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.code, one.err
}

// remove ends a container and forgets it.
func (c *command) remove(ctx context.Context, one *jobContainer) error {
	c.stop(one)
	if _, err := one.wait(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	if err := one.container.Remove(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("remove container: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.containers, one.id)
	return nil
}

func (c *command) stop(one *jobContainer) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.cancel != nil {
		one.cancel()
	}
}

// container finds one by name, id or the beginning of its id.
func (c *command) container(name string) (*jobContainer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name = strings.TrimPrefix(name, "/")
	for _, one := range c.containers {
		if one.container != nil && (one.name == name || name != "" && strings.HasPrefix(one.id, name)) {
			return one, nil
		}
	}
	return nil, fmt.Errorf("No such container: %s", name) //nolint:staticcheck // docker's own words
}

// launch is the end of docker run.
func (c *command) launch(ctx context.Context, name, image string, r RunRequest, detach, autoRemove bool) error {
	one, err := c.makeContainer(ctx, name, image, r)
	if err != nil {
		return runError(ctx, err)
	}
	if detach {
		one.autoRemove = autoRemove
		running, err := c.start(c.lifetime, one, nil, io.Discard, io.Discard)
		if err != nil {
			return err
		}
		one.mu.Lock()
		ended := one.ended
		one.mu.Unlock()
		select {
		case <-running:
		case <-ended:
			select {
			case <-running: // it ran, and was fast
			default:
				_, err := one.wait(ctx)
				return errors.Join(runError(ctx, err), c.remove(ctx, one))
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		fmt.Fprintln(c.Stdout(), one.id)
		if autoRemove {
			c.background.Go(func() {
				if _, err := one.wait(c.lifetime); err == nil {
					_ = c.remove(c.lifetime, one) // else the end of the job removes it
				}
			})
		}
		return nil
	}
	if _, err := c.start(ctx, one, r.Stdin, r.Stdout, r.Stderr); err != nil {
		return err
	}
	code, err := one.wait(context.WithoutCancel(ctx))
	if autoRemove || err != nil {
		err = errors.Join(err, c.remove(context.WithoutCancel(ctx), one))
	}
	if err == nil && code != 0 {
		err = exitError{code}
	}
	return runError(ctx, err)
}

// each applies what to the containers of the command line and prints their
// names; what fails is reported at the end.
func (c *command) each(what func(one *jobContainer) error) error {
	failed := false
	for _, name := range c.flags.Args() {
		one, err := c.container(name)
		if err == nil {
			err = what(one)
		}
		if err != nil {
			fmt.Fprintf(c.Stderr(), "Error response from daemon: %v\n", err)
			failed = true
			continue
		}
		fmt.Fprintln(c.Stdout(), name)
	}
	if failed {
		return exitError{1}
	}
	return nil
}

func startContainers(ctx context.Context, c *command) error {
	attach := c.flags.BoolP("attach", "a", false, "print its output and end with its code")
	interactive := c.flags.BoolP("interactive", "i", false, "give it the standard input")
	if err := c.parse(1, -1); err != nil {
		return err
	}
	if *attach || *interactive {
		one, err := c.container(c.flags.Arg(0))
		if err != nil {
			return err
		}
		var stdin io.Reader
		if *interactive {
			stdin = c.Stdin()
		}
		if _, err := c.start(ctx, one, stdin, c.Stdout(), c.Stderr()); err != nil {
			return err
		}
		code, err := one.wait(context.WithoutCancel(ctx))
		if err == nil && code != 0 {
			err = exitError{code}
		}
		return runError(ctx, err)
	}
	return c.each(func(one *jobContainer) error {
		_, err := c.start(c.lifetime, one, nil, io.Discard, io.Discard)
		return err
	})
}

func stopContainers(ctx context.Context, c *command) error {
	c.flags.IntP("time", "t", 0, "")
	c.flags.Int("timeout", 0, "")
	c.flags.StringP("signal", "s", "", "")
	if err := c.parse(1, -1); err != nil {
		return err
	}
	return c.each(func(one *jobContainer) error {
		c.stop(one)
		_, err := one.wait(ctx)
		return err
	})
}

func removeContainers(ctx context.Context, c *command) error {
	force := c.flags.BoolP("force", "f", false, "end it first")
	c.flags.BoolP("volumes", "v", false, "")
	c.flags.BoolP("link", "l", false, "")
	if err := c.parse(1, -1); err != nil {
		return err
	}
	return c.each(func(one *jobContainer) error {
		one.mu.Lock()
		running := one.state == "running"
		one.mu.Unlock()
		if running && !*force {
			return fmt.Errorf("cannot remove container %q: container is running: stop the container before removing or force remove", "/"+one.name)
		}
		return c.remove(ctx, one)
	})
}

func waitContainers(ctx context.Context, c *command) error {
	if err := c.parse(1, -1); err != nil {
		return err
	}
	for _, name := range c.flags.Args() {
		one, err := c.container(name)
		if err != nil {
			return err
		}
		code, err := one.wait(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.Stdout(), code)
	}
	return nil
}

func containerLogs(ctx context.Context, c *command) error {
	follow := c.flags.BoolP("follow", "f", false, "until it ends")
	tail := c.flags.StringP("tail", "n", "all", "lines from the end")
	c.flags.BoolP("timestamps", "t", false, "")
	c.flags.String("since", "", "")
	c.flags.String("until", "", "")
	c.flags.Bool("details", false, "")
	if err := c.parse(1, 1); err != nil {
		return err
	}
	one, err := c.container(c.flags.Arg(0))
	if err != nil {
		return err
	}
	if *follow {
		if _, err := one.wait(ctx); err != nil {
			return err
		}
	}
	pieces := one.log.all()
	if lines := 0; *tail != "all" {
		if _, err := fmt.Sscan(*tail, &lines); err != nil {
			return fmt.Errorf("invalid --tail %q", *tail)
		}
		pieces = lastLines(pieces, lines)
	}
	for _, piece := range pieces {
		w := c.Stdout()
		if piece.stderr {
			w = c.Stderr()
		}
		if _, err := w.Write(piece.text); err != nil {
			return err
		}
	}
	return nil
}

// lastLines keeps the last n lines.
func lastLines(pieces []logPiece, n int) []logPiece {
	for i := len(pieces) - 1; i >= 0; i-- {
		text := pieces[i].text
		for at := len(text); at > 0; at-- {
			if text[at-1] != '\n' || i == len(pieces)-1 && at == len(text) {
				continue
			}
			if n--; n <= 0 {
				kept := append([]logPiece{{pieces[i].stderr, text[at:]}}, pieces[i+1:]...)
				return kept
			}
		}
	}
	return pieces
}

// containerRow is what `docker ps --format` may name.
type containerRow struct {
	ID, Image, Command, CreatedAt, RunningFor, Ports, State, Status, Names string
}

func listContainers(_ context.Context, c *command) error {
	all := c.flags.BoolP("all", "a", false, "ended ones too")
	quiet := c.flags.BoolP("quiet", "q", false, "ids alone")
	format := c.flags.String("format", "", "Go template, or json")
	filters := c.flags.StringArrayP("filter", "f", nil, "name=, id=, status= or ancestor=")
	noTrunc := c.flags.Bool("no-trunc", false, "whole ids")
	c.flags.BoolP("size", "s", false, "")
	c.flags.BoolP("latest", "l", false, "")
	c.flags.IntP("last", "n", -1, "")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	c.mu.Lock()
	list := make([]*jobContainer, 0, len(c.containers))
	for _, one := range c.containers {
		list = append(list, one)
	}
	c.mu.Unlock()
	sort.Slice(list, func(i, j int) bool { return list[i].created.After(list[j].created) })
	var rows []containerRow
	for _, one := range list {
		row, err := one.row()
		if err != nil {
			return err
		}
		if one.container == nil || row.State != "running" && !*all {
			continue
		}
		wanted, err := filtered(row, *filters)
		if err != nil {
			return err
		}
		if !wanted {
			continue
		}
		if !*noTrunc {
			row.ID = row.ID[:12]
		}
		rows = append(rows, row)
	}
	switch {
	case *quiet:
		*format = "{{.ID}}"
	case *format == "" || *format == "table":
		*format = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
	}
	return printRows(c.Stdout(), *format, containerRow{"CONTAINER ID", "IMAGE", "COMMAND", "CREATED AT", "CREATED", "PORTS", "STATE", "STATUS", "NAMES"}, rows)
}

func (one *jobContainer) row() (containerRow, error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	age := time.Since(one.created).Round(time.Second).String()
	row := containerRow{ID: one.id, Image: one.image, Command: fmt.Sprintf("%q", strings.Join(append(one.request.Entrypoint, one.request.Args...), " ")),
		CreatedAt: one.created.UTC().Format("2006-01-02 15:04:05 -0700 MST"), RunningFor: age + " ago", State: one.state, Names: one.name}
	switch one.state {
	case "running":
		row.Status = "Up " + age
	case "exited":
		row.Status = fmt.Sprintf("Exited (%d) %s ago", one.code, age)
	default:
		row.Status = "Created"
	}
	return row, nil
}

// filtered applies the filters of docker ps.
func filtered(row containerRow, filters []string) (bool, error) {
	for _, filter := range filters {
		name, value, _ := strings.Cut(filter, "=")
		pass := false
		switch name {
		case "name":
			matched, err := regexp.MatchString(value, row.Names)
			if err != nil {
				return false, fmt.Errorf("invalid filter %q: %w", filter, err)
			}
			pass = matched
		case "id":
			pass = strings.HasPrefix(row.ID, value)
		case "status":
			pass = row.State == value
		case "ancestor":
			pass = row.Image == value
		default:
			return false, fmt.Errorf("invalid filter '%s': offered are name, id, status and ancestor", name)
		}
		if !pass {
			return false, nil
		}
	}
	return true, nil
}

func execContainer(ctx context.Context, c *command) error {
	f := c.flags
	f.SetInterspersed(false)
	env := f.StringArrayP("env", "e", nil, "NAME=VALUE")
	envFiles := f.StringArray("env-file", nil, "")
	workdir := f.StringP("workdir", "w", "", "folder")
	user := f.StringP("user", "u", "", "user, by number")
	interactive := f.BoolP("interactive", "i", false, "give it the standard input")
	f.BoolP("tty", "t", false, "")
	detach := f.BoolP("detach", "d", false, "")
	privileged := f.Bool("privileged", false, "")
	if err := c.parse(2, -1); err != nil {
		return err
	}
	if *privileged {
		return errors.New("docker exec --privileged is not granted to jobs")
	}
	one, err := c.container(f.Arg(0))
	if err != nil {
		return err
	}
	one.mu.Lock()
	running := one.state == "running"
	one.mu.Unlock()
	if !running {
		return fmt.Errorf("container %s is not running", one.id)
	}
	request := RunRequest{Args: f.Args()[1:], Workdir: *workdir, User: *user, Stdout: c.Stdout(), Stderr: c.Stderr()}
	if *interactive {
		request.Stdin = c.Stdin()
	}
	if request.Env, err = c.environment(ctx, *env, *envFiles); err != nil {
		return err
	}
	if *detach {
		request.Stdin, request.Stdout, request.Stderr = nil, io.Discard, io.Discard
		c.background.Go(func() {
			_, _ = one.container.Exec(c.lifetime, request) // as with docker, nobody learns of it
		})
		return nil
	}
	code, err := one.container.Exec(ctx, request)
	if err == nil && code != 0 {
		err = exitError{code}
	}
	return runError(ctx, err)
}

// containerInspection is what `docker inspect` tells of a container.
type containerInspection struct {
	ID           string `json:"Id"`
	Created      string
	Path         string
	Args         []string
	Name         string
	Image        string
	RestartCount int
	State        containerState
	Config       struct {
		Hostname, User, Image, WorkingDir string
		Env, Cmd, Entrypoint              []string
	}
}

type containerState struct {
	Status                                 string
	Running, Paused, Restarting, OOMKilled bool
	Dead                                   bool
	Pid, ExitCode                          int
	Error                                  string
}

func inspectAny(ctx context.Context, c *command) error {
	return inspectAll(c, func(name string) (any, error) {
		if one, err := c.container(name); err == nil {
			return one.inspect(), nil
		}
		image, err := c.find(name)
		if err != nil {
			return nil, fmt.Errorf("No such object: %s", name) //nolint:staticcheck // docker's own words
		}
		return c.inspect(ctx, image)
	})
}

func inspectContainers(_ context.Context, c *command) error {
	return inspectAll(c, func(name string) (any, error) {
		one, err := c.container(name)
		if err != nil {
			return nil, err
		}
		return one.inspect(), nil
	})
}

func (one *jobContainer) inspect() containerInspection {
	one.mu.Lock()
	defer one.mu.Unlock()
	found := containerInspection{ID: one.id, Created: one.created.UTC().Format(time.RFC3339Nano), Args: one.request.Args, Name: "/" + one.name, Image: one.image,
		State: containerState{Status: one.state, Running: one.state == "running", ExitCode: one.code}}
	if one.err != nil {
		found.State.Error = one.err.Error()
	}
	found.Config.Hostname, found.Config.User, found.Config.Image, found.Config.WorkingDir = one.request.Hostname, one.request.User, one.image, one.request.Workdir
	found.Config.Env, found.Config.Cmd, found.Config.Entrypoint = one.request.Env, one.request.Args, one.request.Entrypoint
	return found
}

// copyFiles is docker cp out of a container.
func copyFiles(ctx context.Context, c *command) error {
	c.flags.BoolP("archive", "a", false, "")
	c.flags.BoolP("follow-link", "L", false, "")
	c.flags.BoolP("quiet", "q", false, "")
	if err := c.parse(2, 2); err != nil {
		return err
	}
	name, source, found := strings.Cut(c.flags.Arg(0), ":")
	if !found {
		return errors.New("docker cp into a container is not offered in jobs: show it the folder with -v, or COPY the file in a Dockerfile")
	}
	one, err := c.container(name)
	if err != nil {
		return err
	}
	target := c.flags.Arg(1)
	return one.container.Files(ctx, func(root *os.Root) error {
		inside := strings.TrimPrefix(path.Clean("/"+source), "/")
		contents := strings.HasSuffix(source, "/.")
		if inside == "" {
			inside, contents = ".", true
		}
		info, err := root.Stat(inside)
		if err != nil {
			return fmt.Errorf("Could not find the file %s in container %s", source, name) //nolint:staticcheck // docker's own words
		}
		base := path.Base(inside)
		if target == "-" {
			return pack(c.Stdout(), root, inside, base)
		}
		// Into a folder that is there, beside its other files; else by the new name.
		isDir, err := c.IsDir(ctx, c.path(target))
		there := err == nil && isDir
		if !info.IsDir() {
			file, err := root.Open(inside)
			if err != nil {
				return err
			}
			defer file.Close()
			dest := c.path(target)
			if there {
				dest = path.Join(dest, base)
			}
			return c.WriteFile(ctx, dest, info.Mode().Perm(), file)
		}
		dest := c.path(target)
		if there && !contents {
			dest = path.Join(dest, base)
		}
		into, err := c.below(dest)
		if err != nil {
			return err
		}
		defer into.Close()
		reader, writer := io.Pipe()
		go func() { writer.CloseWithError(pack(writer, root, inside, ".")) }()
		err = untarOver(into, reader)
		reader.CloseWithError(err)
		return err
	})
}

// below opens a folder of the builds folder, making it if need be.
func (c *command) below(dir string) (*os.Root, error) {
	inside, ok := strings.CutPrefix(dir+"/", c.scope.BuildsPath+"/")
	if !ok {
		return nil, fmt.Errorf("folder %s: only folders below %s are offered", dir, c.scope.BuildsPath)
	}
	builds, err := os.OpenRoot(c.scope.BuildsDir)
	if err != nil {
		return nil, err
	}
	defer builds.Close()
	if inside = strings.TrimSuffix(inside, "/"); inside == "" {
		inside = "."
	}
	if err := builds.MkdirAll(inside, 0o777); err != nil {
		return nil, err
	}
	return builds.OpenRoot(inside)
}

// pack writes a file or folder as a tar stream in which it has another name.
func pack(w io.Writer, root *os.Root, name, as string) error {
	archive := tar.NewWriter(w)
	err := fs.WalkDir(root.FS(), name, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		link := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if link, err = root.Readlink(file); err != nil {
				return err
			}
		case !info.Mode().IsRegular() && !info.IsDir():
			return nil
		}
		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		rest := strings.TrimPrefix(strings.TrimPrefix(file, name), "/")
		header.Name = path.Join(as, rest)
		if header.Name == "." {
			return nil
		}
		if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		content, err := root.Open(file)
		if err != nil {
			return err
		}
		defer content.Close()
		_, err = io.CopyN(archive, content, header.Size)
		return err
	})
	return errors.Join(err, archive.Close())
}

// endContainers ends and removes all containers of the job.
func (e *endpoint) endContainers(ctx context.Context) error {
	e.endLife()
	e.background.Wait()
	var errs []error
	for _, one := range e.containers { // no command is left that could change them
		if one.container != nil {
			errs = append(errs, one.container.Remove(ctx))
		}
	}
	return errors.Join(errs...)
}

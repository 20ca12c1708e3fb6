package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
)

// service is a container beside the job's, with an address of its own.
type service struct {
	name      string // as in the job
	aliases   []string
	endpoint  *endpoint
	container *container
	process   *process
	output    *tail
	ports     []int // exposed TCP ports
	ended     chan struct{}
}

// maxServiceLog is how much of a service's output is kept for the trace.
const maxServiceLog = 16 << 10

// ignoredService reports, with a notice, a service that this platform replaces:
// images are built and pushed without a docker daemon.
func (env *environment) ignoredService(image delivery.JobImage) bool {
	named, err := reference.ParseDockerRef(image.Name)
	if err != nil {
		return false // the pull reports it
	}
	tagged, ok := named.(reference.Tagged)
	if !ok || !strings.HasSuffix(reference.Path(named), "docker") || !strings.Contains(tagged.Tag(), "dind") {
		return false
	}
	env.request.Log.Notice("The service %s is not started: the docker command of this job builds and pushes images without it", image.Name)
	return true
}

// startServices pulls and starts the services and waits until they accept
// connections. As in the official runner a service that does not is reported
// in the trace and does not fail the job.
func (env *environment) startServices(ctx context.Context, images *puller, wanted []delivery.JobImage) error {
	if len(wanted) == 0 {
		return nil
	}
	taken := map[string]bool{}
	for i, one := range wanted {
		env.request.Log.Print("Starting service %s...", one.Name)
		image, err := images.get(ctx, one)
		if err != nil {
			return err
		}
		s := &service{name: one.Name, output: &tail{limit: maxServiceLog}, ports: tcpPorts(image), ended: make(chan struct{})}
		for _, alias := range serviceAliases(one) {
			if taken[alias] {
				env.request.Log.Warn("Skipping alias %q for service %q (services[%d]): alias is already in use by another service.", alias, one.Name, i)
				continue
			}
			taken[alias] = true
			s.aliases = append(s.aliases, alias)
		}
		if err := env.startService(ctx, i, s, image, one); err != nil {
			return err
		}
	}
	env.request.Log.Print("Waiting for services to be up and running (timeout %d seconds)...", int(env.executor.config.ServiceTimeout.Seconds()))
	var waiting sync.WaitGroup
	for _, s := range env.services {
		waiting.Go(func() { env.awaitService(ctx, s) })
	}
	waiting.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (env *environment) startService(ctx context.Context, i int, s *service, image *image, wanted delivery.JobImage) error {
	e, r := env.executor, env.request
	var err error
	if s.endpoint, err = env.segment.attach(); err != nil {
		return err
	}
	env.services = append(env.services, s)
	hosts := map[string]string{}
	var names []string
	for _, other := range env.services {
		for _, alias := range other.aliases {
			hosts[alias] = other.endpoint.address.String()
			names = append(names, alias)
		}
	}
	mounts, err := e.serviceFiles(env.dir, i, hosts, names)
	if err != nil {
		return err
	}
	variables := r.Variables
	for _, one := range wanted.Variables {
		variables = variables.With(one.Key, variables.Expand(one.Value))
	}
	if given := variables.Get("HEALTHCHECK_TCP_PORT"); given != "" {
		if port, err := strconv.ParseUint(given, 10, 16); err != nil || port == 0 {
			r.Log.Warn("Ignoring malformed HEALTHCHECK_TCP_PORT of service %s: %q", s.name, given)
		} else {
			s.ports = []int{int(port)}
		}
	}
	hostname := "service-" + strconv.Itoa(i)
	if len(s.aliases) > 0 {
		hostname = s.aliases[0]
	}
	s.container, err = e.create(ctx, containerSpec{
		id: env.name("service-" + strconv.Itoa(i)), job: r.JobID, image: image, entrypoint: nilIfEmpty(wanted.Entrypoint), args: wanted.Command,
		env: variables.Environ(), hostname: hostname, endpoint: s.endpoint, mounts: append(mounts, bind(r.BuildsDir, BuildsDir, false)),
		limits: e.config.ServiceLimits, privileged: r.Privileged,
	})
	if err != nil {
		return err
	}
	var output io.Writer = s.output
	if r.Variables.Bool("CI_DEBUG_SERVICES") {
		output = io.MultiWriter(s.output, &serviceLog{log: r.Log, prefix: "[service:" + strings.Join(s.aliases, "-") + "] "})
	}
	process, err := s.container.launch(ctx, nil, output, output)
	if err != nil {
		return fmt.Errorf("start service %s: %w", s.name, err)
	}
	s.process = process
	if err := process.task.Start(ctx); err != nil {
		return &runner.JobError{Reason: runner.ReasonScript, Message: fmt.Sprintf("start service %s", s.name), Err: err}
	}
	go func() {
		<-process.exited
		close(s.ended)
	}()
	return nil
}

func nilIfEmpty(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

// awaitService waits until the service's ports answer.
func (env *environment) awaitService(ctx context.Context, s *service) {
	ctx, cancel := context.WithTimeout(ctx, env.executor.config.ServiceTimeout)
	defer cancel()
	err := s.ready(ctx)
	if err == nil || ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return
	}
	env.request.Log.Raw(fmt.Sprintf("\n\x1b[0;33m*** WARNING:\x1b[0;m Service %s probably didn't start properly.\n\nHealth check error:\n%v\n\nService container logs:\n%s\n\n\x1b[0;33m*********\x1b[0;m\n\n",
		s.name, err, strings.TrimSpace(s.output.String())))
}

// ready connects to every exposed port. A service without ports is ready when
// it is still there after a moment.
func (s *service) ready(ctx context.Context) error {
	var dialer net.Dialer
	for _, port := range s.ports {
		target := net.JoinHostPort(s.endpoint.address.String(), strconv.Itoa(port))
		for {
			connection, err := dialer.DialContext(ctx, "tcp", target)
			if err == nil {
				_ = connection.Close() // it answered
				break
			}
			if waitErr := s.pause(ctx, 50*time.Millisecond); waitErr != nil {
				return fmt.Errorf("%w; last try: %v", waitErr, err)
			}
		}
	}
	if len(s.ports) == 0 {
		return s.pause(ctx, 100*time.Millisecond)
	}
	return nil
}

// pause waits; its error says that the service ended or the time is over.
func (s *service) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.ended:
		return errors.New("the service's container has ended")
	case <-ctx.Done():
		return fmt.Errorf("service %q timeout", s.name)
	}
}

func tcpPorts(image *image) []int {
	var ports []int
	for exposed := range image.config.ExposedPorts {
		text, protocol, _ := strings.Cut(exposed, "/")
		port, err := strconv.Atoi(text)
		if err == nil && (protocol == "" || protocol == "tcp") {
			ports = append(ports, port)
		}
	}
	sort.Ints(ports)
	return ports
}

// serviceAliases are the host names of a service: derived from its image, as
// the official runner does, and those given.
func serviceAliases(image delivery.JobImage) []string {
	var aliases []string
	add := func(alias string) {
		if alias != "" && !slices.Contains(aliases, alias) {
			aliases = append(aliases, alias)
		}
	}
	name := image.Name
	if at := strings.Index(name, "@"); at >= 0 {
		name = name[:at]
	}
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		name = name[:at]
	}
	if host, rest, found := strings.Cut(name, "/"); found { // a port is no part of a host name
		host, _, _ = strings.Cut(host, ":")
		name = host + "/" + rest
	}
	add(strings.ReplaceAll(name, "/", "__"))
	add(strings.ReplaceAll(name, "/", "-"))
	for _, alias := range strings.FieldsFunc(image.Alias, func(c rune) bool { return c == ' ' || c == ',' }) {
		add(alias)
	}
	return aliases
}

// maxServiceLine is how much of an unfinished line waits for its end.
const maxServiceLine = 8 << 10

// serviceLog shows a service's output in the job's trace, line by line, as the
// official runner does with CI_DEBUG_SERVICES.
type serviceLog struct {
	log    *runner.Log
	prefix string

	mu   sync.Mutex
	held []byte
}

// Write shows the lines that have ended.
func (s *serviceLog) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, p...)
	for {
		end := bytes.IndexByte(s.held, '\n')
		if end < 0 && len(s.held) < maxServiceLine {
			return len(p), nil
		}
		line := s.held
		if end >= 0 {
			line = s.held[:end]
		}
		s.log.Print("%s%s", s.prefix, strings.TrimSuffix(string(line), "\r"))
		s.held = append(s.held[:0], s.held[min(len(line)+1, len(s.held)):]...)
	}
}

// tail keeps the last bytes written to it.
type tail struct {
	mu    sync.Mutex
	limit int
	kept  []byte
}

// Write keeps p, dropping the oldest bytes beyond the limit.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}

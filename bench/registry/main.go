// Command registry measures push and pull of a large image through the
// platform's registry, with its tokens, catalogue and database, beside the
// stand-alone distribution registry of the same version on the same disk.
//
//	go run ./bench/registry [-size 200] [-runs 7] [-json]
//
// It owns the two servers, each a process of its own, and their folders.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sirupsen/logrus"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/registrydb"
)

type options struct {
	size   int64
	layers int64
	runs   int
	json   bool
	dir    string
}

func main() {
	var o options
	flag.Int64Var(&o.size, "size", 200, "size of the image in MB")
	flag.Int64Var(&o.layers, "layers", 4, "layers of the image")
	flag.IntVar(&o.runs, "runs", 7, "measured pushes and pulls of each")
	flag.BoolVar(&o.json, "json", false, "print JSON")
	flag.StringVar(&o.dir, "dir", "", "folder for both stores (default: a temporary one)")
	serve := flag.String("serve", "", "used by the program itself")
	flag.Parse()
	err := error(nil)
	if *serve != "" {
		err = serveOurs(*serve)
	} else {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

// result is what one of the two took, in seconds at the median.
type result struct {
	Program string  `json:"program"`
	Push    float64 `json:"push_seconds"`
	Pull    float64 `json:"pull_seconds"`
	PushMBs float64 `json:"push_mb_per_second"`
	PullMBs float64 `json:"pull_mb_per_second"`
}

// server is one of the two, running.
type server struct {
	name         string
	host         string
	auth         authn.Authenticator
	stop         func()
	pushes, pull []float64
}

func run(o options) error {
	dir := o.dir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "slipway-bench-registry-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	ours, err := startOurs(filepath.Join(dir, "slipway"))
	if err != nil {
		return err
	}
	defer ours.stop()
	alone, err := startAlone(filepath.Join(dir, "distribution"))
	if err != nil {
		return err
	}
	defer alone.stop()
	for i := range o.runs + 1 { // the first run warms up
		image, err := random.Image(o.size*1_000_000/o.layers, o.layers)
		if err != nil {
			return err
		}
		servers := []*server{ours, alone}
		if i%2 == 1 {
			servers = []*server{alone, ours}
		}
		for _, s := range servers {
			push, pull, err := s.measure(image, i)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if i > 0 {
				s.pushes, s.pull = append(s.pushes, push), append(s.pull, pull)
			}
		}
	}
	return write(os.Stdout, o, ours, alone)
}

func (s *server) measure(image v1.Image, i int) (push, pull float64, err error) {
	ref, err := name.ParseReference(fmt.Sprintf("%s/bench/app:%d", s.host, i), name.Insecure)
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	if err := remote.Write(ref, image, remote.WithAuth(s.auth)); err != nil {
		return 0, 0, err
	}
	push = time.Since(begin).Seconds()
	begin = time.Now()
	got, err := remote.Image(ref, remote.WithAuth(s.auth))
	if err != nil {
		return 0, 0, err
	}
	layers, err := got.Layers()
	if err != nil {
		return 0, 0, err
	}
	errs := make(chan error, len(layers))
	for _, l := range layers {
		go func() {
			body, err := l.Compressed()
			if err == nil {
				_, err = io.Copy(io.Discard, body)
				err = errors.Join(err, body.Close())
			}
			errs <- err
		}()
	}
	for range layers {
		err = errors.Join(err, <-errs)
	}
	return push, time.Since(begin).Seconds(), err
}

func median(list []float64) float64 {
	sorted := append([]float64{}, list...)
	sort.Float64s(sorted)
	return sorted[len(sorted)/2]
}

func write(w io.Writer, o options, ours, alone *server) error {
	rows := []result{}
	for _, s := range []*server{ours, alone} {
		push, pull := median(s.pushes), median(s.pull)
		rows = append(rows, result{s.name, push, pull, float64(o.size) / push, float64(o.size) / pull})
	}
	pushRatio, pullRatio := rows[0].PushMBs/rows[1].PushMBs, rows[0].PullMBs/rows[1].PullMBs
	if o.json {
		return json.NewEncoder(w).Encode(map[string]any{"size_mb": o.size, "runs": o.runs, "results": rows, "push_ratio": pushRatio, "pull_ratio": pullRatio})
	}
	fmt.Fprintf(w, "Image of %d MB in %d layers, median of %d runs, %d CPUs\n", o.size, o.layers, o.runs, runtime.NumCPU())
	for _, r := range rows {
		fmt.Fprintf(w, "  %-13s push %6.2f s (%5.0f MB/s)   pull %6.2f s (%5.0f MB/s)\n", r.Program, r.Push, r.PushMBs, r.Pull, r.PullMBs)
	}
	_, err := fmt.Fprintf(w, "  throughput against the stand-alone registry: push %.2f, pull %.2f (wanted: at least 0.95)\n", pushRatio, pullRatio)
	return err
}

// startAlone builds and starts the stand-alone registry with its usual
// configuration for a file system store.
func startAlone(dir string) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	program := filepath.Join(dir, "registry")
	build := exec.Command("go", "build", "-o", program, "github.com/distribution/distribution/v3/cmd/registry")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the stand-alone registry: %w: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	host := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %q, secret: bench}\n", filepath.Join(dir, "data"), host)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	log, err := os.Create(filepath.Join(dir, "log")) // a line for every blob that is not there yet
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	stop, err := startChild(cmd)
	if err != nil {
		return nil, err
	}
	s := &server{name: "distribution", host: host, auth: authn.Anonymous, stop: stop}
	return s, s.await()
}

func startOurs(dir string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-serve", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stop, err := startChild(cmd)
	if err != nil {
		return nil, err
	}
	host, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, fmt.Errorf("start: %w", err)
	}
	s := &server{name: "slipway", host: strings.TrimSpace(host), auth: authn.FromConfig(authn.AuthConfig{Username: "bench", Password: "bench"}), stop: stop}
	return s, s.await()
}

func startChild(cmd *exec.Cmd) (stop func(), err error) {
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill() // it may have ended; Wait tells
		_ = cmd.Wait()
	}, nil
}

// await waits until the registry answers.
func (s *server) await() error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		resp, err := http.Get("http://" + s.host + "/v2/")
		if err == nil {
			return resp.Body.Close()
		}
		if time.Now().After(deadline) {
			s.stop()
			return fmt.Errorf("%s does not answer: %w", s.name, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// serveOurs is the platform's registry as `slipway up` makes it, with one
// account and one project.
func serveOurs(dir string) error {
	logrus.SetLevel(logrus.WarnLevel)
	logrus.SetFormatter(registry.EngineLog{Formatter: &logrus.TextFormatter{}})
	db, err := store.Open(context.Background(), filepath.Join(dir, "slipway.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	reg, err := registry.New(registry.Config{Dir: filepath.Join(dir, "registry"), Index: registrydb.New(db), Accounts: one{}, Projects: one{}, Log: slog.Default()})
	if err != nil {
		return err
	}
	defer reg.Close()
	mux := http.NewServeMux()
	mux.Handle("/v2/", reg.Handler())
	mux.Handle("/jwt/auth", reg.TokenHandler())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, mux)
}

// one is one account and one project.
type one struct{}

func (one) SignIn(_ context.Context, username, _ string) (delivery.Identity, error) {
	return delivery.Identity{Kind: delivery.SessionUser, User: &delivery.User{ID: 1, Username: username}, Name: username}, nil
}

func (one) VisibleProject(_ context.Context, _ delivery.Identity, ref string) (delivery.Project, delivery.Role, error) {
	if ref != "bench/app" {
		return delivery.Project{}, 0, delivery.Errorf(delivery.NotFound, "Project Not Found")
	}
	return delivery.Project{ID: 1, FullPath: ref, Visibility: delivery.Private}, delivery.Developer, nil
}

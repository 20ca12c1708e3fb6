// Command forge measures clones and pushes of a large real tree through the
// forge, with its accounts, hooks and database, beside git http-backend behind
// a plain HTTP server with the same git on the same disk; and the time that the
// forge takes for what pages show of a repository with a long history.
//
//	go run ./bench/forge [-tree DIR] [-runs 5] [-json]
//
// The tree is the source of the Kubernetes module by default. Runs of the two
// alternate, so that a change of the machine's load meets both.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/seal"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/accessdb"
	"github.com/slipwayhq/slipway/internal/store/forgedb"
)

func main() {
	tree := flag.String("tree", "", "folder to make the repository of (default: the source of k8s.io/kubernetes)")
	runs := flag.Int("runs", 5, "measured runs of each; 0: pages only")
	commits := flag.Int("commits", 50000, "commits of the repository for pages")
	files := flag.Int("files", 20000, "files of the repository for pages")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	if err := run(*tree, *runs, *commits, *files, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// bench holds the two servers and what they serve.
type bench struct {
	ctx     context.Context
	dir     string
	work    string // the working copy with the large tree
	forge   *forge.Service
	who     delivery.Identity
	ours    string // address with credentials, up to the path
	theirs  string
	backend string // folder of the plain server's repositories
	count   int
	mu      sync.Mutex
}

// result compares medians of the two.
type result struct {
	What   string  `json:"what"`
	Ours   float64 `json:"forge_seconds"`
	Theirs float64 `json:"http_backend_seconds,omitempty"`
	Ratio  float64 `json:"throughput_ratio,omitempty"` // of the forge to http-backend
	// Processor is how much processor time, clients included, http-backend takes
	// for the same in relation to the forge; a busy machine disturbs it little.
	Processor float64 `json:"processor_ratio,omitempty"`
	P95       float64 `json:"p95_seconds,omitempty"`
	Samples   int     `json:"samples"`
}

func run(tree string, runs, commits, files int, asJSON bool) error {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "bench-forge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{ctx: ctx, dir: dir, backend: filepath.Join(dir, "backend")}
	stop, err := b.start()
	if err != nil {
		return err
	}
	defer stop()
	var results []result
	if runs > 0 {
		if results, err = b.transfers(tree, runs); err != nil {
			return err
		}
	}
	pages, err := b.pages(commits, files)
	if err != nil {
		return err
	}
	return show(append(results, pages...), asJSON)
}

// transfers measures clones and pushes on both sides.
func (b *bench) transfers(tree string, runs int) ([]result, error) {
	if err := b.prepare(tree); err != nil {
		return nil, err
	}
	var results []result
	for _, parallel := range []int{1, 8} {
		r, err := b.compare(fmt.Sprintf("clone, %d at once", parallel), runs, parallel, b.clone)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	for _, parallel := range []int{1, 8} {
		r, err := b.compare(fmt.Sprintf("push, %d at once", parallel), runs, parallel, b.push)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}

func show(results []result, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(results)
	}
	fmt.Printf("%-34s %12s %14s %8s %10s\n", "", "forge", "http-backend", "ratio", "processor / p95")
	for _, r := range results {
		if r.Theirs > 0 {
			fmt.Printf("%-34s %10.3f s %12.3f s %8.2f %10.2f\n", r.What, r.Ours, r.Theirs, r.Ratio, r.Processor)
		} else {
			fmt.Printf("%-34s %9.1f ms %14s %8s %7.1f ms\n", r.What, r.Ours*1000, "", "", r.P95*1000)
		}
	}
	return nil
}

func (b *bench) start() (func(), error) {
	db, err := store.Open(b.ctx, filepath.Join(b.dir, "db", "slipway.db"))
	if err != nil {
		return nil, err
	}
	box, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		return nil, err
	}
	acc := access.New(access.Options{Store: accessdb.New(db, box)})
	if _, err := acc.EnsureAdministrator(b.ctx); err != nil {
		return nil, err
	}
	root, err := acc.UserByName(b.ctx, "root")
	if err != nil {
		return nil, err
	}
	b.who = delivery.Identity{Kind: delivery.SessionUser, User: &root, Name: "root"}
	secret, err := acc.RenewAdminToken(b.ctx, "bench")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.forge, err = forge.New(forge.Options{Store: forgedb.New(db, box), Access: acc, Root: filepath.Join(b.dir, "repositories"), RunDir: filepath.Join(b.dir, "run"), ExternalURL: "http://" + l.Addr().String(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	b.ours = "http://root:" + secret + "@" + l.Addr().String()
	ours := &http.Server{Handler: b.forge.GitHandler()}
	go func() { _ = ours.Serve(l) }()
	execPath, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, err
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.theirs = "http://" + plain.Addr().String()
	theirs := &http.Server{Handler: &cgi.Handler{Path: filepath.Join(strings.TrimSpace(string(execPath)), "git-http-backend"), Env: []string{"GIT_PROJECT_ROOT=" + b.backend, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + b.dir}, InheritEnv: []string{"PATH"}, Stderr: io.Discard}}
	go func() { _ = theirs.Serve(plain) }()
	return func() {
		ours.Close()
		theirs.Close()
		b.forge.Close()
		db.Close()
	}, nil
}

// git runs git as a client. It sends a pack with its length in front, as CGI
// knows no other way.
func (b *bench) git(dir string, args ...string) error {
	cmd := exec.CommandContext(b.ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+b.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=gc.auto", "GIT_CONFIG_VALUE_0=0", "GIT_CONFIG_KEY_1=http.postBuffer", "GIT_CONFIG_VALUE_1=1000000000", "GIT_TERMINAL_PROMPT=0", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return nil
}

// prepare makes the working copy and stores it on both sides.
func (b *bench) prepare(tree string) error {
	if tree == "" {
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
		if err != nil {
			return fmt.Errorf("find the source of k8s.io/kubernetes: %w", err)
		}
		tree = strings.TrimSpace(string(out))
	}
	b.work = filepath.Join(b.dir, "work")
	if err := os.CopyFS(b.work, os.DirFS(tree)); err != nil {
		return err
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A", "-f"}, {"commit", "-q", "-m", "Everything"}, {"gc", "-q"}} {
		if err := b.git(b.work, args...); err != nil {
			return err
		}
	}
	for _, side := range []string{b.ours, b.theirs} {
		url, err := b.fresh(side)
		if err != nil {
			return err
		}
		if err := b.git(b.work, "remote", "add", map[bool]string{true: "ours", false: "theirs"}[side == b.ours], url); err != nil {
			return err
		}
		if err := b.git(b.work, "push", "-q", url, "main"); err != nil {
			return err
		}
	}
	return nil
}

// fresh makes an empty repository on a side and returns its address.
func (b *bench) fresh(side string) (string, error) {
	b.mu.Lock()
	b.count++
	name := fmt.Sprintf("r%d", b.count)
	b.mu.Unlock()
	if side == b.ours {
		_, err := b.forge.CreateProject(b.ctx, b.who, forge.NewProject{Path: name})
		return side + "/root/" + name + ".git", err
	}
	dir := filepath.Join(b.backend, name+".git")
	if err := b.git(b.dir, "init", "-q", "--bare", "-b", "main", dir); err != nil {
		return "", err
	}
	return side + "/" + name + ".git", b.git(dir, "config", "http.receivepack", "true")
}

func (b *bench) clone(side string, n int) (func() error, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(b.ctx, "git", "remote", "get-url", map[bool]string{true: "ours", false: "theirs"}[side == b.ours])
	cmd.Dir, cmd.Stdout = b.work, &out
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, fmt.Sprintf("clone-%d", n))
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	return func() error {
		return b.git(b.dir, "clone", "-q", "--bare", strings.TrimSpace(out.String()), dir)
	}, nil
}

func (b *bench) push(side string, _ int) (func() error, error) {
	url, err := b.fresh(side)
	if err != nil {
		return nil, err
	}
	return func() error { return b.git(b.work, "push", "-q", url, "main") }, nil
}

// compare measures an operation on both sides in turn.
func (b *bench) compare(what string, runs, parallel int, op func(side string, n int) (func() error, error)) (result, error) {
	times, cpu := map[string][]float64{}, map[string][]float64{}
	for i := range runs + 1 {
		sides := []string{b.ours, b.theirs}
		if i%2 == 1 {
			sides[0], sides[1] = sides[1], sides[0]
		}
		fmt.Fprintf(os.Stderr, "%s: round %d of %d\n", what, i, runs)
		for _, side := range sides {
			var fns []func() error
			for n := range parallel {
				fn, err := op(side, n)
				if err != nil {
					return result{}, err
				}
				fns = append(fns, fn)
			}
			begun, used := time.Now(), processorTime()
			errs := make([]error, parallel)
			var wg sync.WaitGroup
			for n, fn := range fns {
				wg.Go(func() { errs[n] = fn() })
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				return result{}, err
			}
			if i > 0 { // the first round warms up
				times[side] = append(times[side], time.Since(begun).Seconds())
				cpu[side] = append(cpu[side], processorTime()-used)
			}
		}
	}
	r := result{What: what, Ours: quantile(times[b.ours], 0.5), Theirs: quantile(times[b.theirs], 0.5), Samples: runs}
	r.Processor = quantile(cpu[b.theirs], 0.5) / quantile(cpu[b.ours], 0.5)
	r.Ratio = r.Theirs / r.Ours
	fmt.Fprintf(os.Stderr, "%s: %.2f (processor time: %.2f)\n", what, r.Ratio, r.Processor)
	return r, nil
}

// processorTime returns the seconds of processor time that this process and
// its ended children have used.
func processorTime() float64 {
	total := 0.0
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			continue
		}
		total += float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
	}
	return total
}

func quantile(v []float64, q float64) float64 {
	s := append([]float64(nil), v...)
	sort.Float64s(s)
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// history makes a repository by git fast-import and returns its project.
func (b *bench) history(commits, files int) (delivery.Project, error) {
	p, err := b.forge.CreateProject(b.ctx, b.who, forge.NewProject{Path: "long"})
	if err != nil {
		return p, err
	}
	r, w := io.Pipe()
	go func() {
		name := func(i int) string {
			i %= files
			return fmt.Sprintf("dir%02d/sub%02d/file%d.go", i%40, i/40%20, i)
		}
		var err error
		for c := 0; c < commits && err == nil; c++ {
			var s strings.Builder
			fmt.Fprintf(&s, "commit refs/heads/main\ncommitter Ann <a@b> %d +0000\ndata 10\ncommit %3d\n", 1600000000+c*60, c%1000)
			first := 1
			if c == 0 {
				first = files
			}
			for i := range first {
				text := fmt.Sprintf("package p\n\nvar v%d = %d\n", i, c)
				fmt.Fprintf(&s, "M 100644 inline %s\ndata %d\n%s\n", name(c*7+i), len(text), text)
			}
			_, err = io.WriteString(w, s.String())
		}
		w.CloseWithError(err)
	}()
	cmd := exec.CommandContext(b.ctx, "git", "fast-import", "--quiet")
	cmd.Dir, cmd.Stdin = b.forge.RepositoryPath(p.ID), r
	if out, err := cmd.CombinedOutput(); err != nil {
		return p, fmt.Errorf("git fast-import: %w: %s", err, out)
	}
	return p, b.forge.Maintain(b.ctx, p.ID, true)
}

// pages measures what the pages of a long history ask the forge for.
func (b *bench) pages(commits, files int) ([]result, error) {
	p, err := b.history(commits, files)
	if err != nil {
		return nil, err
	}
	ctx, f := b.ctx, b.forge
	ops := []struct {
		what string
		fn   func(i int) error
	}{
		{"tree with last commits", func(i int) error {
			if _, err := f.Tree(ctx, p.ID, "main", fmt.Sprintf("dir%02d", i%40)); err != nil {
				return err
			}
			_, err := f.LastCommits(ctx, p.ID, "main", fmt.Sprintf("dir%02d", i%40))
			return err
		}},
		{"tree of the root with last commits", func(int) error {
			_, err := f.LastCommits(ctx, p.ID, "main", "")
			return err
		}},
		{"file", func(i int) error {
			_, err := f.ReadFile(ctx, p.ID, "main", fmt.Sprintf("dir%02d/sub00/file%d.go", i%40, i%40), 1<<20)
			return err
		}},
		{"commits", func(i int) error {
			_, err := f.Commits(ctx, p.ID, forge.LogOptions{Rev: "main", Limit: 40, Offset: i * 40})
			return err
		}},
		{"history of a file", func(i int) error {
			_, err := f.Commits(ctx, p.ID, forge.LogOptions{Rev: "main", Path: fmt.Sprintf("dir%02d/sub00/file%d.go", i%40, i%40), Limit: 20})
			return err
		}},
		{"commit with its diff", func(i int) error {
			c, err := f.Commit(ctx, p.ID, fmt.Sprintf("main~%d", i))
			if err != nil {
				return err
			}
			_, err = f.Diff(ctx, p.ID, c.Parents[0], c.SHA, nil, forge.DiffLimits{})
			return err
		}},
		{"branches", func(int) error {
			_, err := f.Branches(ctx, p, forge.RefOptions{})
			return err
		}},
	}
	var out []result
	for _, op := range ops {
		var times []float64
		for i := range 60 {
			begun := time.Now()
			if err := op.fn(i); err != nil {
				return nil, fmt.Errorf("%s: %w", op.what, err)
			}
			times = append(times, time.Since(begun).Seconds())
		}
		out = append(out, result{What: op.what, Ours: quantile(times, 0.5), P95: quantile(times, 0.95), Samples: len(times)})
	}
	return out, nil
}

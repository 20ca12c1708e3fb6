// Command platform measures the whole platform on an instance of its own: how
// soon it is ready, the seed story, and the memory of every program at rest,
// with many projects and with the sample application in two environments.
//
//	go run ./bench/platform [-rest 7m] [-projects 100] [-demo=false]
//
// It needs root and the built programs (bin/, or $SLIPWAY_BIN). It makes a
// network namespace and a data directory, and removes both. It imports the
// standard library only.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// config is the instance's: apart from any other on the machine.
const config = `name: swbnch
data_dir: %s
network: {namespace: swbnch, link_cidr: 10.199.251.0/30}
`

func main() {
	rest := flag.Duration("rest", 7*time.Minute, "how long everything rests before memory is read")
	projects := flag.Int("projects", 100, "projects to make")
	demo := flag.Bool("demo", true, "play the seed story")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2**rest+40*time.Minute)
	defer cancel()
	if err := run(ctx, *rest, *projects, *demo); err != nil {
		fmt.Fprintln(os.Stderr, "platform:", err)
		os.Exit(1)
	}
}

// bench is the instance that is measured.
type bench struct {
	program, file, dir string
}

// report is what of `slipway status --json` is shown.
type report struct {
	URL    string `json:"url"`
	Ready  bool   `json:"ready"`
	Budget []struct {
		Name string `json:"name"`
		PSS  int64  `json:"pss_bytes"`
	} `json:"budget"`
	Total int64 `json:"pss_total_bytes"`
}

func run(ctx context.Context, rest time.Duration, projects int, demo bool) (err error) {
	bin := os.Getenv("SLIPWAY_BIN")
	if bin == "" {
		bin = "bin"
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/var/tmp", "slipway-bench-")
	if err != nil {
		return err
	}
	b := &bench{program: filepath.Join(bin, "slipway"), file: filepath.Join(dir, "config.yaml"), dir: filepath.Join(dir, "data")}
	if err := os.WriteFile(b.file, fmt.Appendf(nil, config, b.dir), 0o600); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		defer cancel()
		_, resetErr := b.slipway(ctx, "reset", "--yes")
		err = errors.Join(err, resetErr)
		if resetErr == nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for _, what := range []string{"empty data directory to ready", "stopped to ready, warm"} {
		begun := time.Now()
		if _, err := b.slipway(ctx, "up", "--detach"); err != nil {
			return err
		}
		line(what, time.Since(begun).Seconds(), "s")
		if what == "empty data directory to ready" {
			if _, err := b.slipway(ctx, "down"); err != nil {
				return err
			}
		}
	}
	if err := b.projects(ctx, projects); err != nil {
		return err
	}
	if err := b.memory(ctx, fmt.Sprintf("at rest, %d projects", projects), rest); err != nil {
		return err
	}
	if !demo {
		return nil
	}
	if err := b.demo(ctx); err != nil {
		return err
	}
	return b.memory(ctx, "at rest, sample application in two environments", rest)
}

func line(what string, value float64, unit string) { fmt.Printf("%-72s %8.1f %s\n", what, value, unit) }

// slipway runs the command line; its error holds what it printed.
func (b *bench) slipway(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, b.program, append([]string{"--config", b.file}, args...)...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("slipway %s: %w\n%s%s", strings.Join(args, " "), err, out.Bytes(), complaint.Bytes())
	}
	return out.Bytes(), nil
}

func (b *bench) status(ctx context.Context) (report, error) {
	out, err := b.slipway(ctx, "status", "--json")
	if err != nil {
		return report{}, err
	}
	var r report
	return r, json.Unmarshal(out, &r)
}

// call asks the platform's API, with the form as its body.
func (b *bench) call(ctx context.Context, method, path string, form url.Values, want int) error {
	r, err := b.status(ctx)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(b.dir, "run", "admin.token"))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, r.URL+"/api/v4/"+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("PRIVATE-TOKEN", strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

// projects makes projects with a first commit.
func (b *bench) projects(ctx context.Context, n int) error {
	for i := range n {
		name := fmt.Sprintf("bench-%d", i)
		if err := b.call(ctx, http.MethodPost, "projects", url.Values{"name": {name}, "path": {name}, "initialize_with_readme": {"true"}}, http.StatusCreated); err != nil {
			return err
		}
	}
	return nil
}

// demo plays the seed story and shows how long its parts took. It leaves the
// application in staging and production.
func (b *bench) demo(ctx context.Context) error {
	begun := time.Now()
	out, err := b.slipway(ctx, "demo", "--json")
	if err != nil {
		return err
	}
	line("seed story", time.Since(begun).Seconds(), "s")
	var story struct {
		Release []struct {
			Stage   string  `json:"stage"`
			Seconds float64 `json:"seconds"`
		} `json:"release"`
	}
	if err := json.Unmarshal(out, &story); err != nil {
		return fmt.Errorf("report of the seed story: %w", err)
	}
	for _, share := range story.Release {
		line("push to first request: "+share.Stage, share.Seconds, "s")
	}
	// The third environment goes as it came, by a commit.
	form := url.Values{"branch": {"main"}, "commit_message": {"Remove the blue-green environment"}}
	return b.call(ctx, http.MethodDelete, "projects/demo%2Fgitops-configs/repository/files/argocd%2Fapplications%2Fblue-green.yaml", form, http.StatusNoContent)
}

// memory shows the proportional set size of every program after a rest.
func (b *bench) memory(ctx context.Context, when string, rest time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rest):
	}
	r, err := b.status(ctx)
	if err != nil {
		return err
	}
	for _, row := range r.Budget {
		if row.PSS > 0 {
			line(when+": "+row.Name, float64(row.PSS)/1e6, "MB")
		}
	}
	line(when+": total", float64(r.Total)/1e6, "MB")
	return nil
}

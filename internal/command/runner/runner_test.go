package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/command/rest"
	command "github.com/slipwayhq/slipway/internal/command/runner"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/pipelinetest"
	"github.com/slipwayhq/slipway/internal/runner/runnertest"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/pipelinedb"
)

// call runs the command and returns what it printed.
func call(ctx context.Context, args ...string) (string, error) {
	c := command.New(func() (*rest.Client, error) { return nil, io.EOF }, nil)
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetArgs(args)
	err := c.ExecuteContext(ctx)
	return out.String(), err
}

// TestAnotherMachine registers a runner's token, lets it execute a pipeline over
// HTTP with artifacts from one job to the next, and forgets it.
func TestAnotherMachine(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	db, err := store.Open(ctx, filepath.Join(dir, "slipway.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	forge := pipelinetest.NewForge()
	forge.AddProject(7, "group/app")
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	engine, err := pipeline.New(ctx, pipeline.Config{Store: pipelinedb.New(db), Projects: forge, Users: forge, Repositories: pipelinetest.Repositories{Forge: forge},
		MergeRequests: forge, Key: make([]byte, pipeline.KeySize), DataDir: dir, ExternalURL: server.URL, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	engine.RegisterRunnerRoutes(mux)
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() {
		if err := engine.Run(running); err != nil && running.Err() == nil {
			t.Error(err)
		}
	})
	made, token, err := engine.CreateRunner(ctx, pipeline.NewRunner{Kind: pipeline.InstanceRunner, Description: "second machine", RunUntagged: true})
	if err != nil {
		t.Fatal(err)
	}

	file, secret := filepath.Join(dir, "etc", "runners.json"), filepath.Join(dir, "token")
	if err := os.WriteFile(secret, []byte("glrt-wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	register := []string{"register", "--url", server.URL + "/", "--token-file", secret, "--name", "second", "--file", file, "--dir", filepath.Join(dir, "work")}
	if _, err := call(ctx, register...); err == nil || !strings.Contains(err.Error(), "does not know this token") {
		t.Errorf("a wrong token: %v", err)
	}
	if err := os.WriteFile(secret, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := call(ctx, register...); err != nil || strings.Contains(out, token) {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := call(ctx, register...); err == nil || !strings.Contains(err.Error(), "registered on this machine already") {
		t.Errorf("twice: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of tokens is open: %v %v", info, err)
	}
	out, err := call(ctx, "list", "--local", "--json", "--file", file)
	var listed []command.Registration
	if err != nil || json.Unmarshal([]byte(out), &listed) != nil || len(listed) != 1 || listed[0].ID != made.ID || listed[0].Token != "" {
		t.Errorf("the list: %v\n%s", err, out)
	}
	if out, err := call(ctx, "verify", "--file", file); err != nil || out != "second is alive\n" {
		t.Errorf("verify: %v\n%s", err, out)
	}

	group.Go(func() {
		if out, err := call(running, "run", "--file", file); err != nil {
			t.Errorf("run: %v\n%s", err, out)
		}
	})
	forge.Commit(7, "main", "change", map[string]string{".gitlab-ci.yml": `
variables: {GIT_STRATEGY: none}
make: {stage: build, script: "echo of $CI_JOB_NAME > made.txt", artifacts: {paths: [made.txt]}}
use: {stage: test, script: ["cat made.txt", "exit 3"], allow_failure: true}
`})
	p, err := engine.Create(ctx, pipeline.Request{ProjectID: 7, UserID: 1, Ref: "main", Source: pipeline.SourceWeb})
	if err != nil {
		t.Fatal(err)
	}
	jobs := map[string]pipeline.Job{}
	for jobs["use"].Status != "failed" {
		changed := engine.ProjectChanged(7)
		if err := engine.View(ctx, func(tx pipeline.Tx) error {
			list, err := tx.PipelineJobs(p.ID)
			for _, j := range list {
				jobs[j.Name] = j
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the jobs did not end: %+v", jobs)
		}
	}
	used := jobs["use"]
	opened, err := engine.OpenLog(ctx, &used)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	log, err := io.ReadAll(io.NewSectionReader(opened, 0, opened.Size))
	if plain := runnertest.Plain(log); err != nil || used.ExitCode != 3 || !strings.Contains(plain, "$ cat made.txt\nof make\n") || strings.Contains(plain, token) {
		t.Errorf("exit code %d, %v:\n%s", used.ExitCode, err, plain)
	}
	if out, err := call(ctx, "unregister", "second", "--file", file); err != nil || !strings.Contains(out, "second is forgotten") {
		t.Errorf("unregister: %v\n%s", err, out)
	}
	if _, err := call(ctx, "run", "--file", file); err == nil {
		t.Error("there is something to run")
	}
}

func TestRegisterSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "r.json")
	for want, args := range map[string][]string{
		"is not an address":        {"--url", "slipway.example.com", "--token", "x"},
		"The token is missing":     {"--url", "http://127.0.0.1:1"},
		"is not known: use shell":  {"--url", "http://127.0.0.1:1", "--token", "x", "--executor", "docker"},
		"must be at least 1":       {"--url", "http://127.0.0.1:1", "--token", "x", "--concurrent", "0"},
		"must not have a slash":    {"--url", "http://127.0.0.1:1", "--token", "x", "--name", "a/b"},
		"platform does not answer": {"--url", "http://127.0.0.1:1", "--token", "x"},
	} {
		if _, err := call(t.Context(), append([]string{"register", "--file", file}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestNetworksOfRegistrations: runners of containers on one machine never share
// a network.
func TestNetworksOfRegistrations(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"id":1}`)) }))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "runners.json")
	start := func(context.Context, command.Registration, delivery.RunnerSession, delivery.Coordinator) error {
		return nil
	}
	register := func(name string, more ...string) (string, error) {
		c := command.New(nil, map[string]command.Start{"containerd": start})
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetErr(&out)
		c.SilenceUsage, c.SilenceErrors = true, true
		c.SetArgs(append([]string{"register", "--url", server.URL, "--token", "x", "--executor", "containerd", "--name", name, "--file", file}, more...))
		return out.String(), c.ExecuteContext(t.Context())
	}
	for _, name := range []string{"a", "b"} {
		if out, err := register(name, "--job-memory", "1Gi"); err != nil {
			t.Fatal(err, out)
		}
	}
	for want, args := range map[string][]string{
		`overlaps the network of "b"`: {"--job-cidr", "10.46.32.0/20"},
		"at least a /20":              {"--job-cidr", "10.50.0.0/24"},
		"--job-memory":                {"--job-memory", "much"},
		"--tls-ca-file":               {"--tls-ca-file", filepath.Join(t.TempDir(), "none")},
	} {
		if _, err := register("c", args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
	raw, err := os.ReadFile(file)
	var list []command.Registration
	if err != nil || json.Unmarshal(raw, &list) != nil || len(list) != 2 || list[0].JobCIDR != "10.46.0.0/19" || list[1].JobCIDR != "10.46.32.0/19" || list[0].JobMemory != 1<<30 {
		t.Errorf("%v\n%s", err, raw)
	}
}

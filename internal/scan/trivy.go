package scan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan/report"
)

// target is what one run of Trivy looks at.
type target struct {
	kind Type
	dir  string // an OCI layout, or the file tree
	name string
}

// arguments returns Trivy's command line. Nothing is fetched: the database is
// this package's business, and the checks for misconfigurations are built in.
func (s *Service) arguments(t target, out string) []string {
	common := []string{
		"--cache-dir", s.cacheDir(), "--format", "json", "--output", out, "--quiet", "--no-progress", "--offline-scan",
		"--skip-version-check", "--disable-telemetry", "--timeout", s.cfg.Timeout.String(), "--parallel", "1",
	}
	database := []string{"--skip-db-update", "--skip-java-db-update"}
	switch t.kind {
	case TypeImage:
		return append(append([]string{"image", "--input", t.dir, "--scanners", "vuln,secret"}, database...), common...)
	case TypeConfig:
		return append(append([]string{"filesystem", "--scanners", "misconfig", "--skip-check-update"}, common...), t.dir)
	case TypeSecret:
		return append(append([]string{"filesystem", "--scanners", "secret"}, common...), t.dir)
	}
	return append(append(append([]string{"filesystem", "--scanners", "vuln,secret,misconfig", "--skip-check-update"}, database...), common...), t.dir)
}

// run starts Trivy and reads its report. The caller holds s.running.
func (s *Service) run(ctx context.Context, t target) (report.Report, error) {
	var rep report.Report
	if t.kind == TypeImage || t.kind == TypeFS {
		db, err := s.Database()
		if err != nil {
			return rep, err
		}
		rep.Database = db
	}
	work, err := os.MkdirTemp(s.cfg.Dir, "run-")
	if err != nil {
		return rep, fmt.Errorf("scan: %w", err)
	}
	defer os.RemoveAll(work)
	out := filepath.Join(work, "report.json")
	rep.StartedAt = s.cfg.Now().UTC()
	args := s.arguments(t, out)
	err = s.start(ctx, args, work, t.kind == TypeImage)
	if err != nil && strings.Contains(err.Error(), "Java DB") && ctx.Err() == nil {
		// Archives of Java classes can only be told apart with a database of
		// their own, which is not fetched: it is larger than all others.
		rep.Notes = append(rep.Notes, "There are Java archives, and they were not examined: this platform keeps no database of Java archives.")
		err = s.start(ctx, append(args, "--skip-files", "**/*.jar,**/*.war,**/*.ear,**/*.par"), work, t.kind == TypeImage)
	}
	if err != nil {
		return rep, err
	}
	rep.EndedAt = s.cfg.Now().UTC()
	raw, err := os.ReadFile(out)
	if err != nil {
		return rep, fmt.Errorf("scan: Trivy wrote no report: %w", err)
	}
	var parsed trivyReport
	if err := json.Unmarshal(raw, &parsed); err != nil {
		return rep, fmt.Errorf("scan: read Trivy's report: %w", err)
	}
	parsed.fill(&rep)
	rep.Artifact = t.name
	rep.Scanner = "Trivy " + s.version
	return rep, nil
}

// start runs Trivy to its end and turns every failure into a sentence.
func (s *Service) start(ctx context.Context, args []string, work string, background bool) error {
	var stderr bytes.Buffer
	status, err := s.execute(ctx, process{args: args, dir: work, work: work, background: background, stderr: &limited{w: &stderr, left: 64 << 10}})
	if err == nil && status != 0 {
		err = &delivery.Error{Kind: delivery.Stalled, Message: "Trivy failed: " + lastLine(stderr.String())}
	}
	return err
}

// process is one run of the program.
type process struct {
	args           []string
	dir            string   // current folder
	work           string   // folder for its temporary files
	env            []string // beside the fixed ones
	stdout, stderr io.Writer
	background     bool // of low priority
}

// execute runs Trivy to its end within the limits of time and memory and
// returns its exit status. The environment is clean but for p.env, as Trivy
// reads settings and credentials from it.
func (s *Service) execute(ctx context.Context, p process) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout+30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.cfg.Program, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, p.stdout, p.stderr
	cmd.Env = append([]string{"HOME=" + p.work, "TMPDIR=" + p.work, "PATH=/usr/bin:/bin", "GOGC=50", "GOMAXPROCS=1",
		"GOMEMLIMIT=" + strconv.FormatInt(s.cfg.MemoryLimit*8/10, 10)}, p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// The kernel sends Pdeathsig when the thread that started the process ends,
	// and threads of this program do: making a network namespace costs one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 {
		// Some scanners would fetch what a scanned file names, from wherever it
		// says.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return -1, &delivery.Error{Kind: delivery.Stalled, Op: "scan: start Trivy", Message: "Trivy cannot be started.",
			Next: "Check that the program is in the installation's bin folder.", Err: err}
	}
	if p.background {
		// Nobody waits for it; who builds and deploys meanwhile comes first.
		s.yielding.Store(int64(cmd.Process.Pid))
		defer s.yielding.Store(0)
		setPriority(cmd.Process.Pid, 10)
	}
	if s.cfg.Confine != nil {
		if err := s.cfg.Confine(cmd.Process.Pid); err != nil {
			s.cfg.Log.Warn("scan: Trivy runs outside its budget's group", "err", err)
		}
	}
	over, watched, done := false, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		if over = s.overLimit(cmd.Process.Pid, done); over {
			cancel()
		}
	}()
	err := cmd.Wait()
	close(done)
	<-watched
	var exit *exec.ExitError
	switch {
	case over:
		return -1, &delivery.Error{Kind: delivery.Stalled, Message: fmt.Sprintf("The scan needed more than %d MB of memory and was stopped.", s.cfg.MemoryLimit>>20),
			Next: "Raise the scanner's memory budget, or scan a smaller image."}
	case err == nil:
		return 0, nil
	case ctx.Err() != nil:
		return -1, &delivery.Error{Kind: delivery.Stalled, Message: fmt.Sprintf("The scan did not end within %s, or was stopped.", s.cfg.Timeout), Err: errors.Join(ctx.Err(), err)}
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	}
	return -1, &delivery.Error{Kind: delivery.Stalled, Message: "Trivy ended in an unusual way.", Err: err}
}

// hurry gives the running background scan its normal priority back, because
// somebody waits for its end.
func (s *Service) hurry() {
	if pid := s.yielding.Load(); pid != 0 {
		setPriority(int(pid), 0)
	}
}

// setPriority sets the nice value of every thread of a process, as Linux keeps
// one for each. A thread that has ended meanwhile needs none; a caller without
// the right to raise the priority leaves it as it is.
func setPriority(pid, nice int) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, tid, nice)
		}
	}
}

// watchEvery is how often the memory of a running scan is looked at.
const watchEvery = 200 * time.Millisecond

// overLimit watches the resident memory of a process until done is closed, and
// returns true when it is over the limit.
func (s *Service) overLimit(pid int, done <-chan struct{}) bool {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	path := fmt.Sprintf("/proc/%d/statm", pid)
	for {
		select {
		case <-done:
			return false
		case <-ticker.C:
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// The second field is resident pages, the third those of files, which
		// the kernel takes back by itself (proc_pid_statm(5)).
		if fields := strings.Fields(string(raw)); len(fields) > 2 {
			resident, _ := strconv.ParseInt(fields[1], 10, 64)
			shared, _ := strconv.ParseInt(fields[2], 10, 64)
			if (resident-shared)*int64(os.Getpagesize()) > s.cfg.MemoryLimit {
				return true
			}
		}
	}
}

// lastLine returns the end of Trivy's log that says what went wrong, without
// its time and level.
func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	last := lines[len(lines)-1]
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.Contains(lines[i], "FATAL") || strings.Contains(lines[i], "ERROR") {
			last = lines[i]
			break
		}
	}
	parts := strings.Split(last, "\t")
	last = strings.TrimSpace(parts[len(parts)-1])
	if last == "" {
		return "it gave no reason."
	}
	return last
}

// limited drops what does not fit.
type limited struct {
	w    *bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.w.Write(p[:n])
	return len(p), nil
}

// trivyReport is what is read of Trivy's JSON report (schema version 2).
type trivyReport struct {
	Metadata struct {
		OS *struct {
			Family string
			Name   string
		}
		ImageID string
	}
	Results []struct {
		Target          string
		Class           string
		Type            string
		Vulnerabilities []struct {
			VulnerabilityID  string
			PkgName          string
			InstalledVersion string
			FixedVersion     string
			Status           string
			Severity         string
			Title            string
			Description      string
			PrimaryURL       string
			References       []string
			Layer            trivyLayer
			DataSource       *struct{ Name string }
		}
		Secrets []struct {
			RuleID    string
			Title     string
			Severity  string
			StartLine int
			Layer     trivyLayer
		}
		Misconfigurations []struct {
			ID            string
			AVDID         string
			Title         string
			Description   string
			Message       string
			Resolution    string
			Severity      string
			PrimaryURL    string
			References    []string
			Status        string
			CauseMetadata struct{ StartLine int }
		}
	}
}

type trivyLayer struct {
	Digest string
	DiffID string
}

func (l trivyLayer) name() string {
	if l.Digest != "" {
		return l.Digest
	}
	return l.DiffID
}

func (t trivyReport) fill(rep *report.Report) {
	if t.Metadata.OS != nil {
		rep.OS = strings.TrimSpace(t.Metadata.OS.Family + " " + t.Metadata.OS.Name)
	}
	var findings []report.Finding
	for _, r := range t.Results {
		for _, v := range r.Vulnerabilities {
			f := report.Finding{Kind: report.Vulnerability, ID: v.VulnerabilityID, Severity: severityOf(v.Severity), Title: v.Title, Description: v.Description,
				Package: v.PkgName, Installed: v.InstalledVersion, Fixed: v.FixedVersion, Status: v.Status, Target: r.Target, Layer: v.Layer.name(),
				URL: v.PrimaryURL, References: v.References}
			if v.DataSource != nil {
				f.Source = v.DataSource.Name
			}
			findings = append(findings, f)
		}
		for _, v := range r.Secrets {
			findings = append(findings, report.Finding{Kind: report.Secret, ID: v.RuleID, Severity: severityOf(v.Severity), Title: v.Title,
				Target: r.Target, Line: v.StartLine, Layer: v.Layer.name()})
		}
		for _, v := range r.Misconfigurations {
			if v.Status != "FAIL" {
				continue
			}
			id := v.AVDID
			if id == "" {
				id = v.ID
			}
			findings = append(findings, report.Finding{Kind: report.Misconfiguration, ID: id, Severity: severityOf(v.Severity), Title: v.Title,
				Description: v.Message, Resolution: v.Resolution, Target: r.Target, Line: v.CauseMetadata.StartLine, URL: v.PrimaryURL, References: v.References})
		}
	}
	rep.Findings = report.Normalize(findings)
}

func severityOf(s string) report.Severity {
	if v, err := report.ParseSeverity(s); err == nil {
		return v
	}
	return report.Unknown
}

package ci

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/pipeline/process"
)

// printer shows the output of several jobs at once: every line with its job's name in front.
type printer struct {
	mu      sync.Mutex
	w       io.Writer
	colour  bool
	verbose bool
}

// isTerminal reports whether a person reads the output.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

var (
	traceLine   = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\S+Z (\d\d)[OE]([ +])`)
	sectionMark = regexp.MustCompile(`section_(?:start|end):\d+:[^\r\n]*\r(?:\x1b\[0K)?`)
	escapes     = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)
)

func (p *printer) start(job string) { p.note(job, "starts") }

// note prints a sentence of our own about a job.
func (p *printer) note(job, text string) { p.line(job, "» "+text) }

func (p *printer) line(job, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.colour {
		sum := fnv.New32a()
		_, _ = sum.Write([]byte(job)) // a hash does not fail
		job = fmt.Sprintf("\x1b[%dm[%s]\x1b[0m", 31+sum.Sum32()%6, job)
	} else {
		job = "[" + job + "]"
		text = escapes.ReplaceAllString(text, "")
	}
	fmt.Fprintf(p.w, "%s %s\n", job, text)
}

// trace prints pieces of a trace. The runner's own words are left out, unless they are warnings and
// errors or all is wanted.
func (p *printer) trace(job string, data []byte, last bool) {
	for line := range bytes.Lines(data) {
		text := strings.TrimRight(string(line), "\n")
		stream := "01"
		if m := traceLine.FindStringSubmatch(text); m != nil {
			stream, text = m[1], text[len(m[0]):]
		}
		text = sectionMark.ReplaceAllString(text, "")
		plain := strings.TrimSpace(escapes.ReplaceAllString(text, ""))
		if plain == "" && (stream == "00" || last) {
			continue
		}
		if stream == "00" && !p.verbose && !strings.HasPrefix(plain, "ERROR") && !strings.HasPrefix(plain, "WARNING") {
			continue
		}
		p.line(job, strings.TrimRight(text, "\r"))
	}
}

// runResult is what became of the jobs.
type runResult struct {
	Status string      `json:"status"`
	Jobs   []jobResult `json:"jobs"`
}

type jobResult struct {
	Name         string  `json:"name"`
	Stage        string  `json:"stage"`
	Status       string  `json:"status"`
	AllowFailure bool    `json:"allow_failure"`
	Seconds      float64 `json:"seconds"`
	ExitCode     int     `json:"exit_code"`
	Note         string  `json:"note,omitempty"`
}

// result sums up. The pipeline counts as a success when no job that ran has failed it.
func (c *coordinator) result() *runResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &runResult{Status: "success", Jobs: make([]jobResult, len(c.jobs))}
	for i := range c.jobs {
		g, s, l := &c.plan.Jobs[i], &c.state.Jobs[i], &c.jobs[i]
		one := jobResult{Name: g.Name, Stage: g.Stage, Status: s.Status.String(), AllowFailure: s.AllowFailure, ExitCode: l.exitCode}
		if !l.started.IsZero() {
			one.Seconds = l.ended.Sub(l.started).Round(time.Millisecond).Seconds()
		}
		switch {
		case l.note != "":
			one.Status, one.Note = process.Skipped.String(), l.note
		case s.Status == process.Manual:
			one.Note = "manual: name it to run it"
		case s.Status == process.Failed && l.reason != "":
			one.Note = l.reason
		}
		if s.Status == process.Failed && !s.AllowFailure || s.Status == process.Canceled {
			r.Status = "failed"
		}
		if s.Status.Alive() && s.Status != process.Created {
			r.Status = "canceled"
		}
		r.Jobs[i] = one
	}
	return r
}

func (r *runResult) write(w io.Writer) {
	width := 0
	for _, j := range r.Jobs {
		width = max(width, len(j.Name))
	}
	fmt.Fprintln(w)
	for _, j := range r.Jobs {
		status := j.Status
		if status == "failed" && j.AllowFailure {
			status = "warning"
		}
		line := fmt.Sprintf("%-8s  %-*s", status, width, j.Name)
		if j.Seconds > 0 {
			line += fmt.Sprintf("  %6.1f s", j.Seconds)
		}
		if j.ExitCode != 0 {
			line += fmt.Sprintf("  exit code %d", j.ExitCode)
		} else if j.Note != "" {
			line += "  " + j.Note
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	fmt.Fprintf(w, "\nPipeline: %s\n", r.Status)
}

// keepArtifacts unpacks the archives into folder/<job> and stores reports beside them.
func (c *coordinator) keepArtifacts(folder string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.jobs {
		if c.jobs[i].archive == "" {
			continue
		}
		to := filepath.Join(folder, strings.ReplaceAll(c.plan.Jobs[i].Name, "/", "-"))
		if err := unzip(c.jobs[i].archive, to); err != nil {
			return fmt.Errorf("keep the artifacts of %s: %w", c.plan.Jobs[i].Name, err)
		}
	}
	return nil
}

func unzip(archive, to string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(to) // no entry can leave the folder
	if err != nil {
		return err
	}
	defer root.Close()
	for _, entry := range z.File {
		if err := unzipOne(root, entry); err != nil {
			return err
		}
	}
	return nil
}

func unzipOne(root *os.Root, entry *zip.File) error {
	name := filepath.FromSlash(strings.TrimSuffix(entry.Name, "/"))
	if entry.FileInfo().IsDir() {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	from, err := entry.Open()
	if err != nil {
		return err
	}
	defer from.Close()
	if entry.Mode()&os.ModeSymlink != 0 {
		target, err := io.ReadAll(from)
		if err != nil {
			return err
		}
		return root.Symlink(string(target), name)
	}
	file, err := root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, entry.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	return errors.Join(err, file.Close())
}

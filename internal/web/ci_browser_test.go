package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// tab is a browser's tab, signed in as a person.
type tab struct {
	*site
	ctx context.Context
}

// browser opens Chromium. It is skipped where that is not wanted:
// SLIPWAY_BROWSER must be set; if it names a folder, pictures are kept there.
func (s *site) browser(who string, width, height int) tab {
	t := s.t.(*testing.T)
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil || os.Getenv("SLIPWAY_BROWSER") == "" {
		t.Skip("only with Chromium and SLIPWAY_BROWSER set")
	}
	ctx, cancel := chromedp.NewExecAllocator(s.ctx, chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.WindowSize(width, height), chromedp.UserDataDir(t.TempDir()))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	host, err := url.Parse(s.server.URL)
	s.must(err)
	s.must(chromedp.Do(ctx, func(ctx context.Context, target *chromedp.Target) (v chromedp.Void, err error) {
		_, err = cdp.Call(ctx, target, network.SetCookie, network.SetCookieParams{Name: access.SessionCookie, Value: s.cookies[who], Domain: host.Hostname(), Path: "/"})
		return v, err
	}))
	return tab{s, ctx}
}

// shot keeps a picture.
func (b tab) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("SLIPWAY_BROWSER")
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	b.must(err)
	b.must(os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

func (b tab) open(address string) {
	b.t.Helper()
	b.must(chromedp.Do(b.ctx, chromedp.Navigate(address)))
}

// until waits for a condition written in JavaScript, across navigations, which
// end the evaluation that is under way.
func (b tab) until(condition string) {
	b.t.Helper()
	for range 20 {
		_, err := chromedp.Run(b.ctx, chromedp.Poll[chromedp.Void](condition, chromedp.WithPollingTimeout(40*time.Second)))
		if err == nil {
			return
		}
		if errors.Is(err, chromedp.ErrPollingTimeout) || b.ctx.Err() != nil {
			b.shot("failed")
			b.t.Fatalf("never true: %s: %v", condition, err)
		}
	}
	b.t.Fatalf("the page kept going away while waiting for %s", condition)
}

func evaluate[T any](b tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	b.must(err)
	return v
}

// TestBrowserLog follows a job live, then reads, searches and folds a log of
// more than 40 MB.
func TestBrowserLog(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("maya")
	p := s.project("acme/big", map[string]string{".gitlab-ci.yml": "stages: [build]\nbuild:\n  stage: build\n  script: make\n"}, map[string]delivery.Role{"maya": delivery.Maintainer})
	made := s.pushed(p)
	b := s.browser("maya", 1280, 900)
	spec := s.take()
	job := fmt.Sprintf("%s/acme/big/-/jobs/%d", s.server.URL, spec.ID)
	first := sampleLog()
	s.write(spec, first, 0)
	b.open(job)
	b.until(`document.querySelector(".log-line")`)
	b.shot("log-live")

	var long strings.Builder
	long.WriteString(first)
	for i := range 400_000 {
		fmt.Fprintf(&long, "\x1b[36m%07d\x1b[0m compiling module %d of the application with optimisation and checks on, please be patient\n", i, i%977)
	}
	long.WriteString("the very last needle of the log\n")
	begin := time.Now()
	s.write(spec, long.String(), len(first))
	b.until(`document.querySelector(".log-lines").textContent.includes("the very last needle")`)
	t.Logf("followed %d bytes to their end in %s", long.Len(), time.Since(begin).Round(time.Millisecond))
	if lines := evaluate[int](b, `document.querySelectorAll(".log-line").length`); lines > 300 {
		t.Errorf("%d lines are drawn; only those in view should be", lines)
	}
	b.shot("log-end")

	begin = time.Now()
	evaluate[bool](b, `(() => { document.querySelector(".log-top").click(); const s = document.querySelector(".log-search"); s.value = "VERY LAST NEEDLE"; return s.dispatchEvent(new Event("input")); })()`)
	b.until(`document.querySelector(".log-found").textContent === "1 of 1" && document.querySelector(".log-line.hit mark")?.textContent === "very last needle"`)
	t.Logf("found the last line in %s", time.Since(begin).Round(time.Millisecond))
	b.shot("log-search")

	worst := evaluate[float64](b, `new Promise((done) => { const v = document.querySelector(".log-view"); let at = 0, last = performance.now(), worst = 0; const step = () => { const now = performance.now(); worst = Math.max(worst, now - last); last = now; v.scrollTop = (v.scrollHeight * at++) / 120; at > 120 ? done(worst) : requestAnimationFrame(step); }; requestAnimationFrame(step); })`)
	t.Logf("the longest frame while scrolling through everything took %.0f ms", worst)

	evaluate[bool](b, `(() => { document.querySelector(".log-top").click(); return true; })()`)
	b.until(`document.querySelector('.log-line.sec[data-line="2"] button')`)
	evaluate[bool](b, `(() => { document.querySelector('.log-line.sec[data-line="2"] button').click(); return true; })()`)
	b.until(`document.querySelector('.log-line.sec[data-line="2"] button').getAttribute("aria-expanded") === "false" && !document.querySelector(".log-lines").textContent.includes("progress 100%")`)
	b.shot("log-folded")

	if code, _, err := s.runner.Update(s.ctx, spec, "success", "", 0, []byte(long.String())); err != nil || code != 200 {
		t.Fatalf("end: %d %v", code, err)
	}
	b.until(`document.querySelector("#job-head .s-success")`)
	b.open("about:blank")
	b.open(job + "#L300000")
	b.until(`document.querySelector(".log-line.marked a")?.textContent === "300000"`)
	b.shot("log-line")
	b.open(fmt.Sprintf("%s/acme/big/-/pipelines/%d", s.server.URL, made.ID))
	b.until(`document.querySelector("#stage-build .s-success")`)
}

// write sends a log to the job's trace from an offset on.
func (s *site) write(spec *delivery.JobSpec, log string, from int) {
	s.t.Helper()
	const piece = 1 << 20
	for at := from; at < len(log); at += piece {
		if code, _, err := s.runner.Trace(s.ctx, spec, int64(at), []byte(log[at:min(len(log), at+piece)])); err != nil || code != 202 {
			s.t.Fatalf("trace: %d %v", code, err)
		}
	}
}

// TestBrowserPipeline writes a configuration with live checks, commits it and
// watches the pipeline run.
func TestBrowserPipeline(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("maya")
	p := s.project("acme/new", nil, map[string]delivery.Role{"maya": delivery.Maintainer})
	b := s.browser("maya", 390, 844)
	b.open(s.server.URL + "/acme/new/-/ci/editor?template=minimal")
	b.until(`document.querySelector(".edit-lines").textContent.startsWith("1\n2\n") && document.querySelectorAll("#lint .stage").length === 3`)
	evaluate[bool](b, `(() => { const a = document.querySelector("textarea[name=content]"); a.value = "job:\n  scirpt: echo\n"; return a.dispatchEvent(new Event("input")); })()`)
	b.until(`document.querySelector("#lint .alert") && document.querySelector(".edit-lines .bad")`)
	b.shot("editor-error")
	evaluate[bool](b, `(() => { const a = document.querySelector("textarea[name=content]"); a.value = "one:\n  script: echo\ntwo:\n  script: echo\n  when: manual\n"; return a.dispatchEvent(new Event("input")); })()`)
	b.until(`document.querySelector("#lint .notice")?.textContent.includes("2 jobs")`)
	evaluate[bool](b, `(() => { document.querySelector(".editor .primary").click(); return true; })()`)
	b.until(`location.pathname.endsWith("/-/pipelines")`)
	b.until(`document.querySelector("#pipelines .s-pending")`)
	made := s.pushed(p)
	b.open(fmt.Sprintf("%s/acme/new/-/pipelines/%d", s.server.URL, made.ID))
	spec := s.take()
	b.until(`document.querySelector("#stage-test .job-box.s-running")`)
	b.shot("pipeline-live")
	s.end(spec, "success", "done\n")
	b.until(`document.querySelector("#pipeline-head .s-success") && document.querySelector("#stage-test .job-box.s-success")`)
	evaluate[bool](b, `(() => { document.querySelector("#stage-test form[action$='/play'] button").click(); return true; })()`)
	b.until(`location.pathname.includes("/-/jobs/") && document.querySelector("#job-head .s-pending")`)
	s.end(s.take(), "failed", "\x1b[31mno\x1b[0m\n")
	b.until(`document.querySelector("#job-head .s-failed, #job-head .s-allowed") && document.querySelector(".log-lines")?.textContent.includes("no")`)
	b.shot("job-failed")
}

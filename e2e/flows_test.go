//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/slipwayhq/slipway/e2e/instance"
)

// tab is a tab of Chromium, signed in as root.
type tab struct {
	*instance.Instance
	t   *testing.T
	ctx context.Context
}

// browser opens Chromium and signs in as a person does.
func browser(t *testing.T, i *instance.Instance) tab {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	password, err := os.ReadFile(filepath.Join(i.DataDir, "run", "root.password"))
	if err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := tab{i, t, ctx}
	b.width(1280)
	b.open("/users/sign_in")
	err = chromedp.Do(b.ctx,
		chromedp.SendKeys(chromedp.CSS("input[name=login]"), "root"),
		chromedp.SendKeys(chromedp.CSS("input[name=password]"), strings.TrimSpace(string(password))),
		chromedp.Submit(chromedp.CSS("input[name=password]")),
		chromedp.WaitVisible(chromedp.CSS("header.top details.menu")),
	)
	if err != nil {
		t.Fatalf("sign in: %v", err)
	}
	return b
}

func (b tab) width(pixels int64) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(pixels, 900)); err != nil {
		b.t.Fatal(err)
	}
}

func (b tab) open(path string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(b.URL+path), chromedp.WaitVisible(chromedp.CSS("main"))); err != nil {
		b.t.Fatalf("open %s: %v", path, err)
	}
}

// read evaluates an expression whose value is a text.
func (b tab) read(expression string) string {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for a condition written in JavaScript, across navigations, which
// end the evaluation that is under way.
func (b tab) until(what, condition string, within time.Duration) {
	b.t.Helper()
	end := time.Now().Add(within)
	for time.Now().Before(end) && b.ctx.Err() == nil {
		_, err := chromedp.Run(b.ctx, chromedp.Poll[chromedp.Void](condition, chromedp.WithPollingTimeout(time.Until(end))))
		if err == nil {
			return
		}
		if errors.Is(err, chromedp.ErrPollingTimeout) {
			break
		}
	}
	b.t.Fatalf("%s: not within %s; the page %s shows:\n%s", what, within, b.read("location.href"), b.read("document.querySelector('main')?.innerText.slice(0, 3000)"))
}

func (b tab) click(selector string) {
	b.t.Helper()
	if got := b.read(fmt.Sprintf("(() => { const e = document.querySelector(%q); e?.click(); return !!e; })()", selector)); got != "true" {
		b.t.Fatalf("there is no %s on %s", selector, b.read("location.href"))
	}
}

func (b tab) fill(selector, value string) {
	b.t.Helper()
	if got := b.read(fmt.Sprintf("(() => { const e = document.querySelector(%q); if (e) { e.value = %q; e.dispatchEvent(new Event('input', {bubbles: true})); } return !!e; })()", selector, value)); got != "true" {
		b.t.Fatalf("there is no %s on %s", selector, b.read("location.href"))
	}
}

// stay marks the page, so that a reload is noticed; stayed checks the mark.
func (b tab) stay() { b.t.Helper(); b.read("window.slipwayMark = 'still here'") }

func (b tab) stayed(what string) {
	b.t.Helper()
	if got := b.read("window.slipwayMark"); got != "still here" {
		b.t.Errorf("%s: the page was loaded again", what)
	}
}

// fits checks that a page does not scroll sideways.
func (b tab) fits(path string) {
	b.t.Helper()
	b.open(path)
	if over := b.read("document.documentElement.scrollWidth - window.innerWidth"); over != "0" && !strings.HasPrefix(over, "-") {
		b.t.Errorf("%s is %s pixels too wide for its window of %s", path, over, b.read("window.innerWidth"))
	}
}

// flows does in Chromium what people do, on the platform on which the
// demonstration was played.
func flows(t *testing.T, i *instance.Instance) {
	b := browser(t, i)
	b.firstDeployment()
	good := b.release("1.3.0", "0")
	b.promote(good)
	bad := b.release("1.4.0-bad", "1")
	b.rollback(bad)
	b.width(390)
	for _, path := range []string{
		"/", "/projects/new", "/demo", "/demo/shortener", "/demo/shortener/-/releases-timeline", "/demo/shortener/-/releases-timeline/" + bad,
		"/demo/shortener/-/pipelines", "/demo/shortener/-/jobs", "/demo/shortener/-/commits/main", "/demo/shortener/-/blob/main/app/main.py",
		"/demo/shortener/-/edit/main/release.env", "/demo/shortener/-/merge_requests", "/demo/shortener/-/branches", "/demo/shortener/-/environments",
		"/demo/shortener/-/container_registry", "/demo/shortener/-/settings", "/demo/shortener/-/ci/editor", "/root/site/-/start?again=1",
		"/-/applications", "/-/rollouts", "/-/rollouts/shortener-production/shortener", "/-/metrics", "/-/status", "/admin", "/profile",
	} {
		b.fits(path)
	}
}

// firstDeployment leads an example from an empty project to its address.
func (b tab) firstDeployment() {
	b.t.Helper()
	begun := time.Now()
	b.open("/projects/new")
	b.fill("select[name=namespace]", "root")
	b.fill("input[name=path]", "site")
	b.click("main form button.primary")
	b.until("the first-run page", `document.querySelector("#push-commands")?.textContent.includes("/root/site.git")`, 30*time.Second)
	b.click("#start-examples button[value=static]")
	b.until("the language is found", `document.querySelector("#start[data-stage=files] [aria-current=true]")?.textContent === "Static site"`, 30*time.Second)
	b.click(".start-form button.primary")
	b.until("the progress", `document.querySelector("#start[data-stage=progress] .start-steps")`, 30*time.Second)
	b.stay()
	b.until("the page says that it is served", `document.querySelector(".start-served a")`, 4*time.Minute)
	b.stayed("first deployment")
	b.t.Logf("a project's first deployment took %.0f s", time.Since(begun).Seconds())
	if status, body := visit(b.t.Context(), b.Instance, "site.localhost"); status != 200 || !strings.Contains(body, "It works") {
		b.t.Errorf("the site answers %d: %.200s", status, body)
	}
}

// release edits the version in the browser, commits, follows the pipeline until
// it is green, and returns the commit.
func (b tab) release(version, faultRate string) string {
	b.t.Helper()
	b.open("/demo/shortener/-/edit/main/release.env")
	text := b.read(`document.querySelector("#edit textarea[name=content]").value`)
	var lines []string
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "VERSION="):
			line = "VERSION=" + version + "\n"
		case strings.HasPrefix(line, "FAULT_RATE="):
			line = "FAULT_RATE=" + faultRate + "\n"
		}
		lines = append(lines, line)
	}
	b.fill("#edit textarea[name=content]", strings.Join(lines, ""))
	b.fill("#edit [name=message], #edit [name=commit_message]", "Release "+version)
	b.click("#edit button.primary")
	b.until("the commit", `!location.pathname.includes("/-/edit/")`, 30*time.Second)
	b.open("/demo/shortener/-/commits/main")
	link := b.read(`document.querySelector("main a[href*='/-/commit/']").getAttribute("href")`)
	sha := link[strings.LastIndex(link, "/")+1:]
	if title := b.read(`document.querySelector("main a[href*='/-/commit/']").textContent`); !strings.Contains(title, "Release "+version) {
		b.t.Fatalf("the newest commit is %q, %s", title, link)
	}
	b.open("/demo/shortener/-/pipelines")
	b.stay()
	b.until("the pipeline in the list", fmt.Sprintf(`document.querySelector("main").innerText.includes(%q) && document.querySelector("main a[href*='/-/pipelines/']")`, sha[:8]), 30*time.Second)
	b.stayed("list of pipelines")
	pipeline := b.read(`[...document.querySelectorAll("main a[href*='/-/pipelines/']")].map((a) => a.getAttribute("href")).find((h) => /\/[0-9]+$/.test(h))`)
	b.open(pipeline)
	b.stay()
	b.until("the pipeline is green", `document.querySelector("#pipeline-head .s-success")`, 4*time.Minute)
	b.stayed("pipeline")
	return sha
}

// promote ends the pause of a canary by the button on the release's page.
func (b tab) promote(sha string) {
	b.t.Helper()
	b.open("/demo/shortener/-/releases-timeline/" + sha)
	b.until("the canary pauses", `document.querySelector("#to-production .tl-steps .t-now")?.textContent.includes("pause") && document.querySelector("#to-production button[value=promote]")`, 90*time.Second)
	// On a slow machine the first pause may be over; the second is as good.
	b.until("a share of the users", `document.querySelector("#to-production h2 .badge")?.textContent.match(/ (20|50) %/)`, 30*time.Second)
	before := b.read(`document.querySelector("#to-production h2 .badge").textContent`)
	b.click("#to-production button[value=promote]")
	b.until("the promotion is told", `document.body.innerText.includes("Promoted")`, 30*time.Second)
	b.stay()
	b.until("the canary goes on", fmt.Sprintf(`document.querySelector("#to-production h2 .badge")?.textContent !== %q`, before), 30*time.Second)
	b.until("it serves everybody", `document.querySelector("#to-production h2 .badge")?.textContent.includes("serves 100 %")`, 2*time.Minute)
	b.stayed("release after its promotion")
}

// rollback watches how a bad version is taken back, while users ask for it.
func (b tab) rollback(sha string) {
	b.t.Helper()
	ctx, stop := context.WithCancel(b.t.Context())
	var users sync.WaitGroup
	defer users.Wait()
	defer stop()
	users.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			visit(ctx, b.Instance, "shortener.localhost")
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	b.open("/demo/shortener/-/releases-timeline/" + sha)
	b.stay()
	b.until("it is rolled back", `document.querySelector(".tl-sentence")?.textContent.includes("Rolled back") && document.querySelector("#to-production")?.textContent.includes("Aborted")`, 3*time.Minute)
	b.until("the sentence says why", `document.querySelector(".tl-sentence").textContent.includes("success-rate failed")`, 30*time.Second)
	b.until("staging took it back too", `document.querySelector("#to-staging")?.textContent.includes("smoke-test")`, 2*time.Minute)
	b.stayed("release that was rolled back")
	if status, body := visit(ctx, b.Instance, "shortener.localhost"); status != 200 || !strings.Contains(body, "1.3.0") {
		b.t.Errorf("users get %d: %.200s", status, body)
	}
	b.open("/demo/shortener")
	if front := b.read(`document.querySelector("#environment-production").innerText`); !strings.Contains(front, "Release 1.3.0") || !strings.Contains(front, "success-rate failed") {
		b.t.Errorf("the first screen does not say what runs and why:\n%s", front)
	}
}

// visit asks an application through the ingress; status 0 is no answer.
func visit(ctx context.Context, i *instance.Instance, host string) (int, string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.Address+"/", nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

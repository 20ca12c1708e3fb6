//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/slipwayhq/slipway/e2e/instance"
)

// TestSeedStory plays the demonstration on a fresh instance: from git push to
// an automatic rollback and a blue-green switch, every step checked by the
// demonstration itself. Then people look at it in a browser, and it is taken
// away again.
func TestSeedStory(t *testing.T) {
	i := instance.New(t, "swdemo", 2, "")
	i.Up()
	out, err := i.TryWithin(15*time.Minute, "demo", "--json")
	start := strings.Index(out, "\n{\n")
	if err != nil || start < 0 {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	var report struct {
		OK    bool
		Steps []struct {
			Name, Proven, Error string
			Seconds             float64
		}
	}
	if err := json.Unmarshal([]byte(out[start:]), &report); err != nil {
		t.Fatalf("the report is not JSON: %v\n%s", err, out[start:])
	}
	for _, step := range report.Steps {
		t.Logf("%-30s %6.1f s  %s%s", step.Name, step.Seconds, step.Proven, step.Error)
	}
	if !report.OK || len(report.Steps) != 6 {
		t.Errorf("the story has %d steps, ok %v", len(report.Steps), report.OK)
	}

	t.Run("people follow it in a browser", func(t *testing.T) { browse(t, i.With(t)) })
	t.Run("it can be taken away", func(t *testing.T) {
		i := i.With(t)
		i.Run("demo", "--remove")
		if out := i.Kubectl("get", "applications.argoproj.io", "-n", "argocd"); strings.Contains(out, "shortener") {
			t.Error(out)
		}
		if status, _ := i.Get(i.URL + "/api/v4/projects/demo%2Fshortener"); status != 404 && status != 401 {
			t.Errorf("the project answers %d", status)
		}
	})
}

// browse walks the pages that a newcomer sees, in Chromium, at desktop and
// phone width.
func browse(t *testing.T, i *instance.Instance) {
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
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	// The first call starts the browser, which lives as long as its context.
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()

	see := func(what, url, text string, width int64) {
		t.Helper()
		if err := chromedp.Do(ctx,
			chromedp.EmulateViewport(width, 900),
			chromedp.Navigate(url),
			chromedp.WaitVisible(chromedp.CSS("main")),
		); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		body, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		scroll, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth`))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		inner, err := chromedp.Run(ctx, chromedp.Evaluate[int](`window.innerWidth`))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !strings.Contains(body, text) {
			t.Errorf("%s does not show %q:\n%s", what, text, body[:min(len(body), 1500)])
		}
		if scroll > inner+1 {
			t.Errorf("%s is %d pixels wide at a width of %d", what, scroll, inner)
		}
	}
	err = chromedp.Do(ctx,
		chromedp.Navigate(i.URL+"/users/sign_in"),
		chromedp.SendKeys(chromedp.CSS("input[name=login]"), "root"),
		chromedp.SendKeys(chromedp.CSS("input[name=password]"), strings.TrimSpace(string(password))),
		chromedp.Submit(chromedp.CSS("input[name=password]")),
		chromedp.WaitVisible(chromedp.CSS("header.top details.menu")),
	)
	if err != nil {
		t.Fatalf("sign in: %v", err)
	}
	for _, width := range []int64{1280, 390} {
		see("the project", i.URL+"/demo/shortener", "A small FastAPI service to copy from", width)
		see("a file", i.URL+"/demo/shortener/-/blob/main/app/main.py", "def create_app", width)
		see("the history", i.URL+"/demo/shortener/-/commits/main", "Release 1.2.0-bad", width)
		see("the status", i.URL+"/-/status", "slipway-cluster", width)
	}
}

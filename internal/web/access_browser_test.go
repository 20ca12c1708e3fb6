package web_test

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// axeFile is axe-core, which the front end's packages bring for tests only.
const axeFile = "node_modules/axe-core/axe.min.js"

// axeRun reports what axe-core finds wrong by WCAG 2.2 AA and its own best
// practices, one line for each rule and element. Not counted: a README, which
// has its own order of headings, a log's scrolling view, and rules that a code
// view breaks on purpose: lines are close, a file's heading holds a link, an
// expression is a text of several lines that completes, and browsers themselves
// let the keyboard reach what scrolls.
const axeRun = `axe.run({exclude: [[".prose"], [".log-view"], [".uplot"]]}, {resultTypes: ["violations"], rules: {"target-size": {enabled: false}, "nested-interactive": {enabled: false}, "scrollable-region-focusable": {enabled: false}, "aria-allowed-role": {enabled: false}}, ...OPTIONS}).then((r) => {
  const found = r.violations.flatMap((v) => v.nodes.map((n) => v.id + ": " + n.html.slice(0, 140) + " (" + (n.any[0] ?? n.all[0] ?? n.none[0])?.message.split("\n")[0] + ")"));
  if (document.documentElement.scrollWidth > innerWidth) found.push("wider than the window: " + document.documentElement.scrollWidth + " of " + innerWidth);
  return found;
})`

// looks are how each page is seen: all of it on a desk, what differs on a phone.
var looks = []struct {
	width           int64
	scheme, options string
}{
	{1280, "light", `{runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}`},
	{390, "dark", `{runOnly: {type: "rule", values: ["color-contrast"]}}`},
}

// pageLinks are the pages of this server that a page leads to.
const pageLinks = `[...document.querySelectorAll("a[href]")].map((a) => URL.parse(a.href)).filter((u) => u?.origin === location.origin).map((u) => u.pathname + u.search)`

var (
	numberInPath = regexp.MustCompile(`/[0-9]+\b|[0-9a-f]{40,64}`)
	notPages     = regexp.MustCompile(`/-/(raw|archive|badges|ca\.crt)|/(download|raw|report|log)(\?|$)|format=|\.(crt|patch|diff|zip|gz)$|/static/|/sign_out|return_to=|[?&](page|view|w|context|expand)=`)
)

// TestBrowserAccessible walks over the pages that a maintainer reaches, one of
// each kind, and has axe-core look at each, light on a desk and dark on a phone.
func TestBrowserAccessible(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile(axeFile)
	if err != nil {
		t.Skip("the front end's packages are not installed (make web): ", err)
	}
	w := tour{axe: string(axe), seen: map[string]bool{}, told: map[string]bool{}}
	code, _, _ := review(t)
	w.over(code.browser("maya", 1280, 900), "/-/rollouts", "/", "/acme/plain", "/acme/plain/-/merge_requests/1/diffs", "/profile", "/no/such")
	pipelines, _, link := shop(t)
	w.over(pipelines.browser("maya", 1280, 900), "/-/rollouts", link, "/acme/shop/-/jobs")
	applications, _, _, _ := gitopsSite(t)
	w.over(applications.browser("maya", 1280, 900), "/-/rollouts", "/-/applications")
	rollouts, _, _ := rolloutSite(t)
	w.over(rollouts.browser("maya", 1280, 900), "/-/applications", "/-/rollouts", "/-/metrics", "/-/metrics/rules", "/-/metrics/targets", "/-/metrics/addresses")
	t.Logf("%d kinds of pages", len(w.seen))
}

// tour is what was seen of several sites, and what was told.
type tour struct {
	axe        string
	seen, told map[string]bool
}

// over visits pages of a site, and one of each kind that they lead to, but for
// those of an engine that the site lacks.
func (w *tour) over(b tab, lacks string, queue ...string) {
	for i, given := 0, len(queue); i < len(queue); i++ {
		address := queue[i]
		if i >= given && w.seen[kindOf(address)] || strings.HasPrefix(address, lacks) {
			continue
		}
		err := chromedp.Do(b.ctx, chromedp.Navigate(b.server.URL+address))
		if err != nil && strings.Contains(err.Error(), "ERR_ABORTED") {
			continue // a download
		}
		b.must(err)
		if evaluate[string](b, `document.contentType`) != "text/html" {
			continue
		}
		if address != "/no/such" && evaluate[bool](b, `/^[45]\d\d /.test(document.querySelector("h1")?.textContent ?? "")`) {
			continue // what this site lacks; another may have it
		}
		w.seen[kindOf(address)] = true
		evaluate[bool](b, w.axe+";true")
		for _, look := range looks {
			b.look(look.width, look.scheme)
			for _, one := range evaluate[[]string](b, strings.Replace(axeRun, "OPTIONS", look.options, 1)) {
				if key := numberInPath.ReplaceAllString(one, "/0"); !w.told[key] {
					w.told[key] = true
					b.t.Errorf("%s (%d px, %s): %s", address, look.width, look.scheme, one)
				}
			}
		}
		queue = append(queue, slices.DeleteFunc(evaluate[[]string](b, pageLinks), notPages.MatchString)...)
	}
}

// kindOf tells addresses apart that lead to different pages: numbers, hashes,
// files and the values of parameters do not.
func kindOf(address string) string {
	path, query, _ := strings.Cut(address, "?")
	path = numberInPath.ReplaceAllString(path, "/0")
	for _, project := range []string{"/acme/plain", "/acme/shop", "/acme/ops"} {
		path = strings.Replace(path, project, "/project", 1)
	}
	if at, file, ok := strings.Cut(path, "/-/"); ok && at != "" {
		if action, _, found := strings.Cut(file, "/"); found && slices.Contains([]string{"tree", "blob", "blame", "commits", "commit", "compare", "edit", "new"}, action) {
			path = at + "/-/" + action
		}
	}
	var keys []string
	for _, one := range strings.Split(query, "&") {
		key, _, _ := strings.Cut(one, "=")
		keys = append(keys, key)
	}
	return path + "?" + strings.Join(keys, "&")
}

// look sets the window's width and the colours that the person prefers.
func (b tab) look(width int64, scheme string) {
	b.t.Helper()
	b.must(chromedp.Do(b.ctx, chromedp.EmulateViewport(width, 900), func(ctx context.Context, target *chromedp.Target) (v chromedp.Void, err error) {
		_, err = cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return v, err
	}))
}

package web_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/release"
)

// sampleTimeline knows a version that serves and one that was aborted.
type sampleTimeline struct{}

var (
	goodSHA = strings.Repeat("a", 40)
	badSHA  = strings.Repeat("b", 40)
)

func (*sampleTimeline) Overview(_ context.Context, p delivery.Project, _ int) (release.Overview, error) {
	at := time.Now().Add(-time.Hour)
	return release.Overview{
		Project: p.FullPath,
		Environments: []release.Environment{{
			Name: "production", Namespace: "prod", Rollout: "app", Phase: "Degraded", Aborted: true, Why: "bbbbbbbb was aborted: success-rate failed with 0.41.",
			Serving: []release.Served{
				{SHA: goodSHA, Title: "Release 1.1.0", Role: "stable", Weight: 80, Since: &at}, {SHA: badSHA, Title: "Release <1.2.0>", Role: "canary", Weight: 20},
			},
			Reason:  &release.Manifest{ConfigProject: "demo/configs", SHA: strings.Repeat("c", 40), By: "Ann", At: at},
			Changes: []release.Commit{{SHA: goodSHA, Title: "Shorten faster", Author: "Ann", At: at}},
		}},
		Releases: []release.Summary{
			{SHA: badSHA, Title: "Release <1.2.0>", Author: "Bob", At: at, Status: release.RolledBack, Sentence: "Aborted in production at 20 %."},
			{SHA: goodSHA, Title: "Release 1.1.0", Author: "Ann", At: at, Status: release.Serving, Sentence: "Serves 80 % of production.", Environments: []string{"production"}},
		},
	}, nil
}

func (*sampleTimeline) Release(_ context.Context, p delivery.Project, sha string) (release.Release, error) {
	if sha != badSHA {
		return release.Release{}, delivery.Errorf(delivery.NotFound, "There is no such commit.")
	}
	begun := time.Now().Add(-time.Minute)
	end := begun.Add(24 * time.Second)
	value, zero := 0.41, 0.0
	return release.Release{
		Project: p.FullPath, SHA: badSHA, Commit: release.Commit{SHA: badSHA, Title: "Release <1.2.0>", Author: "Bob", At: begun},
		Status: release.RolledBack, Sentence: "Aborted in production at 20 %.", Live: true,
		Pipelines: []release.Pipeline{{ID: 7, Status: "failed", Created: begun, Started: &begun, Finished: &end, Jobs: []release.Job{
			{ID: 70, Name: "build", Status: "success", Started: &begun, Finished: &end}, {ID: 71, Name: "smoke", Status: "failed", Reason: "script_failure"},
			{ID: 72, Name: "deploy-blue-green", Status: "manual"},
		}}},
		Images: []release.Image{{Repository: "demo/app", Digest: "sha256:" + strings.Repeat("d", 64), Tags: []string{"bbbbbbbb"}, Size: 41 << 20,
			Scan: &release.Scan{Status: "success", Counts: map[string]int{"HIGH": 1, "LOW": 3}}}},
		Environments: []release.Deployment{{
			Environment: "production", Namespace: "prod", Rollout: "app", Application: "app-production", Now: goodSHA, Actions: []string{release.ActRetry, release.ActRevert},
			Manifests: []release.Manifest{{ConfigProject: "demo/configs", SHA: strings.Repeat("e", 40), Title: "production: deploy", By: "Bob", At: begun}},
			Syncs:     []release.Sync{{Application: "app-production", Revision: strings.Repeat("e", 40), Phase: "Succeeded", Started: begun, Finished: &end}},
			Attempts: []release.Attempt{{
				Strategy: "canary", FromSHA: goodSHA, Result: release.Aborted, Phase: "Degraded", Message: "Metric success-rate assessed Failed", Started: begun, Ended: &end, TopWeight: 20,
				Steps:    []release.Step{{Text: "20 %"}, {Text: "pause 30s"}, {Text: "50 %"}},
				Progress: []release.Progress{{At: begun, Phase: "Progressing"}, {At: end, Phase: "Paused", Step: 1, Weight: 20, Paused: true}},
				Analyses: []release.Analysis{{Kind: "Background", Metrics: []release.Metric{{Name: "success-rate", Phase: "Failed", Condition: "result[0] >= 0.95",
					Measurements: []release.Measurement{{At: end, Value: &value, Phase: "Failed"}}}}}},
				Before: &release.Measures{ErrorShare: &zero}, During: &release.Measures{ErrorShare: &value},
			}},
		}},
		Stages: []release.Stage{{Name: "build", Began: begun, Ended: &end, Seconds: 24, After: 1}, {Name: "taken back", Environment: "production", Began: end, Seconds: 6, After: 24}},
		Line:   []release.Entry{{At: begun, Stage: "commit", Text: "Commit bbbbbbbb", Status: "success"}, {At: end, Stage: "rollout", Text: "Aborted", Status: "failed"}},
	}, nil
}

func (*sampleTimeline) Act(_ context.Context, _ delivery.Identity, _ delivery.Project, sha, environment, action string) (string, error) {
	if sha != badSHA || environment != "production" || action != release.ActRetry {
		return "", delivery.Errorf(delivery.Conflict, "%s is not possible now.", action)
	}
	return "The rollout starts again from its first step.", nil
}

func TestTimelinePages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.person("maya")
	s.person("guy")
	s.project("demo/app", nil, map[string]delivery.Role{"maya": delivery.Developer, "guy": delivery.Reporter})

	doc := s.page("maya", "/demo/app/-/releases-timeline")
	s.has(doc, "#environment-production .tl-now", "aaaaaaaa Release 1.1.0")
	s.has(doc, "#environment-production", "80 % of the users since 1 hour ago, by Ann")
	s.has(doc, "#environment-production", "canary 20 % bbbbbbbb Release <1.2.0>")
	s.has(doc, "#environment-production .tl-why", "success-rate failed with 0.41")
	s.has(doc, "#environment-production details li", "Shorten faster")
	s.has(doc, "#releases article:nth-child(1) .badge", "Rolled back")
	s.has(doc, "#releases article:nth-child(1) p", "Aborted in production at 20 %.")
	s.count(doc, "#timeline[data-live]", 1)
	s.count(doc, `.side a[aria-current][href="/demo/app/-/releases-timeline"]`, 1)

	doc = s.page("maya", "/demo/app/-/releases-timeline/"+badSHA)
	s.has(doc, ".tl-sentence", "Rolled back Aborted in production at 20 %.")
	s.has(doc, ".stage-pipeline", "smoke The script failed.")
	s.count(doc, `.stage-pipeline form[action="/demo/app/-/jobs/71/retry"]`, 1)
	s.count(doc, `.stage-pipeline form[action="/demo/app/-/jobs/72/play"]`, 1)
	s.has(doc, ".stage-image", "43.0 MB")
	s.has(doc, ".tl-spans tr:nth-child(1)", "build24 sdone at 25 s")
	s.has(doc, ".tl-spans tr.now", "taken back production6.0 s30 s")
	s.has(doc, ".stage-scan", "1 high, 3 low")
	s.has(doc, "#to-production h2", "now aaaaaaaa")
	s.has(doc, ".stage-sync", "app-production at eeeeeeee")
	s.has(doc, ".tl-steps .t-done", "20 %")
	s.has(doc, ".tl-steps .t-stopped", "pause 30s")
	s.has(doc, ".tl-metrics tbody", "0 good, 1 bad")
	s.has(doc, ".tl-compare tbody tr:nth-child(2)", "Failed requests0.0 %41.0 %–")
	s.has(doc, ".tl-log tbody tr:nth-child(1)", "Aborted") // the newest comes first
	s.count(doc, "#release[data-live][data-every='2000']", 1)
	s.count(doc, ".tl-actions button", 2)

	doc = s.page("guy", "/demo/app/-/releases-timeline/"+badSHA)
	s.count(doc, "#release form", 0)

	act := "/demo/app/-/releases-timeline/" + badSHA + "/act"
	if to := s.post("maya", act, "environment", "production", "action", "retry"); to != "/demo/app/-/releases-timeline/"+badSHA {
		t.Errorf("after the action: %s", to)
	}
	for who, want := range map[string]int{"guy": http.StatusForbidden, "": http.StatusNotFound} {
		if got := s.status(who, http.MethodPost, act, nil); got != want {
			t.Errorf("%q may act: %d", who, got)
		}
	}
	if got := s.status("maya", http.MethodGet, "/demo/app/-/releases-timeline/"+goodSHA, nil); got != http.StatusNotFound {
		t.Errorf("an unknown commit: %d", got)
	}
	if got := s.status("", http.MethodGet, "/demo/app/-/releases-timeline", nil); got != http.StatusNotFound {
		t.Errorf("the anonymous caller: %d", got)
	}
	resp := s.do("maya", http.MethodGet, "/demo/app/-/releases-timeline", nil, "X-Fragment", "1")
	body := make([]byte, 40)
	if n, err := resp.Body.Read(body); n == 0 && err != nil || !strings.HasPrefix(string(body), `<div id="timeline"`) {
		t.Errorf("the fragment begins %q", body)
	}
}

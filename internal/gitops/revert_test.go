package gitops

import (
	"testing"
	"time"
)

// What is taken back is the newest sync, also one that gave up waiting for the
// version to become healthy and is in no history.
func TestPlanReversalOfASyncThatFailed(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return time.Date(2026, 1, 2, 3, minute, 0, 0, time.UTC) }
	app := func(phase, revision string, started time.Time) *Application {
		return &Application{Name: "web", Sources: []Source{{RepoURL: "http://forge/ops.git", TargetRevision: "main"}},
			Operation: &Operation{Phase: phase, Revision: revision, Started: started},
			History:   []Deployment{{ID: 3, Revision: "b", Started: at(4), Deployed: at(5)}, {ID: 2, Revision: "b", Started: at(2), Deployed: at(3)}, {ID: 1, Revision: "a", Started: at(0), Deployed: at(1)}}}
	}
	for name, c := range map[string]struct {
		app       *Application
		good, bad string
		began     time.Time
	}{
		"synced":  {app("Succeeded", "b", at(4)), "a", "b", at(2)},
		"failed":  {app("Failed", "c", at(6)), "b", "c", at(6)},
		"running": {app("Running", "c", at(6)), "b", "c", at(6)},
		"old":     {app("Failed", "a", at(1)), "a", "b", at(2)},
	} {
		plan, err := PlanReversal(c.app, 0)
		if err != nil || plan.Good != c.good || plan.Bad != c.bad {
			t.Errorf("%s: %+v %v", name, plan, err)
		}
		if got := c.app.SyncBegan(plan.Bad); !got.Equal(c.began) {
			t.Errorf("%s: began %s", name, got)
		}
	}
}

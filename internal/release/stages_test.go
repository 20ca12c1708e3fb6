package release

import (
	"testing"
	"time"
)

func TestStagesSayHowLongEachPartTook(t *testing.T) {
	t.Parallel()
	origin := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	at := func(seconds float64) *time.Time {
		when := origin.Add(time.Duration(seconds * float64(time.Second)))
		return &when
	}
	r := Release{
		Pipelines: []Pipeline{{ID: 1, Created: origin, Jobs: []Job{
			{Name: "deploy", Stage: "deploy", Started: at(8), Finished: at(10)},
			{Name: "a", Stage: "build", Started: at(1), Finished: at(4)}, {Name: "b", Stage: "build", Started: at(2), Finished: at(5)},
			{Name: "test", Stage: "test", Started: at(5)}, {Name: "manual", Stage: "extra"},
		}}},
		Environments: []Deployment{
			{Environment: "production", Manifests: []Manifest{{SHA: "m", At: *at(9.5)}, {SHA: "r", At: *at(60), Reverts: "m"}},
				Syncs: []Sync{{Revision: "m", Finished: at(11)}},
				Attempts: []Attempt{{Started: *at(11), Ended: at(40), Result: Aborted, Progress: []Progress{{At: *at(11)}, {At: *at(13), Weight: 20}}},
					{Started: *at(50), Result: ""}}},
			{Environment: "old", Manifests: []Manifest{{At: origin.Add(-time.Hour)}}},
		},
	}
	want := []Stage{
		{Name: "build", Seconds: 4, After: 1}, {Name: "test", Seconds: 95, After: 5}, {Name: "deploy", Seconds: 2, After: 8},
		{Name: "sync", Environment: "production", Seconds: 1.5, After: 9.5}, {Name: "first users", Environment: "production", Seconds: 2, After: 11},
		{Name: "taken back", Environment: "production", Seconds: 29, After: 11},
	}
	got := stages(r, *at(100))
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, w := range want {
		if g := got[i]; g.Name != w.Name || g.Environment != w.Environment || g.Seconds != w.Seconds || g.After != w.After {
			t.Errorf("%d: %+v; want %+v", i, g, w)
		}
	}
	if got[1].Ended != nil || got[0].Ended == nil {
		t.Error("what has ended: only the build")
	}
	if got := stages(Release{}, origin); got == nil || len(got) != 0 {
		t.Errorf("without a pipeline: %v", got)
	}
}

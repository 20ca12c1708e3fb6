package releasedb_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/release"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/releasedb"
)

func TestWhatIsKeptComesBack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, err := store.Open(ctx, filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d := releasedb.New(db)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	if _, err := d.Manifest(ctx, 2, "m1"); !delivery.IsNotFound(err) {
		t.Errorf("unknown manifest: %v", err)
	}
	for i, sha := range []string{"m1", "m2", "m1"} {
		must(d.PutManifest(ctx, release.Manifest{ConfigProjectID: 2, SHA: sha, ProjectID: 1, SourceSHA: "s", Environment: "production", At: at.Add(time.Duration(i) * time.Second), JobID: int64(i)}))
	}
	of, err := d.Manifests(ctx, 1, "s")
	must(err)
	all, err := d.Manifests(ctx, 1, "")
	must(err)
	if len(of) != 2 || of[0].SHA != "m1" || of[0].JobID != 0 || all[0].SHA != "m2" || !of[1].At.Equal(at.Add(time.Second)) {
		t.Errorf("manifests %+v, %+v", of, all)
	}
	must(d.PutSync(ctx, release.Sync{Application: "a", Revision: "m1", ConfigProjectID: 2, Phase: "Running", Started: at}))
	must(d.PutSync(ctx, release.Sync{Application: "a", Revision: "m1", ConfigProjectID: 2, Phase: "Succeeded", Started: at}))
	syncs, err := d.Syncs(ctx, 2, at)
	must(err)
	if len(syncs) != 1 || syncs[0].Phase != "Succeeded" {
		t.Errorf("syncs %+v", syncs)
	}
	value := 0.5
	a := release.Attempt{Namespace: "prod", Rollout: "app", ProjectID: 1, SHA: "s", Started: at, Progress: []release.Progress{{At: at, Weight: 20}}, Before: &release.Measures{ErrorShare: &value}}
	must(d.PutAttempt(ctx, &a, false))
	b := release.Attempt{Namespace: "prod", Rollout: "app", ProjectID: 1, SHA: "s2", Started: at}
	must(d.PutAttempt(ctx, &b, false))
	a.Result = release.Promoted
	must(d.PutAttempt(ctx, &a, true))
	open, err := d.Unsettled(ctx)
	must(err)
	mine, err := d.Attempts(ctx, 1, "s")
	must(err)
	newest, err := d.RolloutAttempts(ctx, "prod", "app", 1)
	must(err)
	if len(open) != 1 || open[0].ID != b.ID || len(mine) != 1 || mine[0].Result != release.Promoted || *mine[0].Before.ErrorShare != value || mine[0].Progress[0].Weight != 20 || len(newest) != 1 || newest[0].ID != b.ID {
		t.Errorf("open %+v, mine %+v, newest %+v", open, mine, newest)
	}
	must(d.PutEnvironment(ctx, release.Environment{Name: "production", Namespace: "prod", Rollout: "app", ProjectID: 1, Phase: "Progressing"}))
	must(d.PutEnvironment(ctx, release.Environment{Name: "production", Namespace: "prod", Rollout: "app", ProjectID: 1, Phase: "Healthy"}))
	places, err := d.Environments(ctx, 1)
	must(err)
	if len(places) != 1 || places[0].Phase != "Healthy" {
		t.Errorf("environments %+v", places)
	}
	must(d.DeleteProject(ctx, 1))
	if left, err := d.Attempts(ctx, 1, ""); err != nil || len(left) != 0 {
		t.Errorf("after deletion: %+v, %v", left, err)
	}
}

package release

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	appProject    = 1
	configProject = 2
)

// world is a platform with one application and its GitOps repository.
type world struct {
	t   *testing.T
	at  time.Time
	s   *Service
	app delivery.Project

	store     *memory
	commits   map[int64][]delivery.Commit // oldest first
	runs      map[string][]Pipeline
	jobs      map[int64]string // job -> source commit
	images    map[string]string
	versions  []Version
	did       []string
	roles     map[int64]delivery.Role
	lastEvent int64

	revertFails error
	why         string
	told        []string
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, at: time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC), app: delivery.Project{ID: appProject, FullPath: "demo/shortener", DefaultBranch: "main"},
		store: &memory{}, commits: map[int64][]delivery.Commit{}, runs: map[string][]Pipeline{}, jobs: map[int64]string{}, images: map[string]string{},
		roles: map[int64]delivery.Role{appProject: delivery.Maintainer, configProject: delivery.Maintainer},
	}
	w.s = New(Options{Store: w.store, Code: w, Pipelines: w, Images: imagesOf{w}, Rollouts: w, Members: w, Metrics: w, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return w.at }})
	w.application("")
	return w
}

func sha(c string) string    { return strings.Repeat(c, 40) }
func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func (w *world) after(d time.Duration) time.Time { w.at = w.at.Add(d); return w.at }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// commit adds a commit of the application with its pipeline.
func (w *world) commit(c, title, status string) {
	sig := delivery.Signature{Name: "Ann", When: w.at}
	w.commits[appProject] = append(w.commits[appProject], delivery.Commit{SHA: sha(c), Author: sig, Committer: sig, Message: title})
	n := int64(len(w.commits[appProject])) * 10
	begun, end := w.at, w.after(8*time.Second)
	jobs := []Job{{ID: n + 1, Name: "test", Stage: "test", Status: status, Started: &begun, Finished: &end}}
	if status == "failed" {
		jobs[0].Reason = "script_failure"
	} else {
		jobs = append(jobs, Job{ID: n + 2, Name: "deploy-production", Stage: "deploy", Status: "success", Environment: "production", Started: &begun, Finished: &end})
	}
	w.runs[sha(c)] = []Pipeline{{ID: n, Ref: "main", Source: "push", Status: status, By: "ann", Created: begun, Started: &begun, Finished: &end, Jobs: jobs}}
	w.jobs[n+2] = sha(c)
	w.images["registry.example/demo/shortener@"+digest(c)] = sha(c)
}

// deploy pushes the manifest commit of a source commit, as its job does.
func (w *world) deploy(c string) {
	w.t.Helper()
	message := fmt.Sprintf("production: deploy demo/shortener %s\n\nImage: registry.example/demo/shortener@%s\nCommit: http://forge.example/demo/shortener/-/commit/%s\nPipeline: http://forge.example/demo/shortener/-/pipelines/1\n", sha(c)[:8], digest(c), sha(c))
	job := int64(0)
	for id, source := range w.jobs {
		if source == sha(c) {
			job = id
		}
	}
	w.push(message, job)
}

// push adds a commit to the GitOps repository; its name is m1, m2, ... filled up.
func (w *world) push(message string, job int64) string {
	w.t.Helper()
	list := w.commits[configProject]
	before := delivery.ZeroSHA
	if len(list) > 0 {
		before = list[len(list)-1].SHA
	}
	name := fmt.Sprintf("%040d", len(list)+1)
	sig := delivery.Signature{Name: "Ann", When: w.at}
	w.commits[configProject] = append(list, delivery.Commit{SHA: name, Author: sig, Committer: sig, Message: message})
	w.lastEvent++
	e, err := delivery.NewEvent(delivery.EventPushed, configProject, delivery.Pushed{Ref: "refs/heads/main", Before: before, After: name, UserID: 7, ByJob: job})
	w.must(err)
	e.ID, e.At = w.lastEvent, w.after(time.Second)
	w.must(w.s.Handle(w.t.Context(), e))
	return name
}

// application tells that Argo CD synced a revision.
func (w *world) application(revision string) {
	w.t.Helper()
	a := ApplicationState{Name: "shortener-production", Namespace: "prod", RepoURL: "http://forge.example/demo/configs.git", Path: "environments/production", Health: "Healthy", Revision: revision}
	if revision != "" {
		begun, end := w.at, w.after(2*time.Second)
		a.Operation = &Sync{Revision: revision, Phase: "Succeeded", Message: "successfully synced", Started: begun, Finished: &end}
	}
	w.must(w.s.ApplicationChanged(w.t.Context(), a))
}

func (w *world) head() string {
	list := w.commits[configProject]
	return list[len(list)-1].SHA
}

// rollout tells a state: stable and current are the letters of commits.
func (w *world) rollout(stable, current, phase string, step int, weight int32, change ...func(*RolloutState)) {
	w.t.Helper()
	r := RolloutState{
		Namespace: "prod", Name: "shortener", Application: "shortener-production", Strategy: "canary", Phase: phase, Step: step, Weight: weight,
		Steps:      []Step{{"setWeight", "20 %", 20}, {"pause", "pause 30s", -1}, {"setWeight", "50 %", 50}},
		StableHash: hash(stable), CurrentHash: hash(current), Images: []string{"registry.example/demo/shortener@" + digest(current)},
	}
	for _, fn := range change {
		fn(&r)
	}
	w.must(w.s.RolloutChanged(w.t.Context(), r, w.at))
}

func hash(c string) string {
	if c == "" {
		return ""
	}
	return "hash-" + c
}

// released takes a commit all the way to users.
func (w *world) released(c, title, before string) {
	w.commit(c, title, "success")
	w.deploy(c)
	w.application(w.head())
	w.rollout(before, c, "Progressing", 0, 0)
	if before != "" {
		w.after(2 * time.Second)
		w.rollout(before, c, "Paused", 1, 20, func(r *RolloutState) { r.Paused = true })
		w.after(30 * time.Second)
		w.rollout(before, c, "Progressing", 2, 50)
		w.analysis(c, "Successful", 0.999)
	}
	w.after(5 * time.Second)
	w.rollout(c, c, "Healthy", 3, 100)
	w.settle()
}

func (w *world) analysis(c, phase string, value float64) {
	w.t.Helper()
	begun, end := w.at.Add(-10*time.Second), w.at
	w.versions = []Version{{Number: 2, Hash: hash(c), Analyses: []Analysis{{
		Name: "shortener-2", Kind: "Background", Phase: phase, Started: begun, Finished: &end,
		Metrics: []Metric{{Name: "success-rate", Phase: phase, Condition: "result[0] >= 0.95", Measurements: []Measurement{{At: end, Value: &value, Text: "[x]", Phase: phase}}}},
	}}}}
	_, err := w.s.Refresh(w.t.Context())
	w.must(err)
}

func (w *world) settle() {
	w.t.Helper()
	w.after(2 * time.Minute)
	_, err := w.s.Refresh(w.t.Context())
	w.must(err)
}

func (w *world) release(c string) Release {
	w.t.Helper()
	r, err := w.s.Release(w.t.Context(), w.app, sha(c))
	w.must(err)
	return r
}

func (w *world) says(c, status, want string) Release {
	w.t.Helper()
	r := w.release(c)
	if r.Status != status || !strings.Contains(r.Sentence, want) {
		w.t.Errorf("%s is %s: %q; want %s with %q", c, r.Status, r.Sentence, status, want)
	}
	return r
}

func TestAGoodReleaseIsToldFromCommitToUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.released("a", "Release 1.0.0", "")
	w.released("b", "Release 1.1.0", "a")
	r := w.says("b", Serving, "Serves 100 % of production.")
	w.says("a", Superseded, "later version")
	got, err := json.MarshalIndent(r, "", "  ")
	w.must(err)
	golden(t, "testdata/good.json", append(got, '\n'))

	o, err := w.s.Overview(t.Context(), w.app, Shown)
	w.must(err)
	if len(o.Environments) != 1 || len(o.Releases) != 2 {
		t.Fatalf("%d environments, %d releases", len(o.Environments), len(o.Releases))
	}
	e := o.Environments[0]
	if e.Name != "production" || e.Serving[0].SHA != sha("b") || e.Serving[0].Weight != 100 || e.Serving[0].Since == nil || e.Why != "Ann deployed it." {
		t.Errorf("environment %+v", e)
	}
	if len(e.Changes) != 1 || e.Changes[0].Title != "Release 1.1.0" {
		t.Errorf("changes %+v", e.Changes)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got) {
		t.Errorf("%s differs; run with -update and look at the difference:\n%s", name, got)
	}
}

func TestABadCanaryTellsWhatFailedAndWhatThePlatformDid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.released("a", "Release 1.0.0", "")
	w.released("b", "Release 1.1.0", "a")
	w.commit("c", "Release 1.2.0-bad", "success")
	w.deploy("c")
	bad := w.head()
	w.application(bad)
	w.rollout("b", "c", "Progressing", 0, 0)
	w.after(2 * time.Second)
	w.rollout("b", "c", "Paused", 1, 20, func(r *RolloutState) { r.Paused = true })
	r := w.says("c", Deploying, "Canary in production: 20 % of the users, step 2 of 3 (pause 30s).")
	if !r.Live || !slices.Contains(r.Environments[0].Actions, ActAbort) {
		t.Errorf("live %t, actions %v", r.Live, r.Environments[0].Actions)
	}
	w.after(10 * time.Second)
	w.rollout("b", "c", "Degraded", 0, 0, func(r *RolloutState) {
		r.Aborted, r.AbortedAt, r.Message = true, w.at, "RolloutAborted: Rollout aborted update to revision 3: Metric \"success-rate\" assessed Failed"
	})
	w.analysis("c", "Failed", 0.41)
	r = w.says("c", RolledBack, "Aborted in production at 20 % after 12 s: success-rate failed with 0.41 (wanted >= 0.95). The platform took all users back to bbbbbbbb; git still asks for it")
	if got := r.Environments[0]; got.Weight != 0 || got.Now != sha("b") || !slices.Equal(got.Actions, []string{ActRetry, ActRevert}) {
		t.Errorf("deployment %+v", got)
	}
	if r.Environments[0].Attempts[0].During == nil {
		t.Error("the canary was not measured")
	}
	back := w.push(fmt.Sprintf("Revert \"production: deploy\"\n\nThis reverts commit %s", bad), 0)
	w.application(back)
	// The controller has not looked at the change yet.
	w.rollout("b", "c", "Progressing", 0, 0, func(r *RolloutState) { r.Aborted, r.Message = true, "waiting for the change to be seen" })
	w.rollout("b", "b", "Healthy", 3, 100)
	r = w.says("c", RolledBack, "; commit 00000000 took it out of git.")
	if got := r.Environments[0].Attempts[0]; !strings.Contains(got.Message, "success-rate") || got.Phase != "Degraded" {
		t.Errorf("why it was aborted is forgotten: %s %q", got.Phase, got.Message)
	}
	if n := len(r.Environments[0].Manifests); n != 2 || r.Environments[0].Manifests[1].Reverts != bad {
		t.Errorf("%d manifests", n)
	}
	w.says("b", Serving, "Serves 100 % of production.")
	o, err := w.s.Overview(t.Context(), w.app, Shown)
	w.must(err)
	if e := o.Environments[0]; e.Reason == nil || e.Reason.SHA != back || e.Why != "Ann took a later version back." {
		t.Errorf("reason %+v, why %q", e.Reason, e.Why)
	}
}

// TestTheSameVersionOfAProjectMadeAnew deletes a project with its deployment
// and makes it again with the same content, so that digest and pod template
// hash are those of before.
func TestTheSameVersionOfAProjectMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.released("a", "Release 1.0.0", "")
	w.must(w.store.DeleteProject(t.Context(), appProject))
	known := w.images
	w.images = map[string]string{} // the registry has deleted them
	w.versions = []Version{{Number: 1, Hash: hash("a"), Images: []string{"registry.example/demo/shortener@" + digest("a")}, Created: w.at}}
	w.rollout("a", "a", "Progressing", 3, 100) // its pods go
	w.images, w.versions = known, nil
	w.deploy("a")
	w.application(w.head())
	w.rollout("", "a", "Progressing", 0, 0)
	w.says("a", Deploying, "")
	w.rollout("a", "a", "Healthy", 3, 100)
	w.says("a", Serving, "Serves 100 % of production.")

	w.rollout("a", "a", "", 0, 0, func(r *RolloutState) { r.Gone = true })
	w.rollout("", "a", "Progressing", 0, 0)
	w.rollout("a", "a", "Healthy", 3, 100)
	r := w.says("a", Serving, "Serves 100 % of production.")
	if n := len(r.Environments[0].Attempts); n != 2 {
		t.Errorf("%d attempts; the rollout was made twice", n)
	}
}

func TestAFailedPipelineSaysWhichJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.released("a", "Release 1.0.0", "")
	w.commit("b", "Break the tests", "failed")
	w.says("b", Failed, "Pipeline #20 failed in test (script failure). Nothing was deployed; what runs goes on.")
	o, err := w.s.Overview(t.Context(), w.app, Shown)
	w.must(err)
	if o.Releases[0].Status != Failed || o.Releases[1].Status != Serving {
		t.Errorf("releases %+v", o.Releases)
	}
}

func TestAMessageIsOnlyAClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("a", "Release 1.0.0", "success")
	w.commit("b", "Another", "success")
	text := func(c string) string {
		return fmt.Sprintf("production: deploy demo/shortener\n\nImage: registry.example/demo/shortener@%s\nCommit: http://forge.example/x/-/commit/%s\n", digest(c), sha(c))
	}
	w.push(text("a"), 22) // the job of b
	w.roles[appProject] = delivery.Guest
	w.push(text("a"), 0) // a person who is a guest
	if got := w.release("a").Environments; len(got) != 0 {
		t.Errorf("a foreign claim was believed: %+v", got)
	}
	w.roles[appProject] = delivery.Developer
	w.push(text("a"), 0)
	if got := w.release("a").Environments; len(got) != 1 {
		t.Errorf("a developer's commit was not believed: %+v", got)
	}
}

func TestActionsNeedRightsAndState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.released("a", "Release 1.0.0", "")
	w.commit("b", "Release 1.1.0", "success")
	w.deploy("b")
	w.application(w.head())
	w.rollout("a", "b", "Paused", 1, 20, func(r *RolloutState) { r.Paused = true })
	act := func(c, action string) delivery.Kind {
		_, err := w.s.Act(t.Context(), delivery.Identity{Kind: delivery.SessionUser, User: &delivery.User{ID: 7}}, w.app, sha(c), "production", action)
		return delivery.KindOf(err)
	}
	if k := act("b", ActRetry); k != delivery.Conflict {
		t.Errorf("retry of a running rollout: %s", k)
	}
	if k := act("a", ActAbort); k != delivery.Conflict {
		t.Errorf("abort of what serves: %s", k)
	}
	w.roles[configProject] = delivery.Guest
	if k := act("b", ActPromote); k != delivery.Forbidden {
		t.Errorf("promotion without rights in the GitOps repository: %s", k)
	}
	w.roles[configProject] = delivery.Developer
	for _, action := range []string{ActPromote, ActPromoteFull, ActAbort, ActRevert} {
		if k := act("b", action); k != "" {
			t.Errorf("%s: %s", action, k)
		}
	}
	if want := []string{"promote prod/shortener", "promote full prod/shortener", "abort prod/shortener", "revert shortener-production"}; !slices.Equal(w.did, want) {
		t.Errorf("did %q", w.did)
	}
}

func TestAPushToAProjectThatIsGoneIsPassedOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e, err := delivery.NewEvent(delivery.EventPushed, 99, delivery.Pushed{Ref: "refs/heads/main", Before: sha("1"), After: sha("2")})
	w.must(err)
	w.must(w.s.Handle(t.Context(), e))
}

func TestTheSameStateTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.released("a", "Release 1.0.0", "")
	writes := w.store.writes
	w.rollout("a", "a", "Healthy", 3, 100)
	if got := len(w.store.attempts); got != 1 || w.store.writes != writes {
		t.Errorf("%d attempts, %d writes more", got, w.store.writes-writes)
	}
}

func TestAPlatformThatComesLaterReadsWhatTheClusterKnows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("a", "Release 1.0.0", "success")
	w.commit("b", "Release 1.1.0", "success")
	end := w.at
	w.versions = []Version{
		{Number: 1, Hash: hash("a"), Images: []string{"registry.example/demo/shortener@" + digest("a")}, Created: w.at},
		{Number: 2, Hash: hash("b"), Images: []string{"registry.example/demo/shortener@" + digest("b")}, Created: w.at,
			Analyses: []Analysis{{Name: "x", Phase: "Failed", Started: end, Finished: &end, Metrics: []Metric{{Name: "success-rate", Phase: "Failed"}}}}},
	}
	w.rollout("a", "a", "Healthy", 3, 100)
	w.says("b", RolledBack, "Aborted in production: success-rate failed.")
	w.says("a", Serving, "Serves 100 % of production.")
}

// The parts of the platform.

func (w *world) Project(_ context.Context, id int64) (delivery.Project, error) {
	if id > configProject {
		return delivery.Project{}, delivery.Errorf(delivery.NotFound, "gone")
	}
	if id == appProject {
		return w.app, nil
	}
	return delivery.Project{ID: configProject, FullPath: "demo/configs"}, nil
}

func (w *world) ProjectOfURL(ctx context.Context, _ string) (delivery.Project, error) {
	return w.Project(ctx, configProject)
}

func (w *world) Commit(_ context.Context, id int64, sha string) (delivery.Commit, error) {
	for _, c := range w.commits[id] {
		if strings.HasPrefix(c.SHA, sha) {
			return c, nil
		}
	}
	return delivery.Commit{}, delivery.Errorf(delivery.NotFound, "no commit %s", sha)
}

func (w *world) CommitsBetween(_ context.Context, id int64, from, to string, _ int) ([]delivery.Commit, error) {
	var out []delivery.Commit
	in := false
	for _, c := range w.commits[id] {
		if in {
			out = append([]delivery.Commit{c}, out...)
		}
		in = (in || c.SHA == from) && c.SHA != to
	}
	return out, nil
}

func (w *world) Recent(context.Context, delivery.Project, int) ([]delivery.Commit, error) {
	out := slices.Clone(w.commits[appProject])
	slices.Reverse(out)
	return out, nil
}

func (w *world) OfCommit(_ context.Context, _ int64, sha string) ([]Pipeline, error) {
	return w.runs[sha], nil
}

func (w *world) SourceOfJob(_ context.Context, job int64) (int64, string, error) {
	return appProject, w.jobs[job], nil
}

type imagesOf struct{ w *world }

func (i imagesOf) OfJobs(_ context.Context, _ int64, jobs []int64) ([]Image, error) {
	out := []Image{}
	for reference, source := range i.w.images {
		for _, job := range jobs {
			if i.w.jobs[job] == source {
				name, dgst, _ := strings.Cut(reference, "@")
				out = append(out, Image{Repository: strings.TrimPrefix(name, "registry.example/"), Digest: dgst, Tags: []string{source[:8]}, Size: 41 << 20,
					Pushed: i.w.runs[source][0].Created.Add(6 * time.Second), JobID: job, Scan: &Scan{Status: "success", Counts: map[string]int{"LOW": 2}}})
			}
		}
	}
	return out, nil
}

func (i imagesOf) Source(_ context.Context, reference string) (int64, string, error) {
	if source, ok := i.w.images[reference]; ok {
		return appProject, source, nil
	}
	return 0, "", delivery.Errorf(delivery.NotFound, "foreign")
}

func (w *world) Versions(context.Context, string, string) ([]Version, error) { return w.versions, nil }
func (w *world) Promote(_ context.Context, ns, name string) error {
	w.did = append(w.did, "promote "+ns+"/"+name)
	return nil
}
func (w *world) PromoteFull(_ context.Context, ns, name string) error {
	w.did = append(w.did, "promote full "+ns+"/"+name)
	return nil
}
func (w *world) Abort(_ context.Context, ns, name string) error {
	w.did = append(w.did, "abort "+ns+"/"+name)
	return nil
}
func (w *world) Retry(_ context.Context, ns, name string) error {
	w.did = append(w.did, "retry "+ns+"/"+name)
	return nil
}
func (w *world) Revert(_ context.Context, application string, by delivery.Identity, o Order) (string, error) {
	w.did = append(w.did, strings.TrimSpace("revert "+application+" "+by.Name))
	if w.revertFails != nil {
		return "", w.revertFails
	}
	w.why = o.Why
	return sha("f"), nil
}
func (w *world) Announce(_ context.Context, ns, name, reason, message string, warning bool) error {
	w.told = append(w.told, fmt.Sprintf("%s/%s %s %v %s", ns, name, reason, warning, message))
	return nil
}
func (w *world) Person(_ context.Context, id int64) (delivery.Identity, error) {
	return delivery.Identity{Kind: delivery.SessionUser, User: &delivery.User{ID: id, Username: "ann"}, Name: "ann"}, nil
}
func (w *world) Audit(_ context.Context, _ delivery.Identity, action string, p delivery.Project, _ string) {
	w.told = append(w.told, "audit "+action+" "+p.FullPath)
}
func (w *world) RoleIn(_ context.Context, _ delivery.Identity, id int64) (delivery.Role, error) {
	return w.roles[id], nil
}
func (w *world) UserRole(_ context.Context, _, id int64) (delivery.Role, error) {
	return w.roles[id], nil
}
func (w *world) Number(_ context.Context, query string, _ time.Time) (float64, bool, error) {
	switch {
	case strings.HasPrefix(query, "histogram"):
		return 0.12, true, nil
	case strings.Contains(query, "5.."):
		return 0.01, true, nil
	}
	return 25, true, nil
}

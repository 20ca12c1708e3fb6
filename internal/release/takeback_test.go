package release

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// abort lets a version fail its analysis at 20 %.
func (w *world) abort(before, c string) {
	w.commit(c, "Break it", "success")
	w.deploy(c)
	w.application(w.head())
	w.rollout(before, c, "Progressing", 0, 0)
	w.after(2 * time.Second)
	w.rollout(before, c, "Paused", 1, 20)
	w.analysis(c, "Failed", 0.5)
	w.after(20 * time.Second)
	w.rollout(before, c, "Degraded", 0, 0, func(r *RolloutState) {
		r.Aborted, r.Message = true, `RolloutAborted: Rollout aborted update to revision 2: Metric "success-rate" assessed Failed`
	})
}

func TestAutomaticRevert(t *testing.T) {
	t.Parallel()
	ann := delivery.Identity{Kind: delivery.SessionUser, User: &delivery.User{ID: 7, Username: "ann"}, Name: "ann"}
	for name, c := range map[string]struct {
		on    bool
		fails error
		did   int // reverts that were asked for in 10 s
		told  string
	}{
		"off":     {on: false},
		"on":      {on: true, did: 1, told: "prod/shortener RevertedInGit false Commit ffffffff in git takes the version back, automatically, in the name of ann. The rollout of bbbbbbbb in production was aborted: success-rate failed with 0.5 (wanted >= 0.95)."},
		"refused": {on: true, fails: delivery.Errorf(delivery.Forbidden, "You may not push to main."), did: 1, told: "prod/shortener RevertFailed true Git still asks for the aborted version; the automatic revert failed: You may not push to main."},
		"away":    {on: true, fails: delivery.Errorf(delivery.Unavailable, "The cluster is away."), did: 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.must(w.s.SetAutoRevert(t.Context(), ann, w.app, c.on))
			w.released("a", "First", "")
			w.revertFails = c.fails
			w.abort("a", "b")
			for range 5 {
				w.after(2 * time.Second)
				_, err := w.s.Refresh(t.Context())
				w.must(err)
			}
			did := slices.DeleteFunc(slices.Clone(w.did), func(s string) bool { return s != "revert shortener-production ann" })
			if len(did) != c.did {
				t.Errorf("asked for %v", w.did)
			}
			events := slices.DeleteFunc(slices.Clone(w.told), func(s string) bool { return !strings.HasPrefix(s, "prod/") })
			if c.told == "" && len(events) > 0 || c.told != "" && (len(events) != 1 || !strings.HasPrefix(events[0], c.told)) {
				t.Errorf("events %q", events)
			}
			if c.told != "" && !slices.ContainsFunc(w.told, func(s string) bool { return strings.HasPrefix(s, "audit release.revert") }) {
				t.Errorf("no audit record in %q", w.told)
			}
			if name == "refused" {
				w.says("b", RolledBack, "Aborted in production at 20 % after 22 s: success-rate failed with 0.5 (wanted >= 0.95). The platform took all users back to aaaaaaaa; git still asks for it, and the automatic revert failed: You may not push to main.")
			}
			place, err := w.s.Place(t.Context(), "prod", "shortener")
			w.must(err)
			if place.Why == "" || place.ConfigProjectID != configProject || (place.Attempt.Takeback != nil) != (c.told != "") {
				t.Errorf("place %+v", place)
			}
		})
	}
}

// A revert takes back the newest version only, and needs the right role to be
// asked for.
func TestRoleAtARollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.released("a", "First", "")
	w.abort("a", "b")
	place, err := w.s.Place(t.Context(), "prod", "shortener")
	w.must(err)
	who := delivery.Identity{Kind: delivery.SessionUser, User: &delivery.User{ID: 8}}
	w.roles[configProject] = delivery.Reporter
	if role, err := w.s.RoleAt(t.Context(), who, place); err != nil || role != delivery.Reporter {
		t.Errorf("the lesser role counts: %v %v", role, err)
	}
	if role, err := w.s.RoleAt(t.Context(), who, Place{}); err != nil || role != delivery.NoAccess {
		t.Errorf("of a rollout without a project: %v %v", role, err)
	}
	if _, err := w.s.revert(t.Context(), who, "prod", "shortener", sha("a")); delivery.KindOf(err) != delivery.Conflict {
		t.Errorf("taking back an older version: %v", err)
	}
	if text, err := w.s.TakeBack(t.Context(), who, "prod", "shortener"); err != nil || !strings.Contains(text, "ffffffff") || !strings.Contains(w.why, "success-rate failed with 0.5") {
		t.Errorf("%q %v, why %q", text, err, w.why)
	}
}

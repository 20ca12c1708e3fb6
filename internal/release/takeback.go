package release

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Settings are what a project wants of its releases.
type Settings struct {
	// AutoRevert commits the state before into the GitOps repository as soon as
	// a rollout of the project was aborted, in the name of UserID: who turned it
	// on. That person's right to push is checked each time.
	AutoRevert bool  `json:"auto_revert"`
	UserID     int64 `json:"user_id,omitempty"`
}

// Takeback is a commit that made git agree with the cluster after an abort, or
// the attempt to make one.
type Takeback struct {
	At        time.Time `json:"at"`
	Commit    string    `json:"commit,omitempty"`
	By        string    `json:"by"`
	Automatic bool      `json:"automatic"`
	Why       string    `json:"why"`
	Error     string    `json:"error,omitempty"` // why there is no commit
}

// Order asks for a reverting commit.
type Order struct {
	// Begun is when the rollout of the version began. Only a sync from before
	// is taken back: a later one brought something else.
	Begun time.Time
	// Why is a sentence for the commit's message.
	Why string
}

// Place is what the timeline knows of a Rollout in the cluster.
type Place struct {
	Environment     string
	Application     string
	ProjectID       int64 // whose commits it runs; 0 for images from elsewhere
	ConfigProjectID int64 // the GitOps repository; 0 where it is not on this platform
	Settings        Settings
	Attempt         *Attempt // the newest; nil before the first
	Why             string   // why the newest attempt was aborted, in a sentence; "" otherwise
}

// Settings returns what a project wants of its releases.
func (s *Service) Settings(ctx context.Context, projectID int64) (Settings, error) {
	v, err := s.store.Settings(ctx, projectID)
	if delivery.IsNotFound(err) {
		return Settings{}, nil
	}
	return v, err
}

// SetAutoRevert turns the automatic reverts of a project on, in the caller's
// name, or off. The caller needs the role Maintainer in the project and must
// be a person.
func (s *Service) SetAutoRevert(ctx context.Context, who delivery.Identity, p delivery.Project, on bool) error {
	role, err := s.members.RoleIn(ctx, who, p.ID)
	if err != nil {
		return err
	}
	if role < delivery.Maintainer {
		return delivery.Errorf(delivery.Forbidden, "This needs the role maintainer in the project.")
	}
	if who.User == nil {
		return delivery.Errorf(delivery.Forbidden, "A person must turn this on: the reverts are made in that name.")
	}
	v := Settings{AutoRevert: on}
	if on {
		v.UserID = who.User.ID
	}
	if err := s.store.PutSettings(ctx, p.ID, v); err != nil {
		return err
	}
	s.members.Audit(ctx, who, "release.auto_revert", p, map[bool]string{true: "on", false: "off"}[on])
	return nil
}

// Place returns what is known of a Rollout.
func (s *Service) Place(ctx context.Context, namespace, rollout string) (Place, error) {
	list, err := s.store.RolloutAttempts(ctx, namespace, rollout, 1)
	if err != nil {
		return Place{}, err
	}
	p := Place{Environment: namespace}
	if len(list) == 0 {
		return p, nil
	}
	a := list[0]
	p.Attempt, p.Environment, p.Application, p.ProjectID = &a, a.Environment, a.Application, a.ProjectID
	s.mu.Lock()
	p.ConfigProjectID = s.applications[a.Application].configProjectID
	s.mu.Unlock()
	if a.Result == Aborted {
		p.Why = cause(a)
	}
	if p.ProjectID != 0 {
		p.Settings, err = s.Settings(ctx, p.ProjectID)
	}
	return p, err
}

// Namespaces returns the namespaces of a project's environments by name.
func (s *Service) Namespaces(ctx context.Context, projectID int64) (map[string]string, error) {
	list, err := s.store.Environments(ctx, projectID)
	out := map[string]string{}
	for _, e := range list {
		if !e.Gone {
			out[e.Name] = e.Namespace
		}
	}
	return out, err
}

// RoleAt returns what the caller may do with a Rollout: the least of the roles
// in the project whose commits it runs and in the GitOps repository, as far as
// they are on this platform. Of a Rollout that belongs to no project only
// administrators know: for others it is NoAccess.
func (s *Service) RoleAt(ctx context.Context, who delivery.Identity, p Place) (delivery.Role, error) {
	if who.User != nil && who.User.Admin && who.Scopes == nil {
		return delivery.Owner, nil
	}
	least, known := delivery.Owner, false
	for _, id := range []int64{p.ProjectID, p.ConfigProjectID} {
		if id == 0 {
			continue
		}
		role, err := s.members.RoleIn(ctx, who, id)
		if delivery.IsNotFound(err) {
			role, err = delivery.NoAccess, nil // the project was deleted
		}
		if err != nil {
			return delivery.NoAccess, err
		}
		least, known = min(least, role), true
	}
	if !known {
		return delivery.NoAccess, nil
	}
	return least, nil
}

// TakeBack commits the state before the newest version of a Rollout into the
// GitOps repository and says what it did. The forge checks the right to push.
func (s *Service) TakeBack(ctx context.Context, who delivery.Identity, namespace, rollout string) (string, error) {
	return s.revert(ctx, who, namespace, rollout, "")
}

// revert is TakeBack, for the version of a certain commit only where sha says so.
func (s *Service) revert(ctx context.Context, who delivery.Identity, namespace, rollout, sha string) (string, error) {
	if s.rollouts == nil {
		return "", delivery.Errorf(delivery.Unavailable, "There is no cluster on this platform.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.store.RolloutAttempts(ctx, namespace, rollout, 1)
	if err != nil {
		return "", err
	}
	if len(list) == 0 || list[0].Application == "" {
		return "", delivery.Errorf(delivery.Conflict, "Rollout %s belongs to no Application; there is no commit to revert.", rollout)
	}
	a := list[0]
	if sha != "" && a.SHA != sha {
		return "", delivery.Errorf(delivery.Conflict, "The newest version of %s is %s; take that one back.", a.Environment, short(a.SHA))
	}
	commit, err := s.takeBack(ctx, who, &a, false)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("Commit %s takes it back; Argo CD applies it.", short(commit)), s.store.PutAttempt(ctx, &a, false)
}

// takeBack makes the commit and records it with the attempt, in the audit log
// and as an event of the Rollout.
func (s *Service) takeBack(ctx context.Context, who delivery.Identity, a *Attempt, automatic bool) (string, error) {
	t := &Takeback{At: s.now(), By: who.Name, Automatic: automatic, Why: "Reverted by hand."}
	if a.Result == Aborted {
		t.Why = fmt.Sprintf("The rollout of %s in %s was aborted: %s", versionOf(*a), a.Environment, cause(*a))
	}
	var err error
	t.Commit, err = s.rollouts.Revert(ctx, a.Application, who, Order{Begun: a.Started, Why: t.Why})
	if err != nil {
		return "", err
	}
	a.Takeback = t
	s.told(ctx, who, *a)
	return t.Commit, nil
}

// versionOf names a version by its commit, or by its image where that is unknown.
func versionOf(a Attempt) string {
	if a.SHA != "" {
		return short(a.SHA)
	}
	return a.Image
}

// told tells of a revert, or of why there is none.
func (s *Service) told(ctx context.Context, who delivery.Identity, a Attempt) {
	t, reason := a.Takeback, "RevertedInGit"
	how := "by " + t.By
	if t.Automatic {
		how = "automatically, in the name of " + t.By
	}
	text := fmt.Sprintf("Commit %s in git takes the version back, %s. %s", short(t.Commit), how, t.Why)
	if t.Error != "" {
		reason, text = "RevertFailed", fmt.Sprintf("Git still asks for the aborted version; the automatic revert failed: %s %s", sentence(t.Error), t.Why)
	}
	if err := s.rollouts.Announce(ctx, a.Namespace, a.Rollout, reason, text, t.Error != ""); err != nil {
		s.log.Warn("the event of a revert was not written", "rollout", a.Namespace+"/"+a.Rollout, "err", err)
	}
	p, err := s.code.Project(ctx, a.ProjectID)
	if err != nil {
		s.log.Warn("the audit record of a revert was not written", "rollout", a.Namespace+"/"+a.Rollout, "err", err)
		return
	}
	action := "release.reverted"
	if t.Error != "" {
		action = "release.revert_failed"
	}
	s.members.Audit(ctx, who, action, p, a.Environment+": "+text)
}

// revertTries is how long a revert is tried again that fails because something
// is away.
const revertTries = 2 * time.Minute

// autoRevert takes back an aborted attempt where its project wants that. again
// reports whether it should be tried once more.
func (s *Service) autoRevert(ctx context.Context, a *Attempt) (again bool) {
	if a.Result != Aborted || a.Takeback != nil || a.Recovered || a.ProjectID == 0 || a.Application == "" || s.rollouts == nil || a.Ended == nil {
		return false
	}
	v, err := s.Settings(ctx, a.ProjectID)
	if err != nil || !v.AutoRevert {
		return err != nil
	}
	who, err := s.revertsAs(ctx, v, a)
	if err == nil {
		_, err = s.takeBack(ctx, who, a, true)
	}
	if err == nil {
		return false
	}
	kind := delivery.KindOf(err)
	if (kind == delivery.Unavailable || kind == delivery.Waiting || kind == delivery.InternalError || errors.Is(err, context.Canceled)) && s.now().Sub(*a.Ended) < revertTries {
		s.log.Warn("an automatic revert is tried again", "rollout", a.Namespace+"/"+a.Rollout, "err", err)
		return true
	}
	a.Takeback = &Takeback{At: s.now(), By: who.Name, Automatic: true, Why: fmt.Sprintf("The rollout of %s in %s was aborted: %s", versionOf(*a), a.Environment, cause(*a)), Error: strings.TrimSpace(delivery.UserMessage(err))}
	s.told(ctx, who, *a)
	return false
}

// revertsAs returns in whose name an attempt is taken back. Newer attempts and
// rollouts that were retried have nothing to take back.
func (s *Service) revertsAs(ctx context.Context, v Settings, a *Attempt) (delivery.Identity, error) {
	who, err := s.members.Person(ctx, v.UserID)
	if err != nil {
		return delivery.Identity{Name: "the platform"}, err
	}
	list, err := s.store.RolloutAttempts(ctx, a.Namespace, a.Rollout, 1)
	if err != nil {
		return who, err
	}
	if len(list) > 0 && list[0].ID != a.ID {
		return who, delivery.Errorf(delivery.Conflict, "A newer version came, or the rollout was retried.")
	}
	return who, nil
}

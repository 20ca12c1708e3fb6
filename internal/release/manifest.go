package release

import (
	"context"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

var (
	imageLine  = regexp.MustCompile(`(?m)^Image: *(\S+?)@(sha256:[0-9a-f]{64})\s*$`)
	commitLine = regexp.MustCompile(`(?m)^Commit: *\S+/-/commit/([0-9a-f]{40})\s*$`)
	revertLine = regexp.MustCompile(`This reverts commit ([0-9a-f]{40})`)
	backLine   = regexp.MustCompile(`This takes back what ([0-9a-f]{7,40}) changed since`)
	titleLine  = regexp.MustCompile(`^([A-Za-z0-9._/-]+): deploy `)
)

// said is what the message of a manifest commit says; the form is that of the
// Deploy template of gitlab-ci/templates.
type said struct {
	environment, image, digest, source, reverts string
}

func read(message string) said {
	var s said
	if m := revertLine.FindStringSubmatch(message); m != nil {
		s.reverts = m[1]
		return s
	}
	if m := backLine.FindStringSubmatch(message); m != nil {
		s.reverts = m[1]
		return s
	}
	if m := titleLine.FindStringSubmatch(message); m != nil {
		s.environment = m[1]
	}
	if m := imageLine.FindStringSubmatch(message); m != nil {
		s.image, s.digest = m[1], m[2]
	}
	if m := commitLine.FindStringSubmatch(message); m != nil {
		s.source = m[1]
	}
	return s
}

// pushed looks for manifest commits in a push to any project.
func (s *Service) pushed(ctx context.Context, e delivery.Event) error {
	var push delivery.Pushed
	if err := e.Decode(&push); err != nil {
		s.log.Error("a push event cannot be read", "event", e.ID, "err", err)
		return nil
	}
	if !strings.HasPrefix(push.Ref, "refs/heads/") || push.After == delivery.ZeroSHA {
		return nil
	}
	// The repository of a project that is gone is gone too.
	project, err := s.code.Project(ctx, e.ProjectID)
	if delivery.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var commits []delivery.Commit
	if push.Before == delivery.ZeroSHA {
		var c delivery.Commit
		if c, err = s.code.Commit(ctx, e.ProjectID, push.After); err == nil {
			commits = []delivery.Commit{c}
		}
	} else {
		commits, err = s.code.CommitsBetween(ctx, e.ProjectID, push.Before, push.After, 100)
	}
	if delivery.IsNotFound(err) {
		return nil // deleted or rewritten meanwhile
	}
	if err != nil {
		return err
	}
	for i := len(commits) - 1; i >= 0; i-- {
		if err := s.manifest(ctx, project, e, push, commits[i]); err != nil {
			return err
		}
	}
	return nil
}

// manifest records a commit that deploys or takes back. A message is only a
// claim: it counts where the job that pushed ran for that commit, or the
// person who pushed may work on that project.
func (s *Service) manifest(ctx context.Context, config delivery.Project, e delivery.Event, push delivery.Pushed, c delivery.Commit) error {
	say := read(c.Message)
	m := Manifest{ConfigProjectID: e.ProjectID, ConfigProject: config.FullPath, SHA: c.SHA, Title: c.Title(), By: c.Author.Name, At: e.At, JobID: push.ByJob}
	switch {
	case say.reverts != "":
		// A shortened name is completed by what it names.
		if len(say.reverts) < 40 {
			full, err := s.code.Commit(ctx, e.ProjectID, say.reverts)
			if delivery.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			say.reverts = full.SHA
		}
		undone, err := s.store.Manifest(ctx, e.ProjectID, say.reverts)
		if delivery.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		m.Reverts, m.Environment, m.ProjectID, m.SourceSHA = undone.SHA, undone.Environment, undone.ProjectID, undone.SourceSHA
	case say.source != "" && say.digest != "":
		m.Image, m.Digest, m.Environment = say.image, say.digest, say.environment
		project, ok, err := s.claimed(ctx, push, say)
		if err != nil || !ok {
			return err
		}
		m.ProjectID, m.SourceSHA = project, say.source
	default:
		return nil
	}
	return s.store.PutManifest(ctx, m)
}

// claimed checks what a message says of the source, and returns its project.
func (s *Service) claimed(ctx context.Context, push delivery.Pushed, say said) (int64, bool, error) {
	if push.ByJob != 0 {
		project, sha, err := s.pipelines.SourceOfJob(ctx, push.ByJob)
		if delivery.IsNotFound(err) {
			return 0, false, nil
		}
		return project, err == nil && sha == say.source, err
	}
	if s.images == nil {
		return 0, false, nil
	}
	project, _, err := s.images.Source(ctx, say.image+"@"+say.digest)
	if delivery.IsNotFound(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	role, err := s.members.UserRole(ctx, push.UserID, project)
	return project, err == nil && role >= delivery.Developer, err
}

// ApplicationChanged records the syncs of an Application.
func (s *Service) ApplicationChanged(ctx context.Context, a ApplicationState) error {
	project, err := s.code.ProjectOfURL(ctx, a.RepoURL)
	if delivery.IsNotFound(err) {
		return nil // a repository elsewhere: its commits are not known here
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	environment := environmentOf(a)
	s.applications[a.Name] = known{project.ID, environment}
	list := append([]Sync(nil), a.History...)
	if a.Operation != nil {
		list = append(list, *a.Operation)
	}
	if a.Error != "" && a.Revision != "" {
		list = append(list, Sync{Revision: a.Revision, Phase: "Error", Message: a.Error, Started: s.now()})
	}
	for _, one := range list {
		if one.Revision == "" {
			continue
		}
		one.Application, one.Namespace, one.Environment, one.ConfigProjectID = a.Name, a.Namespace, environment, project.ID
		if one.Revision == a.Revision {
			one.Health = a.Health
		}
		before, err := s.store.Sync(ctx, a.Name, one.Revision)
		switch {
		case delivery.IsNotFound(err):
		case err != nil:
			return err
		default:
			one = later(before, one)
			if sameSync(before, one) {
				continue
			}
		}
		if err := s.store.PutSync(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// later joins what is known of a sync with what is told now.
func later(before, now Sync) Sync {
	if !before.Started.IsZero() && (now.Started.IsZero() || before.Started.Before(now.Started)) {
		now.Started = before.Started
	}
	if now.Finished == nil && now.Phase != "Running" {
		now.Finished = before.Finished
	}
	if now.Health == "" {
		now.Health = before.Health
	}
	if now.By == "" {
		now.By = before.By
	}
	if now.Message == "" && now.Phase == before.Phase {
		now.Message = before.Message
	}
	return now
}

func sameSync(a, b Sync) bool {
	same := (a.Finished == nil) == (b.Finished == nil) && (a.Finished == nil || a.Finished.Equal(*b.Finished))
	return same && a.Phase == b.Phase && a.Message == b.Message && a.Health == b.Health && a.Started.Equal(b.Started)
}

// environmentOf names the environment of an Application: the folder of its
// manifests, as in environments/production.
func environmentOf(a ApplicationState) string {
	if p := strings.Trim(a.Path, "/"); p != "" && p != "." {
		return path.Base(p)
	}
	return a.Name
}

func pointer(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

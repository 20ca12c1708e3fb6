package pipeline

import (
	"context"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// touchEvery is how often a runner's contact is written.
const touchEvery = time.Minute

// runnerOf finds a runner by its token.
func (e *Engine) runnerOf(ctx context.Context, token string) (*Runner, error) {
	hash := hashToken(token)
	e.mu.Lock()
	r := e.runners[hash]
	e.mu.Unlock()
	if r != nil {
		return r, nil
	}
	var found Runner
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		found, err = tx.RunnerByToken(hash)
		return err
	})
	if delivery.IsNotFound(err) || token == "" {
		return nil, gone()
	}
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.runners[hash] = &found
	e.mu.Unlock()
	return &found, nil
}

// runnerChanged forgets what is cached about a runner and lets its waiting
// requests be matched anew.
func (e *Engine) runnerChanged(r *Runner) {
	e.mu.Lock()
	for hash, cached := range e.runners {
		if cached.ID == r.ID {
			delete(e.runners, hash)
		}
	}
	e.mu.Unlock()
	e.queue.recheck(r)
}

// touch notes that a runner was heard of, at most once a minute per process.
func (e *Engine) touch(ctx context.Context, r *Runner, s *delivery.RunnerSession, ip string) error {
	key := "touch " + s.Token + " " + s.SystemID
	now := e.clock.Now()
	e.mu.Lock()
	last := e.touched[key]
	if now.Sub(last) < touchEvery {
		e.mu.Unlock()
		return nil
	}
	e.touched[key] = now
	e.mu.Unlock()
	return e.store.Update(ctx, func(tx Tx) error {
		return tx.TouchManager(&RunnerManager{RunnerID: r.ID, SystemID: s.SystemID, Info: s.Info, IP: ip})
	})
}

// NewRunner describes a runner to be made.
type NewRunner struct {
	Kind            string // instance_type, group_type or project_type
	OwnerID         int64  // of a group or project runner
	Description     string
	Tags            []string
	RunUntagged     bool
	Locked, Paused  bool
	RefProtected    bool
	MaximumTimeout  int
	MaintenanceNote string
	CreatorID       int64
	builtin         bool
	token           string
}

// CreateRunner registers a runner and returns it with its authentication
// token, which is not shown again.
func (e *Engine) CreateRunner(ctx context.Context, n NewRunner) (Runner, string, error) {
	if n.Kind != InstanceRunner && n.Kind != GroupRunner && n.Kind != ProjectRunner {
		return Runner{}, "", delivery.Errorf(delivery.Invalid, "runner_type does not have a valid value")
	}
	if !n.RunUntagged && len(n.Tags) == 0 {
		message := "can not be empty when runner is not allowed to pick untagged jobs"
		return Runner{}, "", &delivery.Error{Kind: delivery.Invalid, Message: message, Fields: map[string][]string{"tags_list": {message}}}
	}
	if n.MaximumTimeout != 0 && n.MaximumTimeout < 600 {
		return Runner{}, "", &delivery.Error{Kind: delivery.Invalid, Message: "invalid", Fields: map[string][]string{"maximum_timeout": {"needs to be at least 10 minutes"}}}
	}
	token := n.token
	if token == "" {
		token = newToken("glrt-")
	}
	r := Runner{Kind: n.Kind, OwnerID: n.OwnerID, Description: n.Description, TokenHash: hashToken(token), TokenHint: tokenHint(token), Tags: n.Tags,
		RunUntagged: n.RunUntagged, Locked: n.Locked, Paused: n.Paused, RefProtected: n.RefProtected, MaximumTimeout: n.MaximumTimeout,
		MaintenanceNote: n.MaintenanceNote, CreatorID: n.CreatorID, Builtin: n.builtin}
	if n.Kind == ProjectRunner {
		r.Projects = []int64{n.OwnerID}
	}
	err := e.store.Update(ctx, func(tx Tx) error { return tx.InsertRunner(&r) })
	return r, token, err
}

// tokenHint is the part of a runner token that is shown.
func tokenHint(token string) string {
	for _, p := range tokenPrefixes {
		token = strings.TrimPrefix(token, p)
	}
	return token[:min(9, len(token))]
}

// EnsureBuiltinRunner returns the session of the runner that is part of the
// platform, registering it when it is new. No job of it runs longer than
// maximum, 0 for no limit. Jobs that it was running before a
// restart are lost with it: they fail with a system failure and are tried once
// more.
func (e *Engine) EnsureBuiltinRunner(ctx context.Context, description string, tags []string, maximum time.Duration, info delivery.RunnerInfo) (delivery.RunnerSession, error) {
	session := delivery.RunnerSession{SystemID: "builtin", Info: info}
	var lost []Job
	var known *Runner
	err := e.store.View(ctx, func(tx Tx) error {
		sealed, err := tx.Setting("builtin runner token")
		if err != nil {
			return err
		}
		if sealed == "" {
			return nil
		}
		if session.Token, err = e.seal.Open(sealed); err != nil {
			return err
		}
		r, err := tx.RunnerByToken(hashToken(session.Token))
		if delivery.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		known = &r
		running, err := tx.JobsWithStatus("running", "canceling")
		for _, j := range running {
			if j.RunnerID == r.ID {
				lost = append(lost, j)
			}
		}
		return err
	})
	if err != nil {
		return session, err
	}
	for _, j := range lost {
		if err := e.lostJob(ctx, &j); err != nil {
			return session, err
		}
	}
	if known != nil {
		known.Description, known.Tags, known.MaximumTimeout = description, tags, int(maximum/time.Second)
		if err := e.store.Update(ctx, func(tx Tx) error { return tx.UpdateRunner(known) }); err != nil {
			return session, err
		}
		e.runnerChanged(known)
		return session, nil
	}
	session.Token = newToken("glrt-")
	if _, _, err := e.CreateRunner(ctx, NewRunner{Kind: InstanceRunner, Description: description, Tags: tags, RunUntagged: true, builtin: true, token: session.Token,
		MaximumTimeout: int(maximum / time.Second)}); err != nil {
		return session, err
	}
	return session, e.store.Update(ctx, func(tx Tx) error {
		return tx.SetSetting("builtin runner token", e.seal.Seal(session.Token))
	})
}

// lostJob fails a job whose runner went away, with the reason in its log, and
// tries it once more.
func (e *Engine) lostJob(ctx context.Context, lost *Job) error {
	// Whatever keeps the words from the log does not keep the job running.
	if t, err := e.openTrace(ctx, e.adopt(lost)); err != nil {
		e.log.Error("last words of a lost job", "job", lost.ID, "err", err)
	} else if err := t.conclude(e.clock.Now(), "ERROR: Job failed (system failure): the runner was stopped or restarted while the job ran"); err != nil {
		e.log.Error("last words of a lost job", "job", lost.ID, "err", err)
	}
	_, err := e.change(ctx, lost.ID, func(u *unit, lp *live, i int) error {
		j := &lp.jobs[i]
		if j.Attempt == 0 && j.RetryMax == 0 {
			j.RetryMax, j.RetryWhen = 1, []string{ReasonRunnerSystem}
			defer func() { lp.jobs[i].RetryMax, lp.jobs[i].RetryWhen = 0, nil }()
		}
		return u.drop(lp, i, ReasonRunnerSystem, 0)
	})
	return err
}

// DeleteRunner removes a runner; its waiting requests end.
func (e *Engine) DeleteRunner(ctx context.Context, id int64) error {
	var r Runner
	err := e.store.Update(ctx, func(tx Tx) error {
		var err error
		if r, err = tx.Runner(id); err != nil {
			return err
		}
		return tx.DeleteRunner(id)
	})
	if err == nil {
		e.runnerChanged(&r)
	}
	return err
}

// ResetRunnerToken gives a runner a new authentication token.
func (e *Engine) ResetRunnerToken(ctx context.Context, id int64) (string, error) {
	token := newToken("glrt-")
	_, err := e.ChangeRunner(ctx, id, func(r *Runner) error {
		r.TokenHash, r.TokenHint = hashToken(token), tokenHint(token)
		return nil
	})
	return token, err
}

// ChangeRunner lets fn change a runner's settings.
func (e *Engine) ChangeRunner(ctx context.Context, id int64, fn func(*Runner) error) (Runner, error) {
	var r Runner
	err := e.store.Update(ctx, func(tx Tx) error {
		var err error
		if r, err = tx.Runner(id); err != nil {
			return err
		}
		if err := fn(&r); err != nil {
			return err
		}
		if err := tx.SetRunnerProjects(id, r.Projects); err != nil {
			return err
		}
		return tx.UpdateRunner(&r)
	})
	if err == nil {
		e.runnerChanged(&r)
	}
	return r, err
}

package forge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const (
	housekeepingEvery = time.Minute
	maintenanceEvery  = 10 * time.Minute
)

// Run does the forge's background work until ctx ends: it follows pushes for
// merge requests, sends webhooks, updates mirrors and maintains repositories.
// It returns after everything it started has ended.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	consume := func(name string, fn func(context.Context, delivery.Event) error) {
		wg.Go(func() {
			report := func(err error) { s.log.Warn("event not handled; it is tried again", "err", err) }
			if err := s.store.ConsumeEvents(ctx, name, report, fn); err != nil && ctx.Err() == nil {
				s.log.Error("event consumer ended", "consumer", name, "err", err)
			}
		})
	}
	consume("forge-merge-requests", s.followPushes)
	consume("forge-webhooks", s.hookEvent)
	consume("forge-notify", s.notify)
	wg.Go(func() { s.sendMails(ctx) })
	wg.Go(func() { s.sendHooks(ctx) })
	wg.Go(func() { s.runMirrors(ctx) })
	wg.Go(func() { s.writeGraphs(ctx) })
	wg.Go(func() { s.every(ctx, housekeepingEvery, s.housekeeping) })
	wg.Go(func() { s.every(ctx, maintenanceEvery, s.maintain) })
	wg.Wait()
	return ctx.Err()
}

// every runs fn at once and then at intervals until ctx ends.
func (s *Service) every(ctx context.Context, interval time.Duration, fn func(context.Context) error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("background work of the forge failed; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Service) housekeeping(ctx context.Context) error {
	return errors.Join(s.Recover(ctx), s.store.TrimDeliveries(ctx, s.now().Add(-keepHookLog)))
}

// followPushes keeps merge requests in step with their branches. It may see an
// event more than once.
func (s *Service) followPushes(ctx context.Context, e delivery.Event) error {
	switch e.Kind {
	case delivery.EventPushed:
		var v delivery.Pushed
		if err := e.Decode(&v); err != nil {
			s.log.Error("unreadable event", "event", e.ID, "err", err)
			return nil
		}
		if v.After != delivery.ZeroSHA {
			s.graphs.want(e.ProjectID)
		}
		branch, ok := strings.CutPrefix(v.Ref, "refs/heads/")
		if !ok {
			return nil
		}
		if err := s.sourceMoved(ctx, e.ProjectID, branch, v); err != nil {
			return err
		}
		return s.targetMoved(ctx, e.ProjectID, branch, v)
	case delivery.EventPipelineChanged:
		var v delivery.PipelineChanged
		if err := e.Decode(&v); err != nil {
			s.log.Error("unreadable event", "event", e.ID, "err", err)
			return nil
		}
		if v.Status == "success" || v.Status == "skipped" {
			return s.autoMerge(ctx, e.ProjectID, v.SHA)
		}
	}
	return nil
}

func (s *Service) sourceMoved(ctx context.Context, projectID int64, branch string, v delivery.Pushed) error {
	if v.After == delivery.ZeroSHA {
		return nil
	}
	open, err := s.OpenMergeRequests(ctx, projectID, branch)
	if err != nil {
		return err
	}
	for _, m := range open {
		p, err := s.store.ProjectByID(ctx, m.ProjectID)
		if err != nil {
			return err
		}
		if err := s.moveLocked(ctx, p, m.IID, v.UserID); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) moveLocked(ctx context.Context, p delivery.Project, iid, userID int64) error {
	unlock, err := s.locks.lock(ctx, p.ID)
	if err != nil {
		return err
	}
	defer unlock()
	m, err := s.store.MergeRequestByIID(ctx, p.ID, iid)
	if err != nil || m.State != "opened" {
		return ignoreMissing(err)
	}
	head, ok, err := s.sourceHead(ctx, m)
	if err != nil || !ok || head == m.HeadSHA {
		return err
	}
	_, err = s.moveHead(ctx, p, m, head, userID)
	return err
}

func ignoreMissing(err error) error {
	if delivery.IsNotFound(err) {
		return nil
	}
	return err
}

// targetMoved closes merge requests whose commits the target branch now has.
func (s *Service) targetMoved(ctx context.Context, projectID int64, branch string, v delivery.Pushed) error {
	list, _, err := s.store.MergeRequests(ctx, MergeRequestFilter{ProjectIDs: []int64{projectID}, TargetBranch: branch, State: "opened"}, 0, 0)
	if err != nil || v.After == delivery.ZeroSHA {
		return err
	}
	for _, m := range list {
		merged, err := s.IsAncestor(ctx, projectID, m.HeadSHA, v.After)
		if err != nil {
			if exitCode(err) > 0 {
				continue // a commit is gone: nothing can be said
			}
			return err
		}
		if !merged || m.HeadSHA == m.BaseSHA && v.Before != delivery.ZeroSHA && m.StartSHA == m.HeadSHA {
			continue
		}
		m.State, m.MergedAt, m.MergedByID, m.MergeCommitSHA, m.AutoMerge = "merged", s.now(), v.UserID, v.After, false
		if err := s.store.UpdateMergeRequest(ctx, m, "merge", v.UserID, ""); err != nil {
			return err
		}
		if err := s.systemNote(ctx, m, v.UserID, "merged: "+branch+" has its commits since "+v.After); err != nil {
			return err
		}
	}
	return nil
}

// autoMerge merges what waits for the pipeline of a commit.
func (s *Service) autoMerge(ctx context.Context, projectID int64, sha string) error {
	list, _, err := s.store.MergeRequests(ctx, MergeRequestFilter{ProjectIDs: []int64{projectID}, State: "opened"}, 0, 0)
	if err != nil {
		return err
	}
	for _, m := range list {
		if !m.AutoMerge || m.HeadSHA != sha {
			continue
		}
		p, err := s.store.ProjectByID(ctx, projectID)
		if err != nil {
			return ignoreMissing(err)
		}
		u, err := s.access.User(ctx, m.MergedByID)
		if err != nil {
			return ignoreMissing(err)
		}
		who := delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: u.Username}
		if _, err := s.Merge(ctx, who, p, m.IID, MergeOptions{SHA: sha}); err != nil {
			if delivery.KindOf(err) == delivery.InternalError {
				return err
			}
			s.log.Info("automatic merge not possible", "project", projectID, "request", m.IID, "why", delivery.UserMessage(err))
			m.AutoMerge, m.MergeError = false, clip(delivery.UserMessage(err), 500)
			if err := s.store.UpdateMergeRequest(ctx, m, "update", m.MergedByID, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	loosePerGC = 1000 // loose objects that make packing worth while
	packsPerGC = 25
)

// maintain packs repositories that saw pushes and writes their commit graphs,
// which make histories fast to walk.
func (s *Service) maintain(ctx context.Context) error {
	ids, err := s.store.ProjectIDs(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.Maintain(ctx, id, false); err != nil && ctx.Err() == nil {
			s.log.Warn("repository not maintained", "project", id, "err", err)
		}
	}
	return s.removeOrphans(ids)
}

// Maintain packs a repository where that is worth while, or always with force.
func (s *Service) Maintain(ctx context.Context, projectID int64, force bool) error {
	dir := s.RepositoryPath(projectID)
	stamp := filepath.Join(dir, "slipway-maintained")
	changed, err := newerThan(dir, stamp)
	if err != nil || !changed && !force {
		return err
	}
	out, err := s.git.run(ctx, dir, nil, "count-objects", "-v")
	if err != nil {
		return fmt.Errorf("forge: count objects: %w", err)
	}
	count := map[string]int{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		count[key], _ = strconv.Atoi(value)
	}
	pack := force || count["count"] > loosePerGC || count["packs"] > packsPerGC
	if pack {
		if _, err := s.git.run(ctx, dir, nil, "gc", "--quiet"); err != nil {
			return fmt.Errorf("forge: pack repository: %w", err)
		}
		s.readers.forget(dir)
	}
	if err := s.writeGraph(ctx, projectID, pack); err != nil {
		return err
	}
	return os.WriteFile(stamp, nil, 0o600)
}

// newerThan reports whether refs or packs changed since the stamp was made.
func newerThan(dir, stamp string) (bool, error) {
	info, err := os.Stat(stamp)
	if errors.Is(err, os.ErrNotExist) {
		_, err := os.Stat(dir)
		return err == nil, ignoreAbsent(err)
	}
	if err != nil {
		return false, err
	}
	for _, part := range []string{"packed-refs", "refs/heads", "refs/tags", "objects/pack", "refs"} {
		other, err := os.Stat(filepath.Join(dir, part))
		if err == nil && other.ModTime().After(info.ModTime()) {
			return true, nil
		}
	}
	return false, nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// removeOrphans deletes repositories whose project is gone.
func (s *Service) removeOrphans(ids []int64) error {
	known := map[string]bool{}
	last := int64(0)
	for _, id := range ids {
		known[s.RepositoryPath(id)] = true
		last = max(last, id)
	}
	dirs, err := filepath.Glob(filepath.Join(s.o.Root, "??", "*.git"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		id, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(dir), ".git"), 10, 64)
		// A project that is being made has a higher number than those listed.
		if err != nil || known[dir] || id >= last {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("forge: remove repository: %w", err)
		}
	}
	return nil
}

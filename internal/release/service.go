package release

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Options are what the timeline is made of. Images, Rollouts and Metrics may
// be nil; their parts are empty then.
type Options struct {
	Store     Store
	Code      Code
	Pipelines Pipelines
	Images    Images
	Rollouts  Rollouts
	Members   Members
	Metrics   Metrics
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
}

// Service keeps and assembles the timeline. It is safe for concurrent use.
type Service struct {
	store     Store
	code      Code
	pipelines Pipelines
	images    Images
	rollouts  Rollouts
	members   Members
	metrics   Metrics
	log       *slog.Logger
	now       func() time.Time

	mu           sync.Mutex // one recorder at a time
	applications map[string]known
	refreshed    map[int64]time.Time // when an attempt's analyses were read

	queueMu sync.Mutex
	queue   []func(context.Context) error
	kick    chan struct{}
}

// known is what an Application says of an environment.
type known struct {
	configProjectID int64
	environment     string
}

// New returns the timeline.
func New(o Options) *Service {
	s := &Service{
		store: o.Store, code: o.Code, pipelines: o.Pipelines, images: o.Images, rollouts: o.Rollouts, members: o.Members, metrics: o.Metrics,
		log: o.Log, now: o.Now, applications: map[string]known{}, refreshed: map[int64]time.Time{}, kick: make(chan struct{}, 1),
	}
	if s.now == nil {
		s.now = func() time.Time { return time.Now().UTC() }
	}
	return s
}

// Handle takes an event of the outbox.
func (s *Service) Handle(ctx context.Context, e delivery.Event) error {
	switch e.Kind {
	case delivery.EventPushed:
		return s.pushed(ctx, e)
	case delivery.EventProjectDeleted:
		return s.store.DeleteProject(ctx, e.ProjectID)
	}
	return nil
}

// ObserveRollout takes a change of a Rollout and returns at once; Run records
// the changes in their order.
func (s *Service) ObserveRollout(r RolloutState) {
	at := s.now()
	s.enqueue(func(ctx context.Context) error { return s.RolloutChanged(ctx, r, at) })
}

// ObserveApplication is ObserveRollout for an Application.
func (s *Service) ObserveApplication(a ApplicationState) {
	s.enqueue(func(ctx context.Context) error { return s.ApplicationChanged(ctx, a) })
}

func (s *Service) enqueue(fn func(context.Context) error) {
	s.queueMu.Lock()
	s.queue = append(s.queue, fn)
	s.queueMu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Service) next() func(context.Context) error {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	fn := s.queue[0]
	s.queue = s.queue[1:]
	return fn
}

const (
	refreshEvery = 2 * time.Second
	idleEvery    = 30 * time.Second
	tries        = 5 // to record a change; the next listing tells it again
)

// Run records what was observed and follows attempts until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	wait := time.Duration(0)
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.kick:
			timer.Stop()
		case <-timer.C:
		}
		for fn := s.next(); fn != nil; fn = s.next() {
			s.record(ctx, fn)
		}
		busy, err := s.Refresh(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("the release timeline could not follow a rollout", "err", err)
		}
		if wait = idleEvery; busy {
			wait = refreshEvery
		}
	}
}

// record tries until it is written; a component that is away comes back.
func (s *Service) record(ctx context.Context, fn func(context.Context) error) {
	for try := 1; ; try++ {
		err := fn(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if try == tries {
			s.log.Error("a change was not recorded in the release timeline", "err", err)
			return
		}
		timer := time.NewTimer(time.Duration(try) * 200 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Refresh reads the analyses of attempts that are on their way and the metrics
// of those that have ended. It reports whether there are such attempts.
func (s *Service) Refresh(ctx context.Context) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.store.Unsettled(ctx)
	if err != nil {
		return false, err
	}
	var failed error
	busy := false
	for i := range list {
		soon, err := s.follow(ctx, &list[i])
		busy = busy || soon
		failed = errors.Join(failed, err)
	}
	return busy, failed
}

package containerd

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"sync"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
)

// labelUsed is an image's time of last use, in Unix seconds.
const labelUsed = "slipway.dev/used"

// usePrecision is how exact the time of last use is: it is written to
// containerd's database.
const usePrecision = time.Hour

// sweepInterval is the time between two looks for images to remove.
const sweepInterval = time.Hour

// sweeper removes images that jobs do not use any more. The blobs of an image
// go when containerd finds that nothing refers to them.
type sweeper struct {
	executor *Executor
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex
	inUse map[string]time.Time // by name: used by this process, so not to be removed soon
}

func newSweeper(e *Executor) *sweeper {
	return &sweeper{executor: e, cancel: func() {}, inUse: map[string]time.Time{}}
}

// used notes that a job takes the image.
func (s *sweeper) used(ctx context.Context, image client.Image) {
	now := time.Now()
	s.mu.Lock()
	recent := now.Sub(s.inUse[image.Name()]) < usePrecision
	s.inUse[image.Name()] = now
	s.mu.Unlock()
	if recent {
		return
	}
	record := image.Metadata()
	record.Labels = map[string]string{labelUsed: strconv.FormatInt(now.Unix(), 10)}
	// An image that is gone meanwhile shows in what follows.
	if _, err := s.executor.client.ImageService().Update(ctx, record, "labels."+labelUsed); err != nil && !errdefs.IsNotFound(err) {
		s.executor.config.Logger.Warn("last use of an image not stored: it may be removed too early", "image", image.Name(), "err", err)
	}
}

func (s *sweeper) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.running.Go(func() {
		for {
			timer := time.NewTimer(sweepInterval)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			if _, err := s.executor.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
				s.executor.config.Logger.Warn("images of jobs not removed; tried again in an hour", "err", err)
			}
		}
	})
}

func (s *sweeper) stop() {
	s.cancel()
	s.running.Wait()
}

// Sweep removes the images of jobs that are not to be kept at the time given
// and returns their names. The executor calls it once an hour.
func (e *Executor) Sweep(ctx context.Context, now time.Time) (removed []string, err error) {
	s := e.sweeper
	images, err := e.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	type candidate struct {
		name string
		used time.Time
		size int64
	}
	var list []candidate
	var total int64
	for _, image := range images {
		size, err := image.Size(ctx)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("size of image %s: %w", image.Name(), err)
		}
		used := image.Metadata().UpdatedAt
		if seconds, err := strconv.ParseInt(image.Labels()[labelUsed], 10, 64); err == nil {
			used = time.Unix(seconds, 0)
		}
		list = append(list, candidate{image.Name(), used, size})
		total += size
	}
	sort.Slice(list, func(i, j int) bool { return list[i].used.Before(list[j].used) })
	var errs []error
	for _, one := range list {
		if now.Sub(one.used) < e.config.ImageKeep && total <= e.config.ImageBudget || s.busy(one.name, now) {
			continue
		}
		if err := e.client.ImageService().Delete(ctx, one.name); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove image %s: %w", one.name, err))
			continue
		}
		total -= one.size
		removed = append(removed, one.name)
	}
	return removed, errors.Join(errs...)
}

// busy reports whether the image was taken so recently that a job may be about
// to make a container of it.
func (s *sweeper) busy(name string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Sub(s.inUse[name]) < 2*usePrecision
}

package scan

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// kept is how many former scans of an image stay, those of jobs apart.
const kept = 2

// renewals are the images that a new database asks about again. They are
// scanned one by one while nothing else waits, so that a push never stands
// behind them. Only Run works on them.
type renewals struct {
	waiting []Scan
}

// installed returns when the present database took its place; false without
// one.
func (s *Service) installed() (time.Time, bool) {
	info, err := os.Stat(filepath.Join(s.databaseDir(), originFile))
	if err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// renewLater has every stored image looked at again: after the start, as the
// former process may have ended in the middle of it, and with a new database.
func (s *Service) renewLater() {
	s.renew.Store(true)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next returns the scan to work on: one that waits, else the renewal of a
// former one. Without any the error is of kind NotFound.
func (s *Service) next(ctx context.Context, r *renewals) (Scan, error) {
	scan, err := s.cfg.Store.Next(ctx)
	if !delivery.IsNotFound(err) {
		return scan, err
	}
	none := err
	if s.renew.Swap(false) {
		if r.waiting, err = s.outdated(ctx); err != nil {
			s.renew.Store(true)
			return Scan{}, err
		}
		if len(r.waiting) > 0 {
			s.cfg.Log.Info("scan: images are scanned again with the new database", "images", len(r.waiting))
		}
	}
	for len(r.waiting) > 0 {
		former := r.waiting[0]
		r.waiting = r.waiting[1:]
		again, err := s.Enqueue(ctx, Scan{ProjectID: former.ProjectID, Type: TypeImage, Repository: former.Repository, Digest: former.Digest, Name: former.Name})
		if err != nil {
			return Scan{}, err
		}
		if again.Status == Pending {
			return again, nil
		}
	}
	return Scan{}, none
}

// outdated lists the latest scans of the images that are still needed and were
// last looked at with a former database, or without any.
func (s *Service) outdated(ctx context.Context) ([]Scan, error) {
	installed, ok := s.installed()
	if !ok || !s.cfg.OnPush {
		return nil, nil
	}
	former, err := s.cfg.Store.Outdated(ctx, installed)
	if err != nil || len(former) == 0 {
		return nil, err
	}
	needed, err := s.cfg.Images.Needed(ctx)
	if err != nil {
		return nil, err
	}
	var out []Scan
	for _, scan := range former {
		if needed[scan.Repository+"@"+scan.Digest] {
			out = append(out, scan)
		}
	}
	return out, nil
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Emit appends an event to the outbox as part of the transaction.
func (t *Tx) Emit(kind delivery.EventKind, projectID int64, payload any) error {
	e, err := delivery.NewEvent(kind, projectID, payload)
	if err != nil {
		return err
	}
	_, err = t.Exec(`INSERT INTO events (kind, project_id, at, payload) VALUES (?, ?, ?, ?)`,
		string(e.Kind), e.ProjectID, Millis(t.Now()), string(e.Payload))
	if err != nil {
		return fmt.Errorf("store: emit %s: %w", kind, err)
	}
	t.emitted = true
	return nil
}

func (db *DB) wakeConsumers() {
	db.wakeMu.Lock()
	defer db.wakeMu.Unlock()
	close(db.wake)
	db.wake = make(chan struct{})
}

func (db *DB) wakeup() <-chan struct{} {
	db.wakeMu.Lock()
	defer db.wakeMu.Unlock()
	return db.wake
}

// Consume delivers events to fn, in order and at least once, until ctx ends;
// it then returns ctx's error. The consumer's name identifies its place in the
// stream across restarts; a new consumer starts at the oldest event kept. An
// error of fn is retried with a growing pause (100 ms to 30 s), so fn must
// return nil for events that it can never handle, after logging them. report
// receives such errors and may be nil. One consumer name may be used by one
// goroutine at a time.
func (db *DB) Consume(ctx context.Context, consumer string, report func(error), fn func(context.Context, delivery.Event) error) error {
	pause := time.Duration(0)
	for {
		wake := db.wakeup()
		events, err := db.pending(ctx, consumer)
		if err == nil {
			for _, e := range events {
				if err = fn(ctx, e); err != nil {
					err = fmt.Errorf("store: consumer %s: event %d (%s): %w", consumer, e.ID, e.Kind, err)
					break
				}
				if err = db.advance(ctx, consumer, e.ID); err != nil {
					break
				}
				pause = 0
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if report != nil {
				report(err)
			}
			pause = min(max(2*pause, 100*time.Millisecond), 30*time.Second)
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
			continue
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}

func (db *DB) pending(ctx context.Context, consumer string) ([]delivery.Event, error) {
	var events []delivery.Event
	err := db.Read(ctx, func(t *Tx) error {
		var after int64
		err := t.QueryRow(`SELECT last_event FROM event_consumers WHERE name = ?`, consumer).Scan(&after)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("store: consumer %s: %w", consumer, err)
		}
		events, err = readEvents(t, `SELECT id, kind, project_id, at, payload FROM events WHERE id > ? ORDER BY id LIMIT 100`, after)
		return err
	})
	return events, err
}

func readEvents(t *Tx, query string, args ...any) ([]delivery.Event, error) {
	events, err := Rows(t, func(r Row) (e delivery.Event, err error) {
		var kind, payload string
		var at int64
		err = r.Scan(&e.ID, &kind, &e.ProjectID, &at, &payload)
		e.Kind, e.At, e.Payload = delivery.EventKind(kind), Time(at), []byte(payload)
		return e, err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("store: read events: %w", err)
	}
	return events, nil
}

func (db *DB) advance(ctx context.Context, consumer string, id int64) error {
	return db.Write(ctx, func(t *Tx) error {
		_, err := t.Exec(`INSERT INTO event_consumers (name, last_event) VALUES (?, ?)
			ON CONFLICT (name) DO UPDATE SET last_event = excluded.last_event`, consumer, id)
		if err != nil {
			return fmt.Errorf("store: consumer %s: %w", consumer, err)
		}
		return nil
	})
}

// Follow calls fn for events that are written from now on, without a durable
// place in the stream: for live pages. It returns ctx's error, or fn's.
func (db *DB) Follow(ctx context.Context, fn func(delivery.Event) error) error {
	var last int64
	err := db.Read(ctx, func(t *Tx) error {
		return t.QueryRow(`SELECT COALESCE(MAX(id), 0) FROM events`).Scan(&last)
	})
	if err != nil {
		return fmt.Errorf("store: follow events: %w", err)
	}
	for {
		wake := db.wakeup()
		var events []delivery.Event
		err := db.Read(ctx, func(t *Tx) error {
			var err error
			events, err = readEvents(t, `SELECT id, kind, project_id, at, payload FROM events WHERE id > ? ORDER BY id LIMIT 100`, last)
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range events {
			last = e.ID
			if err := fn(e); err != nil {
				return err
			}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}

// TrimEvents deletes events that every consumer has handled and that are older
// than keep. It returns how many were deleted.
func (db *DB) TrimEvents(ctx context.Context, keep time.Duration) (int64, error) {
	var n int64
	err := db.Write(ctx, func(t *Tx) error {
		res, err := t.Exec(`DELETE FROM events WHERE at < ? AND id <= (SELECT COALESCE(MIN(last_event), 0) FROM event_consumers)`,
			Millis(t.Now().Add(-keep)))
		if err != nil {
			return fmt.Errorf("store: trim events: %w", err)
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

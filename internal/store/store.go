// Package store is the platform's embedded database: SQLite in WAL mode, with
// forward migrations, one writer with group commit, and the event outbox.
//
// It owns the database file and is, with its sub-packages, the only importer of
// database/sql. A sub-package per stage (store/forgedb, store/pipelinedb, ...)
// implements that stage's own interfaces in portable SQL. It receives changes
// and emits delivery.Event records in the same transaction.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	_ "modernc.org/sqlite" // the pure Go driver "sqlite"
)

// DB is an open database. It is safe for concurrent use.
type DB struct {
	write *sql.DB
	read  *sql.DB
	now   func() time.Time

	queue  chan *writeRequest
	done   chan struct{} // closed when the writer has ended
	closed chan struct{} // closed by Close
	once   sync.Once

	wakeMu sync.Mutex
	wake   chan struct{} // closed and replaced after every commit that emitted events
}

// Tx is a transaction. It must not be used after the function that received it
// has returned.
type Tx struct {
	ctx     context.Context
	tx      *sql.Tx
	now     time.Time
	emitted bool
	after   []func(error)
}

// Option configures Open.
type Option func(*DB)

// WithClock sets the clock that stamps events; the default is time.Now.
func WithClock(now func() time.Time) Option { return func(db *DB) { db.now = now } }

// Open opens or creates the database file and brings its schema up to date.
// The file is readable by its owner only. Migrations are those registered in
// migrations/ and run in order, each in a transaction; a database written by a
// newer version is refused with an error that says so.
func Open(ctx context.Context, path string, opts ...Option) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("store: create folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", path, err)
	}
	pragmas := "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=temp_store(memory)&_pragma=cache_size(-4096)&_time_format=sqlite"
	w, err := sql.Open("sqlite", "file:"+path+pragmas+"&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", path, err)
	}
	w.SetMaxOpenConns(1)
	r, err := sql.Open("sqlite", "file:"+path+pragmas+"&_pragma=query_only(1)")
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("store: open %s: %w", path, err)
	}
	// A connection that is thrown away is opened anew with all its settings.
	r.SetMaxOpenConns(4)
	r.SetMaxIdleConns(4)
	db := &DB{
		write: w, read: r, now: time.Now,
		queue: make(chan *writeRequest, 256), done: make(chan struct{}), closed: make(chan struct{}),
		wake: make(chan struct{}),
	}
	for _, o := range opts {
		o(db)
	}
	if err := migrate(ctx, w); err != nil {
		w.Close()
		r.Close()
		return nil, err
	}
	go db.writer()
	return db, nil
}

// Close waits for running writes and closes the database.
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		close(db.closed)
		<-db.done
		err = errors.Join(db.read.Close(), db.write.Close())
	})
	return err
}

// Read runs fn in a read transaction: a consistent snapshot.
func (db *DB) Read(ctx context.Context, fn func(*Tx) error) error {
	tx, err := db.read.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("store: begin read: %w", err)
	}
	defer tx.Rollback()
	return fn(&Tx{ctx: ctx, tx: tx, now: db.now()})
}

type writeRequest struct {
	ctx  context.Context
	fn   func(*Tx) error
	err  error
	done chan struct{}
	tx   *Tx
}

// finish reports the outcome: to the transaction's own functions first, so that
// they run before any later write.
func (req *writeRequest) finish() {
	if req.tx != nil {
		for _, fn := range req.tx.after {
			fn(req.err)
		}
	}
	close(req.done)
}

// Write runs fn in a transaction and returns once it is on disk. Concurrent
// writes share one commit; each runs in its own savepoint, so that one that
// fails takes nothing else with it. fn must not block on anything but the
// database, and must not call Write.
func (db *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	req := &writeRequest{ctx: ctx, fn: fn, done: make(chan struct{})}
	select {
	case <-db.closed:
		return &delivery.Error{Kind: delivery.Unavailable, Op: "store: write", Message: "The database is shutting down."}
	case <-ctx.Done():
		return ctx.Err()
	case db.queue <- req:
	}
	// Once queued, the write may happen: wait for its outcome whatever ctx says.
	select {
	case <-req.done:
		return req.err
	case <-db.done:
		select {
		case <-req.done:
			return req.err
		default:
			return &delivery.Error{Kind: delivery.Unavailable, Op: "store: write", Message: "The database is shutting down."}
		}
	}
}

const maxGroup = 64 // writes that share one commit at the most

func (db *DB) writer() {
	defer close(db.done)
	for {
		select {
		case req := <-db.queue:
			group := []*writeRequest{req}
			for len(group) < maxGroup {
				select {
				case more := <-db.queue:
					group = append(group, more)
					continue
				default:
				}
				break
			}
			db.commit(group)
		case <-db.closed:
			for {
				select {
				case req := <-db.queue:
					db.commit([]*writeRequest{req})
				default:
					return
				}
			}
		}
	}
}

// commit runs a group of writes in one transaction.
func (db *DB) commit(group []*writeRequest) {
	fail := func(err error) {
		for _, req := range group {
			if req.err == nil {
				req.err = err
			}
			req.finish()
		}
	}
	ctx := context.Background()
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		fail(fmt.Errorf("store: begin write: %w", describe(err)))
		return
	}
	emitted := false
	for _, req := range group {
		if req.err = req.ctx.Err(); req.err != nil {
			continue
		}
		if _, err := tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
			tx.Rollback()
			fail(fmt.Errorf("store: savepoint: %w", describe(err)))
			return
		}
		t := &Tx{ctx: ctx, tx: tx, now: db.now()}
		req.tx = t
		req.err = runSafely(req.fn, t)
		if req.err != nil {
			if _, err := tx.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
				tx.Rollback()
				fail(fmt.Errorf("store: roll back: %w", describe(err)))
				return
			}
		} else if t.emitted {
			emitted = true
		}
		if _, err := tx.ExecContext(ctx, "RELEASE one"); err != nil {
			tx.Rollback()
			fail(fmt.Errorf("store: release savepoint: %w", describe(err)))
			return
		}
	}
	if err := tx.Commit(); err != nil {
		fail(fmt.Errorf("store: commit: %w", describe(err)))
		return
	}
	for _, req := range group {
		req.finish()
	}
	if emitted {
		db.wakeConsumers()
	}
}

// runSafely turns a panic of fn into an error: the writer is shared, and one
// caller's defect must not stop everyone's writes.
func runSafely(fn func(*Tx) error, t *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: a write panicked: %v", p)
		}
	}()
	return fn(t)
}

// describe adds the next step to errors that a person can mend.
func describe(err error) error {
	if err != nil && (strings.Contains(err.Error(), "disk is full") || strings.Contains(err.Error(), "SQLITE_FULL") || strings.Contains(err.Error(), "(13)")) {
		return &delivery.Error{Kind: delivery.Unavailable, Message: "The disk is full, so nothing can be stored.", Next: "Free some space in the data directory; the platform goes on by itself.", Err: err}
	}
	return err
}

// Context returns the context that the transaction's statements run in.
func (t *Tx) Context() context.Context { return t.ctx }

// Now returns the time of the transaction, in UTC with millisecond precision.
func (t *Tx) Now() time.Time { return t.now.UTC().Truncate(time.Millisecond) }

// After registers fn to be called once with the outcome of the write: nil when
// it is on disk, or the error that undid it. It runs before any later write
// begins, so that what a caller keeps in memory can follow the database; it
// must be quick and must not use the database.
func (t *Tx) After(fn func(err error)) { t.after = append(t.after, fn) }

// Exec runs a statement.
func (t *Tx) Exec(query string, args ...any) (sql.Result, error) {
	return t.tx.ExecContext(t.ctx, query, args...)
}

// Query runs a query. The caller closes the rows.
func (t *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	return t.tx.QueryContext(t.ctx, query, args...)
}

// QueryRow runs a query of at most one row; Scan returns sql.ErrNoRows where
// there is none.
func (t *Tx) QueryRow(query string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(t.ctx, query, args...)
}

// IsUnique reports whether err says that a UNIQUE constraint was violated.
func IsUnique(err error) bool {
	return err != nil && strings.Contains(err.Error(), "UNIQUE constraint failed")
}

// Taken turns the violation of a UNIQUE constraint into an error of kind
// Conflict that names the field, and returns every other error as it is.
func Taken(err error, field string) error {
	if IsUnique(err) {
		return &delivery.Error{Kind: delivery.Conflict, Message: field + " has already been taken", Fields: map[string][]string{field: {"has already been taken"}}}
	}
	return err
}

// Like returns a pattern for a LIKE that matches s anywhere in lower case, with
// "\" as its escape.
func Like(s string) string {
	r := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
	return "%" + r.Replace(strings.ToLower(s)) + "%"
}

// Millis converts a time to the form the schema stores: milliseconds since the
// Unix epoch, and 0 for the zero time.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Time is the inverse of Millis.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

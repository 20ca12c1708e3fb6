// Package pipelinedb keeps the records of package pipeline in the platform's
// database.
//
// It owns the tables of migrations 2000 to 2999. It receives records and emits
// events into the outbox within the caller's transaction. It must not decide
// anything about pipelines: rules are package pipeline's.
package pipelinedb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/store"
)

// Store implements pipeline.Store.
type Store struct{ db *store.DB }

var _ pipeline.Store = (*Store)(nil)

// New returns the records in db.
func New(db *store.DB) *Store { return &Store{db: db} }

// View runs fn in a read transaction.
func (s *Store) View(ctx context.Context, fn func(pipeline.Tx) error) error {
	return s.db.Read(ctx, func(t *store.Tx) error { return fn(&tx{t}) })
}

// Update runs fn in a write transaction and returns once it is on disk.
func (s *Store) Update(ctx context.Context, fn func(pipeline.Tx) error) error {
	return s.db.Write(ctx, func(t *store.Tx) error { return fn(&tx{t}) })
}

// Consume delivers events; see store.DB.Consume.
func (s *Store) Consume(ctx context.Context, consumer string, report func(error), fn func(context.Context, delivery.Event) error) error {
	return s.db.Consume(ctx, consumer, report, fn)
}

// tx implements pipeline.Tx.
type tx struct{ *store.Tx }

// exec runs a statement that must succeed.
func (t *tx) exec(query string, args ...any) error {
	_, err := t.Exec(query, encode(args)...)
	if err != nil {
		return fmt.Errorf("pipelinedb: %w", err)
	}
	return nil
}

// insert runs an INSERT and returns the new row's number.
func (t *tx) insert(query string, args ...any) (int64, error) {
	res, err := t.Exec(query, encode(args)...)
	if err != nil {
		return 0, fmt.Errorf("pipelinedb: %w", err)
	}
	return res.LastInsertId()
}

// row reads one row; what names the thing in the NotFound error.
func (t *tx) row(what, query string, args []any, dest ...any) error {
	err := t.QueryRow(query, encode(args)...).Scan(decode(dest)...)
	if errors.Is(err, sql.ErrNoRows) {
		return &delivery.Error{Kind: delivery.NotFound, Message: what + " Not Found"}
	}
	if err != nil {
		return fmt.Errorf("pipelinedb: read %s: %w", strings.ToLower(what), err)
	}
	return nil
}

// rows reads all rows of a query with scan.
func rows[T any](t *tx, scan func(*T) []any, query string, args ...any) ([]T, error) {
	r, err := t.Query(query, encode(args)...)
	if err != nil {
		return nil, fmt.Errorf("pipelinedb: %w", err)
	}
	defer r.Close()
	var list []T
	for r.Next() {
		var v T
		if err := r.Scan(decode(scan(&v))...); err != nil {
			return nil, fmt.Errorf("pipelinedb: %w", err)
		}
		list = append(list, v)
	}
	return list, r.Err()
}

// encode turns Go values into what the schema stores: times into
// milliseconds, lists and structs into JSON.
func encode(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case time.Time:
			out[i] = store.Millis(v)
		case nil, string, int, int64, bool, float64, []byte, *float64:
			out[i] = v
		default:
			raw, err := json.Marshal(v)
			if err != nil {
				panic(fmt.Sprintf("pipelinedb: %T cannot be stored: %v", a, err))
			}
			out[i] = string(raw)
		}
	}
	return out
}

// decode wraps scan targets that are not plain values.
func decode(dest []any) []any {
	out := make([]any, len(dest))
	for i, d := range dest {
		switch v := d.(type) {
		case *time.Time:
			out[i] = timeScan{v}
		case sql.Scanner:
			out[i] = v
		case *string, *int, *int64, *bool, *[]byte, **float64:
			out[i] = v
		default:
			out[i] = jsonScan{v}
		}
	}
	return out
}

type timeScan struct{ to *time.Time }

func (s timeScan) Scan(src any) error {
	ms, ok := src.(int64)
	if !ok {
		return fmt.Errorf("a time is stored as %T", src)
	}
	*s.to = store.Time(ms)
	return nil
}

type jsonScan struct{ to any }

func (s jsonScan) Scan(src any) error {
	switch v := src.(type) {
	case string:
		return json.Unmarshal([]byte(v), s.to)
	case []byte:
		return json.Unmarshal(v, s.to)
	}
	return fmt.Errorf("a list is stored as %T", src)
}

// next returns the next number of a kind within a project.
func (t *tx) next(projectID int64, kind string) (int64, error) {
	var n int64
	err := t.QueryRow(`INSERT INTO pipeline_numbers (project_id, kind, last) VALUES (?, ?, 1)
		ON CONFLICT (project_id, kind) DO UPDATE SET last = last + 1 RETURNING last`, projectID, kind).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("pipelinedb: next %s: %w", kind, err)
	}
	return n, nil
}

// where collects conditions of a listing.
type where struct {
	conds []string
	args  []any
}

func (w *where) add(cond string, args ...any) {
	w.conds = append(w.conds, cond)
	w.args = append(w.args, args...)
}

func (w *where) in(column string, values []string) {
	if len(values) == 0 {
		return
	}
	marks := strings.TrimSuffix(strings.Repeat("?,", len(values)), ",")
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	w.add(column+" IN ("+marks+")", args...)
}

func (w *where) sql() string {
	if len(w.conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conds, " AND ")
}

func (t *tx) count(table string, w *where) (int, error) {
	var n int
	if err := t.QueryRow(`SELECT count(*) FROM `+table+w.sql(), encode(w.args)...).Scan(&n); err != nil {
		return 0, fmt.Errorf("pipelinedb: count %s: %w", table, err)
	}
	return n, nil
}

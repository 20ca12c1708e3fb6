package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Row is what a scan function reads: a *sql.Row, or *sql.Rows at one of them.
type Row interface{ Scan(dest ...any) error }

// Missing turns "no rows" into an error of kind NotFound that names what was
// looked for, such as "Project", and wraps any other error of the operation.
func Missing(what string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return &delivery.Error{Kind: delivery.NotFound, Message: "404 " + what + " Not Found"}
	}
	if err != nil {
		return fmt.Errorf("store: read %s: %w", strings.ToLower(what), err)
	}
	return nil
}

// Rows scans every row of a query.
func Rows[T any](t *Tx, scan func(Row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := t.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// Selection is a query of which pages are read. With (a WITH clause), Group (of
// GROUP BY), Order (of ORDER BY) and Args may be empty; Count is what count()
// takes, "*" when empty.
type Selection struct {
	With, Columns, From, Group, Order, Count string
	Args                                     []any
}

// Page reads limit rows of a selection from offset on, and how many there are in
// all; a limit of 0 reads all. Both see the same state of the database.
func Page[T any](ctx context.Context, db *DB, s Selection, limit, offset int, scan func(Row) (T, error)) (out []T, total int, err error) {
	count, query, args := s.Count, s.With+" SELECT "+s.Columns+" "+s.From, s.Args
	if count == "" {
		count = "*"
	}
	if s.Group != "" {
		query += " GROUP BY " + s.Group
	}
	if s.Order != "" {
		query += " ORDER BY " + s.Order
	}
	if limit > 0 {
		query += " LIMIT ? OFFSET ?"
		args = append(slices.Clip(args), limit, offset)
	}
	err = db.Read(ctx, func(t *Tx) error {
		if limit > 0 {
			if err := t.QueryRow(s.With+" SELECT count("+count+") "+s.From, s.Args...).Scan(&total); err != nil {
				return err
			}
		}
		out, err = Rows(t, scan, query, args...)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if limit <= 0 {
		total = len(out)
	}
	return out, total, nil
}

// Null is an id as the schema stores it: NULL for 0.
func Null(id int64) any {
	if id == 0 {
		return nil
	}
	return id
}

// GroupTree begins a query with the table below (id): the namespace that is the
// query's first argument and every group below it.
const GroupTree = `WITH RECURSIVE below (id) AS (SELECT ? UNION ALL SELECT c.id FROM namespaces c JOIN below b ON c.parent_id = b.id)`

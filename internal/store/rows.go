package store

import (
	"database/sql"
	"errors"
	"fmt"
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

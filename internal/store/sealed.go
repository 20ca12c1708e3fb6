package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/seal"
)

// SealColumns encrypts what was stored in the columns, each named
// "table.column" of a table with an id, before they were sealed. It returns how
// many values that were; the plain text then remains nowhere in the file.
func (db *DB) SealColumns(ctx context.Context, box *seal.Box, columns ...string) (int, error) {
	if err := db.checkKey(ctx, box); err != nil {
		return 0, err
	}
	n := 0
	for _, place := range columns {
		table, column, _ := strings.Cut(place, ".")
		err := db.Write(ctx, func(t *Tx) error {
			plain, err := t.unsealed(table, column)
			if err != nil {
				return err
			}
			for id, value := range plain {
				if _, err := t.Exec(`UPDATE `+table+` SET `+column+` = ? WHERE id = ?`, box.Column(place, value), id); err != nil {
					return err
				}
				n++
			}
			return nil
		})
		if err != nil {
			return n, fmt.Errorf("store: seal %s: %w", place, err)
		}
	}
	if n == 0 {
		return 0, nil
	}
	// The old values are in free pages and in the log: rewrite both.
	for _, statement := range []string{"VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"} {
		if _, err := db.write.ExecContext(ctx, statement); err != nil {
			return n, fmt.Errorf("store: %s: %w", strings.ToLower(statement), describe(err))
		}
	}
	return n, nil
}

// checkKey refuses a key that is not the database's own, before anything is
// read or written with it.
func (db *DB) checkKey(ctx context.Context, box *seal.Box) error {
	const name = "seal.check"
	return db.Write(ctx, func(t *Tx) error {
		var stored string
		err := t.QueryRow(`SELECT value FROM settings WHERE name = ?`, name).Scan(&stored)
		if errors.Is(err, sql.ErrNoRows) {
			_, err = t.Exec(`INSERT INTO settings (name, value) VALUES (?, ?)`, name, box.Column(name, "the key is right"))
			return err
		}
		if err != nil {
			return fmt.Errorf("store: check key: %w", err)
		}
		if _, err := box.OpenColumn(name, stored); err != nil {
			return &delivery.Error{Kind: delivery.Stalled, Op: "store: check key", Message: "The key of the stored secrets does not belong to this database.", Next: "Restore keys/ci.key from the backup that the database is from.", Err: err}
		}
		return nil
	})
}

func (t *Tx) unsealed(table, column string) (map[int64]string, error) {
	rows, err := t.Query(`SELECT id, ` + column + ` FROM ` + table + ` WHERE ` + column + ` <> ''`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	plain := map[int64]string{}
	for rows.Next() {
		var id int64
		var value string
		if err := rows.Scan(&id, &value); err != nil {
			return nil, err
		}
		if !seal.IsSealed(value) {
			plain[id] = value
		}
	}
	return plain, rows.Err()
}

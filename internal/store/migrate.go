package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"sort"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Migration files are named NNNN_name.sql. Each stage has a range of numbers
// (0000 core, 1000 forge, 2000 pipelines, 3000 registry, 4000 gitops and
// releases, 5000 web); files never change once released. Which files have run
// is recorded one by one, so that stages grow independently.
//
//go:embed migrations/*.sql
var migrationFiles embed.FS

type migration struct {
	version int
	name    string
	sql     string
}

func loadMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, fmt.Errorf("store: list migrations: %w", err)
	}
	var list []migration
	seen := map[int]string{}
	for _, path := range names {
		base := strings.TrimSuffix(strings.TrimPrefix(path, "migrations/"), ".sql")
		number, name, ok := strings.Cut(base, "_")
		version, err := strconv.Atoi(number)
		if !ok || err != nil {
			return nil, fmt.Errorf("store: migration %s: the name must be NNNN_name.sql", path)
		}
		if other, dup := seen[version]; dup {
			return nil, fmt.Errorf("store: migrations %s and %s have the same number", other, path)
		}
		seen[version] = path
		body, err := fs.ReadFile(files, path)
		if err != nil {
			return nil, fmt.Errorf("store: read migration %s: %w", path, err)
		}
		list = append(list, migration{version, name, string(body)})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].version < list[j].version })
	return list, nil
}

func migrate(ctx context.Context, w *sql.DB) error {
	list, err := loadMigrations(migrationFiles)
	if err != nil {
		return err
	}
	if _, err := w.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL)`); err != nil {
		return fmt.Errorf("store: migrations table: %w", describe(err))
	}
	done, err := appliedMigrations(ctx, w)
	if err != nil {
		return err
	}
	known := map[int]bool{}
	for _, m := range list {
		known[m.version] = true
	}
	for version, name := range done {
		if !known[version] {
			return &delivery.Error{Kind: delivery.Stalled, Op: "store: migrate",
				Message: fmt.Sprintf("The database was written by a newer version (migration %04d %s is unknown here).", version, name),
				Next:    "Start the version that wrote it, or a later one."}
		}
	}
	for _, m := range list {
		if _, ok := done[m.version]; ok {
			continue
		}
		tx, err := w.BeginTx(ctx, nil)
		if err != nil {
			return fmt.Errorf("store: migrate: %w", describe(err))
		}
		if _, err := tx.ExecContext(ctx, m.sql); err != nil {
			tx.Rollback()
			return fmt.Errorf("store: migration %04d_%s: %w", m.version, m.name, describe(err))
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO schema_migrations (version, name) VALUES (?, ?)`, m.version, m.name); err != nil {
			tx.Rollback()
			return fmt.Errorf("store: record migration %04d_%s: %w", m.version, m.name, err)
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("store: migration %04d_%s: %w", m.version, m.name, describe(err))
		}
	}
	return nil
}

func appliedMigrations(ctx context.Context, w *sql.DB) (map[int]string, error) {
	rows, err := w.QueryContext(ctx, `SELECT version, name FROM schema_migrations`)
	if err != nil {
		return nil, fmt.Errorf("store: read migrations: %w", err)
	}
	defer rows.Close()
	done := map[int]string{}
	for rows.Next() {
		var version int
		var name string
		if err := rows.Scan(&version, &name); err != nil {
			return nil, fmt.Errorf("store: read migrations: %w", err)
		}
		done[version] = name
	}
	return done, rows.Err()
}

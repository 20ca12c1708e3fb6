package store

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// schemaOf describes all tables and indexes of a database.
func schemaOf(t *testing.T, db *sql.DB) string {
	t.Helper()
	rows, err := db.Query(`SELECT type, name, COALESCE(sql, '') FROM sqlite_master ORDER BY type, name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var b strings.Builder
	for rows.Next() {
		var kind, name, text string
		if err := rows.Scan(&kind, &name, &text); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, kind, name, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestMigrationsFromEveryVersion brings a database that stopped at each
// earlier version up to date: the result is the same schema everywhere, and a
// second run changes nothing.
func TestMigrationsFromEveryVersion(t *testing.T) {
	t.Parallel()
	list, err := loadMigrations(migrationFiles)
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for done := 0; done <= len(list); done++ {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "slipway.db")+"?_pragma=foreign_keys(1)")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		db.SetMaxOpenConns(1)
		if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL)`); err != nil {
			t.Fatal(err)
		}
		for _, m := range list[:done] {
			if _, err := db.Exec(m.sql); err != nil {
				t.Fatalf("migration %04d_%s: %v", m.version, m.name, err)
			}
			if _, err := db.Exec(`INSERT INTO schema_migrations (version, name) VALUES (?, ?)`, m.version, m.name); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := migrate(context.Background(), db); err != nil {
				t.Fatalf("from %d migrations: %v", done, err)
			}
		}
		got := schemaOf(t, db)
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("from %d migrations the schema differs", done)
		}
		var bad int
		if err := db.QueryRow(`SELECT count(*) FROM pragma_foreign_key_check`).Scan(&bad); err != nil || bad != 0 {
			t.Errorf("from %d migrations: %d broken references (%v)", done, bad, err)
		}
	}
}

package store

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/seal"
)

// TestSealingWhatWasStoredBefore opens a database of an earlier version with
// secrets in plain text: afterwards no byte of them is in any of its files.
func TestSealingWhatWasStoredBefore(t *testing.T) {
	t.Parallel()
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "slipway.db")
	list, err := loadMigrations(migrationFiles)
	if err != nil {
		t.Fatal(err)
	}
	old, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	old.SetMaxOpenConns(1)
	if _, err := old.Exec(`CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.version >= 1010 {
			continue
		}
		if _, err := old.Exec(m.sql); err != nil {
			t.Fatal(err)
		}
		if _, err := old.Exec(`INSERT INTO schema_migrations (version, name) VALUES (?, ?)`, m.version, m.name); err != nil {
			t.Fatal(err)
		}
	}
	const secret = "plain-as-day-in-the-old-file"
	for _, s := range []string{
		`INSERT INTO users (username, username_key, name, email, email_key, totp_secret, created_at) VALUES ('ann', 'ann', 'Ann', 'a@x', 'a@x', '` + secret + `', 1)`,
		`INSERT INTO hooks (settings, token, created_at) VALUES ('{}', '` + secret + `', 1)`,
		`INSERT INTO hooks (settings, token, created_at) VALUES ('{}', '', 1)`,
	} {
		if _, err := old.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	box, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	db, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, want := range []int{2, 0} {
		if n, err := db.SealColumns(ctx, box, "users.totp_secret", "users.totp_pending", "hooks.token"); n != want || err != nil {
			t.Fatalf("%d sealed, want %d (%v)", n, want, err)
		}
	}
	if v := readColumn(t, db, box, "users.totp_secret"); v != secret {
		t.Errorf("the value is now %q", v)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		body, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(body, []byte(secret)) {
			t.Errorf("%s still holds the plain text", filepath.Base(f))
		}
	}
	other, err := seal.New(bytes.Repeat([]byte{9}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.SealColumns(ctx, other, "hooks.token"); delivery.KindOf(err) != delivery.Stalled || !strings.Contains(delivery.UserMessage(err), "key") {
		t.Errorf("another key: %v", err)
	}
}

func readColumn(t *testing.T, db *DB, box *seal.Box, place string) (v string) {
	t.Helper()
	table, column, _ := strings.Cut(place, ".")
	err := db.Read(context.Background(), func(tx *Tx) error {
		var stored string
		if err := tx.QueryRow(`SELECT ` + column + ` FROM ` + table + ` LIMIT 1`).Scan(&stored); err != nil {
			return err
		}
		var err error
		v, err = box.OpenColumn(place, stored)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

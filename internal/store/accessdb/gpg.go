package accessdb

import (
	"context"
	"strings"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/store"
)

const gpgColumns = `id, user_id, fingerprint, key_ids, emails, armored, created_at`

func scanGPG(r store.Row) (k access.GPGKey, err error) {
	var ids, emails string
	var created int64
	err = r.Scan(&k.ID, &k.UserID, &k.Fingerprint, &ids, &emails, &k.Armored, &created)
	k.KeyIDs, k.Emails, k.CreatedAt = strings.Fields(ids), strings.Fields(emails), store.Time(created)
	return k, err
}

// CreateGPGKey implements access.Store.
func (s *Store) CreateGPGKey(ctx context.Context, k access.GPGKey) (access.GPGKey, error) {
	err := s.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(`INSERT INTO gpg_keys (user_id, fingerprint, key_ids, emails, armored, created_at) VALUES (?, ?, ?, ?, ?, ?)`,
			k.UserID, k.Fingerprint, " "+strings.Join(k.KeyIDs, " ")+" ", strings.Join(k.Emails, " "), k.Armored, store.Millis(k.CreatedAt))
		if err != nil {
			return store.Taken(err, "fingerprint")
		}
		k.ID, err = res.LastInsertId()
		return err
	})
	return k, err
}

// DeleteGPGKey implements access.Store.
func (s *Store) DeleteGPGKey(ctx context.Context, id int64) error {
	return s.exec(ctx, "delete GPG key", `DELETE FROM gpg_keys WHERE id = ?`, id)
}

// GPGKeyByID implements access.Store.
func (s *Store) GPGKeyByID(ctx context.Context, id int64) (access.GPGKey, error) {
	return s.gpg(ctx, `id = ?`, id)
}

// GPGKeyByKeyID implements access.Store.
func (s *Store) GPGKeyByKeyID(ctx context.Context, keyID string) (access.GPGKey, error) {
	return s.gpg(ctx, `key_ids LIKE ? ESCAPE '\' ORDER BY id LIMIT 1`, store.Like(keyID+" "))
}

func (s *Store) gpg(ctx context.Context, where string, arg any) (k access.GPGKey, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		k, err = scanGPG(t.QueryRow(`SELECT `+gpgColumns+` FROM gpg_keys WHERE `+where, arg))
		return store.Missing("Key", err)
	})
	return k, err
}

// GPGKeys implements access.Store.
func (s *Store) GPGKeys(ctx context.Context, userID int64, limit, offset int) ([]access.GPGKey, int, error) {
	return list(ctx, s.db, gpgColumns, `FROM gpg_keys WHERE user_id = ?`, "id", []any{userID}, limit, offset, scanGPG)
}

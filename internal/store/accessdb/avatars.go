package accessdb

import (
	"context"
	"fmt"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/store"
)

// SetAvatar implements access.Store.
func (s *Store) SetAvatar(ctx context.Context, kind access.AvatarKind, id int64, a access.Avatar) error {
	if len(a.Body) == 0 {
		return s.exec(ctx, "remove avatar", `DELETE FROM avatars WHERE kind = ? AND owner_id = ?`, string(kind), id)
	}
	return s.exec(ctx, "set avatar", `INSERT INTO avatars (kind, owner_id, media_type, digest, body) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (kind, owner_id) DO UPDATE SET media_type = excluded.media_type, digest = excluded.digest, body = excluded.body`,
		string(kind), id, a.MediaType, a.Digest, a.Body)
}

// Avatar implements access.Store.
func (s *Store) Avatar(ctx context.Context, kind access.AvatarKind, id int64) (a access.Avatar, err error) {
	err = s.db.Read(ctx, func(t *store.Tx) error {
		return store.Missing("Avatar", t.QueryRow(`SELECT media_type, digest, body FROM avatars WHERE kind = ? AND owner_id = ?`, string(kind), id).Scan(&a.MediaType, &a.Digest, &a.Body))
	})
	return a, err
}

// AvatarDigests implements access.Store.
func (s *Store) AvatarDigests(ctx context.Context, fn func(kind access.AvatarKind, id int64, digest string)) error {
	return s.db.Read(ctx, func(t *store.Tx) error {
		rows, err := t.Query(`SELECT kind, owner_id, digest FROM avatars`)
		if err != nil {
			return fmt.Errorf("accessdb: avatars: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			var kind access.AvatarKind
			var id int64
			var digest string
			if err := rows.Scan(&kind, &id, &digest); err != nil {
				return fmt.Errorf("accessdb: avatars: %w", err)
			}
			fn(kind, id, digest)
		}
		return rows.Err()
	})
}

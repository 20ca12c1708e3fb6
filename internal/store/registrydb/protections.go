package registrydb

import (
	"context"
	"fmt"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/store"
)

func scanProtection(s store.Row) (registry.Protection, error) {
	var p registry.Protection
	err := s.Scan(&p.ID, &p.ProjectID, &p.Tags, &p.Pattern, &p.Push, &p.Delete, &p.Immutable)
	return p, err
}

// Protections implements registry.Index.
func (d *DB) Protections(ctx context.Context, projectID int64) ([]registry.Protection, error) {
	return list(ctx, d, "protection rules", scanProtection,
		`SELECT id, project_id, tags, pattern, push_role, delete_role, immutable FROM registry_protections WHERE project_id = ? ORDER BY id`, projectID)
}

// AddProtection implements registry.Index.
func (d *DB) AddProtection(ctx context.Context, p registry.Protection, atMost int) (int64, error) {
	var id int64
	err := d.db.Write(ctx, func(t *store.Tx) error {
		var n int
		if err := t.QueryRow(`SELECT COUNT(*) FROM registry_protections WHERE project_id = ? AND tags = ?`, p.ProjectID, p.Tags).Scan(&n); err != nil {
			return fmt.Errorf("registrydb: count protection rules: %w", err)
		}
		if atMost > 0 && n >= atMost {
			return delivery.Errorf(delivery.Conflict, "A project may have %d such rules, and has them. Delete one first, or join two patterns by |.", atMost)
		}
		res, err := t.Exec(`INSERT INTO registry_protections (project_id, tags, pattern, push_role, delete_role, immutable) VALUES (?, ?, ?, ?, ?, ?)`,
			p.ProjectID, p.Tags, p.Pattern, p.Push, p.Delete, p.Immutable)
		if err != nil {
			return store.Taken(err, registry.PatternField(p.Tags))
		}
		id, err = res.LastInsertId()
		return err
	})
	return id, err
}

// SetProtection implements registry.Index.
func (d *DB) SetProtection(ctx context.Context, p registry.Protection) error {
	return store.Taken(d.exec(ctx, "change: the protection rule does not exist", `UPDATE registry_protections SET pattern = ?, push_role = ?, delete_role = ?
		WHERE id = ? AND project_id = ? AND tags = ?`, p.Pattern, p.Push, p.Delete, p.ID, p.ProjectID, p.Tags), registry.PatternField(p.Tags))
}

// DeleteProtection implements registry.Index.
func (d *DB) DeleteProtection(ctx context.Context, projectID, id int64) error {
	return d.exec(ctx, "delete: the protection rule does not exist", `DELETE FROM registry_protections WHERE project_id = ? AND id = ?`, projectID, id)
}

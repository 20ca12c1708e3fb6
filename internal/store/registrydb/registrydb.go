// Package registrydb keeps the registry's catalogue in the platform's
// database. It implements registry.Index.
//
// It receives pushes and deletions and emits delivery.ImagePushed through the
// outbox. It must import no stage but registry, whose records it stores.
package registrydb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/store"
)

// DB is the catalogue.
type DB struct{ db *store.DB }

var _ registry.Index = (*DB)(nil)

// New returns the catalogue kept in db.
func New(db *store.DB) *DB { return &DB{db} }

// RecordPush implements registry.Index.
func (d *DB) RecordPush(ctx context.Context, image registry.Image, tag string, at time.Time) error {
	return d.db.Write(ctx, func(t *store.Tx) error {
		repoID, err := repositoryFor(t, image.Repository, image.ProjectID, at)
		if err != nil {
			return err
		}
		if err := putImage(t, repoID, image, at); err != nil {
			return err
		}
		if tag != "" {
			_, err := t.Exec(`INSERT INTO registry_tags (repository_id, name, digest, pushed_at, user_id, job_id) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest, pushed_at = excluded.pushed_at, user_id = excluded.user_id, job_id = excluded.job_id`,
				repoID, tag, image.Digest, store.Millis(at), image.UserID, image.JobID)
			if err != nil {
				return fmt.Errorf("registrydb: tag %s:%s: %w", image.Repository, tag, err)
			}
		}
		size, err := imageSize(t, repoID, image.Digest)
		if err != nil {
			return err
		}
		return t.Emit(delivery.EventImagePushed, image.ProjectID, delivery.ImagePushed{
			Repository: image.Repository, Tag: tag, Digest: image.Digest, Size: size, UserID: image.UserID, JobID: image.JobID,
		})
	})
}

func repositoryFor(t *store.Tx, path string, projectID int64, at time.Time) (int64, error) {
	_, err := t.Exec(`INSERT INTO registry_repositories (project_id, path, created_at) VALUES (?, ?, ?)
		ON CONFLICT (path) DO UPDATE SET project_id = excluded.project_id`, projectID, path, store.Millis(at))
	if err != nil {
		return 0, fmt.Errorf("registrydb: repository %s: %w", path, err)
	}
	var id int64
	if err := t.QueryRow(`SELECT id FROM registry_repositories WHERE path = ?`, path).Scan(&id); err != nil {
		return 0, fmt.Errorf("registrydb: repository %s: %w", path, err)
	}
	return id, nil
}

func putImage(t *store.Tx, repoID int64, image registry.Image, at time.Time) error {
	fail := func(err error) error {
		return fmt.Errorf("registrydb: image %s@%s: %w", image.Repository, image.Digest, err)
	}
	labels, err := json.Marshal(image.Labels)
	if err != nil {
		return fail(err)
	}
	annotations, err := json.Marshal(image.Annotations)
	if err != nil {
		return fail(err)
	}
	_, err = t.Exec(`INSERT INTO registry_images (repository_id, digest, media_type, manifest_size, artifact_type, subject, os, architecture, variant,
			created_at, labels, annotations, pushed_at, user_id, job_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (repository_id, digest) DO UPDATE SET pushed_at = excluded.pushed_at,
			user_id = CASE WHEN excluded.user_id = 0 AND excluded.job_id = 0 THEN user_id ELSE excluded.user_id END,
			job_id = CASE WHEN excluded.job_id = 0 THEN job_id ELSE excluded.job_id END`,
		repoID, image.Digest, image.MediaType, image.ManifestSize, image.ArtifactType, image.Subject, image.OS, image.Architecture, image.Variant,
		store.Millis(image.Created), string(labels), string(annotations), store.Millis(at), image.UserID, image.JobID)
	if err != nil {
		return fail(err)
	}
	var id int64
	if err := t.QueryRow(`SELECT id FROM registry_images WHERE repository_id = ? AND digest = ?`, repoID, image.Digest).Scan(&id); err != nil {
		return fail(err)
	}
	if image.JobID != 0 {
		if _, err := t.Exec(`INSERT INTO registry_image_jobs (image_id, job_id) VALUES (?, ?) ON CONFLICT DO NOTHING`, id, image.JobID); err != nil {
			return fail(err)
		}
	}
	for i, r := range image.References {
		_, err := t.Exec(`INSERT INTO registry_references (image_id, position, kind, digest, media_type, size, platform, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (image_id, position) DO NOTHING`, id, i, string(r.Kind), r.Digest, r.MediaType, r.Size, r.Platform, r.CreatedBy)
		if err != nil {
			return fail(err)
		}
	}
	return nil
}

// imageBlobs selects the distinct blobs of the image ?1 in the repository ?2
// and of the images that it lists.
const imageBlobs = `SELECT r.digest AS digest, MAX(r.size) AS size FROM registry_references r JOIN registry_images i ON i.id = r.image_id
	WHERE i.repository_id = ?2 AND r.kind <> 'manifest' AND (i.digest = ?1 OR i.digest IN (
		SELECT c.digest FROM registry_references c JOIN registry_images p ON p.id = c.image_id
		WHERE p.repository_id = ?2 AND p.digest = ?1 AND c.kind = 'manifest'))
	GROUP BY r.digest`

func imageSize(t *store.Tx, repoID int64, digest string) (int64, error) {
	var size int64
	if err := t.QueryRow(`SELECT COALESCE(SUM(size), 0) FROM (`+imageBlobs+`)`, digest, repoID).Scan(&size); err != nil {
		return 0, fmt.Errorf("registrydb: size of %s: %w", digest, err)
	}
	return size, nil
}

func (d *DB) exec(ctx context.Context, what, query string, args ...any) error {
	return d.db.Write(ctx, func(t *store.Tx) error {
		res, err := t.Exec(query, args...)
		if err != nil {
			return fmt.Errorf("registrydb: %s: %w", what, err)
		}
		if n, err := res.RowsAffected(); err == nil && n == 0 {
			return delivery.Errorf(delivery.NotFound, "There is nothing to %s.", what)
		}
		return nil
	})
}

// DeleteTag implements registry.Index.
func (d *DB) DeleteTag(ctx context.Context, repositoryID int64, tag string) error {
	return d.exec(ctx, "delete: the tag does not exist", `DELETE FROM registry_tags WHERE repository_id = ? AND name = ?`, repositoryID, tag)
}

// DeleteImage implements registry.Index.
func (d *DB) DeleteImage(ctx context.Context, repositoryID int64, digest string) error {
	return d.db.Write(ctx, func(t *store.Tx) error {
		if _, err := t.Exec(`DELETE FROM registry_tags WHERE repository_id = ? AND digest = ?`, repositoryID, digest); err != nil {
			return fmt.Errorf("registrydb: delete tags of %s: %w", digest, err)
		}
		if _, err := t.Exec(`DELETE FROM registry_images WHERE repository_id = ? AND digest = ?`, repositoryID, digest); err != nil {
			return fmt.Errorf("registrydb: delete image %s: %w", digest, err)
		}
		return nil
	})
}

// DeleteRepository implements registry.Index.
func (d *DB) DeleteRepository(ctx context.Context, repositoryID int64) error {
	return d.exec(ctx, "delete: the repository does not exist", `DELETE FROM registry_repositories WHERE id = ?`, repositoryID)
}

const selectRepository = `SELECT p.id, p.project_id, p.path, p.created_at,
	(SELECT count(*) FROM registry_tags t WHERE t.repository_id = p.id),
	(SELECT count(*) FROM registry_images i WHERE i.repository_id = p.id),
	(SELECT COALESCE(SUM(size), 0) FROM (SELECT MAX(r.size) AS size FROM registry_references r JOIN registry_images i ON i.id = r.image_id
		WHERE i.repository_id = p.id AND r.kind <> 'manifest' GROUP BY r.digest))
	FROM registry_repositories p `

func scanRepository(s store.Row) (registry.Repository, error) {
	var r registry.Repository
	var created int64
	err := s.Scan(&r.ID, &r.ProjectID, &r.Path, &created, &r.Tags, &r.Images, &r.Size)
	r.CreatedAt = store.Time(created)
	return r, err
}

// Repositories implements registry.Index.
func (d *DB) Repositories(ctx context.Context, projectID int64) ([]registry.Repository, error) {
	return list(ctx, d, "repositories", scanRepository, selectRepository+`WHERE ?1 = 0 OR p.project_id = ?1 ORDER BY p.path`, projectID)
}

// Repository implements registry.Index.
func (d *DB) Repository(ctx context.Context, id int64) (registry.Repository, error) {
	return one(ctx, d, "repository", scanRepository, selectRepository+`WHERE p.id = ?`, id)
}

// RepositoryByPath implements registry.Index.
func (d *DB) RepositoryByPath(ctx context.Context, path string) (registry.Repository, error) {
	return one(ctx, d, "repository", scanRepository, selectRepository+`WHERE p.path = ?`, path)
}

const selectTag = `SELECT t.name, t.digest, t.pushed_at, t.user_id, t.job_id,
	(SELECT COALESCE(SUM(size), 0) FROM (SELECT MAX(r.size) AS size FROM registry_references r JOIN registry_images i ON i.id = r.image_id
		WHERE i.repository_id = t.repository_id AND r.kind <> 'manifest' AND (i.digest = t.digest OR i.digest IN (
			SELECT c.digest FROM registry_references c JOIN registry_images p ON p.id = c.image_id
			WHERE p.repository_id = t.repository_id AND p.digest = t.digest AND c.kind = 'manifest')) GROUP BY r.digest))
	FROM registry_tags t `

func scanTag(s store.Row) (registry.Tag, error) {
	var t registry.Tag
	var pushed int64
	err := s.Scan(&t.Name, &t.Digest, &pushed, &t.UserID, &t.JobID, &t.Size)
	t.PushedAt = store.Time(pushed)
	return t, err
}

// Tags implements registry.Index.
func (d *DB) Tags(ctx context.Context, repositoryID int64) ([]registry.Tag, error) {
	return list(ctx, d, "tags", scanTag, selectTag+`WHERE t.repository_id = ? ORDER BY t.name`, repositoryID)
}

// Tag implements registry.Index.
func (d *DB) Tag(ctx context.Context, repositoryID int64, name string) (registry.Tag, error) {
	return one(ctx, d, "tag", scanTag, selectTag+`WHERE t.repository_id = ? AND t.name = ?`, repositoryID, name)
}

func list[T any](ctx context.Context, d *DB, what string, scan func(store.Row) (T, error), query string, args ...any) ([]T, error) {
	var out []T
	err := d.db.Read(ctx, func(t *store.Tx) error {
		var err error
		out, err = rowsOf(t, what, scan, query, args...)
		return err
	})
	return out, err
}

func rowsOf[T any](t *store.Tx, what string, scan func(store.Row) (T, error), query string, args ...any) ([]T, error) {
	out, err := store.Rows(t, scan, query, args...)
	if err != nil {
		return nil, fmt.Errorf("registrydb: list %s: %w", what, err)
	}
	return out, nil
}

func one[T any](ctx context.Context, d *DB, what string, scan func(store.Row) (T, error), query string, args ...any) (T, error) {
	var v T
	err := d.db.Read(ctx, func(t *store.Tx) error {
		var err error
		v, err = scan(t.QueryRow(query, args...))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return v, delivery.Errorf(delivery.NotFound, "The %s does not exist.", what)
	}
	if err != nil {
		return v, fmt.Errorf("registrydb: read %s: %w", what, err)
	}
	return v, nil
}

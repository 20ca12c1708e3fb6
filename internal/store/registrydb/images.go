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

const selectImage = `SELECT i.id, i.repository_id, p.project_id, p.path, i.digest, i.media_type, i.manifest_size, i.artifact_type, i.subject, i.os, i.architecture,
	i.variant, i.created_at, i.labels, i.annotations, i.pushed_at, i.user_id, i.job_id
	FROM registry_images i JOIN registry_repositories p ON p.id = i.repository_id `

type imageRow struct {
	id int64
	registry.Image
}

func scanImage(s store.Row) (imageRow, error) {
	var r imageRow
	var created, pushed int64
	var labels, annotations string
	err := s.Scan(&r.id, &r.RepositoryID, &r.ProjectID, &r.Repository, &r.Digest, &r.MediaType, &r.ManifestSize, &r.ArtifactType, &r.Subject, &r.OS,
		&r.Architecture, &r.Variant, &created, &labels, &annotations, &pushed, &r.UserID, &r.JobID)
	if err != nil {
		return r, err
	}
	r.Created, r.PushedAt = store.Time(created), store.Time(pushed)
	return r, errors.Join(json.Unmarshal([]byte(labels), &r.Labels), json.Unmarshal([]byte(annotations), &r.Annotations))
}

func scanReference(s store.Row) (registry.Descriptor, error) {
	var r registry.Descriptor
	var kind string
	err := s.Scan(&kind, &r.Digest, &r.MediaType, &r.Size, &r.Platform, &r.CreatedBy)
	r.Kind = registry.ReferenceKind(kind)
	return r, err
}

func scanText(s store.Row) (string, error) {
	var v string
	err := s.Scan(&v)
	return v, err
}

// complete reads what an image has beside its row.
func complete(t *store.Tx, r imageRow, references bool) (registry.Image, error) {
	image := r.Image
	var err error
	if image.Size, err = imageSize(t, image.RepositoryID, image.Digest); err != nil {
		return image, err
	}
	image.Tags, err = rowsOf(t, "tags of an image", scanText, `SELECT name FROM registry_tags WHERE repository_id = ? AND digest = ? ORDER BY name`, image.RepositoryID, image.Digest)
	if err != nil || !references {
		return image, err
	}
	image.References, err = rowsOf(t, "references", scanReference,
		`SELECT kind, digest, media_type, size, platform, created_by FROM registry_references WHERE image_id = ? ORDER BY position`, r.id)
	return image, err
}

// Image implements registry.Index.
func (d *DB) Image(ctx context.Context, repositoryID int64, digest string) (registry.Image, error) {
	var image registry.Image
	err := d.db.Read(ctx, func(t *store.Tx) error {
		r, err := scanImage(t.QueryRow(selectImage+`WHERE i.repository_id = ? AND i.digest = ?`, repositoryID, digest))
		if err == nil {
			image, err = complete(t, r, true)
		}
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return image, delivery.Errorf(delivery.NotFound, "The image does not exist.")
	}
	if err != nil {
		return image, fmt.Errorf("registrydb: image %s: %w", digest, err)
	}
	return image, nil
}

func (d *DB) images(ctx context.Context, references bool, query string, args ...any) ([]registry.Image, error) {
	var out []registry.Image
	err := d.db.Read(ctx, func(t *store.Tx) error {
		list, err := rowsOf(t, "images", scanImage, selectImage+query, args...)
		if err != nil {
			return err
		}
		for _, r := range list {
			image, err := complete(t, r, references)
			if err != nil {
				return err
			}
			out = append(out, image)
		}
		return nil
	})
	return out, err
}

// Images implements registry.Index.
func (d *DB) Images(ctx context.Context, repositoryID int64) ([]registry.Image, error) {
	return d.images(ctx, false, `WHERE i.repository_id = ? ORDER BY i.pushed_at DESC, i.id DESC`, repositoryID)
}

// ImagesByDigest implements registry.Index.
func (d *DB) ImagesByDigest(ctx context.Context, digest string) ([]registry.Image, error) {
	return d.images(ctx, true, `WHERE i.digest = ? ORDER BY p.path`, digest)
}

// ImagesByJobs implements registry.Index.
func (d *DB) ImagesByJobs(ctx context.Context, jobIDs []int64) ([]registry.Image, error) {
	raw, err := json.Marshal(jobIDs)
	if err != nil {
		return nil, fmt.Errorf("registrydb: images of jobs: %w", err)
	}
	return d.images(ctx, true, `WHERE i.id IN (SELECT image_id FROM registry_image_jobs WHERE job_id IN (SELECT value FROM json_each(?))) ORDER BY i.id`, string(raw))
}

// Referrers implements registry.Index.
func (d *DB) Referrers(ctx context.Context, repositoryID int64, digest string) ([]registry.Image, error) {
	return d.images(ctx, false, `WHERE i.repository_id = ? AND i.subject = ? ORDER BY i.id`, repositoryID, digest)
}

// Referenced implements registry.Index.
func (d *DB) Referenced(ctx context.Context, repositoryID int64, digest string) (bool, error) {
	return one(ctx, d, "reference", scanBool, `SELECT EXISTS (SELECT 1 FROM registry_images WHERE digest = ?2 AND (?1 = 0 OR repository_id = ?1))
		OR EXISTS (SELECT 1 FROM registry_references r JOIN registry_images i ON i.id = r.image_id WHERE r.digest = ?2 AND (?1 = 0 OR i.repository_id = ?1))`,
		repositoryID, digest)
}

func scanBool(s store.Row) (bool, error) {
	var v bool
	err := s.Scan(&v)
	return v, err
}

// Listed implements registry.Index.
func (d *DB) Listed(ctx context.Context, repositoryID int64, digest string) (bool, error) {
	return one(ctx, d, "index", scanBool, `SELECT EXISTS (SELECT 1 FROM registry_references r JOIN registry_images i ON i.id = r.image_id
		WHERE r.digest = ? AND r.kind = 'manifest' AND i.repository_id = ?)`, digest, repositoryID)
}

// ReferencedDigests implements registry.Index.
func (d *DB) ReferencedDigests(ctx context.Context) (map[string]struct{}, error) {
	list, err := list(ctx, d, "referenced digests", scanText, `SELECT digest FROM registry_images UNION SELECT digest FROM registry_references`)
	if err != nil {
		return nil, err
	}
	set := make(map[string]struct{}, len(list))
	for _, d := range list {
		set[d] = struct{}{}
	}
	return set, nil
}

func scanInt(s store.Row) (int64, error) {
	var v int64
	err := s.Scan(&v)
	return v, err
}

// ProjectSize implements registry.Index.
func (d *DB) ProjectSize(ctx context.Context, projectID int64) (int64, error) {
	return one(ctx, d, "project's size", scanInt, `SELECT COALESCE(SUM(size), 0) FROM (SELECT MAX(r.size) AS size FROM registry_references r
		JOIN registry_images i ON i.id = r.image_id JOIN registry_repositories p ON p.id = i.repository_id
		WHERE p.project_id = ? AND r.kind <> 'manifest' GROUP BY r.digest)`, projectID)
}

// Missing implements registry.Index.
func (d *DB) Missing(ctx context.Context, projectID int64, digests []string) ([]string, error) {
	raw, err := json.Marshal(digests)
	if err != nil {
		return nil, fmt.Errorf("registrydb: missing blobs: %w", err)
	}
	return list(ctx, d, "missing blobs", scanText, `SELECT j.value FROM json_each(?2) j WHERE NOT EXISTS (
		SELECT 1 FROM registry_references r JOIN registry_images i ON i.id = r.image_id JOIN registry_repositories p ON p.id = i.repository_id
		WHERE p.project_id = ?1 AND r.digest = j.value)`, projectID, string(raw))
}

func scanPolicy(s store.Row) (registry.Policy, error) {
	var p registry.Policy
	var cadence, older, next int64
	err := s.Scan(&p.ProjectID, &p.Enabled, &cadence, &p.KeepN, &older, &p.NameRegex, &p.KeepRegex, &next)
	p.Cadence, p.OlderThan, p.NextRun = time.Duration(cadence)*time.Millisecond, time.Duration(older)*time.Millisecond, store.Time(next)
	return p, err
}

const selectPolicy = `SELECT project_id, enabled, cadence, keep_n, older_than, name_regex, keep_regex, next_run_at FROM registry_policies `

// Policy implements registry.Index.
func (d *DB) Policy(ctx context.Context, projectID int64) (registry.Policy, error) {
	p, err := one(ctx, d, "policy", scanPolicy, selectPolicy+`WHERE project_id = ?`, projectID)
	if delivery.IsNotFound(err) {
		return registry.Policy{ProjectID: projectID}, nil
	}
	return p, err
}

// SetPolicy implements registry.Index.
func (d *DB) SetPolicy(ctx context.Context, p registry.Policy) error {
	return d.exec(ctx, "set", `INSERT INTO registry_policies (project_id, enabled, cadence, keep_n, older_than, name_regex, keep_regex, next_run_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (project_id) DO UPDATE SET enabled = excluded.enabled, cadence = excluded.cadence, keep_n = excluded.keep_n,
		older_than = excluded.older_than, name_regex = excluded.name_regex, keep_regex = excluded.keep_regex, next_run_at = excluded.next_run_at`,
		p.ProjectID, p.Enabled, p.Cadence.Milliseconds(), p.KeepN, p.OlderThan.Milliseconds(), p.NameRegex, p.KeepRegex, store.Millis(p.NextRun))
}

// DuePolicies implements registry.Index.
func (d *DB) DuePolicies(ctx context.Context, at time.Time) ([]registry.Policy, error) {
	return list(ctx, d, "due policies", scanPolicy, selectPolicy+`WHERE enabled AND next_run_at <= ? ORDER BY project_id`, store.Millis(at))
}

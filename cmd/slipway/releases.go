package main

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// releasesForPipelines implements pipeline.Releases: the release of a job is
// made by the forge, as the user of the job.
type releasesForPipelines struct {
	access *access.Service
	forge  *forge.Service
}

// CreateRelease implements pipeline.Releases.
func (a releasesForPipelines) CreateRelease(ctx context.Context, projectID, userID int64, r pipeline.ReleaseRequest) error {
	u, err := a.access.User(ctx, userID)
	if err != nil {
		return err
	}
	p, err := a.forge.Project(ctx, projectID)
	if err != nil {
		return err
	}
	rel := forge.Release{ProjectID: projectID, Tag: r.Tag, Name: r.Name, Description: r.Description, AuthorID: userID}
	if r.ReleasedAt != "" {
		if rel.ReleasedAt, err = time.Parse(time.RFC3339, r.ReleasedAt); err != nil {
			return delivery.Errorf(delivery.Invalid, "released_at %q is not a time such as 2026-01-31T08:00:00Z", r.ReleasedAt)
		}
	}
	for _, l := range r.Links {
		rel.Links = append(rel.Links, forge.ReleaseLink{Name: l.Name, URL: l.URL, Path: l.FilePath, LinkType: l.Type})
	}
	_, err = a.forge.CreateRelease(ctx, delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: u.Username}, p, rel, r.Ref, r.TagMessage)
	return err
}

package main

import (
	"bytes"
	"context"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// maxKustomization bounds the file that names the images, in bytes.
const maxKustomization = 1 << 20

// firstImages follows the first deployments that the pages make. A project that
// is deleted takes its deployment along. Otherwise it lets an Application go whose repository names its first image
// now: the pipeline of a project's first deployment has pushed the digest. It
// is a consumer of the outbox, so it happens also when the cluster was away.
func (p *platform) firstImages(ctx context.Context, e delivery.Event) error {
	if e.Kind == delivery.EventProjectDeleted {
		return p.displace(ctx, e.ProjectID)
	}
	project, push, ok, err := p.branchPush(ctx, e)
	if !ok {
		return err
	}
	kube, err := p.clusterClient()
	if err != nil {
		return err
	}
	return gitops.NewClient(kube).LetGo(ctx, p.forge.HTTPURL(project), func(file string) (bool, error) {
		body, err := p.forge.ReadFile(ctx, project.ID, push.After, file, maxKustomization)
		if delivery.IsNotFound(err) {
			return false, nil
		}
		return bytes.Contains(body, []byte("digest: sha256:")), err
	})
}

// displaceWithin bounds one try to take a deployment away; the next one goes on.
const displaceWithin = time.Minute

// displace takes away what was deployed from a project that was deleted.
func (p *platform) displace(ctx context.Context, projectID int64) error {
	kube, err := p.clusterClient()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, displaceWithin)
	defer cancel()
	return gitops.NewClient(kube).Displace(ctx, strconv.FormatInt(projectID, 10))
}

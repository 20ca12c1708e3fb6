package main

import (
	"context"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/release"
	"github.com/slipwayhq/slipway/internal/rollout"
)

// syncSlack is how much later than its rollout a sync may seem to begin: the
// times come from two clocks, one of which counts whole seconds.
const syncSlack = 2 * time.Second

// Revert implements release.Rollouts; the forge checks the right to push.
func (a *rolloutsForReleases) Revert(ctx context.Context, application string, by delivery.Identity, o release.Order) (string, error) {
	c, _, err := a.clients()
	if err != nil {
		return "", err
	}
	app, err := c.Get(ctx, application)
	if err != nil {
		return "", err
	}
	plan, err := gitops.PlanReversal(app, 0)
	if err != nil {
		return "", err
	}
	if at := app.SyncBegan(plan.Bad); !o.Begun.IsZero() && at.After(o.Begun.Add(syncSlack)) {
		return "", delivery.Errorf(delivery.Conflict, "Commit %s was synced after this version had begun; take the version back by hand in %s.", plan.Bad[:min(8, len(plan.Bad))], plan.RepoURL)
	}
	if o.Why != "" {
		plan.Message += "\n" + o.Why + "\n"
	}
	return a.platform.reverter().Revert(ctx, plan, by)
}

// Announce implements release.Rollouts.
func (a *rolloutsForReleases) Announce(ctx context.Context, namespace, name, reason, message string, warning bool) error {
	return a.act(func(c *rollout.Client) error { return c.Announce(ctx, namespace, name, reason, message, warning) })
}

// Person implements release.Members.
func (a membersForReleases) Person(ctx context.Context, userID int64) (delivery.Identity, error) {
	u, err := a.access.User(ctx, userID)
	if err != nil {
		return delivery.Identity{}, err
	}
	if u.Blocked {
		return delivery.Identity{Name: u.Username}, delivery.Errorf(delivery.Forbidden, "The account %s is blocked, in whose name reverts are made.", u.Username)
	}
	return delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: u.Username}, nil
}

// Audit implements release.Members.
func (a membersForReleases) Audit(ctx context.Context, who delivery.Identity, action string, p delivery.Project, details string) {
	a.access.Audit(ctx, who, action, "project", p.ID, p.FullPath, details)
}

package release

import (
	"context"
	"slices"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Actions on a deployment.
const (
	ActPromote     = "promote"      // end the current pause or step
	ActPromoteFull = "promote_full" // skip everything that remains
	ActAbort       = "abort"
	ActRetry       = "retry"
	ActRevert      = "revert" // commit the state before into the GitOps repository
)

// Act does an action on the deployment of a commit in an environment and says
// what happened. The caller needs the role Developer in the project and, where
// it is on this platform, in the GitOps repository: who may change it by a
// commit may change it here. It is a Conflict where the action does not fit
// the deployment's state any more.
func (s *Service) Act(ctx context.Context, who delivery.Identity, p delivery.Project, sha, environment, action string) (string, error) {
	if s.rollouts == nil {
		return "", delivery.Errorf(delivery.Unavailable, "There is no cluster on this platform.")
	}
	list, err := s.deployments(ctx, p, sha)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(list, func(d Deployment) bool { return d.Environment == environment })
	if i < 0 {
		return "", delivery.Errorf(delivery.NotFound, "Commit %s was not deployed to %s.", short(sha), environment)
	}
	d := list[i]
	if err := s.mayAct(ctx, who, p, d); err != nil {
		return "", err
	}
	if !slices.Contains(d.Actions, action) {
		return "", delivery.Errorf(delivery.Conflict, "%s is not possible now: look at the state of %s again.", action, environment)
	}
	switch action {
	case ActPromote:
		return "Promoted: the rollout goes on.", s.rollouts.Promote(ctx, d.Namespace, d.Rollout)
	case ActPromoteFull:
		return "Promoted fully: all users get this version.", s.rollouts.PromoteFull(ctx, d.Namespace, d.Rollout)
	case ActAbort:
		return "Aborted: all users go back to the version before. Git still asks for this one.", s.rollouts.Abort(ctx, d.Namespace, d.Rollout)
	case ActRetry:
		return "The rollout starts again from its first step.", s.rollouts.Retry(ctx, d.Namespace, d.Rollout)
	}
	return s.revert(ctx, who, d.Namespace, d.Rollout, sha)
}

func (s *Service) mayAct(ctx context.Context, who delivery.Identity, p delivery.Project, d Deployment) error {
	projects := []int64{p.ID}
	environments, err := s.store.Environments(ctx, p.ID)
	if err != nil {
		return err
	}
	for _, e := range environments {
		if e.Namespace == d.Namespace && e.Rollout == d.Rollout && e.ConfigProjectID != 0 {
			projects = append(projects, e.ConfigProjectID)
		}
	}
	for _, id := range projects {
		role, err := s.members.RoleIn(ctx, who, id)
		if err != nil {
			return err
		}
		if role < delivery.Developer {
			return delivery.Errorf(delivery.Forbidden, "This needs the role developer in the project and in the repository that declares %s.", d.Environment)
		}
	}
	return nil
}

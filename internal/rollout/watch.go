package rollout

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/kubewatch"
)

// Change is a step in a Rollout's life. Before is nil for one that was not
// known, After nil for one that is gone.
type Change struct {
	Before, After *Rollout
}

// Aborted reports whether this change is the abort itself: by a user, or by
// the controller after a failed analysis.
func (c Change) Aborted() bool {
	return c.After != nil && c.After.Aborted && (c.Before == nil || !c.Before.Aborted)
}

// Event returns what the platform records of the change, and false when
// nothing that it records has changed.
func (c Change) Event() (delivery.RolloutChanged, bool) {
	if c.After == nil {
		return delivery.RolloutChanged{Namespace: c.Before.Namespace, Name: c.Before.Name, Phase: "Missing"}, true
	}
	after := summary(c.After)
	if c.Before != nil && summary(c.Before) == after {
		return after, false
	}
	return after, true
}

func summary(r *Rollout) delivery.RolloutChanged {
	e := delivery.RolloutChanged{
		Namespace: r.Namespace, Name: r.Name, Phase: r.Phase, Message: r.Message,
		Step: int32(r.Step), Weight: r.Weight, Aborted: r.Aborted,
	}
	if len(r.Images) > 0 {
		e.Image = r.Images[0]
	}
	return e
}

// Watch tells every change in all namespaces until ctx ends, beginning with
// each existing Rollout (Before nil). It reconnects and lists again by itself,
// so changes during an outage are told as one step; retry waits between two
// tries (nil: one second). The callback runs on one goroutine and should be
// quick.
func (c *Client) Watch(ctx context.Context, retry func(context.Context) error, tell func(Change)) error {
	f := kubewatch.Follower[Rollout]{
		Resource: c.kube.Resource(Resource), Retry: retry,
		Decode: func(u *unstructured.Unstructured) (*Rollout, error) {
			ro, err := decode(u)
			if err != nil {
				return nil, err
			}
			if err := c.fillTemplate(ctx, ro); err != nil {
				return nil, err
			}
			return convert(ro), nil
		},
		Tell: func(before, after *Rollout) { tell(Change{before, after}) },
	}
	f.Run(ctx)
	return nil
}

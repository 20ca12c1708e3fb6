package rollout

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/slipwayhq/slipway/internal/delivery"
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
	if retry == nil {
		retry = func(ctx context.Context) error { return sleep(ctx, time.Second) }
	}
	known := map[string]*Rollout{}
	for {
		if err := c.watchOnce(ctx, known, tell); err != nil && ctx.Err() != nil {
			return nil
		}
		if retry(ctx) != nil {
			return nil
		}
	}
}

func (c *Client) watchOnce(ctx context.Context, known map[string]*Rollout, tell func(Change)) error {
	all := c.kube.Resource(Resource)
	list, err := all.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range list.Items {
		seen[key(&list.Items[i])] = true
		if err := update(known, &list.Items[i], tell); err != nil {
			return err
		}
	}
	for k, r := range known {
		if !seen[k] {
			delete(known, k)
			tell(Change{Before: r})
		}
	}
	w, err := all.Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.ResultChan():
			u, isObject := e.Object.(*unstructured.Unstructured)
			if !ok || !isObject {
				return nil // the server ended the watch, or told an error: list again
			}
			switch e.Type {
			case watch.Deleted:
				before := known[key(u)]
				delete(known, key(u))
				if before != nil {
					tell(Change{Before: before})
				}
			case watch.Added, watch.Modified:
				if err := update(known, u, tell); err != nil {
					return err
				}
			default:
				return nil
			}
		}
	}
}

func key(u *unstructured.Unstructured) string { return u.GetNamespace() + "/" + u.GetName() }

func update(known map[string]*Rollout, u *unstructured.Unstructured, tell func(Change)) error {
	ro, err := decode(u)
	if err != nil {
		return err
	}
	r := convert(ro)
	before := known[key(u)]
	known[key(u)] = r
	tell(Change{Before: before, After: r})
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

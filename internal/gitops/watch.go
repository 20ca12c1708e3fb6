package gitops

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Change is a step in an Application's life. Before is nil for one that was
// not known, After nil for one that is gone.
type Change struct {
	Before, After *Application
}

// Event returns what the platform records of the change, and false when
// nothing that it records has changed.
func (c Change) Event() (delivery.ApplicationChanged, bool) {
	if c.After == nil {
		b := c.Before
		return delivery.ApplicationChanged{Namespace: b.Destination.Namespace, Name: b.Name, Health: "Missing", Sync: "Unknown"}, true
	}
	after := summary(c.After)
	if c.Before != nil && summary(c.Before) == after {
		return after, false
	}
	return after, true
}

func summary(a *Application) delivery.ApplicationChanged {
	return delivery.ApplicationChanged{
		Namespace: a.Destination.Namespace, Name: a.Name,
		Sync: a.Sync.Status, Health: a.Health.Status, Revision: a.Sync.Revision,
	}
}

// Watch tells every change until ctx ends, beginning with each existing
// Application (Before nil). It reconnects and lists again by itself, so a
// change during an outage is told as one step; retry waits between two tries
// (nil: one second). The callback runs on one goroutine and should be quick.
func (c *Client) Watch(ctx context.Context, retry func(context.Context) error, tell func(Change)) error {
	if retry == nil {
		retry = func(ctx context.Context) error { return sleep(ctx, time.Second) }
	}
	known := map[string]*Application{}
	for {
		if err := c.watchOnce(ctx, known, tell); err != nil && ctx.Err() != nil {
			return nil
		}
		if retry(ctx) != nil {
			return nil
		}
	}
}

func (c *Client) watchOnce(ctx context.Context, known map[string]*Application, tell func(Change)) error {
	list, err := c.applications().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range list.Items {
		seen[list.Items[i].GetName()] = true
		if err := update(known, &list.Items[i], tell); err != nil {
			return err
		}
	}
	for name, a := range known {
		if !seen[name] {
			delete(known, name)
			tell(Change{Before: a})
		}
	}
	w, err := c.applications().Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
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
				before := known[u.GetName()]
				delete(known, u.GetName())
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

func update(known map[string]*Application, u *unstructured.Unstructured, tell func(Change)) error {
	a, err := decode(u)
	if err != nil {
		return err
	}
	before := known[a.Name]
	known[a.Name] = a
	tell(Change{Before: before, After: a})
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

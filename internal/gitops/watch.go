package gitops

import (
	"context"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/kubewatch"
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
	f := kubewatch.Follower[Application]{
		Resource: c.applications(), Decode: decode, Retry: retry,
		Tell: func(before, after *Application) { tell(Change{before, after}) },
	}
	f.Run(ctx)
	return nil
}

// Package kubewatch follows the objects of one Kubernetes resource.
//
// It owns the list-and-watch loop that the stages share. It receives a resource
// of the dynamic client and a decoder, and tells each change of each object. It
// imports no stage and keeps nothing beyond a call.
package kubewatch

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

// Resource is the part of dynamic.ResourceInterface that is followed.
type Resource interface {
	List(ctx context.Context, opts metav1.ListOptions) (*unstructured.UnstructuredList, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// Follower follows one resource; T is what an object is decoded to. Its fields
// are set once, before Run.
type Follower[T any] struct {
	Resource Resource
	Decode   func(*unstructured.Unstructured) (*T, error)
	// Tell is called for each change on the goroutine of Run, and should be
	// quick. before is nil for an object that was not known, after for one that
	// is gone.
	Tell func(before, after *T)
	// Listed, where set, is called after each list: what was told is complete.
	Listed func()
	// Lost, where set, is told why following was interrupted; nil when the
	// server ended the watch.
	Lost func(error)
	// Retry waits between two tries; nil means one second. An error ends Run.
	Retry func(context.Context) error
}

// Run tells every change until ctx ends, beginning with each existing object.
// It reconnects and lists again by itself, so changes during an outage are told
// as one step. An object that cannot be decoded interrupts following.
func (f *Follower[T]) Run(ctx context.Context) {
	retry := f.Retry
	if retry == nil {
		retry = func(ctx context.Context) error { return Pause(ctx, time.Second) }
	}
	known := map[string]*T{}
	for ctx.Err() == nil {
		err := f.once(ctx, known)
		if ctx.Err() != nil {
			return
		}
		if f.Lost != nil {
			f.Lost(err)
		}
		if retry(ctx) != nil {
			return
		}
	}
}

func (f *Follower[T]) once(ctx context.Context, known map[string]*T) error {
	list, err := f.Resource.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range list.Items {
		seen[key(&list.Items[i])] = true
		if err := f.update(known, &list.Items[i]); err != nil {
			return err
		}
	}
	for k := range known {
		if !seen[k] {
			f.forget(known, k)
		}
	}
	if f.Listed != nil {
		f.Listed()
	}
	w, err := f.Resource.Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		return err
	}
	defer w.Stop()
	return f.events(ctx, known, w.ResultChan())
}

// events returns nil when the server ended the watch or told an error.
func (f *Follower[T]) events(ctx context.Context, known map[string]*T, events <-chan watch.Event) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-events:
			u, isObject := e.Object.(*unstructured.Unstructured)
			if !ok || !isObject {
				return nil
			}
			switch e.Type {
			case watch.Deleted:
				f.forget(known, key(u))
			case watch.Added, watch.Modified:
				if err := f.update(known, u); err != nil {
					return err
				}
			default:
				return nil
			}
		}
	}
}

func (f *Follower[T]) update(known map[string]*T, u *unstructured.Unstructured) error {
	after, err := f.Decode(u)
	if err != nil {
		return err
	}
	before := known[key(u)]
	known[key(u)] = after
	f.Tell(before, after)
	return nil
}

func (f *Follower[T]) forget(known map[string]*T, k string) {
	before := known[k]
	delete(known, k)
	if before != nil {
		f.Tell(before, nil)
	}
}

func key(u *unstructured.Unstructured) string { return u.GetNamespace() + "/" + u.GetName() }

// Pause waits, or returns the error of a context that ends before.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

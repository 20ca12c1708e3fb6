package kubewatch_test

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/slipwayhq/slipway/internal/kubewatch"
)

// server answers lists in order, and watches with what the test sends.
type server struct {
	lists  chan []string // names; nil is an error
	events chan watch.Interface
}

func object(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": name}}}
}

func (s *server) List(ctx context.Context, _ metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	select {
	case names := <-s.lists:
		if names == nil {
			return nil, errors.New("away")
		}
		l := &unstructured.UnstructuredList{}
		for _, n := range names {
			l.Items = append(l.Items, *object(n))
		}
		return l, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *server) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return <-s.events, nil
}

// What happens while the server is away is told as one step when it is back.
func TestFollower(t *testing.T) {
	t.Parallel()
	s := &server{lists: make(chan []string, 3), events: make(chan watch.Interface, 2)}
	first, second := watch.NewFake(), watch.NewFake()
	s.lists <- []string{"a", "b"}
	s.lists <- nil
	s.lists <- []string{"b", "c"}
	s.events <- first
	s.events <- second
	told, listed := make(chan string, 10), 0
	name := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := kubewatch.Follower[string]{
		Resource: s, Listed: func() { listed++ },
		Decode: func(u *unstructured.Unstructured) (*string, error) { n := u.GetName(); return &n, nil },
		Tell:   func(before, after *string) { told <- name(before) + ">" + name(after) },
		Lost:   func(err error) { told <- "lost" },
		Retry:  func(context.Context) error { return nil },
	}
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			select {
			case got := <-told:
				if got != w {
					t.Fatalf("told %s, want %s", got, w)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("not told: %s", w)
			}
		}
	}
	expect("->a", "->b")
	first.Modify(object("a"))
	expect("a>a")
	first.Stop()
	expect("lost", "lost", "b>b", "->c", "a>-")
	second.Delete(object("c"))
	expect("c>-")
	cancel()
	<-done
	if listed != 2 {
		t.Errorf("%d complete lists, want 2", listed)
	}
}

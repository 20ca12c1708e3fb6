package metrics

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"
)

// eventTimeout bounds the writing of one event; longestEvent is what the API
// takes as its message.
const (
	eventTimeout = 5 * time.Second
	longestEvent = 1000
)

// tell writes what is wrong with monitors and rules to the objects' events,
// once each, where kubectl describe shows it.
func (s *session) tell(ctx context.Context) {
	now := map[Problem]bool{}
	for _, p := range s.c.m.Problems() {
		now[p] = true
		if s.told[p] {
			continue
		}
		if err := s.event(ctx, p); err != nil {
			s.c.m.log.Warn("a monitor's problem was not written to its events", "object", p.Object, "err", err)
		}
	}
	s.told = now
}

func (s *session) event(ctx context.Context, p Problem) error {
	kind, key, _ := strings.Cut(p.Object, " ")
	informer, ok := s.monitors[strings.ToLower(kind)+"s"]
	if !ok {
		return nil // of no object
	}
	o, found, err := informer.GetStore().GetByKey(key)
	if err != nil || !found {
		return err
	}
	u := o.(*unstructured.Unstructured)
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	message := p.Message
	if len(message) > longestEvent {
		message = message[:longestEvent] + "…"
	}
	at := metav1.Now()
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	_, err = s.client.CoreV1().Events(namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x", name, at.UnixNano())},
		InvolvedObject: corev1.ObjectReference{APIVersion: u.GetAPIVersion(), Kind: kind, Namespace: namespace, Name: name, UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()},
		Reason:         "NotHonoured", Message: message, Type: corev1.EventTypeWarning, Count: 1, FirstTimestamp: at, LastTimestamp: at,
		Source: corev1.EventSource{Component: "slipway-metrics"},
	}, metav1.CreateOptions{})
	if apierrors.IsForbidden(err) {
		return nil // the namespace is going away
	}
	return err
}

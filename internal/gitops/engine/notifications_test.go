package engine

import "testing"

// The controller starts when there is a setting, however often that changes.
func TestNotificationsAreConfigured(t *testing.T) {
	t.Parallel()
	n := notifications{configured: make(chan struct{})}
	n.tell(notificationsConfig, nil)
	n.tell("argocd-cm", map[string]string{"url": "x"})
	select {
	case <-n.configured:
		t.Error("configured without a setting")
	default:
	}
	n.tell(notificationsConfig, map[string]string{"service.webhook.hook": "url: x"})
	n.tell(notificationsConfig, map[string]string{"service.webhook.hook": "url: y"})
	select {
	case <-n.configured:
	default:
		t.Error("not configured by a setting")
	}
}

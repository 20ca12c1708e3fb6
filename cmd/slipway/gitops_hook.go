package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/supervise"
)

// gitopsHook tells Argo CD of every push to a branch, at once: syncs start
// without polling. It is a consumer of the outbox, so a push is told even when
// Argo CD or this process was away in between.
func (p *platform) gitopsHook(ctx context.Context) error {
	socket := filepath.Join(p.dir.Run(), "slipway-gitops.health.sock")
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	report := func(err error) { p.log.Warn("Argo CD was not told of a push; trying again", "err", err) }
	return p.db.Consume(ctx, "gitops-push-hook", report, func(ctx context.Context, e delivery.Event) error {
		if e.Kind != delivery.EventPushed {
			return nil
		}
		var push delivery.Pushed
		if err := e.Decode(&push); err != nil {
			p.log.Error("a push event cannot be read", "event", e.ID, "err", err)
			return nil
		}
		if !strings.HasPrefix(push.Ref, "refs/heads/") || push.After == delivery.ZeroSHA {
			return nil
		}
		body, err := p.pushHookBody(ctx, e.ProjectID, push)
		if delivery.IsNotFound(err) {
			return nil // deleted meanwhile
		}
		if err != nil {
			return err
		}
		secret, err := readSecret(filepath.Join(p.dir.Run(), "gitops.webhook"))
		if err != nil {
			return err
		}
		return postHook(ctx, client, secret, body)
	})
}

func (p *platform) pushHookBody(ctx context.Context, projectID int64, push delivery.Pushed) ([]byte, error) {
	project, err := p.forge.Project(ctx, projectID)
	if err != nil {
		return nil, err
	}
	// Argo CD skips Applications whose paths are not among the changed files.
	body, _, err := p.forge.PushHook(ctx, project, push)
	return body, err
}

func postHook(ctx context.Context, client *http.Client, secret string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://argocd/api/webhook", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Gitlab-Event", "Push Hook")
	req.Header.Set("X-Gitlab-Token", secret)
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("push hook: %w", err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode/100 == 4:
		return fmt.Errorf("push hook: refused with %s", resp.Status)
	}
	return errors.New("push hook: " + resp.Status)
}

func (p *platform) hookComponents(context.Context) ([]supervise.Component, error) {
	if !p.GitOps.Enabled {
		return nil, nil
	}
	run := func(ctx context.Context) error {
		return together(ctx, p.gitopsHook, p.consume("first-images", p.firstImages))
	}
	return []supervise.Component{{Name: "gitops-hook", After: []string{"slipway-gitops"}, Unit: supervise.Func{RunFunc: run}}}, nil
}

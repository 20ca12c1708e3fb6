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
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/kubewatch"
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
	var confirming sync.WaitGroup
	defer confirming.Wait()
	report := func(err error) { p.log.Warn("Argo CD was not told of a push; trying again", "err", err) }
	return p.db.Consume(ctx, "gitops-push-hook", report, func(ctx context.Context, e delivery.Event) error {
		project, push, ok, err := p.branchPush(ctx, e)
		if !ok {
			return err
		}
		// Argo CD skips Applications whose paths are not among the changed files.
		body, _, err := p.forge.PushHook(ctx, project, push)
		if delivery.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		secret, err := readSecret(filepath.Join(p.dir.Run(), "gitops.webhook"))
		if err != nil {
			return err
		}
		if err := postHook(ctx, client, secret, body); err != nil {
			return err
		}
		confirming.Go(func() { p.confirmPush(ctx, project, push) })
		return nil
	})
}

// branchPush returns what an event pushed to a branch of a project; ok is false
// where it tells of something else, of a deleted branch or project, or of a
// failure.
func (p *platform) branchPush(ctx context.Context, e delivery.Event) (project delivery.Project, push delivery.Pushed, ok bool, err error) {
	if e.Kind != delivery.EventPushed {
		return project, push, false, nil
	}
	if err := e.Decode(&push); err != nil {
		p.log.Error("a push event cannot be read", "event", e.ID, "err", err)
		return project, push, false, nil
	}
	if !strings.HasPrefix(push.Ref, "refs/heads/") || push.After == delivery.ZeroSHA {
		return project, push, false, nil
	}
	project, err = p.forge.Project(ctx, e.ProjectID)
	if delivery.IsNotFound(err) {
		return project, push, false, nil // deleted meanwhile
	}
	return project, push, err == nil, err
}

// confirmPush sees to it that the Applications that follow the branch have been
// compared with the commit, and asks again for those that have not.
func (p *platform) confirmPush(ctx context.Context, project delivery.Project, push delivery.Pushed) {
	branch := strings.TrimPrefix(push.Ref, "refs/heads/")
	pushed := gitops.Push{ForgeURL: p.ExternalURL, Project: project.FullPath, Branch: branch, Default: branch == project.DefaultBranch, Commit: push.After}
	for _, wait := range []time.Duration{1500 * time.Millisecond, 3 * time.Second, 10 * time.Second} {
		if kubewatch.Pause(ctx, wait) != nil {
			return
		}
		apps, _ := p.applications.List()
		behind := pushed.Behind(apps)
		if len(behind) == 0 {
			return
		}
		if head, err := p.forge.Branch(ctx, project, branch); err != nil || head.SHA != push.After {
			return // a later push is told by itself
		}
		kube, err := p.clusterClient()
		if err != nil {
			p.log.Warn("Argo CD could not be asked again to look at a push", "project", project.FullPath, "err", err)
			continue
		}
		for _, name := range behind {
			p.log.Info("Argo CD has not looked at a push yet and is asked again", "application", name, "commit", push.After)
			if err := gitops.NewClient(kube).RefreshPushed(ctx, name, push.After); err != nil && !delivery.IsNotFound(err) {
				p.log.Warn("Argo CD could not be asked again to look at a push", "application", name, "err", err)
			}
		}
	}
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

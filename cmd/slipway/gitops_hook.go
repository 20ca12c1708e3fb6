package main

import (
	"bytes"
	"context"
	"encoding/json"
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

// pushHook is the part of GitLab's push payload that Argo CD reads
// (doc/user/project/integrations/webhook_events.md, "Push events").
type pushHook struct {
	ObjectKind string       `json:"object_kind"`
	EventName  string       `json:"event_name"`
	Ref        string       `json:"ref"`
	Before     string       `json:"before"`
	After      string       `json:"after"`
	Project    hookProject  `json:"project"`
	Commits    []hookCommit `json:"commits"`
}

type hookProject struct {
	ID            int64  `json:"id"`
	WebURL        string `json:"web_url"`
	GitHTTPURL    string `json:"git_http_url"`
	GitSSHURL     string `json:"git_ssh_url"`
	DefaultBranch string `json:"default_branch"`
}

type hookCommit struct {
	ID       string   `json:"id"`
	Added    []string `json:"added"`
	Modified []string `json:"modified"`
	Removed  []string `json:"removed"`
}

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
	hook := pushHook{
		ObjectKind: "push", EventName: "push", Ref: push.Ref, Before: push.Before, After: push.After,
		Project: hookProject{ID: project.ID, WebURL: p.forge.WebURL(project), GitHTTPURL: p.forge.HTTPURL(project), GitSSHURL: p.forge.SSHURL(project), DefaultBranch: project.DefaultBranch},
	}
	// Argo CD skips Applications whose paths are not among the changed files,
	// so the files of the whole push are listed, on its last commit.
	commit := hookCommit{ID: push.After, Added: []string{}, Modified: []string{}, Removed: []string{}}
	if push.Before != delivery.ZeroSHA {
		changes, err := p.forge.ChangedFiles(ctx, projectID, push.Before, push.After)
		if err != nil {
			return nil, err
		}
		for _, c := range changes {
			switch c.Status {
			case "added":
				commit.Added = append(commit.Added, c.NewPath)
			case "deleted":
				commit.Removed = append(commit.Removed, c.OldPath)
			case "renamed":
				commit.Added, commit.Removed = append(commit.Added, c.NewPath), append(commit.Removed, c.OldPath)
			default:
				commit.Modified = append(commit.Modified, c.NewPath)
			}
		}
		hook.Commits = []hookCommit{commit}
	}
	return json.Marshal(hook)
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
	return []supervise.Component{{Name: "gitops-hook", After: []string{"slipway-gitops"}, Unit: supervise.Func{RunFunc: p.gitopsHook}}}, nil
}

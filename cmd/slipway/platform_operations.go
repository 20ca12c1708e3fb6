package main

import (
	"bytes"
	"os"
	"sync"

	"k8s.io/client-go/dynamic"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/rollout"
	"github.com/slipwayhq/slipway/internal/web"
)

// operations gives the pages access to Argo CD and Argo Rollouts; nil where
// they do not run.
func (p *platform) operations() *web.Operations {
	if !p.GitOps.Enabled {
		return nil
	}
	cfg, err := p.gitopsConfig()
	if err != nil {
		p.log.Error("the pages of applications are missing", "err", err)
		return nil
	}
	return &web.Operations{
		Server: gitops.NewServer(cfg.API), Mirror: &p.applications, Reverter: p.reverter(), Token: peopleForSignOn{p}.Mint,
		Apps: func() (*gitops.Client, error) {
			kube, err := p.clusterClient()
			if err != nil {
				return nil, err
			}
			return gitops.NewClient(kube), nil
		},
		Rollouts: func() (*rollout.Client, error) {
			kube, err := p.clusterClient()
			if err != nil {
				return nil, err
			}
			return rollout.NewClient(kube), nil
		},
	}
}

// clusterAccess is the one client of the cluster that this process shares.
type clusterAccess struct {
	mu         sync.Mutex
	kubeconfig []byte
	client     dynamic.Interface
}

// clusterClient returns the shared client, made anew whenever the kubeconfig
// has changed: it appears after the start, and its certificate is renewed. The
// error is of kind Unavailable while there is none.
func (p *platform) clusterClient() (dynamic.Interface, error) {
	c := &p.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	kubeconfig, err := os.ReadFile(p.dir.Kubeconfig())
	if err == nil && c.client != nil && bytes.Equal(kubeconfig, c.kubeconfig) {
		return c.client, nil
	}
	var client dynamic.Interface
	if err == nil {
		client, err = p.dynamicClient()
	}
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Unavailable, Message: "The cluster is not there yet.", Next: "See: slipway status", Err: err}
	}
	c.kubeconfig, c.client = kubeconfig, client
	return client, nil
}

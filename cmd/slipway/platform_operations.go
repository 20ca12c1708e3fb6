package main

import (
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
		Server: gitops.NewServer(cfg.API),
		Apps: func() (*gitops.Client, error) {
			kube, err := p.dynamicClient()
			if err != nil {
				return nil, clusterAway(err)
			}
			return gitops.NewClient(kube), nil
		},
		Rollouts: func() (*rollout.Client, error) {
			kube, err := p.dynamicClient()
			if err != nil {
				return nil, clusterAway(err)
			}
			return rollout.NewClient(kube), nil
		},
	}
}

func clusterAway(err error) error {
	return &delivery.Error{Kind: delivery.Unavailable, Message: "The cluster is not there yet.", Next: "See: slipway status", Err: err}
}

package main

import (
	"context"
	"io/fs"
	"net/http"

	ciTemplates "github.com/slipwayhq/slipway/gitlab-ci"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/rest"
	"github.com/slipwayhq/slipway/internal/store/pipelinedb"
	"github.com/slipwayhq/slipway/internal/supervise"
)

// openPipelines makes the CI engine and lets access validate its job tokens.
func (p *platform) openPipelines(ctx context.Context) error {
	repos := repositoriesForPipelines{p.access, p.forge}
	projects := projectsForPipelines{p.access, p.forge}
	var clusters pipeline.Clusters
	if p.Cluster.Enabled {
		clusters = clustersForPipelines{p}
	}
	e, err := pipeline.New(ctx, pipeline.Config{Clusters: clusters,
		Store: pipelinedb.New(p.db), Projects: projects, Users: projects, Repositories: repos,
		MergeRequests: p.forge, Releases: releasesForPipelines{p.access, p.forge},
		Log: p.log, Key: p.sealKey, DataDir: p.DataDir, ExternalURL: p.ExternalURL, RegistryHost: p.externalHost(),
		SSHHost: p.address, SSHPort: p.SSH.Port, Version: version, Templates: func(name string) ([]byte, error) { return fs.ReadFile(ciTemplates.Templates(), name) },
	})
	if err != nil {
		return err
	}
	p.pipelines = e
	p.access.SetJobTokens(e)
	p.forge.SetPipelines(e, e)
	p.forge.SetCISettings(projectFields{e, p})
	rest.Register(p.api, e, p.access)
	return nil
}

func (p *platform) pipelineComponents(context.Context) ([]supervise.Component, error) {
	p.pipelines.RegisterRunnerRoutes(p.mux)
	p.mux.Handle("GET /pages/", p.pipelines.ServePages(func(r *http.Request, fullPath string) (delivery.Project, error) {
		who, err := p.access.Authenticate(r)
		if err != nil {
			return delivery.Project{}, err
		}
		project, _, err := p.access.VisibleProject(r.Context(), who, fullPath)
		return project, err
	}))
	return []supervise.Component{{Name: "pipelines", Unit: supervise.Func{RunFunc: p.pipelines.Run}}}, nil
}

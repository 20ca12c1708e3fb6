package engine

import (
	"context"
	"path/filepath"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/argoproj/argo-cd/v3/reposerver"
	"github.com/argoproj/argo-cd/v3/reposerver/metrics"
	"github.com/argoproj/argo-cd/v3/reposerver/repository"

	"github.com/slipwayhq/slipway/internal/socket"
)

// Limits as upstream's flags default.
const (
	maxManifestBytes  = "10M"
	maxTarBytes       = 100e6
	maxExtractedBytes = 1e9
)

// runRepoServer serves manifest generation on a unix socket until ctx ends.
func (e *Engine) runRepoServer(ctx context.Context) error {
	creds, err := newCredentials(filepath.Join(e.config.DataDir, "askpass"), filepath.Join(e.config.DataDir, "helpers"))
	if err != nil {
		return err
	}
	ms := metrics.NewMetricsServer()
	e.metrics.put(ComponentRepoServer, ms.GetHandler())
	server, err := reposerver.NewServer(ms, e.caches.repoServer(), nil, repository.RepoServerInitConstants{
		ParallelismLimit: int64(e.params.renderLimit),
		PauseGenerationAfterFailedGenerationAttempts: 3,
		PauseGenerationOnFailureForMinutes:           60,
		SubmoduleEnabled:                             true,
		MaxCombinedDirectoryManifestsSize:            resource.MustParse(maxManifestBytes),
		StreamedManifestMaxExtractedSize:             maxExtractedBytes,
		StreamedManifestMaxTarSize:                   maxTarBytes,
		HelmManifestMaxExtractedSize:                 maxExtractedBytes,
		HelmRegistryMaxIndexSize:                     maxExtractedBytes,
		OCIManifestMaxExtractedSize:                  maxExtractedBytes,
		EnableBuiltinGitConfig:                       true,
		OCIMediaTypes: []string{
			"application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip",
			"application/vnd.cncf.helm.chart.content.v1.tar+gzip",
		},
	}, creds, "", true)
	if err != nil {
		return err
	}
	l, err := socket.Listen(e.repoSocket())
	if err != nil {
		return err
	}
	grpcServer := server.CreateGRPC()
	stop := context.AfterFunc(ctx, grpcServer.Stop)
	defer stop()
	e.reporter.Ready(ComponentRepoServer)
	return grpcServer.Serve(l)
}

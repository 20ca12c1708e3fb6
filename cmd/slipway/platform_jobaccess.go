package main

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/internal/cluster/jobaccess"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// clustersForPipelines implements pipeline.Clusters with the built-in cluster.
type clustersForPipelines struct{ *platform }

// JobAccess implements pipeline.Clusters.
func (c clustersForPipelines) JobAccess(ctx context.Context, r pipeline.ClusterRequest) (pipeline.ClusterAccess, error) {
	unavailable := func(err error) (pipeline.ClusterAccess, error) {
		return pipeline.ClusterAccess{}, &delivery.Error{Kind: delivery.Unavailable, Message: "The cluster is not there.", Next: "See: slipway status", Err: err}
	}
	client, err := c.clusterClient()
	if err != nil {
		return unavailable(err)
	}
	admin, err := clientcmd.LoadFromFile(c.dir.Kubeconfig())
	if err != nil {
		return unavailable(err)
	}
	var ca []byte
	if entry := admin.Clusters[admin.Contexts[admin.CurrentContext].Cluster]; entry != nil {
		ca = entry.CertificateAuthorityData
	}
	server := fmt.Sprintf("https://%s:%d", c.nodeIP(), c.Cluster.APIPort)
	a, err := jobaccess.For(ctx, client, server, ca, jobaccess.Request{ProjectID: r.ProjectID, ProjectPath: r.ProjectPath, Environment: r.Environment,
		Slug: r.Slug, Granted: r.Granted, Wanted: r.Wanted, Lifetime: r.Lifetime})
	var denied *jobaccess.NotGrantedError
	if errors.As(err, &denied) {
		return pipeline.ClusterAccess{}, &delivery.Error{Kind: delivery.Invalid, Err: err,
			Message: fmt.Sprintf("The environment %s may not change the namespace %s.", r.Environment, denied.Namespace),
			Next:    "An administrator grants it in the project's CI/CD settings, under General pipelines."}
	}
	if err != nil {
		return unavailable(err)
	}
	return pipeline.ClusterAccess{Kubeconfig: a.Kubeconfig, Namespace: a.Namespace, Token: a.Token}, nil
}

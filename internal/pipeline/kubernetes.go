package pipeline

import (
	"context"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// HasCluster reports whether jobs can get access to a cluster.
func (e *Engine) HasCluster() bool { return e.cfg.Clusters != nil }

// unmet marks an error of what a job needs before it can start.
type unmet struct{ error }

func (u unmet) Unwrap() error { return u.error }

// granted lists the namespaces that the settings give to a job's environment.
func (c *jobContext) granted() []string {
	var out []string
	for _, n := range c.settings.Namespaces {
		if scopeMatches(n.Environment, c.job.Environment) && (!n.Protected || c.pipeline.Protected) && !containsString(out, n.Namespace) {
			out = append(out, n.Namespace)
		}
	}
	return out
}

// addCluster adds the variables of access to the cluster, by GitLab's names
// (doc/user/project/clusters/deploy_to_cluster): for jobs whose environment has
// the keyword kubernetes, or a namespace granted.
func (e *Engine) addCluster(ctx context.Context, c *jobContext) error {
	env := c.options.Environment
	if e.cfg.Clusters == nil || env == nil || c.job.Environment == "" {
		return nil
	}
	granted := c.granted()
	if !env.Kubernetes && len(granted) == 0 {
		return nil
	}
	scope := gitlabci.Merge(plainVariables(c.predefined), c.options.Variables).Lookup()
	a, err := e.cfg.Clusters.JobAccess(ctx, ClusterRequest{
		ProjectID: c.project.ID, ProjectPath: c.project.Path, Environment: c.job.Environment, Slug: gitlabci.EnvironmentSlug(c.job.Environment),
		Granted: granted, Wanted: strings.TrimSpace(gitlabci.Expand(env.Namespace, scope)), Lifetime: time.Duration(c.job.Timeout)*time.Second + graceTime,
	})
	if err != nil {
		return unmet{err}
	}
	c.predefined = append(c.predefined,
		delivery.JobVariable{Key: "KUBECONFIG", Value: a.Kubeconfig, File: true, Raw: true},
		delivery.JobVariable{Key: "KUBE_NAMESPACE", Value: a.Namespace, Raw: true},
		delivery.JobVariable{Key: "KUBE_TOKEN", Value: a.Token, Masked: true, Raw: true})
	return nil
}

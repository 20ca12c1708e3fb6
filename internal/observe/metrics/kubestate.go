package metrics

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"k8s.io/kube-state-metrics/v2/pkg/allowdenylist"
	"k8s.io/kube-state-metrics/v2/pkg/builder"
	metricsstore "k8s.io/kube-state-metrics/v2/pkg/metrics_store"
	"k8s.io/kube-state-metrics/v2/pkg/options"

	"github.com/prometheus/client_golang/prometheus"
)

// stateResources are the kinds whose state is measured.
var stateResources = []string{
	"configmaps", "cronjobs", "daemonsets", "deployments", "endpointslices", "horizontalpodautoscalers", "ingresses", "jobs", "limitranges", "namespaces",
	"networkpolicies", "nodes", "persistentvolumeclaims", "persistentvolumes", "poddisruptionbudgets", "pods", "replicasets", "replicationcontrollers",
	"resourcequotas", "secrets", "services", "statefulsets", "storageclasses",
}

// stateDenied are families that cost much and that no common dashboard shows.
// Of ConfigMaps and Secrets only the number and the names are of use.
var stateDenied = []string{
	"kube_.+_annotations", "kube_pod_tolerations", "kube_pod_status_scheduled_time",
	"kube_pod_status_container_ready_time", "kube_pod_status_initialized_time", "kube_pod_service_account",
	"kube_pod_scheduler", "kube_pod_ips", "kube_pod_deletion_timestamp", "kube_pod_spec_volumes_.+",
	"kube_pod_container_state_started", "kube_replicaset_(labels|status_observed_generation|metadata_generation|status_fully_labeled_replicas)",
	"kube_service_(labels|created)", "kube_ingress_(labels|created)", "kube_.+_metadata_resource_version",
	"kube_configmap_(labels|created)", "kube_secret_(labels|created|owner|metadata_.+)",
	"kube_endpointslice_(labels|created|endpoints.*|ports)",
}

// stateLabels are the labels that kube_<kind>_labels show. Dashboards count
// those series, and choose by the application's name.
var stateLabels = map[string][]string{
	"pods":         {"app", "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component", "pod-template-hash", "rollouts-pod-template-hash"},
	"deployments":  {"app", "app.kubernetes.io/name", "app.kubernetes.io/instance"},
	"statefulsets": {"app", "app.kubernetes.io/name", "app.kubernetes.io/instance"},
	"daemonsets":   {"app", "app.kubernetes.io/name", "app.kubernetes.io/instance"},
	"namespaces":   {"kubernetes.io/metadata.name"},
	"nodes":        {"kubernetes.io/arch", "kubernetes.io/os", "node-role.kubernetes.io/control-plane"},
}

// kubeState is kube-state-metrics: it follows the objects of one cluster and
// keeps their metrics as text.
type kubeState struct {
	writers metricsstore.MetricsWriterList
}

func newKubeState(ctx context.Context, s *session) *kubeState {
	st, err := buildKubeState(ctx, s)
	if err != nil {
		s.c.m.log.Error("kube-state-metrics did not start; metrics kube_* are missing", "err", err)
		return nil
	}
	return st
}

func buildKubeState(ctx context.Context, s *session) (*kubeState, error) {
	denied := map[string]struct{}{}
	for _, d := range stateDenied {
		denied["^"+d+"$"] = struct{}{}
	}
	filter, err := allowdenylist.New(map[string]struct{}{}, denied)
	if err != nil {
		return nil, err
	}
	if err := filter.Parse(); err != nil {
		return nil, err
	}
	b := builder.NewBuilder()
	b.WithMetrics(prometheus.NewRegistry())
	if err := b.WithEnabledResources(stateResources); err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	b.WithKubeClient(s.client)
	b.WithNamespaces(options.DefaultNamespaces)
	b.WithSharding(0, 1)
	b.WithContext(ctx)
	b.WithFamilyGeneratorFilter(filter)
	b.WithGenerateStoresFunc(b.DefaultGenerateStoresFunc())
	b.WithGenerateCustomResourceStoresFunc(b.DefaultGenerateCustomResourceStoresFunc())
	if err := b.WithAllowLabels(stateLabels); err != nil {
		return nil, err
	}
	return &kubeState{writers: b.Build()}, nil
}

// serveKubeState answers for the cluster of the moment.
func (c *cluster) serveKubeState() {
	c.m.local.handle("kube-state-metrics", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := c.current()
		if s == nil || s.state == nil {
			http.Error(w, "the cluster has not been reached yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		var buf bytes.Buffer
		for _, writer := range s.state.writers {
			if err := writer.WriteAll(&buf); err != nil {
				c.m.log.Warn("kube-state-metrics", "resource", writer.ResourceName, "err", err)
			}
		}
		_, _ = w.Write(buf.Bytes()) // the scrape was given up
	}))
}

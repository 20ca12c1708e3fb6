package metrics

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

//go:generate go run ../../slimcrd -rules crds/rules.yaml -out crds

//go:embed crds/servicemonitors.yaml crds/podmonitors.yaml crds/prometheusrules.yaml
var crds embed.FS

// monitorResources are the kinds of the Prometheus operator that are honoured.
var monitorResources = []schema.GroupVersionResource{
	{Group: "monitoring.coreos.com", Version: "v1", Resource: "servicemonitors"},
	{Group: "monitoring.coreos.com", Version: "v1", Resource: "podmonitors"},
	{Group: "monitoring.coreos.com", Version: "v1", Resource: "prometheusrules"},
}

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// installCRDs makes the monitors' resource definitions where they are missing,
// and brings those made here up to date. Somebody else's are left alone.
func (s *session) installCRDs(ctx context.Context) error {
	files, err := fs.Glob(crds, "crds/*.yaml")
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		data, err := crds.ReadFile(f)
		if err != nil {
			return err
		}
		var u unstructured.Unstructured
		if err := yaml.Unmarshal(data, &u.Object); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		api := s.dynamic.Resource(crdResource)
		have, err := api.Get(ctx, u.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			errs = append(errs, err)
			continue
		case have.GetLabels()["app.kubernetes.io/part-of"] != "slipway":
			continue
		}
		raw, err := json.Marshal(u.Object)
		if err != nil {
			return err
		}
		force := true
		if _, err := api.Patch(ctx, u.GetName(), types.ApplyPatchType, raw, metav1.PatchOptions{FieldManager: "slipway", Force: &force}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", u.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

// monitorJobs turns the monitors into scrape configurations. A monitor that
// cannot be honoured is reported and left out.
func (s *session) monitorJobs() ([]job, []Problem) {
	if s.monitors == nil {
		return nil, nil
	}
	var jobs []job
	var problems []Problem
	collect := func(kind, resource string, convert func(*unstructured.Unstructured) ([]object, error)) {
		list := s.monitors[resource].GetStore().List()
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(objectKey(a), objectKey(b)) })
		for _, o := range list {
			u := o.(*unstructured.Unstructured)
			source := kind + " " + objectKey(o)
			configs, err := convert(u)
			if err != nil {
				problems = append(problems, Problem{Object: source, Message: err.Error()})
			}
			for _, c := range configs {
				jobs = append(jobs, job{source: source, config: c})
			}
		}
	}
	collect("ServiceMonitor", "servicemonitors", func(u *unstructured.Unstructured) ([]object, error) {
		var sm monitoringv1.ServiceMonitor
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &sm); err != nil {
			return nil, err
		}
		return s.serviceMonitor(&sm)
	})
	collect("PodMonitor", "podmonitors", func(u *unstructured.Unstructured) ([]object, error) {
		var pm monitoringv1.PodMonitor
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &pm); err != nil {
			return nil, err
		}
		return s.podMonitor(&pm)
	})
	return jobs, problems
}

func objectKey(o any) string {
	m, ok := o.(metav1.Object)
	if !ok {
		return ""
	}
	return m.GetNamespace() + "/" + m.GetName()
}

// monitor is what ServiceMonitors and PodMonitors share.
type monitor struct {
	kind, namespace, name string
	role                  string // of the discovery
	selected              string // what the selector selects: service or pod
	namespaces            monitoringv1.NamespaceSelector
	selector              metav1.LabelSelector
	attach                *monitoringv1.AttachMetadata
	podLabels             []string
	jobLabel              string
	limits                monitorLimits
}

// jobs makes one scrape configuration per endpoint, with the labels that the
// Prometheus operator gives (pkg/prometheus/promcfg.go). Endpoint i keeps its
// port and tells its options; the labels of the object come after the pod's.
func (s *session) jobs(m monitor, endpoints int, endpoint func(i int) (port []object, own []object, label string, o endpointOptions)) ([]object, error) {
	sel, err := selector(m.selected, m.selector)
	if err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	var out []object
	var errs []error
	for i := range endpoints {
		port, own, label, opts := endpoint(i)
		relabel := append(namespaces(m.namespace, m.namespaces), sel...)
		relabel = append(relabel, port...)
		relabel = append(relabel, own...)
		relabel = append(relabel, revisionLabels()...)
		for _, l := range m.podLabels {
			relabel = append(relabel, setLabel(labelName(l), "(.+)", "$1", "__meta_kubernetes_pod_label_"+labelName(l)))
		}
		if m.jobLabel != "" {
			relabel = append(relabel, setLabel("job", "(.+)", "$1", "__meta_kubernetes_"+m.selected+"_label_"+labelName(m.jobLabel)))
		}
		if label != "" {
			relabel = append(relabel, object{"target_label": "endpoint", "replacement": label, "action": "replace"})
		}
		c := object{
			"job_name":              fmt.Sprintf("%s/%s/%s/%d", m.kind, m.namespace, m.name, i),
			"kubernetes_sd_configs": s.discover(m.role),
			"relabel_configs":       relabel,
		}
		if m.attach != nil && m.attach.Node != nil && *m.attach.Node {
			c["kubernetes_sd_configs"].([]object)[0]["attach_metadata"] = object{"node": true}
		}
		opts.limits = m.limits
		if err := s.endpoint(c, m.namespace, opts); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %d: %w", i, err))
			continue
		}
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}

// revisionLabels tell a canary from the stable version, for Deployments and
// for Rollouts.
func revisionLabels() []object {
	return []object{
		setLabel("revision", "", "", "__meta_kubernetes_pod_label_pod_template_hash"),
		setLabel("revision", "(.+)", "$1", "__meta_kubernetes_pod_label_rollouts_pod_template_hash"),
	}
}

// portNamed and portNumbered keep the pods' ports of a name or a number.
func portNamed(name string) []object {
	return []object{keepLabel("__meta_kubernetes_pod_container_port_name", regexp.QuoteMeta(name))}
}

func portNumbered(number string) []object {
	return []object{keepLabel("__meta_kubernetes_pod_container_port_number", number)}
}

func (s *session) serviceMonitor(sm *monitoringv1.ServiceMonitor) ([]object, error) {
	m := monitor{
		kind: "serviceMonitor", namespace: sm.Namespace, name: sm.Name, role: "endpointslice", selected: "service",
		namespaces: sm.Spec.NamespaceSelector, selector: sm.Spec.Selector, attach: sm.Spec.AttachMetadata, podLabels: sm.Spec.PodTargetLabels, jobLabel: sm.Spec.JobLabel,
		limits: monitorLimits{
			samples: sm.Spec.SampleLimit, targets: sm.Spec.TargetLimit, labels: sm.Spec.LabelLimit, names: sm.Spec.LabelNameLengthLimit, values: sm.Spec.LabelValueLengthLimit,
			dropped: sm.Spec.KeepDroppedTargets, body: sm.Spec.BodySizeLimit, protocols: sm.Spec.ScrapeProtocols, fallback: sm.Spec.FallbackScrapeProtocol,
		},
	}
	return s.jobs(m, len(sm.Spec.Endpoints), func(i int) ([]object, []object, string, endpointOptions) {
		ep := &sm.Spec.Endpoints[i]
		var port []object
		label := ep.Port
		switch {
		case ep.Port != "":
			port = []object{keepLabel("__meta_kubernetes_endpointslice_port_name", regexp.QuoteMeta(ep.Port))}
		case ep.TargetPort != nil && ep.TargetPort.StrVal != "":
			port, label = portNamed(ep.TargetPort.StrVal), ep.TargetPort.StrVal
		case ep.TargetPort != nil && ep.TargetPort.IntVal != 0:
			port, label = portNumbered(ep.TargetPort.String()), ep.TargetPort.String()
		}
		target := []string{"__meta_kubernetes_endpointslice_address_target_kind", "__meta_kubernetes_endpointslice_address_target_name"}
		own := []object{
			{"source_labels": target, "regex": "Node;(.*)", "target_label": "node", "action": "replace"},
			{"source_labels": target, "regex": "Pod;(.*)", "target_label": "pod", "action": "replace"},
			setLabel("namespace", "", "", "__meta_kubernetes_namespace"),
			setLabel("service", "", "", "__meta_kubernetes_service_name"),
			setLabel("pod", "(.+)", "$1", "__meta_kubernetes_pod_name"),
			setLabel("container", "", "", "__meta_kubernetes_pod_container_name"),
		}
		for _, l := range sm.Spec.TargetLabels {
			own = append(own, setLabel(labelName(l), "(.+)", "$1", "__meta_kubernetes_service_label_"+labelName(l)))
		}
		own = append(own, setLabel("job", "", "", "__meta_kubernetes_service_name"))
		opts := endpointOptions{
			path: ep.Path, scheme: ep.Scheme, params: ep.Params, interval: ep.Interval, timeout: ep.ScrapeTimeout,
			honorLabels: ep.HonorLabels, honorTimestamps: ep.HonorTimestamps, trackStaleness: ep.TrackTimestampsStaleness, filterRunning: ep.FilterRunning,
			relabelings: ep.RelabelConfigs, metricRelabelings: ep.MetricRelabelConfigs, http: ep.HTTPConfigWithoutTLS, proxy: ep.ProxyConfig,
		}
		if ep.TLSConfig != nil {
			opts.tls = &ep.TLSConfig.SafeTLSConfig
			opts.files = ep.TLSConfig.CAFile + ep.TLSConfig.CertFile + ep.TLSConfig.KeyFile
		}
		//lint:ignore SA1019 deprecated upstream, still written
		opts.files += ep.BearerTokenFile
		return port, own, label, opts
	})
}

func (s *session) podMonitor(pm *monitoringv1.PodMonitor) ([]object, error) {
	m := monitor{
		kind: "podMonitor", namespace: pm.Namespace, name: pm.Name, role: "pod", selected: "pod",
		namespaces: pm.Spec.NamespaceSelector, selector: pm.Spec.Selector, attach: pm.Spec.AttachMetadata, podLabels: pm.Spec.PodTargetLabels, jobLabel: pm.Spec.JobLabel,
		limits: monitorLimits{
			samples: pm.Spec.SampleLimit, targets: pm.Spec.TargetLimit, labels: pm.Spec.LabelLimit, names: pm.Spec.LabelNameLengthLimit, values: pm.Spec.LabelValueLengthLimit,
			dropped: pm.Spec.KeepDroppedTargets, body: pm.Spec.BodySizeLimit, protocols: pm.Spec.ScrapeProtocols, fallback: pm.Spec.FallbackScrapeProtocol,
		},
	}
	return s.jobs(m, len(pm.Spec.PodMetricsEndpoints), func(i int) ([]object, []object, string, endpointOptions) {
		ep := &pm.Spec.PodMetricsEndpoints[i]
		var port []object
		label := ""
		//lint:ignore SA1019 deprecated upstream, still written
		target := ep.TargetPort
		switch {
		case ep.Port != nil && *ep.Port != "":
			port, label = portNamed(*ep.Port), *ep.Port
		case ep.PortNumber != nil && *ep.PortNumber != 0:
			label = fmt.Sprint(*ep.PortNumber)
			port = portNumbered(label)
		case target != nil && target.StrVal != "":
			port, label = portNamed(target.StrVal), target.StrVal
		case target != nil:
			port, label = portNumbered(target.String()), target.String()
		}
		own := []object{
			setLabel("namespace", "", "", "__meta_kubernetes_namespace"),
			setLabel("container", "", "", "__meta_kubernetes_pod_container_name"),
			setLabel("pod", "", "", "__meta_kubernetes_pod_name"),
			{"target_label": "job", "replacement": pm.Namespace + "/" + pm.Name, "action": "replace"},
		}
		return port, own, label, endpointOptions{
			path: ep.Path, scheme: ep.Scheme, params: ep.Params, interval: ep.Interval, timeout: ep.ScrapeTimeout,
			honorLabels: ep.HonorLabels, honorTimestamps: ep.HonorTimestamps, trackStaleness: ep.TrackTimestampsStaleness, filterRunning: ep.FilterRunning,
			relabelings: ep.RelabelConfigs, metricRelabelings: ep.MetricRelabelConfigs, http: ep.HTTPConfigWithoutTLS, tls: ep.TLSConfig, proxy: ep.ProxyConfig,
		}
	})
}

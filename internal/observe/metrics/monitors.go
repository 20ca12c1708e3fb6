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

// serviceMonitor makes one scrape configuration per endpoint, with the labels
// that the Prometheus operator gives (pkg/prometheus/promcfg.go).
func (s *session) serviceMonitor(sm *monitoringv1.ServiceMonitor) ([]object, error) {
	var out []object
	var errs []error
	for i := range sm.Spec.Endpoints {
		ep := &sm.Spec.Endpoints[i]
		c := object{
			"job_name":              fmt.Sprintf("serviceMonitor/%s/%s/%d", sm.Namespace, sm.Name, i),
			"kubernetes_sd_configs": s.discover("endpointslice"),
		}
		relabel := namespaces(sm.Namespace, sm.Spec.NamespaceSelector)
		sel, err := selector("service", sm.Spec.Selector)
		if err != nil {
			errs = append(errs, fmt.Errorf("selector: %w", err))
			continue
		}
		relabel = append(relabel, sel...)
		targetPort := ""
		if ep.TargetPort != nil {
			targetPort = ep.TargetPort.String()
		}
		switch {
		case ep.Port != "":
			relabel = append(relabel, keepLabel("__meta_kubernetes_endpointslice_port_name", regexp.QuoteMeta(ep.Port)))
		case ep.TargetPort != nil && ep.TargetPort.StrVal != "":
			relabel = append(relabel, keepLabel("__meta_kubernetes_pod_container_port_name", regexp.QuoteMeta(targetPort)))
		case ep.TargetPort != nil && ep.TargetPort.IntVal != 0:
			relabel = append(relabel, keepLabel("__meta_kubernetes_pod_container_port_number", targetPort))
		}
		relabel = append(relabel,
			object{"source_labels": []string{"__meta_kubernetes_endpointslice_address_target_kind", "__meta_kubernetes_endpointslice_address_target_name"}, "regex": "Node;(.*)", "target_label": "node", "action": "replace"},
			object{"source_labels": []string{"__meta_kubernetes_endpointslice_address_target_kind", "__meta_kubernetes_endpointslice_address_target_name"}, "regex": "Pod;(.*)", "target_label": "pod", "action": "replace"},
			setLabel("namespace", "", "", "__meta_kubernetes_namespace"),
			setLabel("service", "", "", "__meta_kubernetes_service_name"),
			setLabel("pod", "(.+)", "$1", "__meta_kubernetes_pod_name"),
			setLabel("container", "", "", "__meta_kubernetes_pod_container_name"),
			setLabel("revision", "", "", "__meta_kubernetes_pod_label_pod_template_hash"),
			setLabel("revision", "(.+)", "$1", "__meta_kubernetes_pod_label_rollouts_pod_template_hash"),
		)
		for _, l := range sm.Spec.TargetLabels {
			relabel = append(relabel, setLabel(labelName(l), "(.+)", "$1", "__meta_kubernetes_service_label_"+labelName(l)))
		}
		for _, l := range sm.Spec.PodTargetLabels {
			relabel = append(relabel, setLabel(labelName(l), "(.+)", "$1", "__meta_kubernetes_pod_label_"+labelName(l)))
		}
		relabel = append(relabel, setLabel("job", "", "", "__meta_kubernetes_service_name"))
		if sm.Spec.JobLabel != "" {
			relabel = append(relabel, setLabel("job", "(.+)", "$1", "__meta_kubernetes_service_label_"+labelName(sm.Spec.JobLabel)))
		}
		relabel = append(relabel, endpointLabel(ep.Port, targetPort)...)
		c["relabel_configs"] = relabel
		opts := endpointOptions{
			path: ep.Path, scheme: ep.Scheme, params: ep.Params, interval: ep.Interval, timeout: ep.ScrapeTimeout,
			honorLabels: ep.HonorLabels, honorTimestamps: ep.HonorTimestamps, filterRunning: ep.FilterRunning,
			relabelings: ep.RelabelConfigs, metricRelabelings: ep.MetricRelabelConfigs,
			http: ep.HTTPConfigWithoutTLS, proxyURL: ep.ProxyURL,
			sampleLimit: sm.Spec.SampleLimit, targetLimit: sm.Spec.TargetLimit,
		}
		if ep.TLSConfig != nil {
			opts.tls = &ep.TLSConfig.SafeTLSConfig
			opts.files = ep.TLSConfig.CAFile + ep.TLSConfig.CertFile + ep.TLSConfig.KeyFile
		}
		//lint:ignore SA1019 deprecated upstream, still written
		opts.files += ep.BearerTokenFile
		if err := s.endpoint(c, sm.Namespace, opts); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %d: %w", i, err))
			continue
		}
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}

// podMonitor makes one scrape configuration per endpoint.
func (s *session) podMonitor(pm *monitoringv1.PodMonitor) ([]object, error) {
	var out []object
	var errs []error
	for i := range pm.Spec.PodMetricsEndpoints {
		ep := &pm.Spec.PodMetricsEndpoints[i]
		c := object{
			"job_name":              fmt.Sprintf("podMonitor/%s/%s/%d", pm.Namespace, pm.Name, i),
			"kubernetes_sd_configs": s.discover("pod"),
		}
		relabel := namespaces(pm.Namespace, pm.Spec.NamespaceSelector)
		sel, err := selector("pod", pm.Spec.Selector)
		if err != nil {
			errs = append(errs, fmt.Errorf("selector: %w", err))
			continue
		}
		relabel = append(relabel, sel...)
		port := ""
		switch {
		case ep.Port != nil && *ep.Port != "":
			port = *ep.Port
			relabel = append(relabel, keepLabel("__meta_kubernetes_pod_container_port_name", regexp.QuoteMeta(port)))
		case ep.PortNumber != nil && *ep.PortNumber != 0:
			port = fmt.Sprint(*ep.PortNumber)
			relabel = append(relabel, keepLabel("__meta_kubernetes_pod_container_port_number", port))
		//lint:ignore SA1019 deprecated upstream, still written
		case ep.TargetPort != nil:
			//lint:ignore SA1019 as above
			target := ep.TargetPort
			port = target.String()
			relabel = append(relabel, keepLabel("__meta_kubernetes_pod_container_port_"+map[bool]string{true: "name", false: "number"}[target.StrVal != ""], regexp.QuoteMeta(port)))
		}
		relabel = append(relabel,
			setLabel("namespace", "", "", "__meta_kubernetes_namespace"),
			setLabel("container", "", "", "__meta_kubernetes_pod_container_name"),
			setLabel("pod", "", "", "__meta_kubernetes_pod_name"),
			setLabel("revision", "", "", "__meta_kubernetes_pod_label_pod_template_hash"),
			setLabel("revision", "(.+)", "$1", "__meta_kubernetes_pod_label_rollouts_pod_template_hash"),
		)
		for _, l := range pm.Spec.PodTargetLabels {
			relabel = append(relabel, setLabel(labelName(l), "(.+)", "$1", "__meta_kubernetes_pod_label_"+labelName(l)))
		}
		relabel = append(relabel, object{"target_label": "job", "replacement": pm.Namespace + "/" + pm.Name, "action": "replace"})
		if pm.Spec.JobLabel != "" {
			relabel = append(relabel, setLabel("job", "(.+)", "$1", "__meta_kubernetes_pod_label_"+labelName(pm.Spec.JobLabel)))
		}
		relabel = append(relabel, endpointLabel(port, "")...)
		c["relabel_configs"] = relabel
		if err := s.endpoint(c, pm.Namespace, endpointOptions{
			path: ep.Path, scheme: ep.Scheme, params: ep.Params, interval: ep.Interval, timeout: ep.ScrapeTimeout,
			honorLabels: ep.HonorLabels, honorTimestamps: ep.HonorTimestamps, filterRunning: ep.FilterRunning,
			relabelings: ep.RelabelConfigs, metricRelabelings: ep.MetricRelabelConfigs,
			http: ep.HTTPConfigWithoutTLS, tls: ep.TLSConfig, proxyURL: ep.ProxyURL,
			sampleLimit: pm.Spec.SampleLimit, targetLimit: pm.Spec.TargetLimit,
		}); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %d: %w", i, err))
			continue
		}
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}

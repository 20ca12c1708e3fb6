package metrics

import "time"

// jobs returns the scrape configurations that the cluster brings: its own
// components, and the applications'.
func (c *cluster) jobs() ([]job, []Problem) {
	s := c.current()
	if s == nil {
		return nil, nil
	}
	jobs := s.componentJobs()
	jobs = append(jobs, s.annotationJobs()...)
	monitors, problems := s.monitorJobs()
	return append(jobs, monitors...), problems
}

// discover returns the discovery of one role. All jobs use the same few
// discoveries, over all namespaces, and select by relabelling: Prometheus
// shares equal ones, so that any number of monitors costs one watch.
func (s *session) discover(role string) []object {
	o := object{"role": role, "kubeconfig_file": s.kubeconfig}
	return []object{o}
}

// ClusterTargets are the components of the embedded cluster that discovery
// does not find, at the addresses where they listen on the host.
func ClusterTargets() []Target {
	every := 30 * time.Second
	return []Target{
		{Job: "etcd", URL: "http://127.0.0.1:2381/metrics", Keep: keptEtcd(), Interval: every},
		{Job: "kube-controller-manager", URL: "https://127.0.0.1:10257/metrics", Insecure: true, ClusterCredentials: true, Keep: keptControllerManager(), Interval: every},
		{Job: "kube-scheduler", URL: "https://127.0.0.1:10259/metrics", Insecure: true, ClusterCredentials: true, Keep: keptScheduler(), Interval: every},
		{Job: "kube-proxy", URL: "http://127.0.0.1:10249/metrics", Keep: keptKubeProxy(), Interval: every},
		{Job: "coredns", URL: "http://127.0.0.1:9153/metrics", Keep: keptCoreDNS(), Interval: every},
	}
}

// componentJobs scrape the API server, the kubelets with cAdvisor, and
// kube-state-metrics. Names of jobs and labels are kube-prometheus', so that
// its dashboards and rules fit.
func (s *session) componentJobs() []job {
	creds := s.c.credentials()
	secured := func(kept Families, c object) job {
		c["scheme"] = "https"
		creds.apply(c, true)
		kept.apply(c)
		c["scrape_interval"] = promDuration(max(s.c.m.cfg.Interval, 30*time.Second))
		return job{config: c}
	}
	node := setLabel("node", "", "", "__meta_kubernetes_node_name")
	return []job{
		secured(keptAPIServer(), object{
			"job_name":              "apiserver",
			"kubernetes_sd_configs": s.discover("endpointslice"),
			"relabel_configs": []object{
				{"source_labels": []string{"__meta_kubernetes_namespace", "__meta_kubernetes_service_name", "__meta_kubernetes_endpointslice_port_name"}, "regex": "default;kubernetes;https", "action": "keep"},
			},
			"metric_relabel_configs": []object{latencyBuckets},
		}),
		secured(keptKubelet(), object{
			"job_name":              "kubelet",
			"kubernetes_sd_configs": s.discover("node"),
			"relabel_configs":       []object{node, setLabel("metrics_path", "", "/metrics")},
			"honor_labels":          true,
		}),
		secured(keptCAdvisor(), object{
			"job_name":              "kubelet/cadvisor",
			"metrics_path":          "/metrics/cadvisor",
			"kubernetes_sd_configs": s.discover("node"),
			"relabel_configs":       []object{node, setLabel("job", "", "kubelet"), setLabel("metrics_path", "", "/metrics/cadvisor")},
			"metric_relabel_configs": []object{
				// Of the cgroups outside of pods only the root, the whole
				// server (id="/"), as older dashboards ask for it; of pods
				// the containers, and the network, which only sandboxes have.
				{"source_labels": []string{"__name__", "id", "pod"}, "regex": "container_.+;/.+;", "action": "drop"},
				{"source_labels": []string{"__name__", "pod", "container"}, "regex": "container_(cpu|memory|fs|blkio|processes|threads|file|sockets|spec|start|last|oom|pressure).*;.+;(POD)?", "action": "drop"},
				{"source_labels": []string{"id"}, "regex": "/.+", "target_label": "id", "replacement": "", "action": "replace"},
				{"regex": "name", "action": "labeldrop"},
			},
			"honor_labels":     true,
			"honor_timestamps": false,
		}),
		{config: object{
			"job_name":        "kube-state-metrics",
			"metrics_path":    "/kube-state-metrics",
			"honor_labels":    true,
			"static_configs":  []object{{"targets": []string{"local" + localSuffix + ":80"}, "labels": object{"instance": s.c.m.cfg.Instance}}},
			"scrape_interval": promDuration(s.c.m.cfg.Interval),
		}},
	}
}

// annotationJobs scrape pods and Services with the annotations
// prometheus.io/scrape: "true", and optionally /port, /path and /scheme.
func (s *session) annotationJobs() []job {
	address := `(.+?)(?::\d+)?;(\d+)`
	common := func(kind string) []object {
		a := "__meta_kubernetes_" + kind + "_annotation_prometheus_io_"
		return []object{
			keepLabel(a+"scrape", "true"),
			{"source_labels": []string{a + "scheme"}, "regex": "(https?)", "target_label": "__scheme__", "action": "replace"},
			{"source_labels": []string{a + "path"}, "regex": "(.+)", "target_label": "__metrics_path__", "action": "replace"},
			{"source_labels": []string{"__address__", a + "port"}, "regex": address, "replacement": "$1:$2", "target_label": "__address__", "action": "replace"},
			{"regex": "__meta_kubernetes_" + kind + "_annotation_prometheus_io_param_(.+)", "replacement": "__param_$1", "action": "labelmap"},
			setLabel("namespace", "", "", "__meta_kubernetes_namespace"),
			setLabel("pod", "", "", "__meta_kubernetes_pod_name"),
			revisionLabels()[0], revisionLabels()[1],
			{"source_labels": []string{"__meta_kubernetes_pod_phase"}, "regex": "Pending|Succeeded|Failed|Completed", "action": "drop"},
		}
	}
	// Without the port's annotation each container port is a target. With it
	// all lead to the same address: they stay one target for having no label
	// that differs. The job is the workload's name, without the ReplicaSet's hash.
	controller := []string{"__meta_kubernetes_namespace", "__meta_kubernetes_pod_controller_kind", "__meta_kubernetes_pod_controller_name"}
	pods := append(common("pod"),
		object{"source_labels": []string{"__meta_kubernetes_pod_container_init"}, "regex": "true", "action": "drop"},
		object{"source_labels": []string{"__meta_kubernetes_pod_annotation_prometheus_io_port", "__meta_kubernetes_pod_container_name"}, "regex": ";(.+)", "replacement": "$1", "target_label": "container", "action": "replace"},
		object{"source_labels": controller, "regex": "(.+);.+;(.+)", "replacement": "$1/$2", "target_label": "job", "action": "replace"},
		object{"source_labels": controller, "regex": "(.+);ReplicaSet;(.+)-[a-z0-9]+", "replacement": "$1/$2", "target_label": "job", "action": "replace"},
	)
	services := append(common("service"),
		keepLabel("__meta_kubernetes_endpointslice_endpoint_conditions_ready", "true"),
		setLabel("service", "", "", "__meta_kubernetes_service_name"),
		setLabel("job", "", "", "__meta_kubernetes_service_name"),
	)
	return []job{
		{config: s.limited(object{"job_name": "annotations/pods", "kubernetes_sd_configs": s.discover("pod"), "relabel_configs": pods, "fallback_scrape_protocol": fallbackProtocol})},
		{config: s.limited(object{"job_name": "annotations/services", "kubernetes_sd_configs": s.discover("endpointslice"), "relabel_configs": services, "fallback_scrape_protocol": fallbackProtocol})},
	}
}

// fallbackProtocol reads the answers of applications that give no content
// type, which Prometheus else refuses and annotations cannot say.
const fallbackProtocol = "PrometheusText0.0.4"

// limited keeps an application within the budget.
func (s *session) limited(c object) object {
	budget := object{"sample_limit": s.c.m.cfg.SampleLimit, "label_limit": 64, "label_value_length_limit": 2048, "body_size_limit": "10MB"}
	for key, v := range budget {
		if c[key] == nil {
			c[key] = v
		}
	}
	return c
}

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

// The names of the components' metrics that are worth their memory: what the
// common dashboards and rules for Kubernetes use. The components run in one
// process and share one registry, so each job keeps only what is its own.
const (
	keepAPIServer = `apiserver_(request_total|request_duration_seconds_(sum|count)|current_inflight_requests|storage_objects|audit_event_total|admission_webhook_rejection_count|request_terminations_total|tls_handshake_errors_total)|etcd_(request_duration_seconds_(sum|count)|requests_total)|workqueue_(adds_total|depth|queue_duration_seconds_(sum|count))|rest_client_requests_total|scheduler_(pending_pods|schedule_attempts_total|scheduling_attempt_duration_seconds_(sum|count)|pod_scheduling_sli_duration_seconds_(sum|count))|process_(cpu_seconds_total|resident_memory_bytes|start_time_seconds|open_fds|max_fds)|go_(goroutines|memstats_heap_inuse_bytes|memstats_alloc_bytes)|kubernetes_build_info`
	keepKubelet   = `kubelet_(running_pods|running_containers|node_name|volume_stats_(available_bytes|capacity_bytes|used_bytes|inodes|inodes_used|inodes_free)|pod_worker_duration_seconds_(sum|count)|pod_start_duration_seconds_(sum|count)|pleg_relist_duration_seconds_(sum|count|bucket)|runtime_operations_(total|errors_total)|evictions|certificate_manager_client_ttl_seconds|started_containers_errors_total|started_pods_errors_total)|storage_operation_duration_seconds_count`
	keepCAdvisor  = `container_(cpu_usage_seconds_total|cpu_cfs_periods_total|cpu_cfs_throttled_periods_total|cpu_cfs_throttled_seconds_total|memory_working_set_bytes|memory_usage_bytes|memory_rss|memory_cache|memory_swap|memory_failcnt|oom_events_total|spec_memory_limit_bytes|spec_cpu_quota|spec_cpu_period|network_(receive|transmit)_(bytes|packets|errors|packets_dropped)_total|fs_(reads|writes)_(bytes_)?total|fs_usage_bytes|fs_limit_bytes|start_time_seconds|last_seen|processes|threads)|machine_(cpu_cores|memory_bytes)`
	keepEtcd      = `etcd_(server_(has_leader|leader_changes_seen_total|proposals_failed_total|proposals_committed_total|slow_apply_total)|mvcc_db_total_size_in_bytes|mvcc_db_total_size_in_use_in_bytes|disk_(wal_fsync|backend_commit)_duration_seconds_(sum|count|bucket)|network_client_grpc_(received|sent)_bytes_total|server_quota_backend_bytes)`
	keepCoreDNS   = `coredns_(build_info|dns_(requests_total|responses_total|request_duration_seconds_(sum|count|bucket))|cache_(hits_total|misses_total|entries)|forward_requests_total|panics_total)`
	keepKubeProxy = `kubeproxy_(sync_proxy_rules_duration_seconds_(sum|count)|sync_proxy_rules_last_timestamp_seconds|network_programming_duration_seconds_(sum|count))`
)

// ClusterTargets are the components of the embedded cluster that discovery
// does not find, at the addresses where they listen on the host.
func ClusterTargets() []Target {
	return []Target{
		{Job: "etcd", URL: "http://127.0.0.1:2381/metrics", Keep: keepEtcd},
		{Job: "kube-proxy", URL: "http://127.0.0.1:10249/metrics", Keep: keepKubeProxy},
		{Job: "coredns", URL: "http://127.0.0.1:9153/metrics", Keep: keepCoreDNS},
	}
}

// componentJobs scrape the API server, the kubelets with cAdvisor, and
// kube-state-metrics. Names of jobs and labels are kube-prometheus', so that
// its dashboards and rules fit.
func (s *session) componentJobs() []job {
	creds := s.c.credentials()
	secured := func(c object, insecure bool) job {
		c["scheme"] = "https"
		creds.apply(c, insecure)
		c["scrape_interval"] = promDuration(max(s.c.m.cfg.Interval, 30*time.Second))
		return job{config: c}
	}
	node := setLabel("node", "", "", "__meta_kubernetes_node_name")
	return []job{
		secured(object{
			"job_name":              "apiserver",
			"kubernetes_sd_configs": s.discover("endpointslice"),
			"relabel_configs": []object{
				{"source_labels": []string{"__meta_kubernetes_namespace", "__meta_kubernetes_service_name", "__meta_kubernetes_endpointslice_port_name"}, "regex": "default;kubernetes;https", "action": "keep"},
			},
			"metric_relabel_configs": []object{keepNames(keepAPIServer)},
		}, true),
		secured(object{
			"job_name":               "kubelet",
			"kubernetes_sd_configs":  s.discover("node"),
			"relabel_configs":        []object{node, setLabel("metrics_path", "", "/metrics")},
			"metric_relabel_configs": []object{keepNames(keepKubelet)},
			"honor_labels":           true,
		}, true),
		secured(object{
			"job_name":              "kubelet/cadvisor",
			"metrics_path":          "/metrics/cadvisor",
			"kubernetes_sd_configs": s.discover("node"),
			"relabel_configs":       []object{node, setLabel("job", "", "kubelet"), setLabel("metrics_path", "", "/metrics/cadvisor")},
			"metric_relabel_configs": []object{
				keepNames(keepCAdvisor),
				// Cgroups outside of pods, and the sandboxes' own figures
				// except for the network, which only sandboxes have.
				{"source_labels": []string{"__name__", "pod"}, "regex": "container_.+;", "action": "drop"},
				{"source_labels": []string{"__name__", "container"}, "regex": "container_(cpu|memory|fs|processes|threads|spec|start|last|oom).*;(POD)?", "action": "drop"},
				{"regex": "id|name", "action": "labeldrop"},
			},
			"honor_labels":     true,
			"honor_timestamps": false,
		}, true),
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
			setLabel("revision", "", "", "__meta_kubernetes_pod_label_pod_template_hash"),
			setLabel("revision", "(.+)", "$1", "__meta_kubernetes_pod_label_rollouts_pod_template_hash"),
			{"source_labels": []string{"__meta_kubernetes_pod_phase"}, "regex": "Pending|Succeeded|Failed|Completed", "action": "drop"},
		}
	}
	// A pod with several container ports and no /port annotation is scraped on
	// the first port only, not on all of them.
	pods := append(common("pod"),
		object{"source_labels": []string{"__meta_kubernetes_pod_container_init"}, "regex": "true", "action": "drop"},
		setLabel("container", "", "", "__meta_kubernetes_pod_container_name"),
		setLabel("job", "", "$1/$2", "__meta_kubernetes_namespace", "__meta_kubernetes_pod_controller_name"),
	)
	pods[len(pods)-1]["regex"] = "(.+);(.+)"
	services := append(common("service"),
		keepLabel("__meta_kubernetes_endpointslice_endpoint_conditions_ready", "true"),
		setLabel("service", "", "", "__meta_kubernetes_service_name"),
		setLabel("job", "", "", "__meta_kubernetes_service_name"),
	)
	return []job{
		{config: s.limited(object{"job_name": "annotations/pods", "kubernetes_sd_configs": s.discover("pod"), "relabel_configs": pods})},
		{config: s.limited(object{"job_name": "annotations/services", "kubernetes_sd_configs": s.discover("endpointslice"), "relabel_configs": services})},
	}
}

// limited keeps an application within the budget.
func (s *session) limited(c object) object {
	if c["sample_limit"] == nil {
		c["sample_limit"] = s.c.m.cfg.SampleLimit
	}
	c["label_limit"] = 64
	c["label_value_length_limit"] = 2048
	c["body_size_limit"] = "10MB"
	return c
}

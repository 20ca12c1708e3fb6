package metrics

import (
	"slices"
	"strings"
)

// Families are the metrics of a target that are worth their memory, by their
// names as in a line "# TYPE <name> ...". They are asked for by name
// (https://pkg.go.dev/github.com/prometheus/client_golang/prometheus/promhttp#HandlerFor),
// so that what is not kept is neither written nor read: Prometheus remembers
// each series that it drops.
type Families struct {
	// Whole are kept with all of their series.
	Whole []string
	// Averages are histograms of which only sum and count are kept.
	Averages []string
}

// names returns the names of all families.
func (f Families) names() []string { return slices.Concat(f.Whole, f.Averages) }

// apply asks for the families alone in a scrape configuration. The zero
// Families keep everything.
func (f Families) apply(c object) {
	if len(f.names()) == 0 {
		return
	}
	c["params"] = object{paramNames: f.names()}
	if len(f.Averages) == 0 {
		return
	}
	buckets := object{"source_labels": []string{"__name__"}, "regex": "(" + strings.Join(f.Averages, "|") + ")_bucket", "action": "drop"}
	more, _ := c["metric_relabel_configs"].([]object)
	c["metric_relabel_configs"] = append([]object{buckets}, more...)
}

// paramNames is the parameter of a scrape that names the families to answer with.
const paramNames = "name[]"

// under names families that begin alike.
func under(prefix, names string) []string {
	out := strings.Fields(names)
	for i, name := range out {
		out[i] = prefix + name
	}
	return out
}

// What is kept of the components is what the dashboards, rules and alerts of
// kube-prometheus, of the Kubernetes, node and etcd mixins and of the common
// dashboards for Kubernetes use (docs/metrics.md lists them). The components
// run in one process and share one registry, so each job keeps what is its
// own, and of what all of them have the process's.
func keptCommon() []string {
	return slices.Concat(
		under("process_", "cpu_seconds_total resident_memory_bytes start_time_seconds open_fds max_fds"),
		under("go_", "goroutines memstats_heap_inuse_bytes memstats_alloc_bytes"),
		under("", "rest_client_requests_total kubernetes_build_info"),
	)
}

// keptQueues are the work queues, which every controller has.
func keptQueues() []string { return under("workqueue_", "adds_total depth retries_total") }

const keptQueueTimes = "workqueue_queue_duration_seconds"

func keptAPIServer() Families {
	return Families{
		Whole: slices.Concat(keptCommon(), keptQueues(),
			under("apiserver_", `request_total request_duration_seconds current_inflight_requests longrunning_requests storage_objects
				resource_objects storage_size_bytes audit_event_total request_terminations_total tls_handshake_errors_total
				response_status_total client_certificate_expiration_seconds init_events_total dropped_requests_total`),
			under("apiserver_admission_webhook_", "rejection_count fail_open_count"),
			under("apiserver_flowcontrol_", "rejected_requests_total current_inqueue_requests current_executing_requests"),
			under("aggregator_unavailable_", "apiservice apiservice_total"),
			under("etcd_", "request_duration_seconds requests_total request_errors_total"),
		),
		Averages: []string{keptQueueTimes},
	}
}

func keptControllerManager() Families {
	return Families{
		Whole: slices.Concat(keptCommon(), keptQueues(),
			under("node_collector_", "zone_health zone_size unhealthy_nodes_in_zone evictions_total"),
			under("leader_election_", "master_status"),
		),
		Averages: []string{keptQueueTimes},
	}
}

func keptScheduler() Families {
	return Families{Whole: slices.Concat(keptCommon(),
		under("scheduler_", `pending_pods schedule_attempts_total preemption_attempts_total unschedulable_pods cache_size queue_incoming_pods_total
			scheduling_attempt_duration_seconds scheduling_algorithm_duration_seconds pod_scheduling_sli_duration_seconds`),
	)}
}

func keptKubelet() Families {
	return Families{Whole: slices.Concat(keptCommon(),
		under("kubelet_", `running_pods running_containers desired_pods active_pods node_name node_config_error evictions
			started_containers_total started_containers_errors_total started_pods_total started_pods_errors_total restarted_pods_total
			http_inflight_requests pod_start_duration_seconds pod_start_sli_duration_seconds pod_worker_duration_seconds
			cgroup_manager_duration_seconds server_expiration_renew_errors`),
		under("kubelet_volume_stats_", "available_bytes capacity_bytes used_bytes inodes inodes_used inodes_free health_status_abnormal"),
		under("kubelet_pleg_", "relist_duration_seconds relist_interval_seconds last_seen_seconds discard_events"),
		under("kubelet_runtime_operations_", "total errors_total duration_seconds"),
		under("kubelet_certificate_manager_client_", "ttl_seconds expiration_renew_errors"),
		under("kubelet_certificate_manager_server_", "ttl_seconds expiration_renew_errors"),
		under("storage_operation_", "duration_seconds errors_total"),
		under("volume_manager_", "total_volumes"),
	)}
}

func keptCAdvisor() Families {
	return Families{Whole: slices.Concat(
		under("container_cpu_", "usage_seconds_total user_seconds_total system_seconds_total cfs_periods_total cfs_throttled_periods_total cfs_throttled_seconds_total"),
		under("container_memory_", "working_set_bytes usage_bytes max_usage_bytes rss cache swap mapped_file failcnt"),
		under("container_spec_", "memory_limit_bytes memory_reservation_limit_bytes cpu_quota cpu_period cpu_shares"),
		under("container_network_receive_", "bytes_total packets_total errors_total packets_dropped_total"),
		under("container_network_transmit_", "bytes_total packets_total errors_total packets_dropped_total"),
		under("container_fs_", `reads_total reads_bytes_total writes_total writes_bytes_total usage_bytes limit_bytes inodes_free inodes_total
			io_time_seconds_total`),
		under("container_pressure_", `cpu_waiting_seconds_total cpu_stalled_seconds_total memory_waiting_seconds_total memory_stalled_seconds_total
			io_waiting_seconds_total io_stalled_seconds_total`),
		under("container_", "oom_events_total blkio_device_usage_total start_time_seconds last_seen processes threads file_descriptors sockets"),
		under("machine_", "cpu_cores memory_bytes swap_bytes"),
	)}
}

func keptEtcd() Families {
	return Families{
		Whole: slices.Concat(keptCommon(),
			under("etcd_server_", `has_leader is_leader id version leader_changes_seen_total proposals_failed_total proposals_committed_total
				proposals_applied_total proposals_pending slow_apply_total slow_read_indexes_total quota_backend_bytes health_failures
				health_success heartbeat_send_failures_total snapshot_apply_in_progress_total`),
			under("etcd_mvcc_", "db_total_size_in_bytes db_total_size_in_use_in_bytes put_total range_total delete_total txn_total"),
			under("etcd_debugging_mvcc_", "db_total_size_in_bytes keys_total watcher_total slow_watcher_total put_total range_total delete_total"),
			under("etcd_disk_", "wal_fsync_duration_seconds backend_commit_duration_seconds backend_snapshot_duration_seconds"),
			under("etcd_network_", `client_grpc_received_bytes_total client_grpc_sent_bytes_total peer_sent_bytes_total peer_received_bytes_total
				peer_sent_failures_total peer_received_failures_total peer_round_trip_time_seconds`),
			under("grpc_server_", "started_total handled_total"),
		),
		Averages: []string{"etcd_debugging_snap_save_total_duration_seconds"},
	}
}

func keptCoreDNS() Families {
	return Families{
		Whole: slices.Concat(keptCommon(),
			under("coredns_", "build_info panics_total plugin_enabled reload_failed_total local_localhost_requests_total health_request_failures_total"),
			under("coredns_hosts_", "entries reload_timestamp_seconds"),
			under("coredns_dns_", "requests_total responses_total request_duration_seconds request_size_bytes response_size_bytes"),
			under("coredns_cache_", "hits_total misses_total requests_total entries evictions_total"),
			under("coredns_forward_", `requests_total responses_total request_duration_seconds healthcheck_broken_total healthcheck_failures_total
				max_concurrent_rejects_total`),
			under("coredns_proxy_", `requests_total responses_total request_duration_seconds healthcheck_broken_total healthcheck_failures_total
				max_concurrent_rejects_total`),
			under("coredns_kubernetes_", "dns_programming_duration_seconds rest_client_requests_total"),
		),
		Averages: []string{"coredns_health_request_duration_seconds"},
	}
}

func keptKubeProxy() Families {
	return Families{Whole: slices.Concat(keptCommon(),
		under("kubeproxy_", "sync_proxy_rules_duration_seconds sync_full_proxy_rules_duration_seconds network_programming_duration_seconds"),
		under("kubeproxy_sync_proxy_rules_", `last_timestamp_seconds last_queued_timestamp_seconds iptables_total nftables_sync_failures_total
			iptables_restore_failures_total`),
	)}
}

func keptPrometheus() Families {
	return Families{Whole: slices.Concat(
		under("process_", `cpu_seconds_total resident_memory_bytes virtual_memory_bytes virtual_memory_max_bytes start_time_seconds open_fds
			max_fds network_receive_bytes_total network_transmit_bytes_total`),
		under("go_", "goroutines info memstats_heap_inuse_bytes memstats_alloc_bytes"),
		under("prometheus_", "build_info ready notifications_alertmanagers_discovered"),
		under("prometheus_config_", "last_reload_successful last_reload_success_timestamp_seconds"),
		under("prometheus_engine_", `queries queries_concurrent_max query_duration_seconds query_duration_histogram_seconds query_samples_total
			query_samples_read_total query_log_enabled query_log_failures_total`),
		under("prometheus_rule_", "evaluations_total evaluation_failures_total evaluation_duration_seconds evaluation_duration_histogram_seconds"),
		under("prometheus_rule_group_", `duration_seconds duration_histogram_seconds interval_seconds iterations_total iterations_missed_total
			last_duration_seconds last_restore_duration_seconds last_evaluation_samples last_evaluation_timestamp_seconds
			last_rule_duration_sum_seconds rules`),
		under("prometheus_sd_", `discovered_targets failed_configs received_updates_total updates_total updates_delayed_total
			last_update_timestamp_seconds kubernetes_events_total kubernetes_failures_total`),
		under("prometheus_target_", `interval_length_seconds sync_length_seconds sync_failed_total metadata_cache_entries metadata_cache_bytes
			scrape_pools_total scrape_pools_failed_total`),
		under("prometheus_target_scrape_pool_", "targets exceeded_target_limit_total exceeded_label_limits_total"),
		under("prometheus_target_scrapes_", `cache_flush_forced_total exceeded_sample_limit_total exceeded_body_size_limit_total
			exceeded_native_histogram_bucket_limit_total exemplar_out_of_order_total sample_duplicate_timestamp_total
			sample_out_of_bounds_total sample_out_of_order_total`),
		under("prometheus_tsdb_", `storage_blocks_bytes blocks_loaded compactions_total compactions_failed_total compactions_triggered_total
			reloads_total reloads_failures_total checkpoint_creations_failed_total checkpoint_deletions_failed_total clean_start
			lowest_timestamp_seconds retention_limit_bytes retention_limit_seconds size_retentions_total time_retentions_total
			out_of_order_samples_total out_of_bound_samples_total too_old_samples_total data_replay_duration_seconds
			symbol_table_size_bytes isolation_low_watermark`),
		under("prometheus_tsdb_head_", `series chunks samples_appended_total min_time max_time series_created_total series_removed_total
			truncations_failed_total`),
		under("prometheus_tsdb_wal_", "corruptions_total segment_current storage_size_bytes truncations_failed_total writes_failed_total"),
	)}
}

// latencyBuckets leaves out the latencies of requests that last as long as
// their clients want. The API server itself serves six buckets of the others.
var latencyBuckets = object{"source_labels": []string{"__name__", "verb"}, "regex": `apiserver_request_duration_seconds_bucket;(WATCH|CONNECT|WATCHLIST|PROXY)`, "action": "drop"}

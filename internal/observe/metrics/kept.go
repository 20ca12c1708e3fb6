package metrics

import "strings"

// The metrics of the components that are worth their memory: what the
// dashboards, rules and alerts of kube-prometheus, of the Kubernetes, node and
// etcd mixins and of the common dashboards for Kubernetes use
// (docs/metrics.md lists them). The components run in one process and share
// one registry, so each job keeps what is its own, and of what all of them
// have (kept.common) the process's.
const keptCommon = `process_(cpu_seconds_total|resident_memory_bytes|start_time_seconds|open_fds|max_fds)|go_(goroutines|memstats_heap_inuse_bytes|memstats_alloc_bytes)|rest_client_requests_total|kubernetes_build_info`

// kept makes a regular expression of lines of names.
func kept(names ...string) string { return strings.Join(names, "|") }

var (
	keepAPIServer = kept(keptCommon,
		`apiserver_(request_total|request_duration_seconds_(sum|count|bucket)|current_inflight_requests|longrunning_requests|storage_objects|resource_objects|audit_event_total|request_terminations_total|tls_handshake_errors_total|response_status_total|client_certificate_expiration_seconds_(count|bucket)|init_events_total|dropped_requests_total)`,
		`apiserver_(admission_webhook_(rejection_count|fail_open_count)|flowcontrol_(rejected_requests_total|current_inqueue_requests|current_executing_requests))`,
		`aggregator_unavailable_apiservice(_total)?`,
		`etcd_(request_duration_seconds_(sum|count|bucket)|requests_total|request_errors_total)`,
		`apiserver_storage_size_bytes`,
		`workqueue_(adds_total|depth|retries_total|queue_duration_seconds_(sum|count))`,
	)
	keepControllerManager = kept(keptCommon,
		`workqueue_(adds_total|depth|retries_total|queue_duration_seconds_(sum|count))`,
		`node_collector_(zone_health|zone_size|unhealthy_nodes_in_zone|evictions_total)`,
		`leader_election_master_status`,
	)
	keepScheduler = kept(keptCommon,
		`scheduler_(pending_pods|schedule_attempts_total|preemption_attempts_total|unschedulable_pods|cache_size|(scheduling_attempt|scheduling_algorithm|pod_scheduling_sli)_duration_seconds_(sum|count|bucket)|queue_incoming_pods_total)`,
	)
	keepKubelet = kept(keptCommon,
		`kubelet_(running_pods|running_containers|desired_pods|active_pods|node_name|node_config_error|evictions|started_(containers|pods)(_errors)?_total|restarted_pods_total|http_inflight_requests)`,
		`kubelet_volume_stats_(available_bytes|capacity_bytes|used_bytes|inodes|inodes_used|inodes_free|health_status_abnormal)`,
		`kubelet_(pod_start|pod_start_sli|pod_worker|pleg_relist|cgroup_manager|runtime_operations)_duration_seconds_(sum|count|bucket)|kubelet_pleg_relist_interval_seconds_(sum|count|bucket)|kubelet_pleg_(last_seen_seconds|discard_events)`,
		`kubelet_runtime_operations_(total|errors_total)`,
		`kubelet_(certificate_manager_(client|server)_(ttl_seconds|expiration_renew_errors)|server_expiration_renew_errors)`,
		`storage_operation_(duration_seconds_(sum|count|bucket)|errors_total)|volume_manager_total_volumes`,
	)
	keepCAdvisor = kept(
		`container_cpu_(usage_seconds_total|user_seconds_total|system_seconds_total|cfs_periods_total|cfs_throttled_periods_total|cfs_throttled_seconds_total)`,
		`container_memory_(working_set_bytes|usage_bytes|max_usage_bytes|rss|cache|swap|mapped_file|failcnt)|container_oom_events_total`,
		`container_spec_(memory_limit_bytes|memory_reservation_limit_bytes|cpu_quota|cpu_period|cpu_shares)`,
		`container_network_(receive|transmit)_(bytes|packets|errors|packets_dropped)_total`,
		`container_fs_((reads|writes)_(bytes_)?total|usage_bytes|limit_bytes|inodes_free|inodes_total|io_time_seconds_total)|container_blkio_device_usage_total`,
		`container_(start_time_seconds|last_seen|processes|threads|file_descriptors|sockets|pressure_(cpu|memory|io)_(waiting|stalled)_seconds_total)`,
		`machine_(cpu_cores|memory_bytes|swap_bytes)`,
	)
	keepEtcd = kept(keptCommon,
		`etcd_server_(has_leader|is_leader|id|version|leader_changes_seen_total|proposals_(failed|committed|applied)_total|proposals_pending|slow_(apply|read_indexes)_total|quota_backend_bytes|health_(failures|success)|heartbeat_send_failures_total|snapshot_apply_in_progress_total)`,
		`etcd_(mvcc_db_total_size_in_(bytes|use_in_bytes)|debugging_mvcc_(db_total_size_in_bytes|keys_total|watcher_total|slow_watcher_total|put_total|range_total|delete_total)|debugging_snap_save_total_duration_seconds_(sum|count)|mvcc_(put|range|delete|txn)_total)`,
		`etcd_disk_(wal_fsync|backend_commit|backend_snapshot)_duration_seconds_(sum|count|bucket)`,
		`etcd_network_(client_grpc_(received|sent)_bytes_total|peer_.+)`,
		`grpc_server_(started|handled)_total`,
	)
	keepCoreDNS = kept(keptCommon,
		`coredns_(build_info|panics_total|plugin_enabled|reload_failed_total|local_localhost_requests_total|hosts_(entries|reload_timestamp_seconds))`,
		`coredns_dns_(requests_total|responses_total|(request_duration_seconds|request_size_bytes|response_size_bytes)_(sum|count|bucket))`,
		`coredns_cache_(hits_total|misses_total|requests_total|entries|evictions_total)`,
		`coredns_(forward|proxy)_(requests_total|responses_total|request_duration_seconds_(sum|count|bucket)|healthcheck_(broken|failures)_total|max_concurrent_rejects_total)`,
		`coredns_health_(request_duration_seconds_(sum|count)|request_failures_total)|coredns_kubernetes_(dns_programming_duration_seconds_(sum|count|bucket)|rest_client_requests_total)`,
	)
	keepKubeProxy = kept(keptCommon,
		`kubeproxy_((sync_proxy_rules|sync_full_proxy_rules|network_programming)_duration_seconds_(sum|count|bucket)|sync_proxy_rules_(last_timestamp_seconds|last_queued_timestamp_seconds|iptables_total|nftables_sync_failures_total|iptables_restore_failures_total))`,
	)
	keepPrometheus = kept(
		`process_.+|go_(goroutines|memstats_(heap_inuse|alloc)_bytes|info)|prometheus_(build_info|ready|config_.+|engine_.+|rule_.+|sd_.+|notifications_.+)`,
		`prometheus_target_(scrape_pool_(targets|exceeded_.+)|scrapes_.+|interval_length_seconds(_.+)?|sync_(failed_total|length_seconds(_.+)?)|metadata_cache_.+|scrape_pools_.+)`,
		`prometheus_tsdb_(head_(series|chunks|samples_appended_total|min_time|max_time|series_(created|removed)_total|truncations_failed_total)|storage_blocks_bytes|blocks_loaded|compactions_(total|failed_total|triggered_total)|reloads_(total|failures_total)|checkpoint_(creations|deletions)_failed_total|wal_(corruptions_total|segment_current|storage_size_bytes|truncations_failed_total|writes_failed_total)|clean_start|lowest_timestamp_seconds|retention_limit_(bytes|seconds)|size_retentions_total|time_retentions_total|out_of_(order|bound)_samples_total|too_old_samples_total|data_replay_duration_seconds|symbol_table_size_bytes|isolation_low_watermark)`,
	)
)

// bucketsKept thin out the API server's latencies, whose 24 bounds for each
// verb and kind of object would be a third of all series.
var bucketsKept = []object{
	{"source_labels": []string{"__name__", "le"}, "regex": `apiserver_request_duration_seconds_bucket;(0\.005|0\.025|0\.05|0\.2|0\.6|0\.8|1\.25|1\.5|2|3|4|6|8|10|15|20|45|60)(\.0)?`, "action": "drop"},
	{"source_labels": []string{"__name__", "verb"}, "regex": `apiserver_request_duration_seconds_bucket;(WATCH|CONNECT|WATCHLIST|PROXY)`, "action": "drop"},
}

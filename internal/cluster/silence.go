package cluster

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics"

	"github.com/slipwayhq/slipway/internal/grpccalls"
)

// silent are the histograms of the components that are not kept: one for every
// kind of object, verb and size, they were half of the 24,000 series that each
// read of /metrics had to write, and took memory here and where they were
// dropped. What dashboards and rules commonly use stays
// (https://github.com/prometheus-operator/kube-prometheus).
var silent = []string{
	"apiserver_admission_controller_admission_duration_seconds",
	"apiserver_request_body_size_bytes",
	"apiserver_request_filter_duration_seconds",
	"apiserver_request_sli_duration_seconds",
	"apiserver_response_sizes",
	"apiserver_storage_transformation_duration_seconds",
	"apiserver_watch_cache_read_wait_seconds",
	"apiserver_watch_events_sizes",
	"apiserver_watch_list_duration_seconds",
	"scheduler_event_handling_duration_seconds",
}

// etcdLabels are the labels of etcd's latencies whose values are not told apart:
// for each of 70 kinds of object they were another quarter of the series. How
// many requests there are for each kind is etcd_requests_total.
var etcdLabels = map[string]string{
	"etcd_request_duration_seconds,group":    "",
	"etcd_request_duration_seconds,resource": "",
}

// silence has to be called before the components register their metrics, and
// before etcd serves its own, which are those of the process-wide registry.
func silence() {
	prometheus.DefaultGatherer = grpccalls.Gatherer(prometheus.DefaultGatherer)
	metrics.SetDisabledMetrics(silent)
	metrics.SetLabelAllowList(etcdLabels)
}

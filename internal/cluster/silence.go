package cluster

import (
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

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

// thinMetrics serves the components' metrics at the API server, as it does
// itself, but for the buckets that nobody needs.
func thinMetrics() http.Handler {
	return promhttp.HandlerFor(thin(legacyregistry.DefaultGatherer), promhttp.HandlerOpts{ProcessStartTime: legacyregistry.GetProcessStart()})
}

// latencies is the API server's histogram of requests, whose 24 buckets for
// each verb and kind of object were half of what it serves. latencyBounds are
// those that stay, in seconds; requests of longRunning verbs last as long as
// their clients want.
const latencies = "apiserver_request_duration_seconds"

var (
	latencyBounds = []float64{0.1, 0.4, 1, 5, 30}
	longRunning   = []string{"WATCH", "WATCHLIST", "CONNECT", "PROXY"}
)

// thin leaves out the other buckets of the latencies; a histogram without any
// has still its sum and count.
func thin(g prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := g.Gather()
		for _, f := range families {
			if f.GetName() != latencies {
				continue
			}
			for _, m := range f.GetMetric() {
				long := slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
					return l.GetName() == "verb" && slices.Contains(longRunning, l.GetValue())
				})
				m.Histogram.Bucket = slices.DeleteFunc(m.GetHistogram().GetBucket(), func(b *dto.Bucket) bool {
					return long || !slices.Contains(latencyBounds, b.GetUpperBound())
				})
			}
		}
		return families, err
	})
}

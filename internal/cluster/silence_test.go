package cluster

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLatenciesKeepFewBuckets(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: latencies, Help: "Of requests.", Buckets: []float64{0.05, 0.1, 0.2, 0.4, 0.6, 1, 5, 30, 60}}, []string{"verb"})
	other := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "other_seconds", Help: "Of others.", Buckets: []float64{0.05}})
	reg.MustRegister(h, other)
	for _, verb := range []string{"GET", "WATCH"} {
		h.WithLabelValues(verb).Observe(0.3)
	}
	want := `# HELP apiserver_request_duration_seconds Of requests.
# TYPE apiserver_request_duration_seconds histogram
apiserver_request_duration_seconds_bucket{verb="GET",le="0.1"} 0
apiserver_request_duration_seconds_bucket{verb="GET",le="0.4"} 1
apiserver_request_duration_seconds_bucket{verb="GET",le="1"} 1
apiserver_request_duration_seconds_bucket{verb="GET",le="5"} 1
apiserver_request_duration_seconds_bucket{verb="GET",le="30"} 1
apiserver_request_duration_seconds_bucket{verb="GET",le="+Inf"} 1
apiserver_request_duration_seconds_sum{verb="GET"} 0.3
apiserver_request_duration_seconds_count{verb="GET"} 1
apiserver_request_duration_seconds_bucket{verb="WATCH",le="+Inf"} 1
apiserver_request_duration_seconds_sum{verb="WATCH"} 0.3
apiserver_request_duration_seconds_count{verb="WATCH"} 1
# HELP other_seconds Of others.
# TYPE other_seconds histogram
other_seconds_bucket{le="0.05"} 0
other_seconds_bucket{le="+Inf"} 0
other_seconds_sum 0
other_seconds_count 0
`
	if err := testutil.GatherAndCompare(thin(reg), strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

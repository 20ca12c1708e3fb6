package ingress

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// revisionMemory is how long the series of a revision that has no endpoint
// left are kept, so that the last scrapes and the last requests are counted.
const revisionMemory = 15 * time.Minute

// requestMetrics counts requests by Ingress, Service and revision.
type requestMetrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	weight   *prometheus.GaugeVec
	mirrored *prometheus.CounterVec

	mu   sync.Mutex
	seen map[seriesKey]time.Time // when a revision left the table; zero while it is there
}

// seriesKey are the labels that both vectors share.
type seriesKey struct{ namespace, ingress, service, revision string }

// outcome says where a request went.
type outcome struct {
	route    *route
	backend  *backend
	endpoint *endpoint // nil when none was tried
	canary   bool
	status   int // what an error page stands for; 0 without one
}

func newRequestMetrics(reg prometheus.Registerer) *requestMetrics {
	labels := []string{"namespace", "ingress", "service", "revision", "canary"}
	m := &requestMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_ingress_requests_total",
			Help: "Requests answered, by the Ingress that routed them, the Service and the pod template hash (revision) that served them, and the status code.",
		}, append(labels, "code")),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "slipway_ingress_request_duration_seconds",
			Help:    "Time from the request's headers to the end of the response, in seconds.",
			Buckets: prometheus.DefBuckets,
		}, labels),
		weight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "slipway_ingress_canary_weight",
			Help: "Share of a route's requests that its canary is to get, from 0 to 1.",
		}, []string{"namespace", "ingress", "service"}),
		mirrored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_ingress_mirrored_requests_total",
			Help: "Requests of an Ingress with mirror-target, by what became of their copies: sent (and answered, with whatever status), failed, or dropped (body too large or cut off, or too many copies at a time).",
		}, []string{"namespace", "ingress", "result"}),
		seen: map[seriesKey]time.Time{},
	}
	reg.MustRegister(m.requests, m.duration, m.weight, m.mirrored)
	return m
}

func (m *requestMetrics) mirror(route *route, result string) {
	m.mirrored.WithLabelValues(route.namespace, route.name, result).Inc()
}

func (m *requestMetrics) request(o *outcome, status int, took time.Duration) {
	if o.status != 0 {
		status = o.status
	}
	if status == 0 {
		status = 499 // the client went away before an answer
	}
	k := seriesKey{namespace: o.route.namespace, ingress: o.route.name, service: o.backend.service}
	if o.endpoint != nil {
		k.revision = o.endpoint.revision
	} else if len(o.backend.endpoints) > 0 {
		k.revision = o.backend.endpoints[0].revision
	}
	canary := strconv.FormatBool(o.canary)
	m.requests.WithLabelValues(k.namespace, k.ingress, k.service, k.revision, canary, strconv.Itoa(status)).Inc()
	// Upgraded connections last as long as they last: no latency.
	if status != 101 {
		m.duration.WithLabelValues(k.namespace, k.ingress, k.service, k.revision, canary).Observe(took.Seconds())
	}
}

// observe notes which revisions a new table serves, and its canary weights.
func (m *requestMetrics) observe(t *table) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	live := map[seriesKey]bool{}
	m.weight.Reset()
	for _, r := range t.routes {
		m.see(r.namespace, r.name, r.backend, false, live)
		if alt := r.alternate; alt != nil {
			m.see(r.namespace, r.name, alt.backend, true, live)
			share := min(1, float64(alt.rule.weight)/float64(alt.rule.weightTotal))
			m.weight.WithLabelValues(r.namespace, r.name, alt.backend.service).Set(share)
		}
	}
	for k, gone := range m.seen {
		if !live[k] && gone.IsZero() {
			m.seen[k] = now
		}
	}
}

func (m *requestMetrics) see(namespace, ingress string, be *backend, canary bool, live map[seriesKey]bool) {
	for _, e := range be.endpoints {
		k := seriesKey{namespace, ingress, be.service, e.revision}
		live[k] = true
		if _, known := m.seen[k]; !known {
			// Start at 0, so that rate() sees the first requests.
			m.requests.WithLabelValues(k.namespace, k.ingress, k.service, k.revision, strconv.FormatBool(canary), "200")
		}
		m.seen[k] = time.Time{}
	}
}

// run forgets revisions that are gone until ctx ends.
func (m *requestMetrics) run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m.forget(now)
		}
	}
}

func (m *requestMetrics) forget(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, gone := range m.seen {
		if gone.IsZero() || now.Sub(gone) < revisionMemory {
			continue
		}
		delete(m.seen, k)
		labels := prometheus.Labels{"namespace": k.namespace, "ingress": k.ingress, "service": k.service, "revision": k.revision}
		m.requests.DeletePartialMatch(labels)
		m.duration.DeletePartialMatch(labels)
	}
}

// Package grpccalls leaves out of a program's metrics what gRPC servers make
// in advance: a counter for every method and every code, thousands of series
// that stay 0. It owns that choice alone. It receives the metrics as a
// Gatherer has them, emits those that say something, and must import nothing
// of ours.
package grpccalls

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Gatherer returns the metrics of g. Of a method that was not called yet only
// the number of calls and of those that went well are there, both 0, so that
// the first call is seen as an increase; from then on all codes are, so that
// the first error of each kind is. The names are those of
// https://github.com/grpc-ecosystem/go-grpc-middleware/tree/main/providers/prometheus.
func Gatherer(g prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := g.Gather()
		return withoutUncalled(families), err
	})
}

func withoutUncalled(families []*dto.MetricFamily) []*dto.MetricFamily {
	called := map[method]bool{}
	for _, f := range families {
		if f.GetName() == "grpc_server_started_total" {
			for _, m := range f.GetMetric() {
				if m.GetCounter().GetValue() > 0 {
					called[methodOf(m)] = true
				}
			}
		}
	}
	var out []*dto.MetricFamily
	for _, f := range families {
		switch f.GetName() {
		case "grpc_server_handled_total", "grpc_server_msg_received_total", "grpc_server_msg_sent_total", "grpc_server_handling_seconds":
			kept := slices.DeleteFunc(slices.Clone(f.GetMetric()), func(m *dto.Metric) bool {
				of := methodOf(m)
				code := of.code
				of.code = ""
				return !called[of] && code != "OK"
			})
			if len(kept) == 0 {
				continue
			}
			f = &dto.MetricFamily{Name: f.Name, Help: f.Help, Type: f.Type, Unit: f.Unit, Metric: kept}
		}
		out = append(out, f)
	}
	return out
}

// method names a method of a service; the code is that of its answers, if the
// metric tells them apart.
type method struct{ service, name, code string }

func methodOf(m *dto.Metric) method {
	var of method
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case "grpc_service":
			of.service = l.GetValue()
		case "grpc_method":
			of.name = l.GetValue()
		case "grpc_code":
			of.code = l.GetValue()
		}
	}
	return of
}

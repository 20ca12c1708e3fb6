package metrics

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	sample "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// latest is one series with its last sample.
type latest struct {
	labels labels.Labels
	at     int64 // milliseconds
	value  float64
}

// federate answers another Prometheus with the last samples of the selected
// series, as https://prometheus.io/docs/prometheus/latest/federation/ has it.
// Series that ended, and native histograms, which nothing here takes, are left
// out.
func (m *Metrics) federate(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "error parsing form values: "+err.Error(), http.StatusBadRequest)
		return
	}
	selectors, err := m.parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	now := time.Now()
	from, to := now.Add(-lookback).UnixMilli(), now.UnixMilli()
	q, err := m.db.Querier(from, to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer q.Close()
	var sets []storage.SeriesSet
	for _, s := range selectors {
		sets = append(sets, q.Select(r.Context(), true, &storage.SelectHints{Start: from, End: to}, s...))
	}
	set := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	var all []latest
	var it chunkenc.Iterator
	for set.Next() {
		it = set.At().Iterator(it)
		one := latest{labels: set.At().Labels(), at: -1}
		for it.Next() == chunkenc.ValFloat {
			one.at, one.value = it.At()
		}
		if err := it.Err(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if one.at >= 0 && !sample.IsStaleNaN(one.value) {
			all = append(all, one)
		}
	}
	if err := set.Err(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	slices.SortStableFunc(all, func(a, b latest) int {
		return cmp.Compare(a.labels.Get(model.MetricNameLabel), b.labels.Get(model.MetricNameLabel))
	})
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultAcceptedFormats()...)
	w.Header().Set("Content-Type", string(format))
	enc := expfmt.NewEncoder(w, format)
	for len(all) > 0 {
		family := untyped(all)
		if err := enc.Encode(family); err != nil {
			m.log.Debug("a federation answer was not sent", "err", err)
			return
		}
		all = all[len(family.Metric):]
	}
}

// untyped makes a family of the series at the front that share a name. An
// empty instance says that none is to be added.
func untyped(all []latest) *dto.MetricFamily {
	name, kind := all[0].labels.Get(model.MetricNameLabel), dto.MetricType_UNTYPED
	f := &dto.MetricFamily{Name: &name, Type: &kind}
	for _, one := range all {
		if one.labels.Get(model.MetricNameLabel) != name {
			break
		}
		metric := &dto.Metric{TimestampMs: &one.at, Untyped: &dto.Untyped{Value: &one.value}}
		if !one.labels.Has(model.InstanceLabel) {
			k, v := model.InstanceLabel, ""
			metric.Label = append(metric.Label, &dto.LabelPair{Name: &k, Value: &v})
		}
		one.labels.Range(func(l labels.Label) {
			if l.Name != model.MetricNameLabel {
				metric.Label = append(metric.Label, &dto.LabelPair{Name: &l.Name, Value: &l.Value})
			}
		})
		f.Metric = append(f.Metric, metric)
	}
	return f
}

// Package metrics is the platform's Prometheus: the upstream time series
// database, scrape manager, rule manager, PromQL engine and query API, linked
// into the process.
//
// It owns the samples and their retention, what is scraped and how often, the
// recording rules that release analysis builds on, node_exporter's collectors
// and kube-state-metrics (both in process), and the discovery of applications
// by ServiceMonitor, PodMonitor, PrometheusRule and the prometheus.io/*
// annotations. It receives a kubeconfig (which may appear later, and whose
// cluster may go away) and the metrics of the platform's own components; it
// emits the Prometheus HTTP API, query results for the web UI, and alerts
// through a callback.
//
// It must not import other stages, the store, the configuration or the web.
package metrics

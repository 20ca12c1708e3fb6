// Package observe holds the words of observation that the pages share with the
// engines below it: results of queries, targets and problems. The packages
// below it hold the engines.
//
// It receives nothing and emits nothing, and must import only the standard
// library, so that a page about metrics does not link a database.
package observe

import "time"

// Series is one time series of a result.
type Series struct {
	Labels map[string]string
	Points []Point
}

// Point is one value; a histogram's is its sum.
type Point struct {
	At    time.Time
	Value float64
}

// Result is what a query gave.
type Result struct {
	// Kind is Prometheus' result type: vector, matrix, scalar or string.
	Kind     string
	Series   []Series
	Text     string // of a string
	Warnings []string
}

// TargetState is one scraped target.
type TargetState struct {
	Pool      string // the scrape configuration's name
	URL       string
	Labels    map[string]string
	Health    string // up, down or unknown
	LastError string
	LastAt    time.Time
	Took      time.Duration
}

// Problem is something wrong with a monitor, a rule or an annotation.
type Problem struct {
	Object  string // such as "ServiceMonitor shop/cart"
	Message string
}

// RuleGroup is a group of rules that are evaluated together.
type RuleGroup struct {
	Name     string
	Source   string // such as "PrometheusRule shop/cart"; "built in" for the platform's own
	Interval time.Duration
	LastAt   time.Time
	Took     time.Duration
	Rules    []Rule
}

// Rule is a recording or an alerting rule.
type Rule struct {
	Name      string
	Alerting  bool
	Query     string
	For       time.Duration // how long it must hold before an alert fires
	State     string        // of an alerting rule: inactive, pending or firing
	Health    string        // ok, err or unknown
	LastError string
	Alerts    []Alert
}

// Alert is one alert of a rule.
type Alert struct {
	State       string // pending or firing
	Labels      map[string]string
	Annotations map[string]string
	Since       time.Time
	Value       float64
}

package metrics

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/kubernetes" // the discovery "kubernetes_sd_configs"
)

// object is a piece of Prometheus' configuration file.
type object = map[string]any

// job is one scrape configuration and where it came from.
type job struct {
	source string // such as "ServiceMonitor shop/cart"; empty for our own
	config object
}

// scrapeConfig makes Prometheus' configuration of all targets known now. A job
// that Prometheus refuses is left out and reported, unless it is our own.
func (m *Metrics) scrapeConfig() (*config.Config, []Problem, error) {
	jobs, err := m.staticJobs()
	if err != nil {
		return nil, nil, err
	}
	clusterJobs, problems := m.cluster.jobs()
	var accepted []object
	for _, j := range append(jobs, clusterJobs...) {
		if _, err := m.load([]object{j.config}); err != nil {
			if j.source == "" {
				return nil, nil, fmt.Errorf("job %v: %w", j.config["job_name"], err)
			}
			problems = append(problems, Problem{Object: j.source, Message: "Prometheus refuses it: " + err.Error()})
			continue
		}
		accepted = append(accepted, j.config)
	}
	cfg, err := m.load(accepted)
	return cfg, problems, err
}

// load has Prometheus parse and check a configuration. JSON is YAML.
func (m *Metrics) load(jobs []object) (*config.Config, error) {
	raw, err := json.Marshal(object{
		"global": object{
			"scrape_interval":     promDuration(m.cfg.Interval),
			"scrape_timeout":      promDuration(min(m.cfg.Interval, 10*time.Second)),
			"evaluation_interval": promDuration(m.cfg.Interval),
		},
		"scrape_configs": jobs,
	})
	if err != nil {
		return nil, err
	}
	return config.Load(string(raw), slog.New(slog.DiscardHandler))
}

// promDuration writes a duration as Prometheus reads it.
func promDuration(d time.Duration) string {
	return fmt.Sprintf("%dms", d.Milliseconds())
}

// staticJobs are the configured targets and our own.
func (m *Metrics) staticJobs() ([]job, error) {
	var jobs []job
	for i, t := range m.cfg.Targets {
		scheme, addr, path, err := m.local.address(t)
		if err != nil {
			return nil, err
		}
		instance := t.Instance
		if instance == "" {
			instance = m.cfg.Instance
		}
		c := object{
			"job_name":       fmt.Sprintf("%s/%d", t.Job, i),
			"scheme":         scheme,
			"metrics_path":   path,
			"honor_labels":   true,
			"static_configs": []object{{"targets": []string{addr}, "labels": object{"job": t.Job, "instance": instance}}},
		}
		interval := t.Interval
		if interval > 0 {
			c["scrape_interval"] = promDuration(interval)
			c["scrape_timeout"] = promDuration(min(interval, 10*time.Second))
		}
		if scheme == "https" {
			tls := object{"insecure_skip_verify": t.Insecure}
			if t.ClusterCredentials {
				creds := m.cluster.credentials()
				if creds == nil {
					continue // known once the kubeconfig is there
				}
				creds.apply(c, t.Insecure)
			} else {
				c["tls_config"] = tls
			}
		}
		t.Keep.apply(c)
		jobs = append(jobs, job{config: c})
	}
	own := func(name string, kept Families) {
		c := object{
			"job_name":       name,
			"metrics_path":   "/" + name,
			"static_configs": []object{{"targets": []string{"local" + localSuffix + ":80"}, "labels": object{"instance": m.cfg.Instance}}},
		}
		kept.apply(c)
		jobs = append(jobs, job{config: c})
	}
	own("prometheus", keptPrometheus())
	if m.cfg.Node {
		own("node-exporter", Families{})
	}
	return jobs, nil
}

func keepLabel(label, regex string) object {
	return object{"source_labels": []string{label}, "regex": regex, "action": "keep"}
}

func setLabel(target string, regex, replacement string, sources ...string) object {
	o := object{"source_labels": sources, "target_label": target, "action": "replace"}
	if regex != "" {
		o["regex"] = regex
	}
	if replacement != "" {
		o["replacement"] = replacement
	}
	return o
}

// labelName turns a Kubernetes label's name into what the discovery makes of it.
func labelName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, s)
}

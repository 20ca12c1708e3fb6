package metrics

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"
)

// fakeSession is a cluster that has these monitors, without an API server.
func fakeSession(t *testing.T, manifests string) (*Metrics, *session) {
	t.Helper()
	m, err := New(Config{DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "login"},
		Data:       map[string][]byte{"user": []byte("me"), "password": []byte("secret")},
	})
	s := &session{c: m.cluster, kubeconfig: kubeconfig, rest: &rest.Config{Host: "https://127.0.0.1:6443"}, client: client, dirty: make(chan struct{}, 1), monitors: map[string]cache.SharedIndexInformer{}}
	for _, r := range monitorResources {
		s.monitors[r.Resource] = cache.NewSharedIndexInformer(nil, &unstructured.Unstructured{}, 0, cache.Indexers{})
	}
	for _, doc := range strings.Split(manifests, "\n---\n") {
		var u unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		resource := strings.ToLower(u.GetKind()) + "s"
		if err := s.monitors[resource].GetStore().Add(&u); err != nil {
			t.Fatal(err)
		}
	}
	m.cluster.setSession(s)
	return m, s
}

const shopMonitors = `
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: full, namespace: shop}
spec:
  selector: {}
  labelLimit: 9
  bodySizeLimit: 1MB
  keepDroppedTargets: 3
  fallbackScrapeProtocol: PrometheusText0.0.4
  attachMetadata: {node: true}
  endpoints:
  - targetPort: 9090
    params: {module: [http_2xx]}
    proxyUrl: http://proxy:3128
    trackTimestampsStaleness: true
    oauth2: {clientId: {secret: {name: login, key: user}}, clientSecret: {name: login, key: password}, tokenUrl: https://idp/token, scopes: [read]}
    tlsConfig: {minVersion: TLS12, insecureSkipVerify: true}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: cart, namespace: shop}
spec:
  jobLabel: app.kubernetes.io/name
  targetLabels: [team]
  selector:
    matchLabels: {app: cart}
    matchExpressions: [{key: tier, operator: In, values: [web, api]}]
  namespaceSelector: {matchNames: [shop, shop-eu]}
  endpoints:
  - port: http
    path: /m
    interval: 5s
    basicAuth: {username: {name: login, key: user}, password: {name: login, key: password}}
    metricRelabelings: [{sourceLabels: [__name__], regex: go_.*, action: drop}]
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {name: jobs, namespace: shop}
spec:
  selector: {}
  podMetricsEndpoints: [{port: metrics}]
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: broken, namespace: shop}
spec:
  selector: {}
  endpoints: [{port: http, interval: soon}]
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: refused, namespace: shop}
spec:
  selector: {}
  endpoints: [{port: http, relabelings: [{action: replace, targetLabel: "", regex: "("}]}]
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: greedy, namespace: shop}
spec:
  selector: {}
  endpoints: [{port: http, bearerTokenFile: /etc/shadow}]
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: good, namespace: shop}
spec:
  groups: [{name: g, rules: [{record: "shop:x", expr: vector(1)}, {alert: Down, expr: up == 0, for: 1m, labels: {severity: page}}]}]
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: bad, namespace: shop}
spec:
  groups: [{name: g, rules: [{record: "shop:y", expr: "sum("}]}]
`

func TestMonitorsBecomeScrapeConfigurations(t *testing.T) {
	t.Parallel()
	m, _ := fakeSession(t, shopMonitors)
	cfg, problems, err := m.scrapeConfig()
	if err != nil {
		t.Fatal(err)
	}
	var jobs []string
	var cart *config.ScrapeConfig
	for _, s := range cfg.ScrapeConfigs {
		jobs = append(jobs, s.JobName)
		if s.JobName == "serviceMonitor/shop/cart/0" {
			cart = s
		}
	}
	for _, want := range []string{"apiserver", "kubelet", "kubelet/cadvisor", "kube-state-metrics", "annotations/pods", "annotations/services", "serviceMonitor/shop/cart/0", "podMonitor/shop/jobs/0"} {
		if !slices.Contains(jobs, want) {
			t.Errorf("job %s is missing from %v", want, jobs)
		}
	}
	for object, want := range map[string]string{
		"ServiceMonitor shop/broken":  "interval",
		"ServiceMonitor shop/refused": "Prometheus refuses it",
		"ServiceMonitor shop/greedy":  "files of the server may not be read",
	} {
		if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Object == object && strings.Contains(p.Message, want) }) {
			t.Errorf("no problem %q of %s in %v", want, object, problems)
		}
	}
	if cart == nil {
		t.Fatal("no cart")
	}
	if i := slices.IndexFunc(cfg.ScrapeConfigs, func(c *config.ScrapeConfig) bool { return c.JobName == "serviceMonitor/shop/full/0" }); i < 0 {
		t.Errorf("no monitor full: %v", problems)
	} else if full := cfg.ScrapeConfigs[i]; full.LabelLimit != 9 || full.BodySizeLimit != 1<<20 || full.KeepDroppedTargets != 3 || full.ScrapeFallbackProtocol != config.PrometheusText0_0_4 ||
		full.HTTPClientConfig.OAuth2 == nil || full.HTTPClientConfig.OAuth2.ClientSecret != "secret" || full.Params.Get("module") != "http_2xx" || !full.TrackTimestampsStaleness ||
		full.HTTPClientConfig.TLSConfig.MinVersion == 0 || full.HTTPClientConfig.ProxyURL.URL == nil {
		t.Errorf("full: %+v", full)
	}
	if cart.MetricsPath != "/m" || cart.ScrapeInterval != model.Duration(5*time.Second) || cart.HTTPClientConfig.BasicAuth == nil ||
		cart.HTTPClientConfig.BasicAuth.Password != "secret" || cart.SampleLimit != 5000 || len(cart.MetricRelabelConfigs) != 1 {
		t.Errorf("cart: %+v", cart)
	}
	text := cfg.String()
	if strings.Contains(text, "password: secret") {
		t.Error("the configuration shows a password")
	}
	cartTargets(t, cart)
}

// cartTargets asks Prometheus' relabelling which endpoints the monitor takes.
func cartTargets(t *testing.T, cart *config.ScrapeConfig) {
	meta := map[string]string{
		"__address__":                         "10.0.0.1:8080",
		"__meta_kubernetes_namespace":         "shop",
		"__meta_kubernetes_service_label_app": "cart", "__meta_kubernetes_service_labelpresent_app": "true",
		"__meta_kubernetes_service_label_tier": "web", "__meta_kubernetes_service_labelpresent_tier": "true",
		"__meta_kubernetes_service_label_team": "blue", "__meta_kubernetes_service_label_app_kubernetes_io_name": "cart-job",
		"__meta_kubernetes_service_name": "cart", "__meta_kubernetes_endpointslice_port_name": "http",
		"__meta_kubernetes_endpointslice_address_target_kind": "Pod", "__meta_kubernetes_endpointslice_address_target_name": "cart-1",
		"__meta_kubernetes_pod_name": "cart-1", "__meta_kubernetes_pod_label_pod_template_hash": "abc", "__meta_kubernetes_pod_container_name": "c",
	}
	taken := func(change map[string]string) (labels.Labels, bool) {
		b := labels.NewBuilder(labels.EmptyLabels())
		for k, v := range meta {
			b.Set(k, v)
		}
		for k, v := range change {
			b.Set(k, v)
		}
		keep := relabel.ProcessBuilder(b, cart.RelabelConfigs...)
		return b.Labels(), keep
	}
	got, keep := taken(nil)
	if !keep {
		t.Fatal("the endpoint is not taken")
	}
	for name, want := range map[string]string{"job": "cart-job", "team": "blue", "namespace": "shop", "service": "cart", "pod": "cart-1", "endpoint": "http", "revision": "abc", "container": "c"} {
		if got.Get(name) != want {
			t.Errorf("label %s = %q, want %q", name, got.Get(name), want)
		}
	}
	for what, change := range map[string]map[string]string{
		"another namespace": {"__meta_kubernetes_namespace": "other"},
		"another app":       {"__meta_kubernetes_service_label_app": "x"},
		"another tier":      {"__meta_kubernetes_service_label_tier": "db"},
		"another port":      {"__meta_kubernetes_endpointslice_port_name": "admin"},
		"a finished pod":    {"__meta_kubernetes_pod_phase": "Succeeded"},
	} {
		if _, keep := taken(change); keep {
			t.Errorf("%s is taken", what)
		}
	}
	if _, keep := taken(map[string]string{"__meta_kubernetes_namespace": "shop-eu"}); !keep {
		t.Error("the second namespace is not taken")
	}
}

func TestRulesOfTheCluster(t *testing.T) {
	t.Parallel()
	m, _ := fakeSession(t, shopMonitors)
	files, problems := m.ruleFiles()
	if !slices.Contains(files, "PrometheusRule shop/good") || slices.Contains(files, "PrometheusRule shop/bad") || len(files) != 4 {
		t.Errorf("files: %v", files)
	}
	if len(problems) != 1 || problems[0].Object != "PrometheusRule shop/bad" {
		t.Errorf("problems: %v", problems)
	}
	for _, file := range files {
		if _, errs := (&ruleLoader{m}).Load(file, false, model.UTF8Validation); len(errs) > 0 {
			t.Errorf("%s: %v", file, errs)
		}
	}
	groups, errs := (&ruleLoader{m}).Load("PrometheusRule shop/good", false, model.UTF8Validation)
	if len(errs) > 0 || len(groups.Groups) != 1 || len(groups.Groups[0].Rules) != 2 || groups.Groups[0].Rules[1].For != model.Duration(time.Minute) {
		t.Errorf("%+v %v", groups, errs)
	}
}

func TestCRDsAreWhatTheAPIServerTakes(t *testing.T) {
	t.Parallel()
	for _, r := range monitorResources {
		data, err := crds.ReadFile("crds/" + r.Resource + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var crd struct {
			Metadata struct {
				Name   string
				Labels map[string]string
			}
			Spec struct{ Group string }
		}
		js, err := yaml.YAMLToJSON(data)
		if err == nil {
			err = json.Unmarshal(js, &crd)
		}
		if err != nil || crd.Metadata.Name != r.Resource+"."+r.Group || crd.Metadata.Labels["app.kubernetes.io/part-of"] != "slipway" {
			t.Errorf("%s: %+v %v", r.Resource, crd, err)
		}
	}
}

func TestReadyNamesTheRootCause(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	m := start(t, Config{Kubeconfig: kubeconfig, Interval: time.Second})
	eventually(t, "no kubeconfig", func() bool {
		err := m.Ready()
		return err != nil && strings.Contains(err.Error(), "there is no kubeconfig yet")
	})
	write := func(server string) {
		t.Helper()
		text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: " + server + "}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\nusers: [{name: u, user: {token: t}}]\n"
		if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("http://127.0.0.1:1")
	eventually(t, "no API server", func() bool {
		err := m.Ready()
		return err != nil && strings.Contains(err.Error(), "the API server at http://127.0.0.1:1 does not answer") && strings.Contains(err.Error(), "connection refused")
	})
	if v, ok := value(t, m, "vector(2)"); !ok || v != 2 {
		t.Error("queries are not answered without a cluster")
	}
}

func FuzzLabelName(f *testing.F) {
	f.Add("app.kubernetes.io/name")
	f.Fuzz(func(t *testing.T, s string) {
		if got := "l_" + labelName(s); !model.LegacyValidation.IsValidLabelName(got) {
			t.Errorf("%q: %q", s, got)
		}
	})
}

// The rules of the cluster come after the start, when it is reached: alerts
// that waited before go on waiting from where they were.
func TestAlertsOfTheClusterSurviveARestart(t *testing.T) {
	t.Parallel()
	m := start(t, Config{Interval: 50 * time.Millisecond})
	began := time.Now().Add(-30 * time.Minute)
	app := m.db.Appender(t.Context())
	series := labels.FromStrings("__name__", "ALERTS_FOR_STATE", "alertname", "Waits", "severity", "page")
	if _, err := app.Append(0, series, time.Now().Add(-time.Second).UnixMilli(), float64(began.Unix())); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	_, s := fakeSession(t, `
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: waits, namespace: shop}
spec:
  groups: [{name: g, interval: 100ms, rules: [{alert: Waits, expr: vector(1), for: 1h, labels: {severity: page}, annotations: {summary: "{{ $value }} seen"}}]}]
`)
	s.c = m.cluster
	m.cluster.setSession(s)
	if err := m.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the alert goes on", func() bool {
		for _, g := range m.Rules() {
			for _, r := range g.Rules {
				for _, a := range r.Alerts {
					return a.State == "pending" && a.Since.Sub(began).Abs() < time.Minute && a.Annotations["summary"] == "1 seen"
				}
			}
		}
		return false
	})
	eventually(t, "the series ALERTS", func() bool {
		_, ok := value(t, m, `ALERTS{alertname="Waits",alertstate="pending"}`)
		return ok
	})
}

// What is wrong with an object is told in its events, once.
func TestProblemsAreToldInEvents(t *testing.T) {
	t.Parallel()
	m, s := fakeSession(t, shopMonitors)
	_, problems, err := m.scrapeConfig()
	if err != nil {
		t.Fatal(err)
	}
	m.problems = append(problems, Problem{Object: "built-in rules", Message: "of no object"})
	s.tell(t.Context())
	s.tell(t.Context())
	events, err := s.client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(events.Items) != 3 {
		t.Fatalf("%d events, %v", len(events.Items), err)
	}
	for _, e := range events.Items {
		if e.InvolvedObject.Kind != "ServiceMonitor" || e.Type != corev1.EventTypeWarning || e.Message == "" {
			t.Errorf("%+v", e)
		}
	}
}

// With a port's annotation the ports of a pod's containers are one target, and
// the job outlives the ReplicaSet.
func TestAnnotatedPods(t *testing.T) {
	t.Parallel()
	m, _ := fakeSession(t, shopMonitors)
	cfg, _, err := m.scrapeConfig()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(cfg.ScrapeConfigs, func(c *config.ScrapeConfig) bool { return c.JobName == "annotations/pods" })
	pod := func(container, port, annotation string) labels.Labels {
		b := labels.NewBuilder(labels.FromMap(map[string]string{
			"__address__": "10.0.0.1:" + port, "__meta_kubernetes_namespace": "shop", "__meta_kubernetes_pod_name": "cart-5c58568978-x",
			"__meta_kubernetes_pod_controller_kind": "ReplicaSet", "__meta_kubernetes_pod_controller_name": "cart-5c58568978",
			"__meta_kubernetes_pod_annotation_prometheus_io_scrape": "true", "__meta_kubernetes_pod_annotation_prometheus_io_port": annotation,
			"__meta_kubernetes_pod_container_name": container, "__meta_kubernetes_pod_container_port_number": port, "__meta_kubernetes_pod_phase": "Running",
		}))
		if !relabel.ProcessBuilder(b, cfg.ScrapeConfigs[i].RelabelConfigs...) {
			t.Fatal("the pod is not taken")
		}
		out := labels.NewBuilder(b.Labels())
		b.Labels().Range(func(l labels.Label) {
			if strings.HasPrefix(l.Name, "__meta_") {
				out.Del(l.Name)
			}
		})
		return out.Labels()
	}
	if one, two := pod("app", "8080", "9090"), pod("proxy", "15001", "9090"); !labels.Equal(one, two) || one.Get("job") != "shop/cart" || one.Get("__address__") != "10.0.0.1:9090" {
		t.Errorf("%v, %v", one, two)
	}
	if one := pod("app", "8080", ""); one.Get("container") != "app" || one.Get("__address__") != "10.0.0.1:8080" {
		t.Errorf("%v", one)
	}
}

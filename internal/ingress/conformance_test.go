package ingress

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// The Ingresses and requests of this test are those of the Kubernetes project's
// conformance suite (kubernetes-sigs/ingress-controller-conformance, features
// path_rules, host_rules, default_backend).
const conformanceIngress = `
metadata: {name: conformance}
spec:
  ingressClassName: slipway
  tls: [{hosts: [foo.bar.ID.test], secretName: conformance-tls}]
  rules:
  - host: exact.ID.test
    http: {paths: [{path: /foo, pathType: Exact, backend: {service: {name: foo-exact, port: {number: 80}}}}]}
  - host: prefix.ID.test
    http:
      paths:
      - {path: /foo, pathType: Prefix, backend: {service: {name: foo-prefix, port: {number: 80}}}}
      - {path: /aaa, pathType: Prefix, backend: {service: {name: aaa-prefix, port: {number: 80}}}}
      - {path: /aaa/bbb, pathType: Prefix, backend: {service: {name: aaa-slash-bbb-prefix, port: {number: 80}}}}
  - host: mixed.ID.test
    http:
      paths:
      - {path: /foo, pathType: Prefix, backend: {service: {name: foo-prefix, port: {number: 80}}}}
      - {path: /foo, pathType: Exact, backend: {service: {name: foo-exact, port: {number: 80}}}}
  - host: slash.ID.test
    http:
      paths:
      - {path: /aaa/bbb/, pathType: Prefix, backend: {service: {name: aaa-slash-bbb-prefix, port: {number: 80}}}}
      - {path: /foo/, pathType: Exact, backend: {service: {name: foo-exact, port: {number: 80}}}}
  - host: "*.foo.ID.test"
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: foo-prefix, port: {number: 80}}}}]}
  - host: foo.bar.ID.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: aaa-prefix, port: {name: http}}}}]}
  - host: guarded.ID.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: foo-prefix, port: {number: 80}}}}
      - {path: /admin, pathType: Prefix, backend: {service: {name: foo-exact, port: {number: 80}}}}
`

func (a *app) yaml(text string) *networkingv1.Ingress {
	a.t.Helper()
	ing := &networkingv1.Ingress{}
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(text, "ID", a.ns)), ing); err != nil {
		a.t.Fatal(err)
	}
	ing.Namespace, ing.CreationTimestamp = a.ns, metav1.Now()
	return a.put(ing)
}

// named runs a Service that says its name and what it was asked.
func (a *app) named(names ...string) {
	for _, name := range names {
		addr := a.backend(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s", name, r.Host, r.RequestURI)
		})
		a.service(name, nil, addr)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.named("foo-exact", "foo-prefix", "aaa-prefix", "aaa-slash-bbb-prefix")
	certPEM, keyPEM := selfSigned(t, "foo.bar."+a.ns+".test")
	_, err := shared.client.CoreV1().Secrets(a.ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "conformance-tls"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": certPEM, "tls.key": keyPEM},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.yaml(conformanceIngress)
	for _, name := range []string{"foo-exact", "foo-prefix", "aaa-prefix", "aaa-slash-bbb-prefix"} {
		eventually(t, name+" has its endpoint", func() bool {
			for _, b := range shared.table.Load().backends {
				if b.namespace == a.ns && b.service == name && len(b.endpoints) == 1 {
					return true
				}
			}
			return false
		})
	}
	for _, x := range []struct{ host, path, service string }{
		{"exact", "/foo", "foo-exact"},
		{"exact", "/foo/", ""},
		{"exact", "/FOO", ""},
		{"exact", "/bar", ""},
		{"prefix", "/foo", "foo-prefix"},
		{"prefix", "/foo/", "foo-prefix"},
		{"prefix", "/FOO", ""},
		{"prefix", "/aaa/bbb", "aaa-slash-bbb-prefix"},
		{"prefix", "/aaa/bbb/ccc", "aaa-slash-bbb-prefix"},
		{"prefix", "/aaa/ccc", "aaa-prefix"},
		{"prefix", "/aaaccc", ""},
		{"prefix", "/", ""},
		{"mixed", "/foo", "foo-exact"},
		{"mixed", "/foo/", "foo-prefix"},
		{"slash", "/aaa/bbb", "aaa-slash-bbb-prefix"},
		{"slash", "/aaa/bbb/", "aaa-slash-bbb-prefix"},
		{"slash", "/foo", ""},
		{"slash", "/foo/", "foo-exact"},
		{"bar.foo", "/", "foo-prefix"},
		{"baz.bar.foo", "/", ""},
		{"foo", "/", ""},
		{"subdomain.bar", "/", ""},
		// What an application would read as another path goes by that path's
		// route; the application itself sees what was sent.
		{"guarded", "/admin", "foo-exact"},
		{"guarded", "/x/../admin", "foo-exact"},
		{"guarded", "//admin", "foo-exact"},
		{"guarded", "/x/%2e%2e/admin", "foo-exact"},
		{"guarded", "/./admin/", "foo-exact"},
		{"guarded", "/administrator", "foo-prefix"},
	} {
		host := x.host + "." + a.ns + ".test"
		status, body := raw(t, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", x.path, host))
		want := fmt.Sprintf("%s %s %s", x.service, host, x.path)
		if x.service == "" && status != 404 || x.service != "" && (status != 200 || body != want) {
			t.Errorf("%s%s: %d %s, want %q", host, x.path, status, body, x.service)
		}
	}
	if status, _ := raw(t, fmt.Sprintf("GET /../../etc HTTP/1.1\r\nHost: guarded.%s.test\r\nConnection: close\r\n\r\n", a.ns)); status != 400 {
		t.Errorf("above the root: %d", status)
	}
	host := "foo.bar." + a.ns + ".test"
	s := certClient(t, nil)
	s.Transport.(*http.Transport).TLSClientConfig.RootCAs.AppendCertsFromPEM(certPEM)
	got := get(t, s, "https://"+host+"/")
	block, _ := pem.Decode(certPEM)
	if got.status != 200 || !strings.HasPrefix(got.body, "aaa-prefix "+host) || string(got.resp.TLS.PeerCertificates[0].Raw) != string(block.Bytes) {
		t.Errorf("TLS by the Secret: %d %s", got.status, got.body)
	}
	eventually(t, "the status has the address", func() bool {
		ing, err := shared.client.NetworkingV1().Ingresses(a.ns).Get(t.Context(), "conformance", metav1.GetOptions{})
		return err == nil && len(ing.Status.LoadBalancer.Ingress) == 1
	})
}

// raw sends a request as it is written and returns status and body.
func raw(t *testing.T, request string) (status int, body string) {
	t.Helper()
	answer := rawAnswer(t, request)
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	_, _ = fmt.Sscanf(head, "HTTP/1.1 %d", &status)
	if strings.Contains(strings.ToLower(head), "transfer-encoding: chunked") {
		if _, rest, ok := strings.Cut(body, "\r\n"); ok {
			body, _, _ = strings.Cut(rest, "\r\n")
		}
	}
	return status, body
}

// A default backend answers for what no rule covers: of its own Ingress's
// hosts, and of all hosts where the Ingress has no rules.
func TestDefaultBackends(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.named("rule", "rest")
	in := &inputs{
		Services:  services(a.ns, "rule", "rest"),
		Ingresses: []*networkingv1.Ingress{a.yaml(`{metadata: {name: own}, spec: {ingressClassName: slipway, defaultBackend: {service: {name: rest, port: {number: 80}}}, rules: [{host: own.ID.test, http: {paths: [{path: /rule, pathType: Prefix, backend: {service: {name: rule, port: {number: 80}}}}]}}, {host: bare.ID.test}]}}`)},
	}
	all := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "all"}, Spec: networkingv1.IngressSpec{
		IngressClassName: new("slipway"), DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "rest", Port: networkingv1.ServiceBackendPort{Name: "http"}}},
	}}
	for _, x := range []struct {
		with       bool // the Ingress for all hosts
		host, path string
		service    string
	}{
		{false, "own", "/rule", "rule"}, {false, "own", "/other", "rest"}, {false, "bare", "/", "rest"}, {false, "other", "/", ""},
		{true, "own", "/other", "rest"}, {true, "other", "/x", "rest"},
	} {
		set := *in
		if x.with {
			set.Ingresses = append(set.Ingresses[:1:1], all)
		}
		tb := buildTable(&set, tableOptions{class: "slipway", counters: newCounters()})
		got := ""
		if r := tb.match(x.host+"."+a.ns+".test", x.path); r != nil {
			got = r.backend.service
		}
		if got != x.service {
			t.Errorf("%s%s: %q, want %q", x.host, x.path, got, x.service)
		}
	}
}

func services(namespace string, names ...string) (out []*corev1.Service) {
	for _, name := range names {
		out = append(out, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}}}})
	}
	return out
}

func TestClasses(t *testing.T) {
	t.Parallel()
	class := func(name, controller string, isDefault bool) *networkingv1.IngressClass {
		c := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}}, Spec: networkingv1.IngressClassSpec{Controller: controller}}
		if isDefault {
			c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] = "true"
		}
		return c
	}
	ours := class("slipway", controllerName, true)
	for name, x := range map[string]struct {
		classes    []*networkingv1.IngressClass
		class      *string
		annotation string
		served     bool
	}{
		"ours":                            {[]*networkingv1.IngressClass{ours}, new("slipway"), "", true},
		"ours by another name":            {[]*networkingv1.IngressClass{ours, class("public", controllerName, false)}, new("public"), "", true},
		"none, ours is the default":       {[]*networkingv1.IngressClass{ours}, nil, "", true},
		"none, no class yet":              {nil, nil, "", true},
		"none, another one's the default": {[]*networkingv1.IngressClass{class("slipway", controllerName, false), class("nginx", "k8s.io/ingress-nginx", true)}, nil, "", false},
		"none, no default":                {[]*networkingv1.IngressClass{class("slipway", controllerName, false)}, nil, "", false},
		"another's":                       {[]*networkingv1.IngressClass{ours}, new("nginx"), "", false},
		"our name, another's controller":  {[]*networkingv1.IngressClass{class("slipway", "example.com/other", false)}, new("slipway"), "", false},
		"by annotation":                   {[]*networkingv1.IngressClass{ours}, nil, "slipway", true},
		"by annotation, another's":        {[]*networkingv1.IngressClass{ours}, nil, "nginx", false},
		"the field wins":                  {[]*networkingv1.IngressClass{ours}, new("slipway"), "nginx", true},
	} {
		ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{}}, Spec: networkingv1.IngressSpec{IngressClassName: x.class}}
		if x.annotation != "" {
			ing.Annotations["kubernetes.io/ingress.class"] = x.annotation
		}
		tb := buildTable(&inputs{Ingresses: []*networkingv1.Ingress{ing}, Classes: x.classes}, tableOptions{class: "slipway", counters: newCounters()})
		if got := len(tb.served) == 1; got != x.served {
			t.Errorf("%s: served %v", name, got)
		}
	}
}

// Which endpoints of a Service get requests.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	yes, no := new(true), new(false)
	slice := func(port string, number int32, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		for i := range endpoints {
			endpoints[i].Addresses = []string{fmt.Sprintf("10.0.0.%d", i+1)}
		}
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s-" + port, Labels: map[string]string{discoveryv1.LabelServiceName: "s"}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints, Ports: []discoveryv1.EndpointPort{{Name: &port, Port: &number}}}
	}
	endpoint := func(ready, serving, terminating *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating}}
	}
	named := networkingv1.ServiceBackendPort{Name: "web"}
	for name, x := range map[string]struct {
		spec    corev1.ServiceSpec
		port    networkingv1.ServiceBackendPort
		slices  []*discoveryv1.EndpointSlice
		want    string
		problem string
	}{
		"by the port's name":            {corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}, {Name: "admin", Port: 81}}}, named, []*discoveryv1.EndpointSlice{slice("web", 8080, endpoint(yes, yes, no)), slice("admin", 8081, endpoint(yes, yes, no))}, "10.0.0.1:8080", ""},
		"by the port's number":          {corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}, {Name: "admin", Port: 81}}}, networkingv1.ServiceBackendPort{Number: 81}, []*discoveryv1.EndpointSlice{slice("web", 8080, endpoint(yes, yes, no)), slice("admin", 8081, endpoint(yes, yes, no))}, "10.0.0.1:8081", ""},
		"a name that is not there":      {corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}, named, nil, "", "Service s has no port web"},
		"not ready":                     {corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}, named, []*discoveryv1.EndpointSlice{slice("web", 80, endpoint(no, no, no), endpoint(yes, yes, no))}, "10.0.0.2:80", ""},
		"readiness unknown":             {corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}, named, []*discoveryv1.EndpointSlice{slice("web", 80, endpoint(nil, nil, nil))}, "10.0.0.1:80", ""},
		"ending beside a ready one":     {corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}, named, []*discoveryv1.EndpointSlice{slice("web", 80, endpoint(no, yes, yes), endpoint(yes, yes, no))}, "10.0.0.2:80", ""},
		"only ending ones":              {corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}, named, []*discoveryv1.EndpointSlice{slice("web", 80, endpoint(no, yes, yes), endpoint(no, no, yes))}, "10.0.0.1:80", ""},
		"headless":                      {corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}, named, []*discoveryv1.EndpointSlice{slice("web", 8080, endpoint(yes, yes, no), endpoint(yes, yes, no))}, "10.0.0.1:8080 10.0.0.2:8080", ""},
		"a name outside":                {corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "api.example.com"}, networkingv1.ServiceBackendPort{Number: 8443}, nil, "api.example.com:8443", ""},
		"a name outside, port by name":  {corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "api.example.com", Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}, named, nil, "api.example.com:80", ""},
		"a name outside without a port": {corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "api.example.com"}, named, nil, "", "Service s has no port web"},
	} {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s"}, Spec: x.spec}
		ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "web"}, Spec: networkingv1.IngressSpec{IngressClassName: new("slipway"),
			DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "s", Port: x.port}}}}
		tb := buildTable(&inputs{Ingresses: []*networkingv1.Ingress{ing}, Services: []*corev1.Service{svc}, Slices: x.slices}, tableOptions{class: "slipway", counters: newCounters()})
		var got []string
		for _, e := range tb.match("any", "/").backend.endpoints {
			got = append(got, e.addr)
		}
		if strings.Join(got, " ") != x.want || strings.Join(tb.problems["n/web"], " ") != x.problem {
			t.Errorf("%s: %v %v", name, got, tb.problems)
		}
	}
}

// What cannot be served is told by an event, and the rest is served.
func TestProblemsAreEvents(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.named("web")
	a.yaml(`
metadata: {name: web, uid: web-ID, annotations: {nginx.ingress.kubernetes.io/server-snippet: "return 200;"}}
spec:
  ingressClassName: slipway
  tls: [{hosts: [web.ID.test], secretName: missing}]
  rules:
  - host: web.ID.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /bucket, pathType: Prefix, backend: {resource: {apiGroup: example.com, kind: Bucket, name: b}}}
      - {path: /none, pathType: Prefix, backend: {service: {name: none, port: {number: 80}}}}
`)
	for _, want := range []string{
		"server-snippet: not supported by this ingress", "Secret missing of type kubernetes.io/tls does not exist; a certificate of the internal authority is used",
		"resource backends are not supported; name a Service", "Service none does not exist",
	} {
		eventually(t, "an event: "+want, func() bool {
			events, err := shared.client.CoreV1().Events(a.ns).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events.Items {
				if strings.Contains(e.Message, want) && e.Type == corev1.EventTypeWarning && e.InvolvedObject.Name == "web" {
					return true
				}
			}
			return false
		})
	}
	c := certClient(t, nil)
	host := "https://web." + a.ns + ".test"
	a.answers(c, host+"/", 200)
	for path, want := range map[string]string{"/bucket": "resource backends are not supported", "/none": "Service none does not exist"} {
		if got := get(t, c, host+path); got.status != 503 || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

func rawAnswer(t *testing.T, request string) string {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", shared.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return exchange(t, conn, request)
}

// cert-manager's way to a certificate: an Ingress of its own for the challenge,
// on the host that is redirected to HTTPS, and a Secret that comes later.
func TestChallengeOfCertManager(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.named("web", "solver")
	host := "web." + a.ns + ".test"
	a.yaml(`
metadata: {name: web, annotations: {cert-manager.io/cluster-issuer: letsencrypt}}
spec:
  tls: [{hosts: [web.ID.test], secretName: web-tls}]
  rules: [{host: web.ID.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
`)
	a.yaml(`
metadata: {name: cm-acme-http-solver-x, annotations: {kubernetes.io/ingress.class: slipway, nginx.ingress.kubernetes.io/whitelist-source-range: "0.0.0.0/0,::/0"}}
spec: {rules: [{host: web.ID.test, http: {paths: [{path: /.well-known/acme-challenge/token, pathType: Exact, backend: {service: {name: solver, port: {number: 80}}}}]}}]}
`)
	c := client(t, false)
	a.answers(c, "http://"+host+"/.well-known/acme-challenge/token", 200)
	if got := get(t, c, "http://"+host+"/.well-known/acme-challenge/other"); got.status != 308 {
		t.Errorf("another path: %d", got.status)
	}
	certPEM, keyPEM := selfSigned(t, host)
	_, err := shared.client.CoreV1().Secrets(a.ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "web-tls"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": certPEM, "tls.key": keyPEM},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the certificate is served and no problem is told any more", func() bool {
		conn, err := tls.Dial("tcp", shared.https, &tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName == "from a secret" && len(shared.Problems()[a.ns+"/web"]) == 0
	})
}

package ingress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/quic-go/quic-go/http3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Manifests that people have, and what is said of what they may not mean.
func TestManifestProblems(t *testing.T) {
	t.Parallel()
	path := func(p string, kind networkingv1.PathType) networkingv1.HTTPIngressPath {
		return networkingv1.HTTPIngressPath{Path: p, PathType: &kind, Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "s", Port: networkingv1.ServiceBackendPort{Number: 80}}}}
	}
	ingress := func(name string, age time.Duration, annotations map[string]string, paths ...networkingv1.HTTPIngressPath) *networkingv1.Ingress {
		ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, Annotations: map[string]string{}, CreationTimestamp: metav1.NewTime(time.Unix(10000, 0).Add(-age))}}
		for k, v := range annotations {
			ing.Annotations[annotationPrefix+k] = v
		}
		ing.Spec.Rules = []networkingv1.IngressRule{{Host: "h.test", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: paths}}}}
		return ing
	}
	const prefix, exact, any = networkingv1.PathTypePrefix, networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific
	for name, x := range map[string]struct {
		ingresses []*networkingv1.Ingress
		problems  map[string]string // by the Ingress's name
		routes    string
	}{
		"the slash at a prefix's end":   {[]*networkingv1.Ingress{ingress("new", 0, nil, path("/foo/", prefix)), ingress("old", time.Hour, nil, path("/foo", prefix))}, map[string]string{"new": "h.test/foo/ is already served by Ingress n/old, which is older"}, "/foo"},
		"everything, in two words":      {[]*networkingv1.Ingress{ingress("new", 0, nil, path("/", any)), ingress("old", time.Hour, nil, path("/", prefix))}, map[string]string{"new": "h.test/ is already served by Ingress n/old, which is older"}, "/"},
		"an exact path beside a prefix": {[]*networkingv1.Ingress{ingress("new", 0, nil, path("/foo", exact)), ingress("old", time.Hour, nil, path("/foo", prefix))}, nil, "/foo /foo"},
		"a path twice":                  {[]*networkingv1.Ingress{ingress("web", 0, nil, path("/foo", prefix), path("/foo", prefix))}, map[string]string{"web": "h.test/foo is in this Ingress twice; the first one counts"}, "/foo"},
		"an expression without use-regex": {[]*networkingv1.Ingress{ingress("web", 0, nil, path("/*", any), path("/api(/|$)(.*)", any))},
			map[string]string{"web": `path "/*" is taken as it is written; nginx.ingress.kubernetes.io/use-regex: "true" makes it a regular expression` + "\n" + `path "/api(/|$)(.*)" is taken`}, "/* /api(/|$)(.*)"},
		"an expression with rewrite-target": {[]*networkingv1.Ingress{ingress("web", 0, map[string]string{"rewrite-target": "/$2"}, path("/api(/|$)(.*)", any))}, nil, "/api(/|$)(.*)"},
		"an expression that looks ahead":    {[]*networkingv1.Ingress{ingress("web", 0, map[string]string{"use-regex": "true"}, path("/(?!api)", any))}, map[string]string{"web": `path "/(?!api)" is not a regular expression`}, ""},
		"the class of another, which is not there": {[]*networkingv1.Ingress{func() *networkingv1.Ingress {
			ing := ingress("web", 0, nil, path("/", prefix))
			ing.Spec.IngressClassName = new("nginx")
			return ing
		}()}, map[string]string{"web": "there is no IngressClass nginx, and nothing else serves Ingresses here: name the class slipway, or none"}, ""},
	} {
		in := &inputs{Ingresses: x.ingresses, Services: services("n", "s")}
		tb := buildTable(in, tableOptions{class: "slipway", counters: newCounters()})
		var routes []string
		for _, r := range tb.routes {
			routes = append(routes, r.path)
		}
		if strings.Join(routes, " ") != x.routes {
			t.Errorf("%s: routes %v", name, routes)
		}
		for _, ing := range x.ingresses {
			got := strings.Join(tb.problems["n/"+ing.Name], "\n")
			if !strings.HasPrefix(got, x.problems[ing.Name]) || (got == "") != (x.problems[ing.Name] == "") {
				t.Errorf("%s: %s: %q, want %q", name, ing.Name, got, x.problems[ing.Name])
			}
		}
	}
	// Beside another controller, and where the class exists, nothing is said.
	foreign := ingress("web", 0, nil, path("/", prefix))
	foreign.Spec.IngressClassName = new("other")
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx"}, Spec: networkingv1.IngressClassSpec{Controller: "k8s.io/ingress-nginx"}}
	if tb := buildTable(&inputs{Ingresses: []*networkingv1.Ingress{foreign}, Classes: []*networkingv1.IngressClass{class}}, tableOptions{class: "slipway", counters: newCounters()}); len(tb.problems) > 0 || len(tb.unserved) > 0 {
		t.Errorf("problems with another's Ingress: %v", tb.problems)
	}
}

func (a *app) tlsSecret(name, host string) {
	a.t.Helper()
	certPEM, keyPEM := selfSigned(a.t, host)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name, ResourceVersion: fmt.Sprint(appCount.Add(1))}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": certPEM, "tls.key": keyPEM}}
	api := shared.client.CoreV1().Secrets(a.ns)
	if _, err := api.Update(a.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		if _, err := api.Create(a.t.Context(), s, metav1.CreateOptions{}); err != nil {
			a.t.Fatal(err)
		}
	}
}

func leaf(t *testing.T, host string) *x509.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{ServerName: host, InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", shared.https)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
}

// While a public certificate cannot be had, the internal one is served.
func TestInternalCertificateDuringACME(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.named("web")
	a.yaml(`
metadata: {name: web, annotations: {kubernetes.io/tls-acme: "true"}}
spec:
  tls: [{hosts: [unreachable.ID.test]}]
  rules: [{host: unreachable.ID.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
`)
	host := "unreachable." + a.ns + ".test"
	eventually(t, "the public certificate is being obtained", func() bool {
		_, err := os.Stat(filepath.Join(shared.cfg.DataDir, "caddy", "locks", "issue_cert_"+host+".lock"))
		return err == nil
	})
	if issuer := leaf(t, host).Issuer.CommonName; !strings.HasPrefix(issuer, "Slipway") {
		t.Errorf("the issuer is %s", issuer)
	}
}

// Several hosts and a wildcard under tls: each has its Secret's certificate,
// a renewed Secret counts from the next handshake on, and one that exists
// comes before a public certificate that is asked for too.
func TestCertificatesOfSeveralHosts(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.named("web")
	a.yaml(`
metadata: {name: web, annotations: {kubernetes.io/tls-acme: "true"}}
spec:
  tls:
  - {hosts: [a.ID.test, b.ID.test], secretName: two}
  - {hosts: ["*.w.ID.test"], secretName: wild}
  rules:
  - {host: a.ID.test, http: &all {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}
  - {host: b.ID.test, http: *all}
  - {host: "*.w.ID.test", http: *all}
  - {host: plain.ID.test, http: *all}
`)
	a.tlsSecret("two", "a."+a.ns+".test")
	a.tlsSecret("wild", "*.w."+a.ns+".test")
	fromSecret := func(host, name string) func() bool {
		return func() bool {
			cert := leaf(t, host+"."+a.ns+".test")
			return cert.Subject.CommonName == "from a secret" && cert.DNSNames[0] == name+"."+a.ns+".test"
		}
	}
	eventually(t, "a has its certificate", fromSecret("a", "a"))
	eventually(t, "b has the same", fromSecret("b", "a"))
	eventually(t, "x.w has the wildcard's", fromSecret("x.w", "*.w"))
	if cert := leaf(t, "plain."+a.ns+".test"); cert.Subject.CommonName == "from a secret" {
		t.Error("a host without tls has a Secret's certificate")
	}
	c := client(t, false)
	for host, status := range map[string]int{"a": 308, "b": 308, "x.w": 308, "plain": 200} {
		a.answers(c, "http://"+host+"."+a.ns+".test/", status)
	}
	before := leaf(t, "a."+a.ns+".test")
	a.tlsSecret("two", "a."+a.ns+".test")
	eventually(t, "the renewed certificate is served", func() bool { return !leaf(t, "a."+a.ns+".test").Equal(before) })
}

// A Service that is deleted and made again is served again; meanwhile the
// answer says what is missing.
func TestServiceDeletedAndMadeAgain(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	c, url := client(t, false), "http://"+a.host+"/"
	a.answers(c, url, 200)
	if err := shared.client.CoreV1().Services(a.ns).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := a.answers(c, url, 503); got.body != "503 Service Unavailable\nService web does not exist.\n" {
		t.Errorf("without the Service: %s", got.body)
	}
	addr := a.backend(say("again"))
	a.service("web", nil, addr)
	a.waitEndpoints("web", addr)
	if got := a.answers(c, url, 200); got.body != "again" {
		t.Errorf("made again: %s", got.body)
	}
}

// Headers and bodies that are large pass through.
func TestLargeHeadersAndBodies(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	addr := a.backend(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Large", r.Header.Get("X-Large"))
		fmt.Fprint(w, n)
	})
	a.service("web", nil, addr)
	a.ingress("web", nil, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	large := strings.Repeat("x", 60<<10) // with the others below maxHeaders
	for _, c := range []*http.Client{client(t, false), certClient(t, nil)} {
		scheme := "http://"
		if c.Transport.(*http.Transport).TLSClientConfig != nil {
			scheme = "https://"
		}
		req, err := http.NewRequestWithContext(t.Context(), "POST", scheme+a.host+"/", io.LimitReader(zeros{}, 50<<20))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Large", large)
		if got := do(t, c, req); got.status != 200 || got.body != fmt.Sprint(50<<20) || got.header.Get("X-Large") != large {
			t.Errorf("%s: %d %.40s, %d bytes of header", scheme, got.status, got.body, len(got.header.Get("X-Large")))
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A socket to the stable version stays there while the canary takes over, new
// ones go by weight, and HTTP/3 streams of one connection follow the change.
func TestConnectionsThroughACanary(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	version := func(name string) string {
		up := websocket.Upgrader{}
		return a.backend(func(w http.ResponseWriter, r *http.Request) {
			if !websocket.IsWebSocketUpgrade(r) {
				fmt.Fprint(w, name)
				return
			}
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			for {
				if _, _, err := c.ReadMessage(); err != nil || c.WriteMessage(websocket.TextMessage, []byte(name)) != nil {
					return
				}
			}
		})
	}
	stable, canary := version("stable"), version("canary")
	a.service("stable", nil, stable)
	a.service("canary", nil, canary)
	a.ingress("web", nil, pathOption{path: "/", service: "stable"})
	a.waitEndpoints("stable", stable)
	dial := func() *websocket.Conn {
		d := websocket.Dialer{NetDialContext: client(t, false).Transport.(*http.Transport).DialContext, HandshakeTimeout: 5 * time.Second}
		c, _, err := d.DialContext(t.Context(), "ws://"+a.host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	says := func(c *websocket.Conn) string {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if err := c.WriteMessage(websocket.TextMessage, []byte("who")); err != nil {
			t.Fatal(err)
		}
		_, msg, err := c.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		return string(msg)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(shared.CA())
	tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: a.host}}
	defer tr.Close()
	h3 := func() string {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+shared.https+"/", nil)
		req.Host = a.host
		got := do(t, &http.Client{Transport: tr, Timeout: 10 * time.Second}, req)
		if got.status != 200 || got.resp.ProtoMajor != 3 {
			t.Fatalf("%d %s", got.status, got.resp.Proto)
		}
		return got.body
	}
	old := dial()
	if got := says(old) + h3(); got != "stablestable" {
		t.Errorf("at first: %s", got)
	}
	a.ingress("web-canary", map[string]string{"canary": "true", "canary-weight": "100"}, pathOption{path: "/", service: "canary"})
	a.waitEndpoints("canary", canary)
	eventually(t, "the canary has everything", func() bool { return h3() == "canary" })
	if got := says(dial()) + says(old); got != "canarystable" {
		t.Errorf("a new socket and the old one: %s", got)
	}
	// Promoted: the stable Service has the new version, the canary nothing.
	a.endpoints("stable", canary)
	a.waitEndpoints("stable", canary)
	a.ingress("web-canary", map[string]string{"canary": "true", "canary-weight": "0"}, pathOption{path: "/", service: "canary"})
	if got := says(old) + h3(); got != "stablecanary" {
		t.Errorf("after the promotion: %s", got)
	}
}

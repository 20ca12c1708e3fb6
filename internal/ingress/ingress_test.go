package ingress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
)

// The tests of this package share one running Ingress, since Caddy keeps one
// configuration per process. Each test has hosts and a namespace of its own.
var shared struct {
	*Ingress
	client *fake.Clientset
	http   string // host:port
	https  string
}

const platformHost = "slipway.test"

func TestMain(m *testing.M) {
	if os.Getenv(caEnv) != "" {
		fmt.Fprintln(os.Stderr, serveCA())
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ingress-test")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	shared.http, shared.https = freeAddr(), freeAddr()
	ca, stopCA, err := startCA(dir+"/ca", shared.http)
	if err != nil {
		panic(err)
	}
	defer stopCA()
	i, err := New(Config{
		ACME: ca, HTTPAddr: shared.http, HTTPSAddr: shared.https, DataDir: dir,
		PlatformHosts:  []string{platformHost},
		TrustedProxies: []string{"127.0.0.3/32"},
		ProxyProtocol:  []string{"127.0.0.4/32"},
		AccessLog:      dir + "/access.log",
		Addresses:      []string{"192.0.2.1"},
		Platform: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/flush":
				fmt.Fprint(w, "first")
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			case "/socket":
				c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
				if err != nil {
					return
				}
				defer c.Close()
				if kind, msg, err := c.ReadMessage(); err == nil {
					_ = c.WriteMessage(kind, msg)
				}
			case "/hijack":
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					return
				}
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
				_ = c.Close()
			default:
				fmt.Fprintf(w, "platform %s %s", r.Proto, r.URL.Path)
			}
		}),
		Log: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	// A port in use is the error, and Run may be called again after it.
	taken, err := net.Listen("tcp", shared.https)
	if err != nil {
		panic(err)
	}
	if err := i.Run(ctx); err == nil || !strings.Contains(err.Error(), "address already in use") || i.Ready() == nil {
		panic(fmt.Sprint("with a port in use: ", err))
	}
	taken.Close()
	ended := make(chan error, 1)
	go func() { ended <- i.Run(ctx) }()
	select {
	case <-i.Serving():
	case err := <-ended:
		panic(err)
	}
	shared.Ingress = i
	shared.client = fake.NewClientset()
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		panic(err)
	}
	s := newSession(i.watch, shared.client, metadatafake.NewSimpleMetadataClient(scheme), func(obj any) (any, error) {
		if o, ok := obj.(runtime.Object); ok { // the fake client keeps using what it hands out
			obj = o.DeepCopyObject()
		}
		return slim(obj)
	})
	sessionDone := make(chan struct{})
	go func() { s.run(ctx); close(sessionDone) }()
	code := m.Run()
	cancel()
	<-sessionDone
	if err := <-ended; err != nil {
		panic(err)
	}
	return code
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits for a condition that the cluster's events bring about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		ch := shared.tableChanged()
		select {
		case <-ch:
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// app is a namespace with services and one Ingress.
type app struct {
	t    *testing.T
	ns   string
	host string
}

var appCount atomic.Int64

func newApp(t *testing.T) *app {
	n := appCount.Add(1)
	return &app{t: t, ns: fmt.Sprintf("ns%d", n), host: fmt.Sprintf("app%d.test", n)}
}

func (a *app) backend(h http.HandlerFunc) string {
	srv := httptest.NewServer(h)
	a.t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

// service declares a Service with one endpoint per address.
func (a *app) service(name string, selector map[string]string, addrs ...string) {
	a.t.Helper()
	ctx := a.t.Context()
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name},
		Spec:       corev1.ServiceSpec{Selector: selector, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	if _, err := shared.client.CoreV1().Services(a.ns).Create(ctx, svc, metav1.CreateOptions{}); err != nil {
		a.t.Fatal(err)
	}
	a.endpoints(name, addrs...)
}

// endpoints replaces a Service's endpoints: one slice per address, since the
// port is the slice's.
func (a *app) endpoints(name string, addrs ...string) {
	a.t.Helper()
	ctx := a.t.Context()
	api := shared.client.DiscoveryV1().EndpointSlices(a.ns)
	for i, addr := range addrs {
		ap := netip.MustParseAddrPort(addr)
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: a.ns, Name: name + "-" + strconv.Itoa(i), Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{ap.Addr().String()}}},
			Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(ap.Port()))}},
		}
		if _, err := api.Update(ctx, slice, metav1.UpdateOptions{}); err != nil {
			if _, err := api.Create(ctx, slice, metav1.CreateOptions{}); err != nil {
				a.t.Fatal(err)
			}
		}
	}
	list, err := api.List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
	if err != nil {
		a.t.Fatal(err)
	}
	for _, s := range list.Items {
		_, index, _ := strings.Cut(strings.TrimPrefix(s.Name, name), "-")
		if n, _ := strconv.Atoi(index); n >= len(addrs) {
			if err := api.Delete(ctx, s.Name, metav1.DeleteOptions{}); err != nil {
				a.t.Fatal(err)
			}
		}
	}
}

type pathOption struct {
	path    string
	service string
	kind    networkingv1.PathType
}

// ingress declares an Ingress and waits until the table has it.
func (a *app) ingress(name string, annotations map[string]string, paths ...pathOption) *networkingv1.Ingress {
	a.t.Helper()
	full := map[string]string{}
	for k, v := range annotations {
		if !strings.Contains(k, "/") {
			k = annotationPrefix + k
		}
		full[k] = v
	}
	ing := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: name, Annotations: full, CreationTimestamp: metav1.Now()},
		Spec:       networkingv1.IngressSpec{IngressClassName: new("slipway")},
	}
	rule := networkingv1.IngressRule{Host: a.host}
	rule.HTTP = &networkingv1.HTTPIngressRuleValue{}
	for _, p := range paths {
		if p.kind == "" {
			p.kind = networkingv1.PathTypePrefix
		}
		rule.HTTP.Paths = append(rule.HTTP.Paths, networkingv1.HTTPIngressPath{
			Path: p.path, PathType: &p.kind,
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
				Name: p.service, Port: networkingv1.ServiceBackendPort{Number: 80}}},
		})
	}
	ing.Spec.Rules = []networkingv1.IngressRule{rule}
	return a.put(ing)
}

func (a *app) put(ing *networkingv1.Ingress) *networkingv1.Ingress {
	a.t.Helper()
	ctx := a.t.Context()
	api := shared.client.NetworkingV1().Ingresses(a.ns)
	stamp := strconv.FormatInt(appCount.Add(1), 10)
	ing = ing.DeepCopy()
	if ing.Annotations == nil {
		ing.Annotations = map[string]string{}
	}
	ing.Annotations["stamp"] = stamp
	_, err := api.Create(ctx, ing, metav1.CreateOptions{})
	if err != nil {
		if _, err = api.Update(ctx, ing, metav1.UpdateOptions{}); err != nil {
			a.t.Fatal(err)
		}
	}
	eventually(a.t, "the table has Ingress "+ing.Name, func() bool {
		for _, s := range shared.table.Load().served {
			if s.Namespace == a.ns && s.Name == ing.Name && s.Annotations["stamp"] == stamp {
				return true
			}
		}
		return false
	})
	return ing
}

func (a *app) waitEndpoints(service string, addrs ...string) {
	a.t.Helper()
	eventually(a.t, fmt.Sprintf("%s has endpoints %v", service, addrs), func() bool {
		have, want := map[string]bool{}, map[string]bool{}
		for _, b := range shared.table.Load().backends {
			if b.namespace == a.ns && b.service == service {
				for _, e := range b.endpoints {
					have[e.addr] = true
				}
			}
		}
		for _, x := range addrs {
			want[x] = true
		}
		return maps.Equal(have, want)
	})
}

// client talks to the shared ingress whatever the host is.
func client(t *testing.T, tlsToo bool) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to := shared.http
			if strings.HasSuffix(addr, ":443") || addr == shared.https {
				to = shared.https
			}
			var d net.Dialer
			return d.DialContext(ctx, network, to)
		},
		ForceAttemptHTTP2: true,
	}
	if tlsToo {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(shared.CA())
		tr.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

type answer struct {
	status int
	body   string
	header http.Header
	resp   *http.Response
}

func get(t *testing.T, c *http.Client, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k := 0; k+1 < len(headers); k += 2 {
		req.Header.Add(headers[k], headers[k+1])
	}
	return do(t, c, req)
}

func do(t *testing.T, c *http.Client, req *http.Request) answer {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(body), resp.Header, resp}
}

func TestPlatformIsServedOverHTTPAndTLS(t *testing.T) {
	t.Parallel()
	if got := get(t, client(t, false), "http://"+platformHost+"/x"); got.body != "platform HTTP/1.1 /x" {
		t.Errorf("HTTP: %d %q", got.status, got.body)
	}
	if got := get(t, client(t, true), "https://"+platformHost+"/x"); got.body != "platform HTTP/2.0 /x" {
		t.Errorf("HTTPS: %d %q", got.status, got.body)
	}
	if got := get(t, client(t, false), "http://unknown.test/"); got.status != 404 || !strings.Contains(got.body, "No Ingress serves this host") {
		t.Errorf("unknown host: %d %q", got.status, got.body)
	}
}

func TestRouteToEndpoints(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	one, two := a.backend(say("one")), a.backend(say("two"))
	a.service("web", nil, one, two)
	a.ingress("web", nil, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", one, two)
	seen := map[string]int{}
	for range 20 {
		seen[get(t, client(t, false), "http://"+a.host+"/").body]++
	}
	if seen["one"] != 10 || seen["two"] != 10 {
		t.Errorf("rotation: %v", seen)
	}
	got := get(t, client(t, true), "https://"+a.host+"/")
	if got.status != 200 || got.resp.TLS == nil || got.resp.TLS.PeerCertificates[0].DNSNames[0] != a.host {
		t.Errorf("TLS by the internal authority: %d", got.status)
	}
}

func TestPlatformStreamsAndUpgrades(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+platformHost+"/flush", nil)
	resp, err := client(t, false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "first" {
		t.Errorf("flushed: %q %v", buf, err)
	}
	cancel()
	_ = resp.Body.Close()
	if got := get(t, client(t, false), "http://"+platformHost+"/hijack"); got.body != "hi" {
		t.Errorf("hijack: %q", got.body)
	}
	d := websocket.Dialer{NetDialContext: client(t, false).Transport.(*http.Transport).DialContext, HandshakeTimeout: 5 * time.Second}
	c, _, err := d.DialContext(t.Context(), "ws://"+platformHost+"/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteMessage(websocket.TextMessage, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := c.ReadMessage(); err != nil || string(msg) != "x" {
		t.Errorf("socket: %q %v", msg, err)
	}
}

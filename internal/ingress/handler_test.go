package ingress

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/quic-go/quic-go/http3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// echo answers with what the backend saw.
func echo(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s host=%s", r.Method, r.URL.RequestURI(), r.Host)
	for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-Ip", "X-Forwarded-Prefix"} {
		fmt.Fprintf(w, " %s=%s", h, r.Header.Get(h))
	}
}

// echoApp is an application with one echoing backend behind annotations.
func echoApp(t *testing.T, annotations map[string]string, paths ...pathOption) *app {
	a := newApp(t)
	addr := a.backend(echo)
	a.service("web", nil, addr)
	if len(paths) == 0 {
		paths = []pathOption{{path: "/", service: "web"}}
	}
	a.ingress("web", annotations, paths...)
	a.waitEndpoints("web", addr)
	return a
}

func TestForwardedHeadersAreOurs(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	got := get(t, client(t, false), "http://"+a.host+"/p?q=1", "X-Forwarded-For", "6.6.6.6", "X-Real-Ip", "6.6.6.6", "X-Forwarded-Proto", "https")
	want := fmt.Sprintf("GET /p?q=1 host=%s X-Forwarded-For=127.0.0.1 X-Forwarded-Proto=http X-Forwarded-Host=%s X-Real-Ip=127.0.0.1 X-Forwarded-Prefix=", a.host, a.host)
	if got.body != want {
		t.Errorf("got  %s\nwant %s", got.body, want)
	}
}

func TestTrustedProxyIsBelieved(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	c := client(t, false)
	c.Transport.(*http.Transport).DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}}).DialContext
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+shared.http+"/", nil)
	req.Host = a.host
	req.Header.Set("X-Forwarded-For", "203.0.113.9")
	got := do(t, c, req)
	if !strings.Contains(got.body, "X-Forwarded-For=203.0.113.9, 127.0.0.3 ") || !strings.Contains(got.body, "X-Real-Ip=203.0.113.9 ") {
		t.Errorf("got %s", got.body)
	}
}

func TestRewriteTarget(t *testing.T) {
	t.Parallel()
	a := echoApp(t, map[string]string{"use-regex": "true", "rewrite-target": "/$2"}, pathOption{path: "/api(/|$)(.*)", service: "web", kind: networkingv1.PathTypeImplementationSpecific})
	if got := get(t, client(t, false), "http://"+a.host+"/api/v1/x?q=1"); !strings.HasPrefix(got.body, "GET /v1/x?q=1 ") {
		t.Errorf("got %s", got.body)
	}
	if got := get(t, client(t, false), "http://"+a.host+"/other"); got.status != 404 {
		t.Errorf("other path: %d", got.status)
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		annotations map[string]string
		path        string
		status      int
		location    string
	}{
		{map[string]string{"permanent-redirect": "https://x.test$request_uri"}, "/a?b", 301, "https://x.test/a?b"},
		{map[string]string{"permanent-redirect": "https://x.test", "permanent-redirect-code": "308"}, "/", 308, "https://x.test"},
		{map[string]string{"temporal-redirect": "https://y.test/"}, "/", 302, "https://y.test/"},
		{map[string]string{"app-root": "/start"}, "/", 302, "/start"},
	} {
		a := echoApp(t, c.annotations)
		got := get(t, client(t, false), "http://"+a.host+c.path)
		if got.status != c.status || got.header.Get("Location") != c.location {
			t.Errorf("%v: %d %s", c.annotations, got.status, got.header.Get("Location"))
		}
	}
	a := echoApp(t, map[string]string{"force-ssl-redirect": "true"})
	_, port, _ := net.SplitHostPort(shared.https)
	if got := get(t, client(t, false), "http://"+a.host+"/a?b"); got.status != 308 || got.header.Get("Location") != "https://"+a.host+":"+port+"/a?b" {
		t.Errorf("force-ssl-redirect: %d %s", got.status, got.header.Get("Location"))
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	addr := a.backend(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprint(w, n)
	})
	a.service("web", nil, addr)
	a.ingress("web", map[string]string{"proxy-body-size": "1k"}, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	post := func(body io.Reader) answer {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+a.host+"/", body)
		if err != nil {
			t.Fatal(err)
		}
		return do(t, client(t, false), req)
	}
	if got := post(bytes.NewReader(make([]byte, 1024))); got.status != 200 || got.body != "1024" {
		t.Errorf("1024 bytes: %d %s", got.status, got.body)
	}
	if got := post(bytes.NewReader(make([]byte, 1025))); got.status != 413 {
		t.Errorf("1025 bytes with a length: %d %s", got.status, got.body)
	}
	if got := post(io.MultiReader(bytes.NewReader(make([]byte, 4096)))); got.status != 413 {
		t.Errorf("4096 bytes without a length: %d %s", got.status, got.body)
	}
}

func TestSourceRanges(t *testing.T) {
	t.Parallel()
	a := echoApp(t, map[string]string{"whitelist-source-range": "10.0.0.0/8"})
	if got := get(t, client(t, false), "http://"+a.host+"/", "X-Forwarded-For", "10.0.0.1"); got.status != 403 {
		t.Errorf("outside: %d", got.status)
	}
	b := echoApp(t, map[string]string{"whitelist-source-range": "127.0.0.0/8"})
	if got := get(t, client(t, false), "http://"+b.host+"/"); got.status != 200 {
		t.Errorf("inside: %d", got.status)
	}
	c := echoApp(t, map[string]string{"whitelist-source-range": "nonsense"})
	if got := get(t, client(t, false), "http://"+c.host+"/"); got.status != 503 {
		t.Errorf("unreadable range: %d", got.status)
	}
}

func TestTimeoutAndUnreachable(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	release := make(chan struct{})
	slow := a.backend(func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the backend closes, which waits for it
	a.service("slow", nil, slow)
	dead := freeAddr()
	a.service("dead", nil, dead)
	a.ingress("web", map[string]string{"proxy-read-timeout": "200ms"}, pathOption{path: "/slow", service: "slow"}, pathOption{path: "/dead", service: "dead"}, pathOption{path: "/none", service: "none"})
	a.waitEndpoints("slow", slow)
	a.waitEndpoints("dead", dead)
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+a.host+"/slow", strings.NewReader("x"))
	if got := do(t, client(t, false), req); got.status != 504 || !strings.Contains(got.body, "Service slow did not answer in time") {
		t.Errorf("slow: %d %s", got.status, got.body)
	}
	if got := get(t, client(t, false), "http://"+a.host+"/dead"); got.status != 502 || !strings.Contains(got.body, "Service dead closed the connection or refused it") {
		t.Errorf("dead: %d %s", got.status, got.body)
	}
	if got := get(t, client(t, false), "http://"+a.host+"/none"); got.status != 503 || !strings.Contains(got.body, "Service none does not exist") {
		t.Errorf("none: %d %s", got.status, got.body)
	}
}

func TestRequestGoesToAnotherEndpointWhenOneRefuses(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	alive, dead := a.backend(echo), freeAddr()
	a.service("web", nil, alive, dead)
	a.ingress("web", nil, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", alive, dead)
	c := client(t, false)
	for range 20 {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+a.host+"/", strings.NewReader("body"))
		if got := do(t, c, req); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
}

func TestRequestWaitsForTheNextEndpoint(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	addr := a.backend(say("there"))
	a.service("web", nil, addr)
	a.ingress("web", nil, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	a.endpoints("web")
	a.waitEndpoints("web")
	done := make(chan answer, 1)
	go func() { done <- get(t, client(t, false), "http://"+a.host+"/") }()
	select {
	case got := <-done:
		t.Fatalf("answered without an endpoint: %d %s", got.status, got.body)
	case <-time.After(100 * time.Millisecond):
	}
	a.endpoints("web", addr)
	if got := <-done; got.body != "there" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	up := websocket.Upgrader{}
	addr := a.backend(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		kind, msg, err := c.ReadMessage()
		if err == nil {
			_ = c.WriteMessage(kind, append([]byte("echo "), msg...))
		}
	})
	a.service("web", nil, addr)
	a.ingress("web", nil, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	d := websocket.Dialer{NetDialContext: client(t, false).Transport.(*http.Transport).DialContext, HandshakeTimeout: 5 * time.Second}
	c, _, err := d.DialContext(t.Context(), "ws://"+a.host+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	// A change elsewhere must not touch the connection.
	other := newApp(t)
	other.ingress("other", nil, pathOption{path: "/", service: "none"})
	if _, msg, err := c.ReadMessage(); err != nil || string(msg) != "echo hello" {
		t.Errorf("%q %v", msg, err)
	}
}

func TestHTTP3(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(shared.CA())
	tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: a.host}}
	defer tr.Close()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+shared.https+"/", nil)
	req.Host = a.host
	got := do(t, &http.Client{Transport: tr, Timeout: 10 * time.Second}, req)
	if got.status != 200 || got.resp.ProtoMajor != 3 || !strings.Contains(got.body, "X-Forwarded-Proto=https") {
		t.Errorf("%d %s %s", got.status, got.resp.Proto, got.body)
	}
}

func TestH2CBackendForGRPC(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("X-Proto", r.Proto)
	}))
	srv.Config.Protocols = &protocols
	srv.Start()
	t.Cleanup(srv.Close)
	addr := srv.Listener.Addr().String()
	a.service("grpc", nil, addr)
	a.ingress("grpc", map[string]string{"backend-protocol": "GRPC"}, pathOption{path: "/", service: "grpc"})
	a.waitEndpoints("grpc", addr)
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "https://"+a.host+"/pkg.Service/Call", strings.NewReader("frame"))
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	got := do(t, client(t, true), req)
	if got.status != 200 || got.body != "frame" || got.resp.Trailer.Get("Grpc-Status") != "0" || got.resp.ProtoMajor != 2 {
		t.Errorf("%d %q %v", got.status, got.body, got.resp.Trailer)
	}
}

// selfSigned makes a certificate for tests.
func selfSigned(t *testing.T, host string) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "from a secret"}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func TestCertificateFromSecret(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	subject := func() string {
		conn, err := tls.Dial("tcp", shared.https, &tls.Config{ServerName: a.host, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := subject(); got == "from a secret" {
		t.Fatal("the secret is used before it exists")
	}
	certPEM, keyPEM := selfSigned(t, a.host)
	_, err := shared.client.CoreV1().Secrets(a.ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "cert"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": certPEM, "tls.key": keyPEM},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ing, err := shared.client.NetworkingV1().Ingresses(a.ns).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{a.host}, SecretName: "cert"}}
	a.put(ing)
	eventually(t, "the secret's certificate is served", func() bool { return subject() == "from a secret" })
	if got := get(t, client(t, false), "http://"+a.host+"/"); got.status != 308 {
		t.Errorf("a host with TLS is not redirected: %d", got.status)
	}
	if err := shared.client.CoreV1().Secrets(a.ns).Delete(t.Context(), "cert", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the internal authority steps in", func() bool { return subject() != "from a secret" })
}

func TestAffinity(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	one, two := a.backend(say("one")), a.backend(say("two"))
	a.service("web", nil, one, two)
	a.ingress("web", map[string]string{"affinity": "cookie", "session-cookie-name": "route"}, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", one, two)
	c := client(t, false)
	first := get(t, c, "http://"+a.host+"/")
	cookie, _, _ := strings.Cut(first.header.Get("Set-Cookie"), ";")
	if !strings.HasPrefix(cookie, "route=") {
		t.Fatalf("no cookie: %v", first.header)
	}
	for range 6 {
		if got := get(t, c, "http://"+a.host+"/", "Cookie", cookie); got.body != first.body || got.header.Get("Set-Cookie") != "" {
			t.Errorf("left the endpoint: %s %v", got.body, got.header)
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	a := echoApp(t, map[string]string{"enable-cors": "true", "cors-allow-origin": "https://*.example.com, https://a.test"})
	req, _ := http.NewRequestWithContext(t.Context(), "OPTIONS", "http://"+a.host+"/", nil)
	req.Header.Set("Origin", "https://shop.example.com")
	req.Header.Set("Access-Control-Request-Method", "POST")
	if got := do(t, client(t, false), req); got.status != 204 || got.header.Get("Access-Control-Allow-Origin") != "https://shop.example.com" {
		t.Errorf("preflight: %d %v", got.status, got.header)
	}
	if got := get(t, client(t, false), "http://"+a.host+"/", "Origin", "https://evil.test"); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a foreign origin is allowed: %v", got.header)
	}
}

func TestStatusAndClass(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	eventually(t, "the status has the address", func() bool {
		ing, err := shared.client.NetworkingV1().Ingresses(a.ns).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && len(ing.Status.LoadBalancer.Ingress) == 1 && ing.Status.LoadBalancer.Ingress[0].IP == "192.0.2.1"
	})
	eventually(t, "the class exists", func() bool {
		c, err := shared.client.NetworkingV1().IngressClasses().Get(t.Context(), "slipway", metav1.GetOptions{})
		return err == nil && c.Spec.Controller == controllerName && c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
	})
	b := newApp(t)
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: b.ns, Name: "foreign"}, Spec: networkingv1.IngressSpec{IngressClassName: new("nginx")}}
	if _, err := shared.client.NetworkingV1().Ingresses(b.ns).Create(t.Context(), ing, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.ingress("ours", nil, pathOption{path: "/", service: "none"})
	for _, s := range shared.table.Load().served {
		if s.Namespace == b.ns && s.Name == "foreign" {
			t.Error("an Ingress of another class is served")
		}
	}
}

func TestOlderIngressWinsAConflict(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	b := &app{t: t, ns: a.ns + "x", host: a.host}
	b.ingress("late", nil, pathOption{path: "/", service: "none"})
	if p := shared.table.Load().problems[b.ns+"/late"]; len(p) != 1 || !strings.Contains(p[0], "already served by Ingress "+a.ns+"/web") {
		t.Errorf("problems: %v", p)
	}
	if got := get(t, client(t, false), "http://"+a.host+"/"); got.status != 200 {
		t.Errorf("%d", got.status)
	}
}

// TestNoRequestFailsWhileEndpointsChange replaces all endpoints again and
// again, closing each backend as soon as the table no longer has it.
func TestNoRequestFailsWhileEndpointsChange(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	serve := func() *httptest.Server {
		srv := httptest.NewServer(say("ok"))
		t.Cleanup(srv.Close)
		return srv
	}
	current := serve()
	a.service("web", nil, current.Listener.Addr().String())
	a.ingress("web", nil, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", current.Listener.Addr().String())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failures []string
	count := 0
	for range 4 {
		wg.Go(func() {
			c := client(t, false)
			for {
				select {
				case <-stop:
					return
				default:
				}
				got := get(t, c, "http://"+a.host+"/")
				mu.Lock()
				count++
				if got.status != 200 {
					failures = append(failures, fmt.Sprint(got.status, got.body))
				}
				mu.Unlock()
			}
		})
	}
	for range 10 {
		next := serve()
		a.endpoints("web", next.Listener.Addr().String())
		a.waitEndpoints("web", next.Listener.Addr().String())
		current.Config.SetKeepAlivesEnabled(false)
		current.Close() // waits for its running requests
		current = next
	}
	close(stop)
	wg.Wait()
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failures), count, failures[0])
	}
}

func TestSnapshotServesTheOldRoutes(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	path := t.TempDir() + "/routes.json"
	old := shared.table.Load()
	in := &inputs{}
	// The table's own objects are enough to make it again.
	in.Ingresses = old.served
	list, err := shared.client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		in.Services = append(in.Services, &list.Items[i])
	}
	slices, err := shared.client.DiscoveryV1().EndpointSlices("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range slices.Items {
		in.Slices = append(in.Slices, &slices.Items[i])
	}
	if err := writeSnapshot(path, in, old); err != nil {
		t.Fatal(err)
	}
	back, err := readSnapshot(path)
	if err != nil {
		t.Fatal(err)
	}
	fresh := buildTable(back, tableOptions{class: "slipway", counters: newCounters(), now: time.Now()})
	r := fresh.match(a.host, "/")
	if r == nil || len(r.backend.endpoints) != 1 || !netip.MustParseAddrPort(r.backend.endpoints[0].addr).IsValid() {
		t.Fatalf("route: %+v", r)
	}
	if in, err := readSnapshot(path + ".none"); in != nil || err != nil {
		t.Errorf("a missing snapshot: %v %v", in, err)
	}
}

func TestRoutesForPeople(t *testing.T) {
	t.Parallel()
	a := echoApp(t, nil)
	a.service("next", nil)
	a.ingress("web-canary", map[string]string{"canary": "true", "canary-weight": "30", "canary-by-cookie": "beta"}, pathOption{path: "/", service: "next"})
	for _, r := range shared.Routes() {
		if r.Namespace != a.ns {
			continue
		}
		if r.Ingress != "web" || r.Service != "web" || r.Endpoints != 1 || r.URL != "http://"+net.JoinHostPort(a.host, strings.TrimPrefix(shared.http, "127.0.0.1:"))+"/" ||
			r.Canary == nil || r.Canary.Service != "next" || r.Canary.Weight != 30 || r.Canary.Cookie != "beta" {
			t.Errorf("%+v %+v", r, r.Canary)
		}
		return
	}
	t.Error("no route")
}

func TestExternalNameMayNotLeadToThisHost(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	addr := netip.MustParseAddrPort(a.backend(say("private")))
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "out"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeExternalName, ExternalName: "localhost", Ports: []corev1.ServicePort{{Port: int32(addr.Port())}},
	}}
	if _, err := shared.client.CoreV1().Services(a.ns).Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ing := a.ingress("web", nil, pathOption{path: "/", service: "out"})
	ing.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Port.Number = int32(addr.Port())
	a.put(ing)
	eventually(t, "the service is known", func() bool {
		return strings.Contains(get(t, client(t, false), "http://"+a.host+"/").body, "leads to an address of this host")
	})
}

func TestReadyNamesTheRootCause(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	i, err := New(Config{HTTPAddr: ":0", DataDir: dir, Kubeconfig: dir + "/kubeconfig"})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Ready(); err == nil || err.Error() != "the listeners are not open yet" {
		t.Errorf("before Run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { i.watch.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	wait := func(want string) {
		t.Helper()
		deadline := time.Now().Add(15 * time.Second)
		for {
			err := i.watch.ready()
			if err != nil && strings.Contains(err.Error(), want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("not within 15 s: %s, but %v", want, err)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	wait("there is no kubeconfig yet")
	if err := os.WriteFile(dir+"/kubeconfig", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	wait("the kubeconfig is not usable")
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\nusers: [{name: u, user: {token: t}}]\n"
	if err := os.WriteFile(dir+"/kubeconfig", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	wait("the API server at http://127.0.0.1:1 does not answer")
}

package ingress

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	transport "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// exchange writes a request as it is and reads until the connection closes.
func exchange(t *testing.T, conn net.Conn, request string) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(conn)
	if err != nil && len(body) == 0 {
		t.Fatal(err)
	}
	return string(body)
}

// Requests in unusual forms. What two readers could take for different requests
// is refused.
func TestRequestForms(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	var mu sync.Mutex
	var seen []string
	addr := a.backend(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		seen = append(seen, r.RequestURI)
		mu.Unlock()
		fmt.Fprintf(w, "%s %s %s te=%s body=%s", r.Method, r.Host, r.RequestURI, r.TransferEncoding, body)
	})
	a.service("web", nil, addr)
	a.ingress("web", nil, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	for name, x := range map[string]struct {
		request string
		status  int
		body    string
	}{
		"a port with the host":      {"GET /p HTTP/1.1\r\nHost: HOST:8080\r\nConnection: close\r\n\r\n", 200, "GET HOST:8080 /p"},
		"absolute form":             {"GET http://HOST/abs?x=1 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 200, "GET HOST /abs?x=1"},
		"absolute form wins":        {"GET http://HOST/abs HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n", 200, "GET HOST /abs"},
		"the host in capitals":      {"GET / HTTP/1.1\r\nHost: " + strings.ToUpper("HOST") + "\r\nConnection: close\r\n\r\n", 200, ""},
		"no host":                   {"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400, ""},
		"two hosts":                 {"GET / HTTP/1.1\r\nHost: HOST\r\nHost: other.test\r\nConnection: close\r\n\r\n", 400, ""},
		"two lengths":               {"POST /bad HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nContent-Length: 40\r\nConnection: close\r\n\r\nbody", 400, ""},
		"a length that is none":     {"POST /bad HTTP/1.1\r\nHost: HOST\r\nContent-Length: +4\r\nConnection: close\r\n\r\nbody", 400, ""},
		"a strange encoding":        {"POST /bad HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\nConnection: close\r\n\r\n0\r\n\r\n", 501, ""},
		"two encodings":             {"POST /bad HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\n0\r\n\r\n", 501, ""},
		"a space before the colon":  {"POST /bad HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\nConnection: close\r\n\r\n0\r\n\r\n", 400, ""},
		"a folded header":           {"GET /bad HTTP/1.1\r\nHost: HOST\r\nX-A: 1\r\n Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", 200, ""},
		"a chunk that is none":      {"POST /chunk HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\nbody\r\n0\r\n\r\n", 0, ""},
		"a method of its own":       {"PURGE /x HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 200, "PURGE HOST /x"},
		"OPTIONS of the server":     {"OPTIONS * HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 0, ""},
		"encoded slashes":           {"GET /a%2Fb HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 200, "GET HOST /a%2Fb"},
		"a header with a line feed": {"GET / HTTP/1.1\r\nHost: HOST\r\nX-A: a\x00b\r\nConnection: close\r\n\r\n", 400, ""},
		"HTTP/1.0":                  {"GET /old HTTP/1.0\r\nHost: HOST\r\n\r\n", 200, "GET HOST /old"},
	} {
		request := strings.NewReplacer("HOST", a.host).Replace(x.request)
		answer := rawAnswer(t, request)
		var code int
		_, _ = fmt.Sscanf(answer, "HTTP/1.1 %d", &code)
		if code == 0 {
			_, _ = fmt.Sscanf(answer, "HTTP/1.0 %d", &code)
		}
		want := strings.ReplaceAll(x.body, "HOST", a.host)
		if x.status != 0 && code != x.status || !strings.Contains(answer, want) {
			t.Errorf("%s: %q, want %d %s", name, answer, x.status, want)
		}
	}
	// Both a length and an encoding: the encoding counts, the length is gone,
	// and what follows is no second request.
	answer := rawAnswer(t, "POST /both HTTP/1.1\r\nHost: "+a.host+"\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: "+a.host+"\r\nConnection: close\r\n\r\n")
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(answer, "body=0") {
		t.Errorf("length and encoding: %q", answer)
	}
	for _, uri := range seen {
		if uri == "/bad" && !strings.Contains(answer, "200") {
			t.Errorf("the application saw %s", uri)
		}
	}
}

// The client learns that its body is wanted before it is sent, informational
// responses pass, and trailers go both ways.
func TestContinueEarlyHintsAndTrailers(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	addr := a.backend(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "body=%s trailer=%s", body, r.Trailer.Get("X-Check"))
		w.Header().Set("X-Sum", "42")
	})
	a.service("web", nil, addr)
	a.ingress("web", nil, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", shared.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(conn)
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\nConnection: close\r\n\r\n", a.host)
	var informational []string
	for sent := false; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err, informational)
		}
		if strings.HasPrefix(line, "HTTP/1.1 1") {
			informational = append(informational, strings.TrimSpace(line))
		}
		if strings.HasPrefix(line, "HTTP/1.1 100") && !sent {
			sent = true
			fmt.Fprint(conn, "5\r\nhello\r\n0\r\nX-Check: ok\r\n\r\n")
		}
		if strings.HasPrefix(line, "HTTP/1.1 200") {
			break
		}
	}
	rest, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(rest), "body=hello trailer=ok") || !strings.Contains(string(rest), "X-Sum: 42") {
		t.Errorf("%s %v", rest, err)
	}
	if got := strings.Join(informational, ","); !strings.Contains(got, "100 Continue") || !strings.Contains(got, "103 Early Hints") {
		t.Errorf("informational: %s", got)
	}
}

// Each event arrives when it was sent, also long after the read timeout, which
// is that of the response's beginning.
func TestServerSentEventsAreNotHeldBack(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	next := map[string]chan string{"/http": make(chan string, 3), "/https": make(chan string, 3)}
	addr := a.backend(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case e := <-next[r.URL.Path]:
				fmt.Fprintf(w, "data: %s\n\n", e)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	a.service("web", nil, addr)
	a.ingress("web", map[string]string{"proxy-read-timeout": "5"}, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	for _, scheme := range []string{"http", "https"} {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		events := next["/"+scheme]
		events <- "0"
		req, _ := http.NewRequestWithContext(ctx, "GET", scheme+"://"+a.host+"/"+scheme, nil)
		resp, err := certClient(t, nil).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			if i > 0 {
				events <- fmt.Sprint(i)
			}
			line, err := lines.ReadString('\n')
			_, _ = lines.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Errorf("%s: %q %v", scheme, line, err)
			}
		}
		cancel()
		_ = resp.Body.Close()
	}
}

// grpcServer is the health service of gRPC, with and without TLS.
func grpcServer(t *testing.T, secure bool) (addr string, h *health.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var options []grpc.ServerOption
	if secure {
		certPEM, keyPEM := selfSigned(t, "backend.test")
		cert, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		options = append(options, grpc.Creds(transport.NewServerTLSFromCert(&cert)))
	}
	srv := grpc.NewServer(options...)
	h = health.NewServer()
	h.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(srv, h)
	go func() { _ = srv.Serve(l) }() // ends by Stop
	t.Cleanup(srv.Stop)
	return l.Addr().String(), h
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	for protocol, secure := range map[string]bool{"GRPC": false, "GRPCS": true} {
		a := newApp(t)
		addr, h := grpcServer(t, secure)
		a.service("grpc", nil, addr)
		a.ingress("grpc", map[string]string{"backend-protocol": protocol}, pathOption{path: "/", service: "grpc"})
		a.waitEndpoints("grpc", addr)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(shared.CA())
		conn, err := grpc.NewClient("passthrough:///"+a.host+":443", grpc.WithTransportCredentials(transport.NewClientTLSFromCert(roots, a.host)),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", shared.https)
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		c := healthpb.NewHealthClient(conn)
		var header metadata.MD
		if got, err := c.Check(ctx, &healthpb.HealthCheckRequest{Service: "shop"}, grpc.Header(&header)); err != nil || got.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%s: unary: %v %v", protocol, got, err)
		}
		if _, err := c.Check(ctx, &healthpb.HealthCheckRequest{Service: "nobody"}); status.Code(err) != codes.NotFound {
			t.Errorf("%s: an error keeps its code: %v", protocol, err)
		}
		stream, err := c.Watch(ctx, &healthpb.HealthCheckRequest{Service: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING} {
			if want != healthpb.HealthCheckResponse_SERVING {
				h.SetServingStatus("shop", want)
			}
			got, err := stream.Recv()
			if err != nil || got.Status != want {
				t.Fatalf("%s: stream: %v %v, want %v", protocol, got, err, want)
			}
			if want == healthpb.HealthCheckResponse_NOT_SERVING {
				h.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
			}
		}
	}
}

// Connections that last stay as they are while everything around them changes:
// other Ingresses, their own Ingress's settings, and its other endpoints.
func TestLongConnectionsOutliveChanges(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	up := websocket.Upgrader{}
	serve := func() *httptest.Server {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !websocket.IsWebSocketUpgrade(r) { // the body comes back as it arrives
				w.WriteHeader(200)
				rc := http.NewResponseController(w)
				_ = rc.EnableFullDuplex()
				_ = rc.Flush()
				buf := make([]byte, 64)
				for {
					n, err := r.Body.Read(buf)
					_, _ = w.Write(buf[:n])
					_ = rc.Flush()
					if err != nil {
						return
					}
				}
			}
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close()
			for {
				kind, msg, err := c.ReadMessage()
				if err != nil || c.WriteMessage(kind, msg) != nil {
					return
				}
			}
		}))
		t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
		return srv
	}
	one, two := serve(), serve()
	a.service("web", nil, one.Listener.Addr().String())
	a.ingress("web", nil, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", one.Listener.Addr().String())

	d := websocket.Dialer{NetDialContext: client(t, false).Transport.(*http.Transport).DialContext, HandshakeTimeout: 5 * time.Second}
	socket, _, err := d.DialContext(t.Context(), "ws://"+a.host+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	pipe, feed := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "https://"+a.host+"/", pipe)
	stream, err := certClient(t, nil).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	defer feed.Close()
	if stream.ProtoMajor != 2 {
		t.Errorf("the stream is %s", stream.Proto)
	}
	both := func(when string) {
		t.Helper()
		_ = socket.SetReadDeadline(time.Now().Add(10 * time.Second))
		if err := socket.WriteMessage(websocket.TextMessage, []byte(when)); err != nil {
			t.Fatalf("%s: socket: %v", when, err)
		}
		if _, msg, err := socket.ReadMessage(); err != nil || string(msg) != when {
			t.Fatalf("%s: socket: %q %v", when, msg, err)
		}
		if _, err := io.WriteString(feed, when); err != nil {
			t.Fatalf("%s: stream: %v", when, err)
		}
		buf := make([]byte, len(when))
		if _, err := io.ReadFull(stream.Body, buf); err != nil || string(buf) != when {
			t.Fatalf("%s: stream: %q %v", when, buf, err)
		}
	}
	both("at first")
	for i := range 20 {
		other := newApp(t)
		other.ingress("other", nil, pathOption{path: "/", service: "none"})
		a.ingress("web", map[string]string{"proxy-read-timeout": fmt.Sprint(i + 1), "proxy-send-timeout": fmt.Sprint(i + 1)}, pathOption{path: "/", service: "web"})
		both(fmt.Sprint("after change ", i))
	}
	a.endpoints("web", two.Listener.Addr().String())
	a.waitEndpoints("web", two.Listener.Addr().String())
	both("its endpoint is no longer listed")
	a.ingress("web", map[string]string{"whitelist-source-range": "127.0.0.9"}, pathOption{path: "/", service: "web"})
	both("new requests are refused")
	if got := get(t, client(t, false), "http://"+a.host+"/"); got.status != 403 {
		t.Errorf("a new request: %d", got.status)
	}
}

//go:build e2e

package ingress_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asked is one request to an application and what its answer must be.
type asked struct {
	host, request string // "GET /path", "https GET /path"
	header        string // "Name: value", several by a line feed
	status        int
	contains      string // in the answer's header and body
	lacks         string
}

// annotated are Ingresses in front of the Service stable, by host name, with
// their annotations of ingress-nginx.
var annotated = map[string]string{
	"plain":     ``,
	"basic":     `auth-type: basic, auth-secret: users, auth-realm: Shop`,
	"rps":       `limit-rps: "1", limit-burst-multiplier: "1"`,
	"quiet":     `enable-access-log: "false"`,
	"hash":      `upstream-hash-by: $arg_key`,
	"headers":   `custom-headers: extra`,
	"cors":      `enable-cors: "true", cors-allow-origin: "https://a.test"`,
	"rewrite":   `use-regex: "true", rewrite-target: /echo/$2`,
	"force":     `force-ssl-redirect: "true"`,
	"moved":     `permanent-redirect: "https://new.test$request_uri"`,
	"away":      `temporal-redirect: "https://other.test/"`,
	"root":      `app-root: /echo/start`,
	"small":     `proxy-body-size: 1k`,
	"impatient": `proxy-read-timeout: 300ms`,
	"grpc":      `backend-protocol: GRPC`,
	"secure":    `backend-protocol: HTTPS`,
	"sticky":    `affinity: cookie, session-cookie-name: route, session-cookie-samesite: Strict`,
	"inside":    `whitelist-source-range: 127.0.0.0/8`,
	"outside":   `whitelist-source-range: 192.0.2.0/24`,
	"denied":    `denylist-source-range: 127.0.0.0/8`,
	"snippet":   `server-snippet: "return 200;", configuration-snippet: "return 200;"`,
	"vhost":     `upstream-vhost: internal.test, x-forwarded-prefix: /shop`,
	"shop":      `from-to-www-redirect: "true", server-alias: alias.localhost`,
	"external":  `auth-url: "http://annotated.default.svc.cluster.local/auth", auth-response-headers: X-Auth-Request-User, auth-signin: "https://login.test/start"`,
	"self":      `auth-url: "http://gatekeeper.localhost/auth"`,
	"clients":   `auth-tls-secret: clients, auth-tls-pass-certificate-to-upstream: "true"`,
	"unclear":   `auth-type: digest`,
}

func annotatedManifests(users, authority string) string {
	var b strings.Builder
	ingress := func(name, host, annotations, path, service, port string) {
		var full []string
		for _, a := range strings.Split(annotations, ", ") {
			if a != "" {
				full = append(full, "nginx.ingress.kubernetes.io/"+a)
			}
		}
		fmt.Fprintf(&b, `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: on-%s, annotations: {%s}}
spec:
  rules:
  - host: %s.localhost
    http: {paths: [{path: %q, pathType: ImplementationSpecific, backend: {service: {name: %s, port: {name: %s}}}}]}
---
`, name, strings.Join(full, ", "), host, path, service, port)
	}
	for name, annotations := range annotated {
		path, port := "/", "http"
		switch name {
		case "rewrite":
			path = "/api(/|$)(.*)"
		case "secure":
			port = "https"
		}
		ingress(name, name, annotations, path, "stable", port)
	}
	ingress("gatekeeper", "gatekeeper", "", "/", "annotated", "http")
	ingress("plain-canary", "plain", `canary: "true", canary-by-header: X-Beta, canary-by-cookie: beta`, "/", "canary", "http")
	fmt.Fprintf(&b, `
apiVersion: v1
kind: Service
metadata: {name: stable, labels: {app: stable}}
spec:
  selector: {app: stable}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: extra}
data: {X-Frame-Options: DENY}
---
apiVersion: v1
kind: Secret
metadata: {name: users}
data: {auth: %s}
---
apiVersion: v1
kind: Secret
metadata: {name: clients}
data: {ca.crt: %s}
`, base64.StdEncoding.EncodeToString([]byte(users)), base64.StdEncoding.EncodeToString([]byte(authority)))
	return b.String()
}

// annotations applies every supported kind of annotation to a real application
// and sends real requests.
func (s *site) annotations(t *testing.T) {
	authority, cert := clientCertificate(t)
	s.apply(annotatedManifests("ann:{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM=", authority)) // the password is foo
	password := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("ann:foo"))
	for _, x := range []asked{
		{"plain", "GET /echo/x?q=1", "X-Forwarded-For: 6.6.6.6", 200, "X-Forwarded-For: 127.0.0.1\r\n", "6.6.6.6"},
		{"plain", "GET /", "", 200, "v1", ""},
		{"plain", "GET /", "X-Beta: always", 200, "v2", ""},
		{"plain", "GET /", "Cookie: beta=always", 200, "v2", ""},
		{"plain", "GET /", "X-Beta: never\nCookie: beta=always", 200, "v1", ""},
		{"plain", "https GET /echo/", "", 200, "X-Forwarded-Proto: https", ""},
		{"basic", "GET /", "", 401, `Basic realm="Shop"`, ""},
		{"basic", "GET /", password, 200, "v1", ""},
		{"headers", "GET /", "", 200, "X-Frame-Options: DENY", ""},
		{"cors", "OPTIONS /", "Origin: https://a.test\nAccess-Control-Request-Method: PUT", 204, "Access-Control-Allow-Origin: https://a.test", ""},
		{"cors", "GET /", "Origin: https://evil.test", 200, "v1", "Access-Control"},
		{"rewrite", "GET /api/v1/x?q=1", "", 200, "GET /echo/v1/x?q=1 ", ""},
		{"force", "GET /a?b", "", 308, "Location: https://force.localhost/a?b", ""},
		{"force", "https GET /a?b", "", 200, "v1", ""},
		{"moved", "GET /a?b", "", 301, "Location: https://new.test/a?b", ""},
		{"away", "GET /a?b", "", 302, "Location: https://other.test/", ""},
		{"root", "GET /", "", 302, "Location: /echo/start", ""},
		{"small", "POST /echo/", "body: 1024", 200, "body=1024", ""},
		{"small", "POST /echo/", "body: 1025", 413, "limit of 1024 bytes", ""},
		{"plain", "POST /echo/", "body: 5000000", 200, "body=5000000", ""},
		{"impatient", "GET /slow", "", 504, "did not answer in time", ""},
		{"plain", "GET /slow", "", 200, "", ""},
		{"grpc", "https POST /echo/", "body: 10", 200, "proto=HTTP/2.0 tls=false body=10", ""},
		{"secure", "GET /echo/", "", 200, "tls=true", ""},
		{"sticky", "GET /", "", 200, "Set-Cookie: route=", ""},
		{"inside", "GET /", "", 200, "v1", ""},
		{"outside", "GET /", "X-Forwarded-For: 192.0.2.1", 403, "Your address may not use this route", ""},
		{"denied", "GET /", "", 403, "", ""},
		{"snippet", "GET /", "", 200, "v1", ""},
		{"vhost", "GET /echo/", "", 200, "host=internal.test ", ""},
		{"vhost", "GET /echo/", "", 200, "X-Forwarded-Prefix: /shop", ""},
		{"www.shop", "GET /a?b", "", 308, "Location: http://shop.localhost/a?b", ""},
		{"alias", "GET /", "", 200, "v1", ""},
		{"external", "GET /a?b", "", 302, "Location: https://login.test/start?rd=http://external.localhost%2Fa%3Fb", ""},
		{"external", "GET /echo/", "X-Session: ann\nX-Auth-Request-User: forged", 200, "X-Auth-Request-User: ann\r\n", "forged"},
		{"external", "POST /echo/", "X-Session: ann\nbody: 100000", 200, "body=100000", ""},
		{"self", "GET /", "", 401, "", ""},
		{"self", "GET /", "X-Session: ann", 200, "v1", ""},
		{"clients", "GET /", "", 400, "No required SSL certificate", ""},
		{"clients", "https GET /", "", 400, "No required SSL certificate", ""},
		{"clients", "cert GET /echo/", "Ssl-Client-Verify: forged", 200, "Ssl-Client-Subject-Dn: CN=ann\r\n", "forged"},
		{"clients", "cert GET /echo/", "", 200, "Ssl-Client-Cert: -----BEGIN%20CERTIFICATE", ""},
		{"unclear", "GET /", "", 503, "This route is closed", ""},
	} {
		s.eventually(x.host+" "+x.request, func() error {
			status, answer, err := s.ask(x, cert)
			if err == nil && (status != x.status || !strings.Contains(answer, x.contains) || x.lacks != "" && strings.Contains(answer, x.lacks)) {
				err = fmt.Errorf("%d %s, want %d %q without %q", status, answer, x.status, x.contains, x.lacks)
			}
			return err
		})
	}
	s.eventually("too many requests are refused", func() error {
		status, answer, err := s.ask(asked{host: "rps", request: "GET /"}, nil)
		if err == nil && (status != 503 || !strings.Contains(answer, "1 times per second")) {
			err = fmt.Errorf("%d %s", status, answer)
		}
		return err
	})
	podOf := func(x asked) string {
		_, answer, err := s.ask(x, nil)
		s.must(err)
		_, pod, _ := strings.Cut(answer, "pod=")
		pod, _, _ = strings.Cut(pod, "\n")
		return pod
	}
	pods := map[string]bool{}
	for i := range 40 {
		x := asked{host: "hash", request: fmt.Sprintf("GET /echo/?key=%d", i%20)}
		pod := podOf(x)
		pods[pod] = true
		if again := podOf(x); again != pod {
			t.Errorf("key %d went to %s and %s", i%20, pod, again)
		}
	}
	if len(pods) != 2 {
		t.Errorf("the hash uses the pods %v", pods)
	}
	_, answer, err := s.ask(asked{host: "sticky", request: "GET /echo/"}, nil)
	s.must(err)
	_, cookie, _ := strings.Cut(answer, "Set-Cookie: ")
	cookie, attributes, _ := strings.Cut(cookie, ";")
	if !strings.Contains(attributes, "SameSite=Strict") {
		t.Errorf("cookie %s;%s", cookie, attributes)
	}
	first := podOf(asked{host: "sticky", request: "GET /echo/", header: "Cookie: " + cookie})
	for range 6 {
		if pod := podOf(asked{host: "sticky", request: "GET /echo/", header: "Cookie: " + cookie}); pod != first {
			t.Errorf("left %s for %s", first, pod)
		}
	}
	s.clientAddresses(t)
	s.eventually("problems are events", func() error {
		got, err := s.Kubectl(s.ctx, "get", "events", "--field-selector=reason=IngressProblem", "-o", `jsonpath={range .items[*]}{.involvedObject.name} {.message}{"\n"}{end}`)
		for _, want := range []string{"on-snippet nginx.ingress.kubernetes.io/server-snippet: not supported", "on-unclear nginx.ingress.kubernetes.io/auth-type: \"digest\" is not supported"} {
			if err == nil && !strings.Contains(got, want) {
				err = fmt.Errorf("no event %q: %s", want, got)
			}
		}
		return err
	})
	if got := s.kubectl("get", "ingress", "on-plain", "--no-headers"); !strings.Contains(got, "plain.localhost") || !strings.Contains(got, "127.0.0.1") {
		t.Errorf("kubectl get ingress: %s", got)
	}
	s.eventually("the access log has the requests", func() error {
		text, err := os.ReadFile(filepath.Join(s.Config.DataDir, "gate-data", "access.log"))
		if err == nil && (!bytes.Contains(text, []byte(`"user":"ann"`)) || !bytes.Contains(text, []byte(`"host":"plain.localhost","path":"/echo/x"`)) || bytes.Contains(text, []byte("quiet.localhost"))) {
			err = fmt.Errorf("%d bytes", len(text))
		}
		return err
	})
}

// clientAddresses sends from the addresses of proxies that are believed.
func (s *site) clientAddresses(t *testing.T) {
	for from, preamble := range map[string]string{"127.0.0.7": "", "127.0.0.8": "PROXY TCP4 203.0.113.7 192.0.2.1 4711 80\r\n"} {
		header := ""
		if preamble == "" {
			header = "X-Forwarded-For: 203.0.113.7\r\n"
		}
		var answer []byte
		err := s.Inside(func() error {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
			c, err := d.DialContext(s.ctx, "tcp", "127.0.0.1:80")
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := fmt.Fprintf(c, "%sGET /echo/ HTTP/1.1\r\nHost: plain.localhost\r\n%sConnection: close\r\n\r\n", preamble, header); err != nil {
				return err
			}
			answer, err = io.ReadAll(c)
			return err
		})
		if err != nil || !strings.Contains(string(answer), "X-Real-Ip: 203.0.113.7\r\n") {
			t.Errorf("from %s: %s %v", from, answer, err)
		}
	}
}

// ask sends a request: "GET /path" by HTTP, "https GET /path", or
// "cert GET /path" with the client's certificate. The answer's header and body
// come as text.
func (s *site) ask(x asked, cert *tls.Certificate) (status int, answer string, err error) {
	words := strings.Fields(x.request)
	scheme := "http"
	if len(words) == 3 {
		scheme = "https"
	}
	method, path := words[len(words)-2], words[len(words)-1]
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	tr := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return s.Dial(ctx, network, "127.0.0.1:"+port)
		}}
	defer tr.CloseIdleConnections()
	if scheme == "https" {
		if tr.TLSClientConfig.RootCAs, err = s.roots(ctx); err != nil {
			return 0, "", err
		}
		if words[0] == "cert" {
			tr.TLSClientConfig.Certificates = []tls.Certificate{*cert}
		}
	}
	var body io.Reader
	header := http.Header{}
	for _, line := range strings.Split(x.header, "\n") {
		name, value, _ := strings.Cut(line, ": ")
		if name == "body" {
			var n int64
			if _, err := fmt.Sscan(value, &n); err != nil {
				return 0, "", err
			}
			body = bytes.NewReader(make([]byte, n))
		} else if name != "" {
			header.Set(name, value)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+"://"+x.host+".localhost"+path, body)
	if err != nil {
		return 0, "", err
	}
	req.Header = header
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if err := resp.Header.Write(&text); err != nil {
		return 0, "", err
	}
	text.WriteString("\r\n")
	_, err = io.Copy(&text, resp.Body)
	return resp.StatusCode, text.String(), err
}

// roots are the platform's certificate authority, as its page offers it.
func (s *site) roots(ctx context.Context) (*x509.CertPool, error) {
	conn, err := s.Dial(ctx, "tcp", "127.0.0.1:80")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /ca.crt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(text) {
		err = fmt.Errorf("/ca.crt is no certificate: %s", text)
	}
	return pool, err
}

// clientCertificate makes an authority and a client's certificate of it.
func clientCertificate(t *testing.T) (authority string, cert *tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Clients"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ann"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	var ders [][]byte
	for _, c := range []*x509.Certificate{ca, leaf} {
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		ders = append(ders, der)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ders[0]})), &tls.Certificate{Certificate: ders[1:], PrivateKey: key}
}

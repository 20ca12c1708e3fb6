package ingress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T, parent *authority, name string) *authority {
	a := &authority{t: t}
	tmpl := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	a.cert, a.key = sign(t, tmpl, parent)
	return a
}

func sign(t *testing.T, tmpl *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if tmpl.SerialNumber == nil {
		tmpl.SerialNumber = big.NewInt(time.Now().UnixNano())
	}
	tmpl.NotBefore = time.Now().Add(-time.Hour)
	if tmpl.NotAfter.IsZero() {
		tmpl.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// client makes a client's certificate, sent with those between.
func (a *authority) client(name string, between ...*authority) *tls.Certificate {
	a.next++
	cert, key := sign(a.t, &x509.Certificate{SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name, Organization: []string{"Shop"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, a)
	out := &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	for _, b := range between {
		out.Certificate = append(out.Certificate, b.cert.Raw)
	}
	return out
}

func (a *authority) revoke(serials ...int64) string {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func certClient(t *testing.T, cert *tls.Certificate) *http.Client {
	c := client(t, true)
	if cert != nil {
		c.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{*cert}
	}
	return c
}

func saysCert(w http.ResponseWriter, r *http.Request) {
	pemText, _ := url.QueryUnescape(r.Header.Get("Ssl-Client-Cert"))
	kind := ""
	if b, _ := pem.Decode([]byte(pemText)); b != nil {
		kind = b.Type
	}
	fmt.Fprintf(w, "verify=%s subject=%s issuer=%s cert=%s", r.Header.Get("Ssl-Client-Verify"), r.Header.Get("Ssl-Client-Subject-Dn"), r.Header.Get("Ssl-Client-Issuer-Dn"), kind)
}

func certApp(t *testing.T, annotations map[string]string, secret map[string]string) *app {
	a := newApp(t)
	a.secret("clients", secret)
	addr := a.backend(saysCert)
	a.service("web", nil, addr)
	full := map[string]string{"auth-tls-secret": a.ns + "/clients"}
	for k, v := range annotations {
		full[k] = v
	}
	a.ingress("web", full, pathOption{path: "/", service: "web"})
	a.waitEndpoints("web", addr)
	eventually(t, "the Secret is read", func() bool {
		v := shared.table.Load().hosts[a.host]
		return v != nil && v.clients != nil && (v.clients.trust != nil || len(shared.Problems()[a.ns+"/web"]) > 0)
	})
	return a
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	root := newAuthority(t, nil, "Shop Root")
	middle := newAuthority(t, root, "Shop Middle")
	low := newAuthority(t, middle, "Shop Low")
	ann, revoked := root.client("ann"), root.client("ben")
	a := certApp(t, map[string]string{"auth-tls-pass-certificate-to-upstream": "true"}, map[string]string{"ca.crt": root.pem(), "ca.crl": root.revoke(revoked.Leaf.SerialNumber.Int64())})
	url := "https://" + a.host + "/"
	ask := func(cert *tls.Certificate, header ...string) answer {
		return get(t, certClient(t, cert), url, header...)
	}

	if got := ask(ann, "ssl-client-verify", "forged"); got.status != 200 || got.body != "verify=SUCCESS subject=CN=ann,O=Shop issuer=CN=Shop Root cert=CERTIFICATE" {
		t.Errorf("ann: %d %s", got.status, got.body)
	}
	if got := ask(middle.client("cid", middle)); got.status != 200 || !strings.Contains(got.body, "issuer=CN=Shop Middle") {
		t.Errorf("with an intermediate: %d %s", got.status, got.body)
	}
	for name, x := range map[string]struct {
		cert *tls.Certificate
		text string
	}{
		"none":              {nil, "No required SSL certificate was sent"},
		"another authority": {newAuthority(t, nil, "Shop Root").client("ann"), "SSL certificate error"},
		"revoked":           {revoked, "is revoked"},
		"too deep":          {low.client("dan", low, middle), "more than 1 certificates"},
	} {
		if got := ask(x.cert); got.status != 400 || !strings.Contains(got.body, x.text) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := get(t, client(t, false), "http://"+a.host+"/"); got.status != 400 {
		t.Errorf("without TLS: %d", got.status)
	}
	// A connection for another host does not open this one.
	other := echoApp(t, nil)
	c := certClient(t, ann)
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = other.host
	if got := get(t, c, url); got.status != 421 {
		t.Errorf("by another host's connection: %d %s", got.status, got.body)
	}
	// HTTP/3 asks for the certificate too.
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(shared.CA())
	for cert, status := range map[*tls.Certificate]int{ann: 200, nil: 400} {
		tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: a.host}}
		if cert != nil {
			tr.TLSClientConfig.Certificates = []tls.Certificate{*cert}
		}
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+shared.https+"/", nil)
		req.Host = a.host
		if got := do(t, &http.Client{Transport: tr, Timeout: 10 * time.Second}, req); got.status != status {
			t.Errorf("HTTP/3: %d %s, want %d", got.status, got.body, status)
		}
		_ = tr.Close()
	}
}

func TestClientCertificateModes(t *testing.T) {
	t.Parallel()
	root := newAuthority(t, nil, "Root")
	ann, stranger := root.client("ann"), newAuthority(t, nil, "Other").client("ann")
	for _, x := range []struct {
		annotations map[string]string
		cert        *tls.Certificate
		status      int
		body        string
	}{
		{map[string]string{"auth-tls-verify-client": "optional"}, nil, 200, "verify=NONE"},
		{map[string]string{"auth-tls-verify-client": "optional"}, ann, 200, "verify=SUCCESS"},
		{map[string]string{"auth-tls-verify-client": "optional"}, stranger, 400, ""},
		{map[string]string{"auth-tls-verify-client": "optional_no_ca"}, stranger, 200, "verify=FAILED:x509: certificate signed by unknown authority"},
		{map[string]string{"auth-tls-verify-client": "off"}, ann, 200, "verify= "},
		{map[string]string{"auth-tls-match-cn": "CN=(ann|ben)"}, ann, 200, "verify=SUCCESS"},
		{map[string]string{"auth-tls-match-cn": "CN=ben"}, ann, 403, ""},
		{map[string]string{"auth-tls-error-page": "https://help.test/certificates"}, nil, 302, ""},
		{map[string]string{"auth-tls-verify-client": "maybe"}, ann, 503, ""},
		{map[string]string{"auth-tls-match-cn": "ann"}, ann, 503, ""},
	} {
		a := certApp(t, x.annotations, map[string]string{"ca.crt": root.pem()})
		if got := get(t, certClient(t, x.cert), "https://"+a.host+"/", "Ssl-Client-Verify", "forged"); got.status != x.status || !strings.Contains(got.body, x.body) {
			t.Errorf("%v: %d %s", x.annotations, got.status, got.body)
		}
	}
}

// Without its authorities nobody gets in, and a change of them counts for
// connections that are open.
func TestClientCertificatesFollowTheirSecret(t *testing.T) {
	t.Parallel()
	root, next := newAuthority(t, nil, "Root"), newAuthority(t, nil, "Next")
	a := certApp(t, nil, map[string]string{"other": "x"})
	c, url := certClient(t, root.client("ann")), "https://"+a.host+"/"
	if got := get(t, c, url); got.status != 400 {
		t.Errorf("without authorities: %d", got.status)
	}
	if got := fmt.Sprint(shared.Problems()[a.ns+"/web"]); !strings.Contains(got, "has no certificate of an authority under the key ca.crt; nobody is let in") {
		t.Errorf("problems %s", got)
	}
	a.secret("clients", map[string]string{"ca.crt": root.pem()})
	a.answers(c, url, 200)
	a.secret("clients", map[string]string{"ca.crt": next.pem()})
	a.answers(c, url, 400)
	a.secret("clients", map[string]string{"ca.crt": root.pem(), "ca.crl": next.revoke()})
	eventually(t, "a list that nobody there signed is told", func() bool {
		return strings.Contains(fmt.Sprint(shared.Problems()[a.ns+"/web"]), "none of the authorities under ca.crt signed it")
	})
	if got := get(t, c, url); got.status != 400 {
		t.Errorf("with a list that cannot be used: %d", got.status)
	}
}

package ingress

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	corev1 "k8s.io/api/core/v1"
)

// clientCerts is what the auth-tls-* annotations ask of the clients of a host:
// a certificate of one of the authorities in a Secret. As in ingress-nginx it
// holds for the whole host, and the handshake asks for the certificate while
// the request is refused with 400, so that the client is told why.
type clientCerts struct {
	ingress   string
	secret    string
	optional  bool // a client without a certificate may come in
	anyCA     bool // optional_no_ca: the application decides
	off       bool
	depth     int // most intermediate certificates
	errorPage text
	pass      bool // the certificate goes to the application
	match     *regexp.Regexp
	trust     *clientTrust // nil while there is none: nobody gets in
}

// clientTrust are the authorities of one Secret.
type clientTrust struct {
	version string // of the Secret
	roots   *x509.CertPool
	revoked map[string]bool // "issuer\x00serial"

	mu   sync.Mutex
	good map[[32]byte]time.Time // certificates that were verified, until when
}

func (s *settings) withClientCerts() *clientCerts {
	if s.clients == nil {
		s.clients = &clientCerts{depth: 1} // ingress-nginx's default
	}
	return s.clients
}

func parseVerifyClient(s *settings, v string) error {
	c := s.withClientCerts()
	switch v {
	case "on", "off", "optional", "optional_no_ca":
		c.off, c.optional, c.anyCA = v == "off", strings.HasPrefix(v, "optional"), v == "optional_no_ca"
		return nil
	}
	return fmt.Errorf("%q is not one of on, off, optional, optional_no_ca", v)
}

func parseErrorPage(s *settings, v string) error {
	var word string
	if err := parseToken(v, &word); err != nil {
		return err
	}
	page, err := parseText(word)
	s.withClientCerts().errorPage = page
	return err
}

func parseMatchCN(s *settings, v string) error {
	if !strings.HasPrefix(v, "CN=") {
		return fmt.Errorf("%q does not begin with CN=", v)
	}
	re, err := regexp.Compile(v)
	if err != nil {
		return fmt.Errorf("%q is not a regular expression: %v", v, err)
	}
	s.withClientCerts().match = re
	return nil
}

// readClientTrust reads a Secret of ingress-nginx's form: authorities under
// ca.crt, and lists of what they revoked under ca.crl.
func readClientTrust(s *corev1.Secret) (*clientTrust, error) {
	t := &clientTrust{version: secretVersion(s), roots: x509.NewCertPool(), revoked: map[string]bool{}, good: map[[32]byte]time.Time{}}
	var authorities []*x509.Certificate
	for rest := s.Data["ca.crt"]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("Secret %s has a certificate under ca.crt that cannot be read: %v", s.Name, err)
		}
		authorities = append(authorities, cert)
		t.roots.AddCert(cert)
	}
	if len(authorities) == 0 {
		return nil, fmt.Errorf("Secret %s has no certificate of an authority under the key ca.crt", s.Name)
	}
	for rest := s.Data["ca.crl"]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return t, nil
		}
		if err := t.revoke(block.Bytes, authorities); err != nil {
			return nil, fmt.Errorf("Secret %s has a list under ca.crl that cannot be used: %v", s.Name, err)
		}
	}
}

// revoke reads a list of revoked certificates, which one of the authorities
// must have signed.
func (t *clientTrust) revoke(der []byte, authorities []*x509.Certificate) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	for _, ca := range authorities {
		if list.CheckSignatureFrom(ca) != nil {
			continue
		}
		for _, e := range list.RevokedCertificateEntries {
			t.revoked[string(list.RawIssuer)+"\x00"+e.SerialNumber.String()] = true
		}
		return nil
	}
	return errors.New("none of the authorities under ca.crt signed it")
}

// addClientCerts finds the authorities for an Ingress's hosts. What is wrong
// closes them: nobody gets in without a certificate that was verified.
func (b *builder) addClientCerts(p parsedIngress, hosts []string) {
	c := p.set.clients
	if c == nil {
		return
	}
	c.ingress = p.key
	b.readClientCerts(p, c)
	for _, h := range hosts {
		v := b.vhost(h)
		if v.clients != nil {
			b.problem(p.key, fmt.Sprintf("%sauth-tls-secret: the client certificates of host %s are asked for by Ingress %s, which is older", annotationPrefix, h, v.clients.ingress))
			continue
		}
		v.clients = c
	}
}

func (b *builder) readClientCerts(p parsedIngress, c *clientCerts) {
	var before map[objectKey]*clientTrust
	if b.previous != nil {
		before = b.previous.trusts
	}
	c.trust = fromSecret(b, p, "auth-tls-secret", &c.secret, before, b.trusts, func(s *corev1.Secret) (*clientTrust, error) {
		t, err := readClientTrust(s)
		if err != nil {
			err = fmt.Errorf("%w; nobody is let in until this is put right", err)
		}
		return t, err
	})
}

// verify reports whether the client's certificates lead to an authority.
func (c *clientCerts) verify(certs []*x509.Certificate, now time.Time) error {
	t := c.trust
	if t == nil {
		return errors.New("the authorities are not known")
	}
	// What was sent with a certificate does not change who signed it.
	leaf := sha256.Sum256(append([]byte{byte(c.depth)}, certs[0].Raw...))
	t.mu.Lock()
	until, known := t.good[leaf]
	t.mu.Unlock()
	if known && now.Before(until) {
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, cert := range certs[1:] {
		intermediates.AddCert(cert)
	}
	chains, err := certs[0].Verify(x509.VerifyOptions{Roots: t.roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return err
	}
	err = fmt.Errorf("more than %d certificates are between it and its authority", c.depth)
	for _, chain := range chains {
		if len(chain)-2 > c.depth {
			continue
		}
		end, revoked := now.Add(time.Hour), false
		for _, cert := range chain {
			revoked = revoked || t.revoked[string(cert.RawIssuer)+"\x00"+cert.SerialNumber.String()]
			if cert.NotAfter.Before(end) {
				end = cert.NotAfter
			}
		}
		if revoked {
			err = errors.New("the certificate is revoked")
			continue
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if len(t.good) >= remembered {
			clear(t.good)
		}
		t.good[leaf] = end
		return nil
	}
	return err
}

// certified admits a client by its certificate, or answers the request. The
// application is told of the certificate by the ssl-client-* headers.
func (h *handler) certified(c *clientCerts, w http.ResponseWriter, r *http.Request) bool {
	for _, name := range []string{"Ssl-Client-Cert", "Ssl-Client-Verify", "Ssl-Client-Subject-Dn", "Ssl-Client-Issuer-Dn"} {
		r.Header.Del(name) // a client's own would be believed
	}
	if c.off {
		return true
	}
	var certs []*x509.Certificate
	if r.TLS != nil {
		certs = r.TLS.PeerCertificates
	}
	if len(certs) == 0 {
		if c.optional {
			r.Header.Set("Ssl-Client-Verify", "NONE")
			return true
		}
		if r.TLS != nil && hostname(r.TLS.ServerName) != hostname(r.Host) {
			// The connection was made for another host; a client makes a new one.
			refuse(w, http.StatusMisdirectedRequest, "This connection was made for another host, without the certificate that this one asks for.")
			return false
		}
		c.refuse(w, r, "No required SSL certificate was sent.")
		return false
	}
	verdict := "SUCCESS"
	if err := c.verify(certs, time.Now()); err != nil {
		if !c.anyCA {
			c.refuse(w, r, "The SSL certificate error: "+err.Error()+".")
			return false
		}
		verdict = "FAILED:" + strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return '?'
			}
			return r
		}, clipped(err.Error(), 256))
	}
	subject := certs[0].Subject.String()
	if c.match != nil && !c.match.MatchString(subject) {
		refuse(w, http.StatusForbidden, "The client certificate may not be used here.")
		return false
	}
	r.Header.Set("Ssl-Client-Verify", verdict)
	r.Header.Set("Ssl-Client-Subject-Dn", headerSafe(subject))
	r.Header.Set("Ssl-Client-Issuer-Dn", headerSafe(certs[0].Issuer.String()))
	if c.pass {
		r.Header.Set("Ssl-Client-Cert", strings.ReplaceAll(url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[0].Raw}))), "+", "%20"))
	}
	return true
}

// headerSafe escapes control characters of a name.
func headerSafe(s string) string {
	q := strconv.Quote(s)
	if q == `"`+s+`"` {
		return s
	}
	return q[1 : len(q)-1]
}

func (c *clientCerts) refuse(w http.ResponseWriter, r *http.Request, text string) {
	if c.errorPage != nil {
		http.Redirect(w, r, c.errorPage.of(r), http.StatusFound)
		return
	}
	refuse(w, http.StatusBadRequest, text)
}

// clientsOf returns what is asked of the clients of a host at the handshake,
// where the path is not known yet: that of the most specific entry that asks.
func (t *table) asksCertificate(host string) bool {
	_, parent, _ := strings.Cut(host, ".")
	for _, name := range []string{host, "*." + parent, ""} {
		if v := t.hosts[name]; v != nil && v.clients != nil && !v.clients.off {
			return true
		}
	}
	return false
}

// handshakeModule chooses the connections that are asked for a certificate.
type handshakeModule struct{ *Ingress }

// CaddyModule implements caddy.Module.
func (m *handshakeModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: m.moduleID("tls.handshake_match")}
}

// Match implements caddytls.ConnectionMatcher.
func (m *handshakeModule) Match(hello *tls.ClientHelloInfo) bool {
	host := hostname(hello.ServerName)
	if host == "" {
		host = m.hostOf(hello.Conn)
	}
	t := m.table.Load()
	return !m.isPlatform(t, host) && t.asksCertificate(host)
}

// impliedTLS stands for a connection that was not made: a question put to this
// ingress itself counts as asked by HTTPS.
func impliedTLS(host string) *tls.ConnectionState {
	return &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: host}
}

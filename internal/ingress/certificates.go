package ingress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddypki"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// caID is the internal authority's name in Caddy's configuration and storage.
const caID = "slipway"

// certificates decides which certificate a handshake gets: one from a Secret,
// a public one by ACME, or one of the internal authority. It uses CertMagic,
// Caddy's certificate library, with caches of its own, because the order of
// these three can change at any time and Caddy's own cache comes before any
// certificate source.
type certificates struct {
	i    *Ingress
	ctx  context.Context // ends with Caddy's configuration
	root atomic.Pointer[[]byte]

	ready    chan struct{} // closed when the fields below are set
	internal *certmagic.Config
	public   *certmagic.Config
	issuer   *certmagic.ACMEIssuer
	// Two caches, so that a name's public and internal certificates are never
	// taken for each other.
	internalCache, publicCache *certmagic.Cache

	mu      sync.Mutex
	running map[string]*issuing
	managed map[string]bool // hosts handed to the public configuration
}

// issuing is one certificate being made; others wait for done.
type issuing struct {
	done chan struct{}
	err  error
}

func newCertificates(i *Ingress) *certificates {
	return &certificates{i: i, ready: make(chan struct{}), running: map[string]*issuing{}, managed: map[string]bool{}}
}

// provision connects to the running Caddy.
func (c *certificates) provision(ctx caddy.Context) error {
	app, err := ctx.App("pki")
	if err != nil {
		return err
	}
	ca, err := app.(*caddypki.PKI).GetCA(ctx, caID)
	if err != nil {
		return err
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.RootCertificate().Raw})
	c.root.Store(&root)
	raw, err := json.Marshal(object{"ca": caID})
	if err != nil {
		return err
	}
	m, err := ctx.LoadModuleByID("tls.issuance.internal", raw)
	if err != nil {
		return err
	}
	log := zap.New(&logModule{Ingress: c.i})
	c.ctx = ctx
	c.internalCache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return c.internal, nil },
		Logger:           log,
	})
	c.publicCache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return c.public, nil },
		Logger:           log,
	})
	ctx.OnCancel(c.internalCache.Stop)
	ctx.OnCancel(c.publicCache.Stop)
	base := certmagic.Config{
		Storage:             ctx.Storage(),
		Logger:              log,
		DisableStorageCheck: true,
		OCSP:                certmagic.OCSPConfig{DisableStapling: true},
	}
	internal := base
	internal.Storage = ownLocks{base.Storage}
	internal.Issuers = []certmagic.Issuer{m.(*caddytls.InternalIssuer)}
	c.internal = certmagic.New(c.internalCache, internal)
	if err := c.provisionPublic(base, log); err != nil {
		return err
	}
	close(c.ready)
	return nil
}

// ownLocks keeps the internal authority's certificates apart from the public
// ones of the same name: CertMagic holds a name's lock for as long as it tries
// to obtain its certificate, which may be days where the name cannot be reached
// from outside, and the internal certificate is for that time.
type ownLocks struct{ certmagic.Storage }

// Lock implements certmagic.Locker.
func (s ownLocks) Lock(ctx context.Context, name string) error {
	return s.Storage.Lock(ctx, "internal_"+name)
}

// Unlock implements certmagic.Locker.
func (s ownLocks) Unlock(ctx context.Context, name string) error {
	return s.Storage.Unlock(ctx, "internal_"+name)
}

func (c *certificates) provisionPublic(base certmagic.Config, log *zap.Logger) error {
	template := certmagic.ACMEIssuer{
		CA:                      c.i.cfg.ACME.Directory,
		Email:                   c.i.cfg.ACME.Email,
		Agreed:                  true,
		DisableTLSALPNChallenge: true, // HTTP-01 is answered by the handler
		Logger:                  log,
		AltHTTPPort:             portOf(c.i.cfg.HTTPAddr),
	}
	if template.CA == "" {
		template.CA = certmagic.LetsEncryptProductionCA
	}
	if file := c.i.cfg.ACME.TrustedRoots; file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("roots of the ACME directory: %w", err)
		}
		template.TrustedRoots = x509.NewCertPool()
		if !template.TrustedRoots.AppendCertsFromPEM(data) {
			return fmt.Errorf("roots of the ACME directory: no certificate in %s", file)
		}
	}
	c.public = certmagic.New(c.publicCache, base)
	c.issuer = certmagic.NewACMEIssuer(c.public, template)
	c.public.Issuers = []certmagic.Issuer{c.issuer}
	return nil
}

// sync starts to obtain public certificates for hosts that newly ask for them
// and stops the renewal of those that no longer do.
func (c *certificates) sync(t *table) {
	select {
	case <-c.ready:
	default:
		return // done again once Caddy runs
	}
	var fresh []string
	var gone []certmagic.SubjectIssuer
	c.mu.Lock()
	for host := range t.acme {
		if !c.managed[host] {
			c.managed[host] = true
			fresh = append(fresh, host)
		}
	}
	for host := range c.managed {
		if !t.acme[host] {
			delete(c.managed, host)
			gone = append(gone, certmagic.SubjectIssuer{Subject: host, IssuerKey: c.issuer.IssuerKey()})
		}
	}
	c.mu.Unlock()
	if len(gone) > 0 {
		c.publicCache.RemoveManaged(gone)
	}
	if len(fresh) > 0 {
		if err := c.public.ManageAsync(c.ctx, fresh); err != nil {
			c.i.log.Error("public certificates cannot be managed", "hosts", fresh, "err", err)
		}
	}
}

// forHandshake returns the certificate for a handshake.
func (c *certificates) forHandshake(ctx context.Context, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	t := c.i.table.Load()
	host := hostname(hello.ServerName)
	if host == "" {
		host = c.i.hostOf(hello.Conn)
	}
	_, parent, _ := strings.Cut(host, ".")
	for _, name := range []string{host, "*." + parent} {
		if cert := t.certs[name]; cert != nil {
			return cert, nil
		}
	}
	select {
	case <-c.ready:
	default:
		return nil, errors.New("the certificate authority is not ready yet")
	}
	if t.acme[host] {
		for _, cert := range c.publicCache.AllMatchingCertificates(host) {
			return &cert.Certificate, nil
		}
		// Not there yet: the internal authority steps in.
	}
	return c.fromAuthority(ctx, c.subject(t, host))
}

// subject returns the name that a certificate of the internal authority for
// this host is made out to: the host when it is served here, the wildcard that
// covers it, or the platform's first name for everything else.
func (c *certificates) subject(t *table, host string) string {
	if c.i.isPlatform(t, host) {
		return host
	}
	if v := t.vhostFor(host); v != nil {
		return v.name
	}
	if t.www[host] != "" {
		return host
	}
	if len(c.i.cfg.PlatformHosts) > 0 {
		return c.i.cfg.PlatformHosts[0]
	}
	return "localhost"
}

// fromAuthority returns a cached certificate of the internal authority, or has
// one made. Many handshakes for one name wait for the same certificate.
func (c *certificates) fromAuthority(ctx context.Context, name string) (*tls.Certificate, error) {
	if cert := c.cached(name); cert != nil {
		return cert, nil
	}
	c.mu.Lock()
	run := c.running[name]
	if run == nil {
		run = &issuing{done: make(chan struct{})}
		c.running[name] = run
		go func() {
			run.err = c.internal.ManageSync(c.ctx, []string{name})
			c.mu.Lock()
			delete(c.running, name)
			c.mu.Unlock()
			close(run.done)
		}()
	}
	c.mu.Unlock()
	select {
	case <-run.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if run.err != nil {
		return nil, fmt.Errorf("ingress: certificate for %s: %w", name, run.err)
	}
	if cert := c.cached(name); cert != nil {
		return cert, nil
	}
	return nil, fmt.Errorf("ingress: the certificate for %s is not in the cache", name)
}

func (c *certificates) cached(name string) *tls.Certificate {
	for _, cert := range c.internalCache.AllMatchingCertificates(name) {
		if !cert.Expired() {
			return &cert.Certificate
		}
	}
	return nil
}

// hostOf names the address that a client without a server name has reached.
func (i *Ingress) hostOf(conn net.Conn) string {
	if conn == nil {
		return ""
	}
	return hostname(conn.LocalAddr().String())
}

// isPlatform reports whether the host is the platform's: one of its names, or
// an address at which no application can be.
func (i *Ingress) isPlatform(t *table, host string) bool {
	for _, h := range i.cfg.PlatformHosts {
		if h == host {
			return true
		}
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback() && t.hosts[host] == nil && i.cfg.Platform != nil
}

// CA returns the internal authority's root certificate in PEM, or nil before
// the Ingress serves.
func (i *Ingress) CA() []byte {
	if p := i.certs.Load().root.Load(); p != nil {
		return *p
	}
	return nil
}

// ServeCA answers with the root certificate, as a file that browsers and
// systems know how to trust.
func (i *Ingress) ServeCA(w http.ResponseWriter, r *http.Request) {
	ca := i.CA()
	if ca == nil {
		http.Error(w, "The certificate authority is not ready yet.", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Header().Set("Content-Disposition", `attachment; filename="slipway-ca.crt"`)
	if _, err := w.Write(ca); err != nil && r.Context().Err() == nil {
		i.log.Debug("the CA certificate was not sent whole", "err", err)
	}
}

// certificateModule is Caddy's view of certificates.
type certificateModule struct{ *Ingress }

// CaddyModule implements caddy.Module.
func (m *certificateModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: m.moduleID("tls.get_certificate")}
}

// GetCertificate implements certmagic.Manager.
func (m *certificateModule) GetCertificate(ctx context.Context, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return m.certs.Load().forHandshake(ctx, hello)
}

// permissionModule refuses: what certificateModule does not give, nobody gives.
type permissionModule struct{ *Ingress }

// CaddyModule implements caddy.Module.
func (m *permissionModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: m.moduleID("tls.permission")}
}

// CertificateAllowed implements caddytls.OnDemandPermission.
func (m *permissionModule) CertificateAllowed(context.Context, string) error {
	return caddytls.ErrPermissionDenied
}

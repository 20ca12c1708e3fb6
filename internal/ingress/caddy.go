package ingress

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"go.uber.org/zap/zapcore"

	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/proxyprotocol" // the listener wrapper "proxy_protocol"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"             // the storage module "file_system"
	_ "github.com/caddyserver/caddy/v2/modules/logging"                 // the log writer "discard"
)

// gracePeriod is how long running requests may take at a stop.
const gracePeriod = 5 * time.Second

// maxHeaders is how large the headers of a request may be, in bytes.
const maxHeaders = 64 << 10

// object is a piece of Caddy's JSON configuration.
type object = map[string]any

// registerModules makes this Ingress known to Caddy under names of its own.
func (i *Ingress) registerModules() {
	for _, m := range []struct {
		namespace string
		module    func() caddy.Module
	}{
		{"http.handlers", func() caddy.Module { return &handler{Ingress: i} }},
		{"http.reverse_proxy.upstreams", func() caddy.Module { return &upstreams{Ingress: i} }},
		{"tls.get_certificate", func() caddy.Module { return &certificateModule{Ingress: i} }},
		{"tls.handshake_match", func() caddy.Module { return &handshakeModule{Ingress: i} }},
		{"tls.permission", func() caddy.Module { return &permissionModule{Ingress: i} }},
		{"caddy.logging.cores", func() caddy.Module { return &logModule{Ingress: i} }},
	} {
		caddy.RegisterModule(dynamicModule{caddy.ModuleInfo{ID: i.moduleID(m.namespace), New: m.module}})
	}
	withheld := &withheldModule{Ingress: i}
	caddy.RegisterModule(dynamicModule{caddy.ModuleInfo{ID: withheld.CaddyModule().ID, New: func() caddy.Module { return withheld }}})
}

// dynamicModule hands Caddy the information to make a module.
type dynamicModule struct{ info caddy.ModuleInfo }

func (m dynamicModule) CaddyModule() caddy.ModuleInfo { return m.info }

func (i *Ingress) moduleID(namespace string) caddy.ModuleID {
	return caddy.ModuleID(namespace + "." + i.id)
}

// start runs Caddy with the one configuration it ever gets.
func (i *Ingress) start() error {
	raw, err := json.Marshal(i.caddyConfig())
	if err != nil {
		return err
	}
	var cfg caddy.Config
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return err
	}
	return caddy.Run(&cfg)
}

func (i *Ingress) stop() error {
	if err := caddy.Stop(); err != nil {
		return fmt.Errorf("ingress: stop: %w", err)
	}
	return nil
}

func (i *Ingress) caddyConfig() object {
	apps := object{
		"http": i.httpApp(),
		"tls": object{
			"automation": object{
				// Every handshake asks our module; nothing else may issue.
				"policies": []object{{
					"get_certificate": []object{{"via": i.id}},
					"issuers":         []object{{"module": "internal", "ca": caID}},
				}},
				"on_demand": object{"permission": object{"module": i.id}},
			},
			"disable_storage_check": true,
			"disable_storage_clean": true,
		},
		"pki": object{"certificate_authorities": object{caID: object{
			"name":                     "Slipway",
			"root_common_name":         "Slipway Root CA",
			"intermediate_common_name": "Slipway Intermediate CA",
			"install_trust":            false,
		}}},
	}
	return object{
		"admin": object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{
			"level":  "WARN",
			"writer": object{"output": "discard"},
			"core":   object{"module": i.id},
		}}},
		"storage": object{"module": "file_system", "root": filepath.Join(i.cfg.DataDir, "caddy")},
		"apps":    apps,
	}
}

func (i *Ingress) httpApp() object {
	servers := object{}
	server := func(addr string, protocols ...string) object {
		s := object{
			"listen":          []string{addr},
			"protocols":       protocols,
			"automatic_https": object{"disable": true},
			"idle_timeout":    "5m",
			// Twice nginx's (large_client_header_buffers: 4 of 8 KiB): tokens in
			// several cookies are larger than Caddy's 16 KiB.
			"max_header_bytes": maxHeaders,
			"routes":           []object{{"handle": []object{{"handler": i.id}}}},
		}
		if len(i.cfg.ProxyProtocol) > 0 && slices.Contains(protocols, "h1") {
			s["listener_wrappers"] = []object{{"wrapper": "proxy_protocol", "timeout": "5s", "allow": i.cfg.ProxyProtocol, "fallback_policy": "SKIP"}, {"wrapper": "tls"}}
		}
		if len(i.cfg.TrustedProxies) > 0 {
			s["trusted_proxies"] = object{"source": "static", "ranges": i.cfg.TrustedProxies}
		}
		return s
	}
	app := object{"servers": servers, "grace_period": gracePeriod.String()}
	if i.cfg.HTTPAddr != "" {
		servers["http"] = server(i.cfg.HTTPAddr, "h1", "h2c")
		app["http_port"] = portOf(i.cfg.HTTPAddr)
	}
	if i.cfg.HTTPSAddr != "" {
		s := server(i.cfg.HTTPSAddr, "h1", "h2", "h3")
		// Which hosts ask for a client's certificate changes with the table; it
		// is verified for each request, whatever name the handshake had.
		s["tls_connection_policies"] = []object{
			{"match": object{i.id: object{}}, "client_authentication": object{"mode": "request"}},
			{},
		}
		s["strict_sni_host"] = false
		servers["https"] = s
		app["https_port"] = portOf(i.cfg.HTTPSAddr)
	}
	return app
}

func portOf(addr string) int {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(port) // Caddy reports a bad port itself
	return n
}

// proxyKey tells reverse proxies apart: one is made for each combination of
// protocol and timeouts in use.
type proxyKey struct {
	protocol            protocol
	connect, read, send time.Duration
	vhost               string
	ask                 bool   // for the answer's status and headers alone
	withheld            string // statuses that error pages stand in for
}

// proxies holds Caddy's reverse proxy handlers, made when first needed and
// kept for the life of the process: there are as many as there are different
// timeouts.
type proxies struct {
	i     *Ingress
	mu    chan struct{} // a lock that a request can give up on
	ctx   caddy.Context
	byKey map[proxyKey]*reverseproxy.Handler
}

func newProxies(i *Ingress) *proxies {
	p := &proxies{i: i, mu: make(chan struct{}, 1), byKey: map[proxyKey]*reverseproxy.Handler{}}
	return p
}

func (p *proxies) get(ctx context.Context, set *settings, ask bool) (*reverseproxy.Handler, error) {
	k := proxyKey{protocol: set.protocol, connect: set.connectTimeout, read: set.readTimeout, send: set.sendTimeout, ask: ask}
	if set.protocol == protoHTTPS || set.protocol == protoGRPCS {
		k.vhost = cmp.Or(set.sslName, set.upstreamVhost)
	}
	k.withheld = set.errorPages.withheld()
	select {
	case p.mu <- struct{}{}:
		defer func() { <-p.mu }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h := p.byKey[k]; h != nil {
		return h, nil
	}
	raw, err := json.Marshal(p.config(k, set.errorPages))
	if err != nil {
		return nil, err
	}
	m, err := p.ctx.LoadModuleByID("http.handlers.reverse_proxy", raw)
	if err != nil {
		return nil, fmt.Errorf("reverse proxy: %w", err)
	}
	h := m.(*reverseproxy.Handler)
	p.byKey[k] = h
	return h, nil
}

func (p *proxies) config(k proxyKey, pages *errorPages) object {
	transport := object{
		"protocol":      "http",
		"compression":   false, // what the client and the backend agree on passes through
		"network_proxy": object{"from": "none"},
		"dial_timeout":  k.connect.String(),
		"keep_alive":    object{"max_idle_conns_per_host": 128, "idle_timeout": "90s"},
		// A client that asks before it sends its body is answered by the backend.
		"expect_continue_timeout": "1s",
	}
	if k.send > 0 {
		transport["write_timeout"] = k.send.String()
	}
	// A stream's headers may come with its first message, whenever that is.
	if k.read > 0 && k.protocol != protoGRPC && k.protocol != protoGRPCS {
		transport["response_header_timeout"] = k.read.String()
	}
	switch k.protocol {
	case protoGRPC:
		transport["versions"] = []string{"h2c", "2"}
	case protoGRPCS:
		transport["versions"] = []string{"2"}
		transport["tls"] = tlsTransport(k)
	case protoHTTPS:
		transport["versions"] = []string{"1.1", "2"}
		transport["tls"] = tlsTransport(k)
	default:
		transport["versions"] = []string{"1.1"}
	}
	config := object{
		"transport":         transport,
		"dynamic_upstreams": object{"source": p.i.id},
		"load_balancing": object{
			"selection_policy": object{"policy": "first"},
			// A failed dial is tried elsewhere whatever the method. A request
			// that a backend may have seen is repeated only when that is safe.
			"retries":      5,
			"try_duration": "10s",
			"try_interval": "20ms",
			"retry_match":  []object{{"method": []string{"GET", "HEAD", "OPTIONS"}}},
		},
	}
	if k.withheld != "" {
		config["handle_response"] = []object{{
			"match":  object{"status_code": pages.codes},
			"routes": []object{{"handle": []object{{"handler": p.i.id + "_withheld"}}}},
		}}
	}
	if k.ask { // status and headers are the answer; the body is not read
		config["handle_response"] = []object{{"routes": []object{{"handle": []object{
			{"handler": "copy_response_headers"},
			{"handler": "static_response", "status_code": "{http.reverse_proxy.status_code}"},
		}}}}}
	}
	return config
}

// tlsTransport does not verify backends, whose certificates are for the most
// part their own: ingress-nginx's default (proxy-ssl-verify: off).
func tlsTransport(k proxyKey) object {
	t := object{"insecure_skip_verify": true}
	if k.vhost != "" {
		t["server_name"] = k.vhost
	}
	return t
}

// attempt follows one request through the retries of its reverse proxy.
type attempt struct {
	key     string // of the backend
	set     *settings
	bound   *endpoint // from the affinity cookie; for the first try only
	last    *endpoint
	tried   []*endpoint
	holdEnd time.Time // how long to wait for an endpoint
	direct  *endpoint // the only address, outside of the cluster; nil for a backend's
	problem string    // why there is no address, for the answer
	hash    string    // chooses the endpoint where hashed is set
	hashed  bool
	// withheld is the status of an answer that an error page replaces; 0 for
	// one that was passed on.
	withheld int
}

type attemptKey struct{}

// holdEmpty is how long a request waits for a backend that has just lost its
// last endpoint, as happens for a moment when a Service changes its selector.
const holdEmpty = 2 * time.Second

// upstreams is the reverse proxies' source of addresses: it gives them the one
// endpoint that the attempt goes to.
type upstreams struct{ *Ingress }

func (u *upstreams) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: u.moduleID("http.reverse_proxy.upstreams")}
}

// GetUpstreams chooses an endpoint of the request's backend in the table of
// this moment. It waits a short while for an endpoint when the backend lost
// its last one just now, and returns none when there is none.
func (u *upstreams) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	a, ok := r.Context().Value(attemptKey{}).(*attempt)
	if !ok {
		return nil, errors.New("the request was not routed")
	}
	for {
		changed := u.tableChanged()
		now := time.Now()
		be := u.table.Load().backends[a.key]
		if be == nil && a.direct == nil {
			return nil, nil
		}
		e := a.bound
		a.bound = nil
		if a.direct != nil {
			e = a.direct
		}
		if e == nil {
			if a.hashed {
				e = be.pickBy(a.hash, a.tried, now)
			} else {
				e = be.pick(a.tried, now)
			}
		}
		if e != nil {
			a.last = e
			addr := e.addr
			if e.external {
				var err error
				if addr, err = resolveExternal(r.Context(), e.addr); err != nil {
					a.problem = err.Error()
					return nil, nil
				}
			}
			return []*reverseproxy.Upstream{{Dial: addr}}, nil
		}
		if a.holdEnd.IsZero() {
			a.holdEnd = be.emptySince.Add(holdEmpty)
		}
		wait := a.holdEnd.Sub(now)
		if wait <= 0 {
			return nil, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-r.Context().Done():
		}
		timer.Stop()
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
	}
}

// resolveExternal looks up the name of an ExternalName Service. Whoever may
// make a Service decides what the name says, so this host's own addresses,
// where the platform's private endpoints listen, are refused.
func resolveExternal(ctx context.Context, addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", fmt.Errorf("the name %s of an ExternalName Service cannot be resolved", host)
	}
	for _, ip := range ips {
		ip = ip.Unmap()
		if !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() {
			return net.JoinHostPort(ip.String(), port), nil
		}
	}
	return "", fmt.Errorf("the name %s of an ExternalName Service leads to an address of this host, which is not allowed", host)
}

// ResetCache is called before a retry: the endpoint chosen last has failed.
func (u *upstreams) ResetCache(r *http.Request) error {
	if a, ok := r.Context().Value(attemptKey{}).(*attempt); ok && a.last != nil {
		a.last.failed.mark(time.Now())
		a.tried = append(a.tried, a.last)
	}
	return nil
}

// logModule passes Caddy's log entries on to the Ingress's logger.
type logModule struct {
	*Ingress
	fields []zapcore.Field
}

func (m *logModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: m.moduleID("caddy.logging.cores")}
}

// Enabled implements zapcore.Core.
func (m *logModule) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (m *logModule) With(fields []zapcore.Field) zapcore.Core {
	return &logModule{Ingress: m.Ingress, fields: append(m.fields[:len(m.fields):len(m.fields)], fields...)}
}

// Check implements zapcore.Core.
func (m *logModule) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	// That the admin endpoint is off, as configured, is nothing to warn of.
	if m.Enabled(e.Level) && (e.LoggerName != "admin" || e.Level > zapcore.WarnLevel) {
		return ce.AddCore(e, m)
	}
	return ce
}

// Write implements zapcore.Core.
func (m *logModule) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(m.fields[:len(m.fields):len(m.fields)], fields...) {
		if f.Key == "request" || f.Key == "headers" {
			continue // may hold what a client keeps secret
		}
		f.AddTo(enc)
	}
	args := []any{"logger", e.LoggerName}
	for k, v := range enc.Fields {
		args = append(args, k, v)
	}
	level := slog.LevelWarn
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	m.log.Log(context.Background(), level, e.Message, args...)
	return nil
}

// Sync implements zapcore.Core.
func (m *logModule) Sync() error { return nil }

// Caddy checks these by interface.
var (
	_ caddyhttp.MiddlewareHandler        = (*handler)(nil)
	_ reverseproxy.CachingUpstreamSource = (*upstreams)(nil)
	_ caddytls.OnDemandPermission        = (*permissionModule)(nil)
	_ caddytls.ConnectionMatcher         = (*handshakeModule)(nil)
	_ zapcore.Core                       = (*logModule)(nil)
)

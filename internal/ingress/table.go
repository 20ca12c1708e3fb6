package ingress

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// controllerName is what an IngressClass names in spec.controller to be
// served here.
const controllerName = "slipway.dev/ingress"

// inputs are the cluster's objects that a table is made from. They are never
// changed after they were handed over.
type inputs struct {
	Ingresses []*networkingv1.Ingress      `json:"ingresses"`
	Classes   []*networkingv1.IngressClass `json:"classes"`
	Services  []*corev1.Service            `json:"services"`
	Slices    []*discoveryv1.EndpointSlice `json:"slices"`
	Secrets   []*corev1.Secret             `json:"secrets"`
	// ConfigMaps are those that annotations name.
	ConfigMaps []*corev1.ConfigMap `json:"configMaps"`
	// Revisions maps "namespace/pod" to the pod's template hash.
	Revisions map[string]string `json:"revisions"`
	// listed are the named objects of which it is known whether they exist.
	listed map[objectKey]bool
}

// table is one immutable state of the routing. Requests read it without locks.
type table struct {
	hosts    map[string]*vhost // by host name; "*.example.com" for wildcards, "" for any
	backends map[string]*backend
	certs    map[string]*tls.Certificate // by host name, from Secrets
	acme     map[string]bool             // hosts with public certificates
	platform map[string]bool
	routes   []*route
	problems map[string][]string // by "namespace/name" of the Ingress
	served   []*networkingv1.Ingress
	unserved []*networkingv1.Ingress    // of a class that nobody has
	www      map[string]string          // host that is redirected -> the one that is served
	needs    map[objectKey]bool         // what annotations name
	creds    map[objectKey]*credentials // users of Secrets
	trusts   map[objectKey]*clientTrust // authorities of Secrets
	maxBody  int64
}

func emptyTable() *table { return &table{hosts: map[string]*vhost{}} }

// vhost holds the routes of one host.
type vhost struct {
	name   string
	exact  map[string]*route
	others []*route // prefixes and expressions, longest path first
	tls    bool     // an Ingress lists the host under tls
	// clients is what is asked of clients by certificate; nil for nothing.
	clients *clientCerts
}

// route leads one path of one host to a backend.
type route struct {
	host      string
	path      string
	pathType  networkingv1.PathType
	regex     *regexp.Regexp // for use-regex and rewrite-target
	ingress   string         // "namespace/name"
	namespace string
	name      string // the Ingress's name without its namespace
	set       *settings
	backend   *backend
	alternate *alternate // the canary; nil without one
	tls       bool
	sequence  *sequence
}

// alternate is the canary of a route.
type alternate struct {
	ingress string
	name    string
	rule    *canaryRule
	set     *settings
	backend *backend
}

// backend is one port of a Service.
type backend struct {
	key       string // "namespace/service:port"
	namespace string
	service   string
	endpoints []*endpoint
	rotation  *sequence
	// emptySince is when the backend lost its last endpoint; zero when it has
	// some or never had one.
	emptySince time.Time
	problem    string // why there can be no endpoints, such as a missing Service
}

// endpoint is one address that serves a backend.
type endpoint struct {
	addr     string // host:port
	id       string // stable and opaque, for affinity cookies
	revision string // the pod's template hash; empty when unknown
	pod      string
	external bool // addr has a name that somebody outside decides about
	failed   failure
}

type tableOptions struct {
	class         string
	platformHosts []string
	maxBody       int64
	counters      *counters
	previous      *table
	now           time.Time
}

// builder collects a table.
type builder struct {
	tableOptions
	*table
	in       *inputs
	services map[string]*corev1.Service
	slices   map[string][]*discoveryv1.EndpointSlice
	secrets  map[string]*corev1.Secret
	claimed  map[string]string // host+path -> ingress
	used     map[string]bool   // counter names in use
}

// buildTable makes a table. It never fails: what is wrong with an Ingress is
// in the table's problems, and the rest is served.
func buildTable(in *inputs, opts tableOptions) *table {
	b := &builder{
		tableOptions: opts,
		table: &table{
			hosts:    map[string]*vhost{},
			backends: map[string]*backend{},
			certs:    map[string]*tls.Certificate{},
			acme:     map[string]bool{},
			platform: map[string]bool{},
			problems: map[string][]string{},
			www:      map[string]string{},
			needs:    map[objectKey]bool{},
			creds:    map[objectKey]*credentials{},
			trusts:   map[objectKey]*clientTrust{},
			maxBody:  opts.maxBody,
		},
		in:       in,
		services: map[string]*corev1.Service{},
		slices:   map[string][]*discoveryv1.EndpointSlice{},
		secrets:  map[string]*corev1.Secret{},
		claimed:  map[string]string{},
		used:     map[string]bool{},
	}
	for _, h := range opts.platformHosts {
		b.platform[h] = true
	}
	for _, s := range in.Services {
		b.services[s.Namespace+"/"+s.Name] = s
	}
	for _, s := range in.Slices {
		if svc := s.Labels[discoveryv1.LabelServiceName]; svc != "" {
			k := s.Namespace + "/" + svc
			b.slices[k] = append(b.slices[k], s)
		}
	}
	for _, s := range in.Secrets {
		b.secrets[s.Namespace+"/"+s.Name] = s
	}
	var canaries []parsedIngress
	for _, ing := range b.mine() {
		p := parsedIngress{ing: ing, key: ing.Namespace + "/" + ing.Name}
		set, problems := parseAnnotations(ing.Annotations)
		p.set = &set
		b.problem(p.key, problems...)
		b.served = append(b.served, ing)
		if p.set.canary != nil {
			canaries = append(canaries, p)
			continue
		}
		b.addIngress(p)
	}
	for _, p := range canaries {
		b.addCanary(p)
	}
	b.finish()
	return b.table
}

type parsedIngress struct {
	ing *networkingv1.Ingress
	key string
	set *settings
}

func (b *builder) problem(ingress string, problems ...string) {
	if len(problems) > 0 {
		b.problems[ingress] = append(b.problems[ingress], problems...)
	}
}

// mine returns the Ingresses of our class, oldest first: on a conflict the
// older one wins, as in ingress-nginx.
func (b *builder) mine() []*networkingv1.Ingress {
	classes := map[string]bool{b.class: true}
	exists, others := map[string]bool{}, false // by their controller
	isDefault := true                          // until there is a class that says so, or that another one is
	for _, c := range b.in.Classes {
		exists[c.Name] = true
		others = others || c.Spec.Controller != controllerName
		switch {
		case c.Spec.Controller == controllerName:
			classes[c.Name] = true
			if c.Name == b.class && c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "true" {
				isDefault = false
			}
		case c.Name == b.class:
			classes[c.Name] = false // somebody else's class with our name
		case c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true":
			isDefault = false
		}
	}
	var out []*networkingv1.Ingress
	for _, ing := range b.in.Ingresses {
		class := ing.Annotations["kubernetes.io/ingress.class"]
		if ing.Spec.IngressClassName != nil {
			class = *ing.Spec.IngressClassName
		}
		switch {
		case classes[class] || class == "" && isDefault:
			out = append(out, ing)
		case class != "" && !others && !exists[class]:
			b.unserved = append(b.unserved, ing)
			b.problem(ing.Namespace+"/"+ing.Name, fmt.Sprintf("there is no IngressClass %s, and nothing else serves Ingresses here: name the class %s, or none", class, b.class))
		}
	}
	slices.SortFunc(out, func(x, y *networkingv1.Ingress) int {
		if c := x.CreationTimestamp.Compare(y.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(x.Namespace+"/"+x.Name, y.Namespace+"/"+y.Name)
	})
	return out
}

// rulePath is one path of one rule, with the host in lower case.
type rulePath struct {
	host, path string
	pathType   networkingv1.PathType
	backend    networkingv1.IngressBackend
}

// claim is the same for paths that lead the same requests: the slash at the
// end of a prefix does not count, and a prefix of everything has two names.
func (rp rulePath) claim() string {
	path, kind := rp.path, rp.pathType
	if kind == networkingv1.PathTypePrefix {
		path = strings.TrimSuffix(path, "/")
	}
	if path == "/" && kind == networkingv1.PathTypeImplementationSpecific {
		path, kind = "", networkingv1.PathTypePrefix
	}
	return rp.host + path + " " + string(kind)
}

// rulePaths flattens an Ingress.
func rulePaths(ing *networkingv1.Ingress) []rulePath {
	var out []rulePath
	for _, rule := range ing.Spec.Rules {
		host := strings.ToLower(strings.TrimSuffix(rule.Host, "."))
		root := false
		if rule.HTTP != nil {
			for _, p := range rule.HTTP.Paths {
				rp := rulePath{host: host, path: p.Path, pathType: networkingv1.PathTypeImplementationSpecific, backend: p.Backend}
				if p.PathType != nil {
					rp.pathType = *p.PathType
				}
				if rp.path == "" {
					rp.path = "/"
				}
				root = root || rp.path == "/" && rp.pathType != networkingv1.PathTypeExact
				out = append(out, rp)
			}
		}
		if !root && ing.Spec.DefaultBackend != nil {
			out = append(out, rulePath{host: host, path: "/", pathType: networkingv1.PathTypePrefix, backend: *ing.Spec.DefaultBackend})
		}
	}
	if len(ing.Spec.Rules) == 0 && ing.Spec.DefaultBackend != nil {
		out = append(out, rulePath{path: "/", pathType: networkingv1.PathTypePrefix, backend: *ing.Spec.DefaultBackend})
	}
	return out
}

func (b *builder) addIngress(p parsedIngress) {
	set := p.set
	paths := rulePaths(p.ing)
	if len(paths) == 0 {
		b.problem(p.key, "the Ingress has neither a rule with a path nor a default backend")
	}
	secured := map[string]bool{}
	b.addTLS(p, secured)
	b.addAuth(p)
	b.addExternal(p)
	b.addErrorPages(p)
	b.addMirror(p)
	p.set.headers = b.headersFrom(p, "custom-headers", p.set.headersFrom)
	var hosts []string
	for _, rp := range paths {
		if b.platform[rp.host] {
			b.problem(p.key, fmt.Sprintf("host %s belongs to the platform itself", rp.host))
			continue
		}
		if !slices.Contains(hosts, rp.host) {
			hosts = append(hosts, rp.host)
		}
		b.addPath(p, set, rp, secured[rp.host])
		for _, alias := range set.serverAliases {
			if b.hosts[alias] == nil || b.claimed[alias] == p.key {
				b.claimed[alias] = p.key
				aliased := rp
				aliased.host = alias
				b.addPath(p, set, aliased, secured[rp.host])
			}
		}
	}
	b.addClientCerts(p, append(hosts[:len(hosts):len(hosts)], set.serverAliases...))
	if set.wwwRedirect {
		for _, h := range hosts {
			if bare, ok := strings.CutPrefix(h, "www."); ok {
				b.www[bare] = h
			} else if h != "" && !strings.HasPrefix(h, "*") {
				b.www["www."+h] = h
			}
		}
	}
	if set.appRoot != "" {
		for _, h := range hosts {
			b.vhost(h) // the redirect needs a route for "/" only when there is none
		}
	}
}

func (b *builder) vhost(name string) *vhost {
	v := b.hosts[name]
	if v == nil {
		v = &vhost{name: name, exact: map[string]*route{}}
		b.hosts[name] = v
	}
	return v
}

func (b *builder) addPath(p parsedIngress, set *settings, rp rulePath, secured bool) {
	claim := rp.claim()
	if other, ok := b.claimed[claim]; ok {
		if other == p.key {
			b.problem(p.key, fmt.Sprintf("%s%s is in this Ingress twice; the first one counts", rp.host, rp.path))
			return
		}
		b.problem(p.key, fmt.Sprintf("%s%s is already served by Ingress %s, which is older", rp.host, rp.path, other))
		return
	}
	r := &route{
		host: rp.host, path: rp.path, pathType: rp.pathType,
		ingress: p.key, namespace: p.ing.Namespace, name: p.ing.Name,
		set: set, tls: secured,
	}
	if !strings.HasPrefix(rp.path, "/") && !set.useRegex {
		b.problem(p.key, fmt.Sprintf("path %q does not start with a slash", rp.path))
		return
	}
	if !set.useRegex && set.rewriteTarget == "" && strings.ContainsAny(rp.path, "*()[]{}|^$\\") {
		b.problem(p.key, fmt.Sprintf("path %q is taken as it is written; %suse-regex: \"true\" makes it a regular expression", rp.path, annotationPrefix))
	}
	if set.useRegex || set.rewriteTarget != "" {
		re, err := regexp.Compile("(?i)^" + rp.path)
		if err != nil {
			b.problem(p.key, fmt.Sprintf("path %q is not a regular expression: %v", rp.path, err))
			return
		}
		r.regex = re
	}
	b.claimed[claim] = p.key
	var problem string
	r.backend, problem = b.backendFor(p.ing.Namespace, rp.backend)
	if problem != "" {
		b.problem(p.key, problem)
	}
	name := "route " + p.key + " " + claim
	b.used[name] = true
	r.sequence = b.counters.get(name)
	v := b.vhost(rp.host)
	v.tls = v.tls || secured
	if rp.pathType == networkingv1.PathTypeExact && r.regex == nil {
		v.exact[rp.path] = r
	} else {
		v.others = append(v.others, r)
	}
	b.routes = append(b.routes, r)
}

// addCanary hangs a canary Ingress on the routes of the same host, path and
// path type. Without such a route it has no effect, and at most one canary
// per route counts: both as in ingress-nginx.
func (b *builder) addCanary(p parsedIngress) {
	for _, rp := range rulePaths(p.ing) {
		var main *route
		for _, r := range b.routes {
			if r.host == rp.host && r.path == rp.path && r.pathType == rp.pathType && r.namespace == p.ing.Namespace {
				main = r
				break
			}
		}
		if main == nil {
			b.problem(p.key, fmt.Sprintf("the canary has no effect: no Ingress without canary serves %s%s (%s) in this namespace", rp.host, rp.path, rp.pathType))
			continue
		}
		if main.alternate != nil {
			b.problem(p.key, fmt.Sprintf("the canary has no effect for %s%s: Ingress %s is the canary there already", rp.host, rp.path, main.alternate.ingress))
			continue
		}
		be, problem := b.backendFor(p.ing.Namespace, rp.backend)
		if problem != "" {
			b.problem(p.key, problem)
		}
		main.alternate = &alternate{ingress: p.key, name: p.ing.Name, rule: p.set.canary, set: p.set, backend: be}
	}
}

// finish sorts what is matched in order and drops counters nobody uses.
func (b *builder) finish() {
	for _, v := range b.hosts {
		slices.SortStableFunc(v.others, func(x, y *route) int { return len(y.path) - len(x.path) })
	}
	for host := range b.www {
		if b.hosts[host] != nil || b.platform[host] {
			delete(b.www, host) // an application of its own
		}
	}
	for host := range b.acme {
		if b.hosts[host] == nil {
			delete(b.acme, host)
		}
	}
	b.counters.keep(b.used)
}

// headersFrom reads the headers that an annotation of an Ingress names by a
// ConfigMap.
func (b *builder) headersFrom(p parsedIngress, annotation, name string) http.Header {
	if name == "" {
		return nil
	}
	if namespace, rest, ok := strings.Cut(name, "/"); ok {
		name = rest
		if namespace != p.ing.Namespace {
			b.problem(p.key, annotationPrefix+annotation+": a ConfigMap of another namespace is not allowed")
			return nil
		}
	}
	key := objectKey{"ConfigMap", p.ing.Namespace, name}
	b.needs[key] = true
	i := slices.IndexFunc(b.in.ConfigMaps, func(c *corev1.ConfigMap) bool { return c.Namespace == key.namespace && c.Name == name })
	if i < 0 {
		if b.in.listed[key] {
			b.problem(p.key, fmt.Sprintf("%s%s: ConfigMap %s does not exist", annotationPrefix, annotation, name))
		}
		return nil
	}
	headers := http.Header{}
	for k, v := range b.in.ConfigMaps[i].Data {
		if !httpguts.ValidHeaderFieldName(k) || !httpguts.ValidHeaderFieldValue(v) || slices.Contains(connectionHeaders, http.CanonicalHeaderKey(k)) {
			b.problem(p.key, fmt.Sprintf("%s%s: %q is not a header that can be set", annotationPrefix, annotation, k))
			continue
		}
		headers.Set(k, v)
	}
	return headers
}

// connectionHeaders belong to the connection or to the body's form.
var connectionHeaders = []string{"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

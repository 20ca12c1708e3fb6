package ingress

import (
	"crypto/tls"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// failurePause is how long an endpoint that refused a connection is passed
// over while others are left.
const failurePause = 2 * time.Second

// failure remembers when an endpoint may be tried again.
type failure struct{ until atomic.Int64 }

func (f *failure) mark(now time.Time)        { f.until.Store(now.Add(failurePause).UnixNano()) }
func (f *failure) paused(now time.Time) bool { return f.until.Load() > now.UnixNano() }

// backendFor returns the backend of an Ingress path. The second result says
// why it cannot have endpoints.
func (b *builder) backendFor(namespace string, ref networkingv1.IngressBackend) (*backend, string) {
	if ref.Service == nil {
		const problem = "resource backends are not supported; name a Service"
		return &backend{key: namespace + "/?", namespace: namespace, problem: problem}, problem
	}
	port := ref.Service.Port.Name
	if port == "" {
		port = strconv.Itoa(int(ref.Service.Port.Number))
	}
	key := namespace + "/" + ref.Service.Name + ":" + port
	if be := b.backends[key]; be != nil {
		return be, be.problem
	}
	be := &backend{key: key, namespace: namespace, service: ref.Service.Name}
	b.backends[key] = be
	name := "backend " + key
	b.used[name] = true
	be.rotation = b.counters.get(name)
	var old *backend
	if b.previous != nil {
		old = b.previous.backends[key]
	}
	be.endpoints, be.problem = b.endpoints(be, ref.Service, old)
	switch {
	case len(be.endpoints) > 0 || old == nil:
	case len(old.endpoints) > 0:
		be.emptySince = b.now
	default:
		be.emptySince = old.emptySince
	}
	return be, be.problem
}

func (b *builder) endpoints(be *backend, ref *networkingv1.IngressServiceBackend, old *backend) ([]*endpoint, string) {
	svc := b.services[be.namespace+"/"+be.service]
	if svc == nil {
		return nil, fmt.Sprintf("Service %s does not exist", be.service)
	}
	var port *corev1.ServicePort
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if ref.Port.Name != "" && p.Name == ref.Port.Name || ref.Port.Name == "" && p.Port == ref.Port.Number {
			port = p
			break
		}
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		number := ref.Port.Number
		if port != nil {
			number = port.Port
		}
		if number == 0 {
			return nil, fmt.Sprintf("Service %s has no port %s", be.service, ref.Port.Name)
		}
		return be.reuse(old, []*endpoint{{addr: net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(number))), external: true}}), ""
	}
	if port == nil {
		return nil, fmt.Sprintf("Service %s has no port %s", be.service, be.key[strings.LastIndexByte(be.key, ':')+1:])
	}
	return be.reuse(old, b.sliceEndpoints(be, svc, port)), ""
}

// sliceEndpoints returns the addresses that are ready, or when there are none
// those that still serve while they end, as kube-proxy does.
func (b *builder) sliceEndpoints(be *backend, svc *corev1.Service, port *corev1.ServicePort) []*endpoint {
	// Services made for a Rollout select one revision, even before the pods
	// are known here.
	selected := svc.Spec.Selector["rollouts-pod-template-hash"]
	if selected == "" {
		selected = svc.Spec.Selector["pod-template-hash"]
	}
	var ready, ending []*endpoint
	seen := map[string]bool{}
	for _, slice := range b.slices[be.namespace+"/"+be.service] {
		if slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		number := slicePort(slice, port)
		if number == "" {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			isReady := e.Conditions.Ready == nil || *e.Conditions.Ready
			isEnding := e.Conditions.Serving != nil && *e.Conditions.Serving && e.Conditions.Terminating != nil && *e.Conditions.Terminating
			if len(e.Addresses) == 0 || !isReady && !isEnding {
				continue
			}
			ep := &endpoint{addr: net.JoinHostPort(e.Addresses[0], number)}
			if seen[ep.addr] {
				continue
			}
			seen[ep.addr] = true
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
				ep.pod = e.TargetRef.Name
				ep.revision = b.in.Revisions[be.namespace+"/"+ep.pod]
			}
			if ep.revision == "" {
				ep.revision = selected
			}
			if isReady {
				ready = append(ready, ep)
			} else {
				ending = append(ending, ep)
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	slices.SortFunc(ready, func(x, y *endpoint) int { return strings.Compare(x.addr, y.addr) })
	return ready
}

func slicePort(slice *discoveryv1.EndpointSlice, port *corev1.ServicePort) string {
	for _, p := range slice.Ports {
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		if name == port.Name && p.Port != nil {
			return strconv.Itoa(int(*p.Port))
		}
	}
	return ""
}

// reuse keeps the endpoint values of the table before, with what they learned.
func (be *backend) reuse(old *backend, fresh []*endpoint) []*endpoint {
	known := map[string]*endpoint{}
	if old != nil {
		for _, e := range old.endpoints {
			known[e.addr+" "+e.revision+" "+e.pod] = e
		}
	}
	for i, e := range fresh {
		if k := known[e.addr+" "+e.revision+" "+e.pod]; k != nil {
			fresh[i] = k
			continue
		}
		h := fnv.New64a()
		h.Write([]byte(be.key + " " + e.addr + " " + e.pod))
		e.id = strconv.FormatUint(h.Sum64(), 36)
	}
	return fresh
}

// pick chooses an endpoint in rotation, passing over those tried already and
// those that failed a moment ago while there are others. It returns nil when
// the backend has no endpoints.
func (be *backend) pick(tried []*endpoint, now time.Time) *endpoint {
	n := uint64(len(be.endpoints))
	if n == 0 {
		return nil
	}
	start := be.rotation.n.Add(1)
	var second *endpoint
	for k := range n {
		e := be.endpoints[(start+k)%n]
		if slices.Contains(tried, e) {
			continue
		}
		if !e.failed.paused(now) {
			return e
		}
		if second == nil {
			second = e
		}
	}
	if second != nil {
		return second
	}
	return be.endpoints[start%n]
}

// bound returns the endpoint that the request's affinity cookie names, or nil.
func (be *backend) bound(r *http.Request, a *affinity) *endpoint {
	if a == nil {
		return nil
	}
	c, err := r.Cookie(a.cookie)
	if err != nil {
		return nil
	}
	for _, e := range be.endpoints {
		if e.id == c.Value {
			return e
		}
	}
	return nil
}

// addTLS takes the certificates that an Ingress names. Hosts without a usable
// one are served with the internal authority, or with a public certificate
// when the Ingress asks for that.
func (b *builder) addTLS(p parsedIngress, secured map[string]bool) {
	for _, t := range p.ing.Spec.TLS {
		hosts := t.Hosts
		if len(hosts) == 0 {
			for _, rule := range p.ing.Spec.Rules {
				hosts = append(hosts, rule.Host)
			}
		}
		cert, problem := b.certificate(p, t.SecretName)
		if problem != "" {
			b.problem(p.key, problem)
		}
		for _, h := range hosts {
			h = strings.ToLower(strings.TrimSuffix(h, "."))
			if h == "" || b.platform[h] {
				continue
			}
			secured[h] = true
			switch {
			case cert != nil && b.certs[h] == nil:
				b.certs[h] = cert
			case cert == nil && p.set.acme && !strings.HasPrefix(h, "*."):
				b.acme[h] = true
			}
		}
	}
	// A wildcard under tls secures the rules below it.
	for _, rule := range p.ing.Spec.Rules {
		h := strings.ToLower(strings.TrimSuffix(rule.Host, "."))
		if _, parent, ok := strings.Cut(h, "."); ok && secured["*."+parent] {
			secured[h] = true
		}
	}
}

func (b *builder) certificate(p parsedIngress, name string) (*tls.Certificate, string) {
	s := b.secrets[p.ing.Namespace+"/"+name]
	if name == "" || s == nil && p.set.acme {
		return nil, ""
	}
	if s == nil {
		return nil, fmt.Sprintf("Secret %s of type kubernetes.io/tls does not exist; a certificate of the internal authority is used", name)
	}
	cert, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Sprintf("Secret %s has no usable certificate (%v); a certificate of the internal authority is used", name, err)
	}
	if cert.Leaf != nil && b.now.After(cert.Leaf.NotAfter) {
		return &cert, fmt.Sprintf("the certificate in Secret %s expired on %s", name, cert.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &cert, ""
}

package metrics

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/slipwayhq/slipway/internal/kubewatch"
)

const (
	// settle is how long a change of monitors waits for others that come with
	// it: applying a configuration touches every scrape loop.
	settle = 500 * time.Millisecond
	// secretsAgain is how often the Secrets that monitors name are read.
	secretsAgain = time.Minute
)

// cluster follows one Kubernetes cluster: its targets, its monitors and its
// objects' state.
type cluster struct {
	m *Metrics

	mu      sync.Mutex
	cause   error // why the cluster is not followed; nil when it is
	session *session
}

// session is one connection to one cluster.
type session struct {
	c          *cluster
	kubeconfig string
	rest       *rest.Config
	client     kubernetes.Interface
	dynamic    dynamic.Interface
	dirty      chan struct{}
	monitors   map[string]cache.SharedIndexInformer // by resource; nil before the CRDs exist
	state      *kubeState
	secrets    atomic.Bool      // a monitor reads a Secret
	told       map[Problem]bool // what was written as events
}

func newCluster(m *Metrics) *cluster {
	c := &cluster{m: m}
	if m.cfg.Kubeconfig != "" {
		c.cause = errors.New("the cluster has not been reached yet")
	}
	c.serveKubeState()
	return c
}

func (c *cluster) ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

func (c *cluster) setCause(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cause = err
}

func (c *cluster) current() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

func (c *cluster) setSession(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
}

// run follows the kubeconfig: whenever its content changes, the session with
// the cluster starts anew.
func (c *cluster) run(ctx context.Context) {
	if c.m.cfg.Kubeconfig == "" {
		return
	}
	k := kubewatch.Cluster{Kubeconfig: c.m.cfg.Kubeconfig, Agent: "slipway-metrics", Connect: c.connect, Cause: c.setCause}
	k.Run(ctx)
}

func (c *cluster) connect(cfg *rest.Config) (func(context.Context), error) {
	client, err := kubernetes.NewForConfig(kubewatch.Protobuf(cfg))
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	s := &session{c: c, kubeconfig: c.m.cfg.Kubeconfig, rest: cfg, client: client, dynamic: dyn, dirty: make(chan struct{}, 1)}
	return s.run, nil
}

// run follows this cluster until ctx ends. Prometheus' own discovery keeps
// trying by itself, so the targets are configured before the first answer.
func (s *session) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	s.c.setSession(s)
	defer s.c.setSession(nil)
	s.apply(ctx)
	if !s.waitForAPI(ctx) {
		return
	}
	s.state = newKubeState(ctx, s)
	if err := s.installCRDs(ctx); err != nil {
		s.c.m.log.Warn("the monitors' resource definitions were not installed; ServiceMonitor, PodMonitor and PrometheusRule may be missing", "err", err)
	}
	s.watchMonitors(ctx)
	s.touch()
	wg.Go(func() { s.watchHealth(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.dirty:
		}
		pause := time.NewTimer(settle)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		select {
		case <-s.dirty:
		default:
		}
		s.apply(ctx)
	}
}

func (s *session) touch() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

func (s *session) apply(ctx context.Context) {
	if err := s.c.m.reload(ctx); err != nil {
		s.c.m.log.Error("the targets were not applied", "err", err)
	}
	s.tell(ctx)
}

// probe asks whether the API server answers.
func (s *session) probe(ctx context.Context) error {
	return kubewatch.Answers(ctx, s.client.Discovery().RESTClient(), s.rest.Host)
}

func (s *session) waitForAPI(ctx context.Context) bool {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		err := s.probe(ctx)
		if ctx.Err() != nil {
			return false
		}
		s.c.setCause(err)
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

func (s *session) watchHealth(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	read := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			// Secrets are not watched: those of the monitors are read again.
			if s.secrets.Load() && now.Sub(read) >= secretsAgain {
				read = now
				s.touch()
			}
		}
		if err := s.probe(ctx); ctx.Err() == nil {
			s.c.setCause(err)
		}
	}
}

// watchMonitors follows the monitors and rules in all namespaces.
func (s *session) watchMonitors(ctx context.Context) {
	factory := dynamicinformer.NewDynamicSharedInformerFactory(s.dynamic, 0)
	s.monitors = map[string]cache.SharedIndexInformer{}
	for _, r := range monitorResources {
		inf := factory.ForResource(r).Informer()
		_ = inf.SetTransform(func(obj any) (any, error) { // fails only for a started informer
			if u, ok := obj.(*unstructured.Unstructured); ok {
				u.SetManagedFields(nil)
			}
			return obj, nil
		})
		_, _ = inf.AddEventHandler(cache.ResourceEventHandlerFuncs{ // fails only for a stopped informer
			AddFunc:    func(any) { s.touch() },
			UpdateFunc: func(before, after any) { s.touchIfChanged(before, after) },
			DeleteFunc: func(any) { s.touch() },
		})
		s.monitors[r.Resource] = inf
	}
	factory.Start(ctx.Done())
}

// touchIfChanged passes over changes of status and metadata.
func (s *session) touchIfChanged(before, after any) {
	x, ok := before.(metav1.Object)
	y, ok2 := after.(metav1.Object)
	if ok && ok2 && x.GetGeneration() == y.GetGeneration() && y.GetGeneration() != 0 {
		return
	}
	s.touch()
}

// credentials are how the cluster's components know the platform.
type credentials struct {
	ca, cert, key string // PEM
	token         string
}

// credentials returns those of the kubeconfig, or nil without a cluster.
func (c *cluster) credentials() *credentials {
	s := c.current()
	if s == nil {
		return nil
	}
	cr := &credentials{
		ca:    string(pemOf(s.rest.CAData, s.rest.CAFile)),
		cert:  string(pemOf(s.rest.CertData, s.rest.CertFile)),
		key:   string(pemOf(s.rest.KeyData, s.rest.KeyFile)),
		token: s.rest.BearerToken,
	}
	return cr
}

func pemOf(data []byte, file string) []byte {
	if len(data) > 0 || file == "" {
		return data
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil // the scrape then fails and says why
	}
	return data
}

// apply puts the credentials into a scrape configuration. Certificates of the
// kubelet and of other components are their own in most clusters, so that
// those targets are not verified: kube-prometheus' default.
func (cr *credentials) apply(c object, insecure bool) {
	tls := object{}
	if insecure {
		tls["insecure_skip_verify"] = true
	} else if cr.ca != "" {
		tls["ca"] = cr.ca
	}
	if cr.cert != "" {
		tls["cert"], tls["key"] = cr.cert, cr.key
	}
	c["tls_config"] = tls
	if cr.token != "" {
		c["authorization"] = object{"credentials": cr.token}
	}
}

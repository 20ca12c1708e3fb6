package ingress

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/slipwayhq/slipway/internal/kubewatch"
)

const (
	// coalesce is how long a change waits at least for others that come with
	// it. Where making a table takes long, the wait is twice that, up to
	// coalesceMost: any flood of changes costs a third of one processor, and a
	// change is in force after at most coalesceMost and the making of a table.
	coalesce     = 5 * time.Millisecond
	coalesceMost = 500 * time.Millisecond
	// probeEvery is how often an API server that failed is asked again.
	probeEvery = 2 * time.Second
)

// watcher follows the cluster's objects and makes tables of them.
type watcher struct {
	i     *Ingress
	dirty chan struct{} // an object changed

	mu    sync.Mutex
	cause error // why the routes do not follow the cluster; nil when they do
}

// session is one connection to one cluster.
type session struct {
	w      *watcher
	client kubernetes.Interface
	synced []cache.InformerSynced
	start  func(stop <-chan struct{})
	probe  func(ctx context.Context) error

	ingresses cache.SharedIndexInformer
	classes   cache.SharedIndexInformer
	services  cache.SharedIndexInformer
	slices    cache.SharedIndexInformer
	secrets   cache.SharedIndexInformer
	pods      cache.SharedIndexInformer

	keep  cache.TransformFunc
	named *named         // what annotations name
	wait  sync.WaitGroup // of the named objects' informers
}

func newWatcher(i *Ingress) *watcher {
	w := &watcher{i: i, dirty: make(chan struct{}, 1)}
	if i.cfg.Kubeconfig != "" {
		w.cause = errors.New("the cluster has not been reached yet")
	}
	return w
}

func (w *watcher) ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause
}

func (w *watcher) setCause(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cause = err
}

// run follows the kubeconfig: whenever its content changes, the session with
// the cluster starts anew. The table stays until the new session has listed
// everything.
func (w *watcher) run(ctx context.Context) {
	if w.i.cfg.Kubeconfig == "" {
		return
	}
	c := kubewatch.Cluster{Kubeconfig: w.i.cfg.Kubeconfig, Agent: "slipway-ingress", Connect: w.connect, Cause: w.setCause}
	c.Run(ctx)
}

func (w *watcher) connect(cfg *rest.Config) (func(context.Context), error) {
	cfg = kubewatch.Protobuf(cfg)
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	s := newSession(w, client, meta, slim)
	s.probe = func(ctx context.Context) error {
		return kubewatch.Answers(ctx, client.Discovery().RESTClient(), cfg.Host)
	}
	return s.run, nil
}

// newSession prepares informers that keep what the transformation leaves of
// each object.
func newSession(w *watcher, client kubernetes.Interface, meta metadata.Interface, keep cache.TransformFunc) *session {
	s := &session{w: w, client: client, keep: keep, probe: func(context.Context) error { return nil }}
	all := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(keep))
	tlsOnly := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(keep),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS)).String()
		}))
	pods := metadatainformer.NewSharedInformerFactoryWithOptions(meta, 0, metadatainformer.WithTransform(keep))
	s.ingresses = all.Networking().V1().Ingresses().Informer()
	s.classes = all.Networking().V1().IngressClasses().Informer()
	s.services = all.Core().V1().Services().Informer()
	s.slices = all.Discovery().V1().EndpointSlices().Informer()
	s.secrets = tlsOnly.Core().V1().Secrets().Informer()
	s.pods = pods.ForResource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Informer()
	for _, inf := range s.informers() {
		s.synced = append(s.synced, inf.HasSynced)
		handlers := touching(w)
		if inf == s.pods {
			handlers = touchingRevisions(w)
		}
		_, _ = inf.AddEventHandler(handlers) // fails only for a stopped informer

		_ = inf.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) { // fails only for a started informer
			if ctx.Err() == nil {
				w.setCause(fmt.Errorf("the cluster's API cannot be watched: %w", err))
			}
		})
	}
	s.named = newNamed(s)
	s.start = func(stop <-chan struct{}) {
		all.Start(stop)
		tlsOnly.Start(stop)
		pods.Start(stop)
	}
	return s
}

func (s *session) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{s.ingresses, s.classes, s.services, s.slices, s.secrets, s.pods}
}

func touching(w *watcher) cache.ResourceEventHandler { return kubewatch.Touching(w.touch) }

// touchingRevisions passes over changes of pods, such as of their status, that
// leave the revision as it is: of a pod no table knows more.
func touchingRevisions(w *watcher) cache.ResourceEventHandler {
	hash := func(o any) string {
		p, ok := o.(*metav1.PartialObjectMetadata)
		if !ok {
			return ""
		}
		return p.Labels["pod-template-hash"]
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { w.touch() },
		UpdateFunc: func(before, after any) {
			if hash(before) != hash(after) {
				w.touch()
			}
		},
		DeleteFunc: func(any) {}, // its endpoint goes by itself
	}
}

// slim drops what no table needs before an object is kept.
func slim(obj any) (any, error) {
	switch o := obj.(type) {
	case *metav1.PartialObjectMetadata:
		kept := &metav1.PartialObjectMetadata{}
		kept.Name, kept.Namespace, kept.UID, kept.ResourceVersion = o.Name, o.Namespace, o.UID, o.ResourceVersion
		if h := podHash(o.Labels); h != "" {
			kept.Labels = map[string]string{"pod-template-hash": h}
		}
		return kept, nil
	case *corev1.Service:
		o.ManagedFields, o.Annotations = nil, nil
		o.Status = corev1.ServiceStatus{}
	case *networkingv1.Ingress:
		o.ManagedFields = nil
		delete(o.Annotations, corev1.LastAppliedConfigAnnotation)
	case *corev1.Secret:
		o.ManagedFields, o.Annotations = nil, nil
	case *corev1.ConfigMap:
		o.ManagedFields, o.Annotations, o.BinaryData = nil, nil, nil
	case metav1.Object:
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// podHash returns the revision that made a pod.
func podHash(labels map[string]string) string {
	for _, k := range []string{"rollouts-pod-template-hash", "pod-template-hash", "controller-revision-hash"} {
		if h := labels[k]; h != "" {
			return h
		}
	}
	return ""
}

// touch asks for a new table.
func (w *watcher) touch() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// run serves this cluster's routes until ctx ends.
func (s *session) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.wait.Wait()
	s.start(ctx.Done())
	wg.Go(func() { s.watchHealth(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return
	}
	s.w.setCause(nil)
	st := newStatusWriter(s)
	wg.Go(func() { st.run(ctx) })
	save := time.NewTicker(5 * time.Second)
	defer save.Stop()
	unsaved := true
	in := s.rebuild(ctx, st)
	took := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			if unsaved {
				s.save(in)
			}
			return
		case <-s.w.dirty:
			pause := time.NewTimer(min(max(coalesce, 2*took), coalesceMost))
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
			pause.Stop()
			select { // changes of the pause are in the listers already
			case <-s.w.dirty:
			default:
			}
			began := time.Now()
			in = s.rebuild(ctx, st)
			took = time.Since(began)
			unsaved = true
		case <-save.C:
			if unsaved {
				s.save(in)
				unsaved = false
			}
		}
	}
}

func (s *session) rebuild(ctx context.Context, st *statusWriter) *inputs {
	in := &inputs{Revisions: map[string]string{}}
	for _, o := range s.ingresses.GetStore().List() {
		in.Ingresses = append(in.Ingresses, o.(*networkingv1.Ingress))
	}
	for _, o := range s.classes.GetStore().List() {
		in.Classes = append(in.Classes, o.(*networkingv1.IngressClass))
	}
	for _, o := range s.services.GetStore().List() {
		in.Services = append(in.Services, o.(*corev1.Service))
	}
	for _, o := range s.slices.GetStore().List() {
		in.Slices = append(in.Slices, o.(*discoveryv1.EndpointSlice))
	}
	for _, o := range s.secrets.GetStore().List() {
		in.Secrets = append(in.Secrets, o.(*corev1.Secret))
	}
	for _, o := range s.pods.GetStore().List() {
		p := o.(*metav1.PartialObjectMetadata)
		if h := p.Labels["pod-template-hash"]; h != "" {
			in.Revisions[p.Namespace+"/"+p.Name] = h
		}
	}
	s.named.add(in)
	s.w.i.apply(in)
	s.named.follow(ctx, s.w.i.table.Load().needs)
	st.wake()
	return in
}

func (s *session) save(in *inputs) {
	if err := writeSnapshot(s.w.i.snapshotPath(), in, s.w.i.table.Load()); err != nil {
		s.w.i.log.Warn("the routes were not saved; a restart without the cluster would not know them", "err", err)
	}
}

// watchHealth asks a failed API server again, and clears the cause once it
// answers and everything is listed.
func (s *session) watchHealth(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		if s.w.ready() != nil {
			err := s.probe(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				s.w.setCause(err)
			case s.allSynced():
				s.w.setCause(nil)
			default:
				s.w.setCause(errors.New("the cluster's objects are still being listed"))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *session) allSynced() bool {
	for _, f := range s.synced {
		if !f() {
			return false
		}
	}
	return true
}

package ingress

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// objectKey names a Secret or ConfigMap that an annotation refers to.
type objectKey struct{ kind, namespace, name string }

// named follows the few Secrets and ConfigMaps that annotations name, each by
// a watch of its own: following all of a cluster's would keep every Secret in
// memory.
type named struct {
	s *session

	mu      sync.Mutex
	objects map[objectKey]*namedObject
}

type namedObject struct {
	informer cache.SharedIndexInformer
	end      context.CancelFunc
}

func newNamed(s *session) *named { return &named{s: s, objects: map[objectKey]*namedObject{}} }

// follow makes the set of followed objects that of a table. It must be called
// by one goroutine at a time.
func (n *named) follow(ctx context.Context, needs map[objectKey]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, o := range n.objects {
		if !needs[k] {
			o.end()
			delete(n.objects, k)
		}
	}
	for k := range needs {
		if n.objects[k] != nil {
			continue
		}
		factory := informers.NewSharedInformerFactoryWithOptions(n.s.client, 0, informers.WithNamespace(k.namespace), informers.WithTransform(n.s.keep),
			informers.WithTweakListOptions(func(o *metav1.ListOptions) {
				o.FieldSelector = fields.OneTermEqualSelector("metadata.name", k.name).String()
			}))
		o := &namedObject{}
		if k.kind == "Secret" {
			o.informer = factory.Core().V1().Secrets().Informer()
		} else {
			o.informer = factory.Core().V1().ConfigMaps().Informer()
		}
		octx, cancel := context.WithCancel(ctx)
		o.end = cancel
		_, _ = o.informer.AddEventHandler(touching(n.s.w)) // fails only for a stopped informer
		n.objects[k] = o
		n.s.wait.Go(func() { o.informer.RunWithContext(octx) })
		n.s.wait.Go(func() {
			if cache.WaitForCacheSync(octx.Done(), o.informer.HasSynced) {
				n.s.w.touch() // also where there is no such object
			}
		})
	}
}

// add puts what is known of the named objects into the inputs.
func (n *named) add(in *inputs) {
	n.mu.Lock()
	defer n.mu.Unlock()
	in.listed = map[objectKey]bool{}
	for k, o := range n.objects {
		if !o.informer.HasSynced() {
			continue
		}
		in.listed[k] = true
		// The selector is the server's to honour; a made-up one may not.
		v, found, err := o.informer.GetStore().GetByKey(k.namespace + "/" + k.name)
		if err != nil || !found {
			continue
		}
		switch v := v.(type) {
		case *corev1.Secret:
			in.Secrets = append(in.Secrets, v)
		case *corev1.ConfigMap:
			in.ConfigMaps = append(in.ConfigMaps, v)
		}
	}
}

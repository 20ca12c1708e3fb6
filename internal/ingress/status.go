package ingress

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// statusWriter tells the cluster what the ingress made of its Ingresses: the
// addresses in their status, and a warning event for each problem.
type statusWriter struct {
	s      *session
	events record.EventBroadcaster
	rec    record.EventRecorder
	kick   chan struct{}
	told   map[string]bool // problems that have their event
}

func newStatusWriter(s *session) *statusWriter {
	b := record.NewBroadcaster()
	return &statusWriter{
		s:      s,
		events: b,
		rec:    b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "slipway-ingress"}),
		kick:   make(chan struct{}, 1),
		told:   map[string]bool{},
	}
}

func (st *statusWriter) wake() {
	select {
	case st.kick <- struct{}{}:
	default:
	}
}

// run writes after every new table until ctx ends, and again after a failure.
func (st *statusWriter) run(ctx context.Context) {
	st.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: st.s.client.CoreV1().Events("")})
	defer st.events.Shutdown()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-st.kick:
		case <-retry.C:
		}
		if err := st.write(ctx); err != nil && ctx.Err() == nil {
			st.s.w.i.log.Debug("Ingress status not written; trying again", "err", err)
			retry.Reset(5 * time.Second)
		}
	}
}

func (st *statusWriter) write(ctx context.Context) error {
	if err := st.ensureClass(ctx); err != nil {
		return err
	}
	t := st.s.w.i.table.Load()
	want := loadBalancer(st.s.w.i.cfg.Addresses)
	patch, err := json.Marshal(object{"status": object{"loadBalancer": object{"ingress": want}}})
	if err != nil {
		return err
	}
	told := map[string]bool{}
	for _, ing := range slices.Concat(t.served, t.unserved) {
		for _, p := range t.problems[ing.Namespace+"/"+ing.Name] {
			k := string(ing.UID) + " " + p
			told[k] = true
			if !st.told[k] {
				st.rec.Event(ing, corev1.EventTypeWarning, "IngressProblem", p)
			}
		}
	}
	for _, ing := range t.served {
		if len(want) == 0 || slices.EqualFunc(ing.Status.LoadBalancer.Ingress, want, sameAddress) {
			continue
		}
		// A patch, because the object here is a slimmed copy.
		_, err := st.s.client.NetworkingV1().Ingresses(ing.Namespace).Patch(ctx, ing.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	st.told = told
	return nil
}

func sameAddress(a, b networkingv1.IngressLoadBalancerIngress) bool {
	return a.IP == b.IP && a.Hostname == b.Hostname
}

func loadBalancer(addresses []string) []networkingv1.IngressLoadBalancerIngress {
	var out []networkingv1.IngressLoadBalancerIngress
	for _, a := range addresses {
		if net.ParseIP(a) != nil {
			out = append(out, networkingv1.IngressLoadBalancerIngress{IP: a})
		} else if a != "" {
			out = append(out, networkingv1.IngressLoadBalancerIngress{Hostname: a})
		}
	}
	return out
}

// ensureClass makes the IngressClass when nobody has yet. It is the cluster's
// default unless another one is.
func (st *statusWriter) ensureClass(ctx context.Context) error {
	isDefault := "true"
	for _, o := range st.s.classes.GetStore().List() {
		c := o.(*networkingv1.IngressClass)
		if c.Name == st.s.w.i.cfg.Class {
			return nil
		}
		if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
			isDefault = "false"
		}
	}
	_, err := st.s.client.NetworkingV1().IngressClasses().Create(ctx, &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        st.s.w.i.cfg.Class,
			Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: isDefault},
		},
		Spec: networkingv1.IngressClassSpec{Controller: controllerName},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

package engine

import (
	"context"
	"encoding/json"
	"fmt"

	notificationapi "github.com/argoproj/notifications-engine/pkg/api"
	notifications "github.com/argoproj/notifications-engine/pkg/controller"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/argoproj/argo-rollouts/analysis"
	"github.com/argoproj/argo-rollouts/controller/metrics"
	"github.com/argoproj/argo-rollouts/experiments"
	"github.com/argoproj/argo-rollouts/ingress"
	jobprovider "github.com/argoproj/argo-rollouts/metricproviders/job"
	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	rolloutinformers "github.com/argoproj/argo-rollouts/pkg/client/informers/externalversions/rollouts/v1alpha1"
	"github.com/argoproj/argo-rollouts/rollout"
	"github.com/argoproj/argo-rollouts/service"
	controllerutil "github.com/argoproj/argo-rollouts/utils/controller"
	ingressutil "github.com/argoproj/argo-rollouts/utils/ingress"
	istioutil "github.com/argoproj/argo-rollouts/utils/istio"
	"github.com/argoproj/argo-rollouts/utils/queue"
	"github.com/argoproj/argo-rollouts/utils/record"
	"github.com/argoproj/argo-rollouts/utils/tolerantinformer"
)

// controllerSet is what run starts, in this order: factories, then, once all
// is synced, the controllers.
type controllerSet struct {
	factories []interface{ Start(<-chan struct{}) }
	synced    []cache.InformerSynced
	runs      []func(context.Context) error
	// istio is started only where Istio is installed.
	istio dynamicinformer.DynamicSharedInformerFactory
	// stop ends the work queues: the controllers' Run returns only then.
	stop func()
}

// informerSet holds the shared informers of all controllers. Its selectors are
// upstream's: ReplicaSets of Rollouts and Jobs of AnalysisRuns only. Who owns
// which field, half of a ReplicaSet's size, is left out: no controller reads it,
// and the API server keeps its own where an update has none.
type informerSet struct {
	kube, replicaSets, jobs, configMaps, secrets informers.SharedInformerFactory
	dynamic, istio                               dynamicinformer.DynamicSharedInformerFactory
	ingresses                                    *ingressutil.IngressWrap

	rollouts         rolloutinformers.RolloutInformer
	experiments      rolloutinformers.ExperimentInformer
	runs             rolloutinformers.AnalysisRunInformer
	templates        rolloutinformers.AnalysisTemplateInformer
	clusterTemplates rolloutinformers.ClusterAnalysisTemplateInformer
}

func (e *Engine) informers() (*informerSet, error) {
	strip := ctrlcache.TransformStripManagedFields()
	filtered := func(namespace string, tweak func(*metav1.ListOptions)) informers.SharedInformerFactory {
		return informers.NewSharedInformerFactoryWithOptions(e.kube, resync,
			informers.WithNamespace(namespace), informers.WithTweakListOptions(tweak), informers.WithTransform(strip))
	}
	byName := func(name string) func(*metav1.ListOptions) {
		return func(o *metav1.ListOptions) { o.FieldSelector = "metadata.name=" + name }
	}
	instance := controllerutil.InstanceIDRequirement("")
	s := &informerSet{
		kube:        informers.NewSharedInformerFactoryWithOptions(e.kube, resync, informers.WithTransform(strip)),
		replicaSets: filtered("", func(o *metav1.ListOptions) { o.LabelSelector = v1alpha1.DefaultRolloutUniqueLabelKey }),
		jobs:        filtered("", func(o *metav1.ListOptions) { o.LabelSelector = jobprovider.AnalysisRunUIDLabelKey }),
		configMaps:  filtered(Namespace, byName(record.NotificationConfigMap)),
		secrets:     filtered(Namespace, byName(record.NotificationSecret)),
		dynamic: dynamicinformer.NewFilteredDynamicSharedInformerFactory(e.dynamic, resync, metav1.NamespaceAll,
			func(o *metav1.ListOptions) { o.LabelSelector = instance.String() }),
		istio: dynamicinformer.NewFilteredDynamicSharedInformerFactory(e.dynamic, resync, metav1.NamespaceAll, nil),
	}
	var err error
	if s.ingresses, err = ingressutil.NewIngressWrapper(ingressutil.IngressModeNetworking, e.kube, s.kube); err != nil {
		return nil, err
	}
	s.rollouts = tolerantinformer.NewTolerantRolloutInformer(s.dynamic)
	s.experiments = tolerantinformer.NewTolerantExperimentInformer(s.dynamic)
	s.runs = tolerantinformer.NewTolerantAnalysisRunInformer(s.dynamic)
	s.templates = tolerantinformer.NewTolerantAnalysisTemplateInformer(s.dynamic)
	s.clusterTemplates = tolerantinformer.NewTolerantClusterAnalysisTemplateInformer(s.dynamic)
	return s, nil
}

// queues are the work queues that the controllers feed each other through.
type queues struct {
	rollouts, experiments, runs, services, ingresses workqueue.RateLimitingInterface //nolint:staticcheck // the constructors' type
}

func newQueues() queues {
	named := func(name string) workqueue.RateLimitingInterface { //nolint:staticcheck
		return workqueue.NewNamedRateLimitingQueue(queue.DefaultArgoRolloutsRateLimiter(), name) //nolint:staticcheck
	}
	return queues{named("Rollouts"), named("Experiments"), named("AnalysisRuns"), named("Services"), named("Ingresses")}
}

// controllers puts the five controllers and the notifications together, as
// upstream's controller.NewManager does.
func (e *Engine) controllers() (*controllerSet, error) {
	in, err := e.informers()
	if err != nil {
		return nil, err
	}
	q := newQueues()
	server := metrics.NewMetricsServer(metrics.ServerConfig{
		RolloutLister:                 in.rollouts.Lister(),
		AnalysisRunLister:             in.runs.Lister(),
		AnalysisTemplateLister:        in.templates.Lister(),
		ClusterAnalysisTemplateLister: in.clusterTemplates.Lister(),
		ExperimentLister:              in.experiments.Lister(),
		K8SRequestProvider:            e.requests,
	})
	e.handler = server.Handler
	services, replicaSets := in.kube.Core().V1().Services(), in.replicaSets.Apps().V1().ReplicaSets()
	jobs, pods := in.jobs.Batch().V1().Jobs(), in.jobs.Core().V1().Pods()
	configMaps, secrets := in.configMaps.Core().V1().ConfigMaps().Informer(), in.secrets.Core().V1().Secrets().Informer()
	notifyAPI := notificationapi.NewFactory(record.NewAPIFactorySettings(in.runs), Namespace, secrets, configMaps)
	recorder := record.NewEventRecorder(e.kube, metrics.MetricRolloutEventsTotal, metrics.MetricNotificationFailedTotal,
		metrics.MetricNotificationSuccessTotal, metrics.MetricNotificationSend, notifyAPI)
	notify := notifications.NewController(e.dynamic.Resource(v1alpha1.RolloutGVR), in.rollouts.Informer(), notifyAPI,
		notifications.WithToUnstructured(toUnstructured))

	rollouts := rollout.NewController(rollout.ControllerConfig{
		Namespace: metav1.NamespaceAll, KubeClientSet: e.kube, ArgoProjClientset: e.argo, DynamicClientSet: e.dynamic,
		RefResolver:  rollout.NewInformerBasedWorkloadRefResolver(metav1.NamespaceAll, e.dynamic, e.discovery, e.argo, in.rollouts.Informer()),
		SmiClientSet: e.smi, ExperimentInformer: in.experiments, AnalysisRunInformer: in.runs,
		AnalysisTemplateInformer: in.templates, ClusterAnalysisTemplateInformer: in.clusterTemplates,
		IstioPrimaryDynamicClient:    e.dynamic,
		IstioVirtualServiceInformer:  in.istio.ForResource(istioutil.GetIstioVirtualServiceGVR()).Informer(),
		IstioDestinationRuleInformer: in.istio.ForResource(istioutil.GetIstioDestinationRuleGVR()).Informer(),
		ReplicaSetInformer:           replicaSets, ServicesInformer: services, IngressWrapper: in.ingresses, RolloutsInformer: in.rollouts,
		ResyncPeriod: resync, RolloutWorkQueue: q.rollouts, ServiceWorkQueue: q.services, IngressWorkQueue: q.ingresses,
		MetricsServer: server, Recorder: recorder, EphemeralMetadataThreads: rollout.DefaultEphemeralMetadataThreads,
		EphemeralMetadataPodRetries: rollout.DefaultEphemeralMetadataPodRetries,
	})
	experiment := experiments.NewController(experiments.ControllerConfig{
		KubeClientSet: e.kube, ArgoProjClientset: e.argo, ReplicaSetInformer: replicaSets, ExperimentsInformer: in.experiments,
		AnalysisRunInformer: in.runs, AnalysisTemplateInformer: in.templates, ClusterAnalysisTemplateInformer: in.clusterTemplates,
		ServiceInformer: services, ResyncPeriod: resync, RolloutWorkQueue: q.rollouts, ExperimentWorkQueue: q.experiments,
		MetricsServer: server, Recorder: recorder,
	})
	analyses := analysis.NewController(analysis.ControllerConfig{
		KubeClientSet: e.kube, ArgoProjClientset: e.argo, AnalysisRunInformer: in.runs, JobInformer: jobs, JobPodsInformer: pods,
		ResyncPeriod: resync, AnalysisRunWorkQueue: q.runs, MetricsServer: server, Recorder: recorder,
	})
	serviceController := service.NewController(service.ControllerConfig{
		Kubeclientset: e.kube, Argoprojclientset: e.argo, RolloutsInformer: in.rollouts, ServicesInformer: services,
		RolloutWorkqueue: q.rollouts, ServiceWorkqueue: q.services, ResyncPeriod: resync, MetricsServer: server,
	})
	ingressController := ingress.NewController(ingress.ControllerConfig{
		Client: e.kube, IngressWrap: in.ingresses, IngressWorkQueue: q.ingresses, RolloutsInformer: in.rollouts,
		RolloutWorkQueue: q.rollouts, MetricsServer: server, NGINXClasses: e.options.IngressClasses,
	})
	set := &controllerSet{
		istio: in.istio,
		synced: []cache.InformerSynced{
			services.Informer().HasSynced, in.ingresses.HasSynced, jobs.Informer().HasSynced, pods.Informer().HasSynced,
			in.rollouts.Informer().HasSynced, in.experiments.Informer().HasSynced, in.runs.Informer().HasSynced,
			in.templates.Informer().HasSynced, in.clusterTemplates.Informer().HasSynced, replicaSets.Informer().HasSynced,
			configMaps.HasSynced, secrets.HasSynced,
		},
		runs: []func(context.Context) error{
			func(ctx context.Context) error { return rollouts.Run(ctx, workers) },
			func(ctx context.Context) error { return experiment.Run(ctx, workers) },
			func(ctx context.Context) error { return analyses.Run(ctx, workers) },
			func(ctx context.Context) error { return serviceController.Run(ctx, workers) },
			func(ctx context.Context) error { return ingressController.Run(ctx, workers) },
			func(ctx context.Context) error { notify.Run(1, ctx.Done()); return nil },
		},
	}
	set.stop = func() {
		for _, w := range []workqueue.RateLimitingInterface{q.rollouts, q.experiments, q.runs, q.services, q.ingresses} { //nolint:staticcheck
			w.ShutDown()
		}
	}
	for _, f := range []interface{ Start(<-chan struct{}) }{in.kube, in.replicaSets, in.jobs, in.configMaps, in.secrets, in.dynamic} {
		set.factories = append(set.factories, f)
	}
	return set, nil
}

// toUnstructured is how the notifications read a typed Rollout.
func toUnstructured(obj metav1.Object) (*unstructured.Unstructured, error) {
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode for notifications: %w", err)
	}
	var u unstructured.Unstructured
	if err := json.Unmarshal(data, &u); err != nil {
		return nil, fmt.Errorf("decode for notifications: %w", err)
	}
	return &u, nil
}

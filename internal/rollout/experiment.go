package rollout

import (
	"cmp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
)

// Experiment is what a step of the kind experiment runs: versions beside each
// other for a while, with analyses of them.
type Experiment struct {
	Name     string
	Phase    string // Pending, Running, Successful, Failed, Inconclusive, Error
	Message  string
	Duration string    // as the step has it; "" until its analyses are done
	Started  time.Time // when all its versions were available; zero before
	Created  time.Time
	Versions []ExperimentVersion
	Analyses []Analysis
}

// ExperimentVersion is one of the versions that an Experiment runs.
type ExperimentVersion struct {
	Name      string // such as baseline
	Phase     string // Progressing, Running, Successful, Failed, Error
	Message   string
	Service   string // made for it; "" for none
	Images    []string
	Desired   int32
	Ready     int32
	ManagedBy string // name of the ReplicaSet; "" when it is gone
	Pods      []Pod
}

// objects are those of a namespace that tell of its Rollouts.
type objects struct {
	sets        []appsv1.ReplicaSet
	pods        []corev1.Pod
	runs        []v1alpha1.AnalysisRun
	experiments []v1alpha1.Experiment
}

// experimentsOf returns the Experiments of a revision, oldest first.
func (o *objects) experimentsOf(uid, hash, revision string) []Experiment {
	var out []Experiment
	for i := range o.experiments {
		e := &o.experiments[i]
		if ownedBy(e.OwnerReferences, uid) && e.Labels[v1alpha1.DefaultRolloutUniqueLabelKey] == hash && e.Annotations["rollout.argoproj.io/revision"] == revision {
			out = append(out, o.experiment(e))
		}
	}
	slices.SortStableFunc(out, func(a, b Experiment) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	return out
}

func (o *objects) experiment(e *v1alpha1.Experiment) Experiment {
	out := Experiment{Name: e.Name, Phase: string(e.Status.Phase), Message: e.Status.Message, Duration: string(e.Spec.Duration), Created: e.CreationTimestamp.Time}
	if out.Phase == "" {
		out.Phase = string(v1alpha1.AnalysisPhasePending)
	}
	if t := e.Status.AvailableAt; t != nil {
		out.Started = t.Time
	}
	for _, spec := range e.Spec.Templates {
		out.Versions = append(out.Versions, o.experimentVersion(e, spec))
	}
	for i := range o.runs {
		if ownedBy(o.runs[i].OwnerReferences, string(e.UID)) {
			run := analysis(&o.runs[i])
			run.Kind = "Experiment"
			out.Analyses = append(out.Analyses, run)
		}
	}
	return out
}

func (o *objects) experimentVersion(e *v1alpha1.Experiment, spec v1alpha1.TemplateSpec) ExperimentVersion {
	v := ExperimentVersion{Name: spec.Name, Images: images(spec.Template.Spec)}
	for _, s := range e.Status.TemplateStatuses {
		if s.Name == spec.Name {
			v.Phase, v.Message, v.Service = string(s.Status), s.Message, s.ServiceName
		}
	}
	for _, rs := range o.sets {
		if !ownedBy(rs.OwnerReferences, string(e.UID)) || rs.Name != e.Name+"-"+spec.Name {
			continue
		}
		v.ManagedBy, v.Ready = rs.Name, rs.Status.ReadyReplicas
		if rs.Spec.Replicas != nil {
			v.Desired = *rs.Spec.Replicas
		}
		v.Pods = o.podsOf(string(rs.UID))
	}
	return v
}

// podsOf returns the pods of a ReplicaSet.
func (o *objects) podsOf(uid string) []Pod {
	var out []Pod
	for _, p := range o.pods {
		if ownedBy(p.OwnerReferences, uid) {
			out = append(out, pod(p))
		}
	}
	return out
}

package rollout

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
)

// Rollout is what the platform shows of an Argo Rollout.
type Rollout struct {
	Namespace, Name string
	Strategy        string // "canary" or "blueGreen"
	Phase           string // Healthy, Progressing, Paused, Degraded
	Message         string
	Aborted         bool
	AbortedAt       time.Time
	Paused          bool   // by a step, an inconclusive analysis or a user
	PauseReason     string // CanaryPauseStep, BlueGreenPause, InconclusiveAnalysisRun, InconclusiveExperiment, or "user"
	PausedSince     time.Time

	Steps       []Step // canary only
	Step        int    // index of the current step; len(Steps) when all are done
	Weight      int32  // per cent of the traffic that goes to the new version
	Wanted      int32  // per cent that the current step asks for
	ExactWeight bool   // a traffic router sets it; else it is a ratio of replicas

	Desired, Ready, Updated, Available int32
	StableHash, CurrentHash            string // pod template hashes; equal when promoted
	StableService, CanaryService       string // for blue-green: active and preview
	Images                             []string
	Application                        string // the Argo CD Application it belongs to, or ""

	labels map[string]string // of its pods, without the hash
}

// Progressing reports whether a new version is on its way.
func (r *Rollout) Progressing() bool { return r.StableHash != r.CurrentHash && !r.Aborted }

// Step is one canary step in words.
type Step struct {
	Kind   string // setWeight, pause, analysis, experiment, setCanaryScale, other
	Text   string // such as "20 %", "pause 30s", "analysis success-rate"
	Weight int32  // of setWeight; -1 for others
}

// Revision is one version that the Rollout knows, with its pods.
type Revision struct {
	Number    int64
	Hash      string
	Images    []string
	Role      string // stable, canary, active, preview, or "" for an old one
	Desired   int32
	Ready     int32
	Created   time.Time
	Pods      []Pod
	Analyses  []Analysis
	ManagedBy string // name of the ReplicaSet
	// Experiments are what its steps of that kind ran, oldest first.
	Experiments []Experiment
}

// Pod is one pod of a revision.
type Pod struct {
	Name     string
	Phase    string // as kubectl shows it: Running, CrashLoopBackOff, ...
	Ready    bool
	Restarts int32
	Created  time.Time
}

func convert(ro *v1alpha1.Rollout) *Rollout {
	r := &Rollout{
		Namespace: ro.Namespace, Name: ro.Name, Aborted: ro.Status.Abort,
		Desired: 1, Ready: ro.Status.ReadyReplicas, Updated: ro.Status.UpdatedReplicas, Available: ro.Status.AvailableReplicas,
		StableHash: ro.Status.StableRS, CurrentHash: ro.Status.CurrentPodHash, Images: images(ro.Spec.Template.Spec),
		Application: application(ro.Annotations), labels: ro.Spec.Template.Labels,
	}
	r.Phase, r.Message = phase(ro)
	if ro.Spec.Replicas != nil {
		r.Desired = *ro.Spec.Replicas
	}
	if ro.Status.AbortedAt != nil {
		r.AbortedAt = ro.Status.AbortedAt.Time
	}
	switch {
	case ro.Spec.Paused:
		r.Paused, r.PauseReason = true, "user"
	case len(ro.Status.PauseConditions) > 0:
		c := ro.Status.PauseConditions[0]
		r.Paused, r.PauseReason, r.PausedSince = true, string(c.Reason), c.StartTime.Time
	}
	switch s := ro.Spec.Strategy; {
	case s.Canary != nil:
		r.Strategy = "canary"
		r.StableService, r.CanaryService = s.Canary.StableService, s.Canary.CanaryService
		r.ExactWeight = s.Canary.TrafficRouting != nil
		for _, st := range s.Canary.Steps {
			r.Steps = append(r.Steps, describe(st))
		}
		r.Step, r.Weight = canaryProgress(ro)
		r.Wanted = wanted(r)
	case s.BlueGreen != nil:
		r.Strategy = "blueGreen"
		r.StableService, r.CanaryService = s.BlueGreen.ActiveService, s.BlueGreen.PreviewService
		r.ExactWeight = true
		if active := ro.Status.BlueGreen.ActiveSelector; active != "" && active == ro.Status.CurrentPodHash {
			r.Weight = 100
		}
	}
	return r
}

// phase follows upstream's rule: what the controller wrote counts only for the
// generation that it has seen.
func phase(ro *v1alpha1.Rollout) (string, string) {
	if seen, err := strconv.ParseInt(ro.Status.ObservedGeneration, 10, 64); err == nil && seen < ro.Generation {
		return string(v1alpha1.RolloutPhaseProgressing), "waiting for the change to be seen"
	}
	if ro.Status.ControllerPause && len(ro.Status.PauseConditions) == 0 {
		return string(v1alpha1.RolloutPhaseProgressing), "waiting for the rollout to go on"
	}
	if ro.Status.Phase == "" {
		return string(v1alpha1.RolloutPhaseProgressing), "waiting for the controller"
	}
	return string(ro.Status.Phase), ro.Status.Message
}

// canaryProgress returns the current step and the share of the new version.
func canaryProgress(ro *v1alpha1.Rollout) (int, int32) {
	steps := ro.Spec.Strategy.Canary.Steps
	step := len(steps)
	if i := ro.Status.CurrentStepIndex; i != nil && int(*i) < step {
		step = int(*i)
	}
	switch {
	case ro.Status.StableRS == ro.Status.CurrentPodHash:
		return len(steps), 100
	case ro.Status.Abort:
		return 0, 0
	case ro.Status.Canary.Weights != nil:
		return step, ro.Status.Canary.Weights.Canary.Weight
	case ro.Spec.Strategy.Canary.TrafficRouting == nil && ro.Status.AvailableReplicas > 0:
		return step, min(100, ro.Status.UpdatedReplicas*100/ro.Status.AvailableReplicas)
	}
	return step, 0
}

// wanted is the weight of the last setWeight step up to the current one, as
// upstream's replicasetutil.GetCurrentSetWeight counts.
func wanted(r *Rollout) int32 {
	if r.Aborted {
		return 0
	}
	if r.Step >= len(r.Steps) {
		return 100
	}
	for i := r.Step; i >= 0; i-- {
		if r.Steps[i].Weight >= 0 {
			return r.Steps[i].Weight
		}
	}
	return 0
}

func describe(s v1alpha1.CanaryStep) Step {
	st := Step{Kind: "other", Text: "step", Weight: -1}
	switch {
	case s.SetWeight != nil:
		st = Step{"setWeight", fmt.Sprintf("%d %%", *s.SetWeight), *s.SetWeight}
	case s.Pause != nil && s.Pause.Duration == nil:
		st.Kind, st.Text = "pause", "wait for promotion"
	case s.Pause != nil:
		text := s.Pause.Duration.String()
		if _, err := strconv.Atoi(text); err == nil {
			text += "s"
		}
		st.Kind, st.Text = "pause", "pause "+text
	case s.Analysis != nil:
		st.Kind, st.Text = "analysis", "analysis"
		for _, t := range s.Analysis.Templates {
			st.Text += " " + t.TemplateName
		}
	case s.Experiment != nil:
		st.Kind, st.Text = "experiment", "experiment"
		for _, t := range s.Experiment.Templates {
			st.Text += " " + t.Name
		}
	case s.SetCanaryScale != nil:
		st.Kind, st.Text = "setCanaryScale", canaryScale(s.SetCanaryScale)
	case s.SetHeaderRoute != nil:
		st.Text = "route by header"
	case s.SetMirrorRoute != nil:
		st.Text = "mirror traffic"
	case s.Plugin != nil:
		st.Text = "plugin " + s.Plugin.Name
	}
	return st
}

func canaryScale(s *v1alpha1.SetCanaryScale) string {
	switch {
	case s.Replicas != nil && *s.Replicas == 1:
		return "1 canary pod"
	case s.Replicas != nil:
		return fmt.Sprintf("%d canary pods", *s.Replicas)
	case s.Weight != nil:
		return fmt.Sprintf("canary pods for %d %%", *s.Weight)
	}
	return "canary pods by weight"
}

func images(spec corev1.PodSpec) []string {
	var list []string
	for _, c := range spec.Containers {
		list = append(list, c.Image)
	}
	return list
}

// application reads Argo CD's tracking annotation "<app>:<group>/<kind>:...".
func application(annotations map[string]string) string {
	id := annotations["argocd.argoproj.io/tracking-id"]
	for i := range id {
		if id[i] == ':' {
			return id[:i]
		}
	}
	return ""
}

// revisions joins ReplicaSets, pods, analysis runs and experiments.
func (o *objects) revisions(ro *v1alpha1.Rollout) []Revision {
	var list []Revision
	for _, rs := range o.sets {
		if !ownedBy(rs.OwnerReferences, string(ro.UID)) {
			continue
		}
		hash := rs.Labels[v1alpha1.DefaultRolloutUniqueLabelKey]
		number, _ := strconv.ParseInt(rs.Annotations["rollout.argoproj.io/revision"], 10, 64)
		rev := Revision{
			Number: number, Hash: hash, Images: images(rs.Spec.Template.Spec), Role: role(ro, hash),
			Ready: rs.Status.ReadyReplicas, Created: rs.CreationTimestamp.Time, ManagedBy: rs.Name,
		}
		if rs.Spec.Replicas != nil {
			rev.Desired = *rs.Spec.Replicas
		}
		revision := rs.Annotations["rollout.argoproj.io/revision"]
		rev.Pods = o.podsOf(string(rs.UID))
		for i := range o.runs {
			run := &o.runs[i]
			if ownedBy(run.OwnerReferences, string(ro.UID)) && run.Labels[v1alpha1.DefaultRolloutUniqueLabelKey] == hash &&
				run.Annotations["rollout.argoproj.io/revision"] == revision {
				rev.Analyses = append(rev.Analyses, analysis(run))
			}
		}
		rev.Experiments = o.experimentsOf(string(ro.UID), hash, revision)
		list = append(list, rev)
	}
	return list
}

func ownedBy(refs []metav1.OwnerReference, uid string) bool {
	for _, r := range refs {
		if string(r.UID) == uid {
			return true
		}
	}
	return false
}

func role(ro *v1alpha1.Rollout, hash string) string {
	bg := ro.Status.BlueGreen
	switch {
	case ro.Spec.Strategy.BlueGreen != nil && hash == bg.ActiveSelector:
		return "active"
	case ro.Spec.Strategy.BlueGreen != nil && hash == bg.PreviewSelector:
		return "preview"
	case ro.Spec.Strategy.BlueGreen != nil:
		return ""
	case hash == ro.Status.StableRS:
		return "stable"
	case hash == ro.Status.CurrentPodHash:
		return "canary"
	}
	return ""
}

func pod(p corev1.Pod) Pod {
	out := Pod{Name: p.Name, Phase: string(p.Status.Phase), Created: p.CreationTimestamp.Time}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			out.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		out.Restarts += c.RestartCount
		if c.State.Waiting != nil && c.State.Waiting.Reason != "" {
			out.Phase = c.State.Waiting.Reason
		}
	}
	if p.DeletionTimestamp != nil {
		out.Phase = "Terminating"
	}
	return out
}

package gitops

import (
	"fmt"
	"path"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Namespace is where the platform's Applications live.
const Namespace = "argocd"

// Resource is the Kubernetes resource of Applications.
var Resource = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "applications"}

// Application is what the platform shows of an Argo CD Application.
type Application struct {
	Name      string
	Namespace string
	Project   string
	Labels    map[string]string
	Created   time.Time
	Deleting  bool

	Sources     []Source // one, unless the Application has several
	Destination Destination
	Automated   Automated
	// ManifestPaths are the folders, from the repository's root, whose changes
	// matter to the Application: the source's path, or what the annotation
	// argocd.argoproj.io/manifest-generate-paths lists.
	ManifestPaths []string
	// ChoosesPaths: by that annotation; Argo CD leaves the Application alone
	// when a push changes nothing there.
	ChoosesPaths bool

	Sync       Sync
	Health     Health
	Operation  *Operation // the running or last one
	Resources  []Managed
	History    []Deployment // newest first
	Conditions []Condition
	Images     []string
	URLs       []string
}

// Source is where manifests come from.
type Source struct {
	RepoURL        string `json:"repoURL"`
	Path           string `json:"path,omitempty"`
	Chart          string `json:"chart,omitempty"`
	TargetRevision string `json:"targetRevision,omitempty"`
}

// Destination is where they go.
type Destination struct {
	Server    string `json:"server,omitempty"`
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// Automated says what Argo CD does by itself.
type Automated struct {
	Enabled  bool
	Prune    bool
	SelfHeal bool
}

// Sync compares git with the cluster.
type Sync struct {
	Status   string // Synced, OutOfSync, Unknown
	Revision string // the commit compared with
	// Revisions are those of each source, where there are several.
	Revisions []string
}

// Health is the worst health of the Application's resources.
type Health struct {
	Status  string // Healthy, Progressing, Degraded, Suspended, Missing, Unknown
	Message string
	Since   time.Time
}

// Operation is a sync, running or ended.
type Operation struct {
	Phase      string // Running, Succeeded, Failed, Error, Terminating
	Message    string
	Revision   string
	Started    time.Time
	Finished   time.Time // zero while it runs
	By         string    // user name; "" when automated
	Automated  bool
	RetryCount int64
	Results    []ResourceResult
}

// ResourceResult is what a sync did to one resource.
type ResourceResult struct {
	Group     string
	Kind      string
	Namespace string
	Name      string
	Status    string // Synced, SyncFailed, Pruned, PruneSkipped
	HookPhase string
	Message   string
}

// Managed is one resource that the Application declares.
type Managed struct {
	Group, Version, Kind, Namespace, Name string
	Status                                string // Synced, OutOfSync
	Health                                string
	HealthMessage                         string
	RequiresPruning                       bool
}

// Deployment is one entry of the history: a revision that was synced.
type Deployment struct {
	ID        int64
	Revision  string
	Deployed  time.Time
	Started   time.Time
	By        string // user name; "" when automated
	Automated bool
	Source    Source
}

// Condition is a problem or a notice, such as ComparisonError with the
// message of the renderer.
type Condition struct {
	Type    string
	Message string
	Since   time.Time
}

// Failed returns the message of the first condition that is an error, or "".
func (a *Application) Failed() string {
	for _, c := range a.Conditions {
		if strings.HasSuffix(c.Type, "Error") {
			return c.Message
		}
	}
	return ""
}

// application mirrors the parts of the resource that decode needs; field names
// are upstream's.
type application struct {
	Spec struct {
		Project     string      `json:"project"`
		Source      *Source     `json:"source"`
		Sources     []Source    `json:"sources"`
		Destination Destination `json:"destination"`
		SyncPolicy  struct {
			Automated *struct {
				Enabled  *bool `json:"enabled"`
				Prune    bool  `json:"prune"`
				SelfHeal bool  `json:"selfHeal"`
			} `json:"automated"`
		} `json:"syncPolicy"`
	} `json:"spec"`
	Status struct {
		Sync struct {
			Status    string   `json:"status"`
			Revision  string   `json:"revision"`
			Revisions []string `json:"revisions"`
		} `json:"sync"`
		Health struct {
			Status             string `json:"status"`
			Message            string `json:"message"`
			LastTransitionTime string `json:"lastTransitionTime"`
		} `json:"health"`
		OperationState *operationState  `json:"operationState"`
		Resources      []resourceStatus `json:"resources"`
		History        []historyEntry   `json:"history"`
		Conditions     []struct {
			Type               string `json:"type"`
			Message            string `json:"message"`
			LastTransitionTime string `json:"lastTransitionTime"`
		} `json:"conditions"`
		Summary struct {
			Images       []string `json:"images"`
			ExternalURLs []string `json:"externalURLs"`
		} `json:"summary"`
	} `json:"status"`
}

type initiator struct {
	Username  string `json:"username"`
	Automated bool   `json:"automated"`
}

type operationState struct {
	Phase      string `json:"phase"`
	Message    string `json:"message"`
	StartedAt  string `json:"startedAt"`
	FinishedAt string `json:"finishedAt"`
	RetryCount int64  `json:"retryCount"`
	Operation  struct {
		InitiatedBy initiator `json:"initiatedBy"`
	} `json:"operation"`
	SyncResult *struct {
		Revision  string `json:"revision"`
		Resources []struct {
			Group     string `json:"group"`
			Kind      string `json:"kind"`
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
			Status    string `json:"status"`
			HookPhase string `json:"hookPhase"`
			Message   string `json:"message"`
		} `json:"resources"`
	} `json:"syncResult"`
}

type resourceStatus struct {
	Group           string `json:"group"`
	Version         string `json:"version"`
	Kind            string `json:"kind"`
	Namespace       string `json:"namespace"`
	Name            string `json:"name"`
	Status          string `json:"status"`
	RequiresPruning bool   `json:"requiresPruning"`
	Health          *struct {
		Status  string `json:"status"`
		Message string `json:"message"`
	} `json:"health"`
}

type historyEntry struct {
	ID              int64     `json:"id"`
	Revision        string    `json:"revision"`
	Revisions       []string  `json:"revisions"`
	DeployedAt      string    `json:"deployedAt"`
	DeployStartedAt string    `json:"deployStartedAt"`
	Source          Source    `json:"source"`
	InitiatedBy     initiator `json:"initiatedBy"`
}

// decode reads the resource. Unknown fields are ignored: the schema is Argo
// CD's to change.
func decode(u *unstructured.Unstructured) (*Application, error) {
	var r application
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &r); err != nil {
		return nil, fmt.Errorf("gitops: decode Application %s: %w", u.GetName(), err)
	}
	a := &Application{
		Name: u.GetName(), Namespace: u.GetNamespace(), Labels: u.GetLabels(), Project: r.Spec.Project,
		Created: u.GetCreationTimestamp().Time, Deleting: u.GetDeletionTimestamp() != nil,
		Sources: r.Spec.Sources, Destination: r.Spec.Destination,
		Sync:   Sync{Status: r.Status.Sync.Status, Revision: first(r.Status.Sync.Revision, r.Status.Sync.Revisions), Revisions: r.Status.Sync.Revisions},
		Health: Health{r.Status.Health.Status, r.Status.Health.Message, parseTime(r.Status.Health.LastTransitionTime)},
		Images: r.Status.Summary.Images, URLs: r.Status.Summary.ExternalURLs,
	}
	if r.Spec.Source != nil {
		a.Sources = []Source{*r.Spec.Source}
	}
	if p := r.Spec.SyncPolicy.Automated; p != nil && (p.Enabled == nil || *p.Enabled) {
		a.Automated = Automated{Enabled: true, Prune: p.Prune, SelfHeal: p.SelfHeal}
	}
	a.ChoosesPaths = u.GetAnnotations()[pathsAnnotation] != ""
	a.ManifestPaths = manifestPaths(a.Sources, u.GetAnnotations()[pathsAnnotation])
	a.Operation = r.Status.OperationState.decode()
	for _, s := range r.Status.Resources {
		res := Managed{Group: s.Group, Version: s.Version, Kind: s.Kind, Namespace: s.Namespace, Name: s.Name, Status: s.Status, RequiresPruning: s.RequiresPruning}
		if s.Health != nil {
			res.Health, res.HealthMessage = s.Health.Status, s.Health.Message
		}
		a.Resources = append(a.Resources, res)
	}
	for i := len(r.Status.History) - 1; i >= 0; i-- {
		h := r.Status.History[i]
		a.History = append(a.History, Deployment{
			ID: h.ID, Revision: first(h.Revision, h.Revisions), Deployed: parseTime(h.DeployedAt), Started: parseTime(h.DeployStartedAt),
			By: h.InitiatedBy.Username, Automated: h.InitiatedBy.Automated, Source: h.Source,
		})
	}
	for _, c := range r.Status.Conditions {
		a.Conditions = append(a.Conditions, Condition{c.Type, c.Message, parseTime(c.LastTransitionTime)})
	}
	return a, nil
}

func (s *operationState) decode() *Operation {
	if s == nil {
		return nil
	}
	o := &Operation{
		Phase: s.Phase, Message: s.Message, Started: parseTime(s.StartedAt), Finished: parseTime(s.FinishedAt),
		By: s.Operation.InitiatedBy.Username, Automated: s.Operation.InitiatedBy.Automated, RetryCount: s.RetryCount,
	}
	if s.SyncResult != nil {
		o.Revision = s.SyncResult.Revision
		for _, r := range s.SyncResult.Resources {
			o.Results = append(o.Results, ResourceResult(r))
		}
	}
	return o
}

// manifestPaths reads the annotation as Argo CD does: entries are separated by
// ";", relative to the source's path unless they begin with "/".
func manifestPaths(sources []Source, annotation string) []string {
	if len(sources) != 1 {
		return nil
	}
	if annotation == "" {
		annotation = "."
	}
	var paths []string
	for _, p := range strings.Split(annotation, ";") {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		if !strings.HasPrefix(p, "/") {
			p = path.Join(sources[0].Path, p)
		}
		if p = strings.Trim(path.Clean(p), "/"); p == "." || p == "" {
			return nil
		}
		paths = append(paths, p)
	}
	return paths
}

func first(one string, many []string) string {
	if one == "" && len(many) > 0 {
		return many[0]
	}
	return one
}

// parseTime returns the zero time for what is no RFC 3339 time.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

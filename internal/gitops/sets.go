package gitops

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipwayhq/slipway/internal/kubewatch"
)

var applicationSets = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "applicationsets"}

// ApplicationSet generates Applications.
type ApplicationSet struct {
	Name       string
	Created    time.Time
	Deleting   bool
	Generators []string // kinds, such as "git"; those of a matrix or merge in brackets
	Project    string   // of the Applications, as the template has it
	Conditions []SetCondition
	Apps       []string // names of the Applications that it owns
	Spec       map[string]any
}

// SetCondition says how generating went.
type SetCondition struct {
	Type, Reason, Message string
	True                  bool
	Since                 time.Time
}

// Failed returns what is wrong, or "".
func (s *ApplicationSet) Failed() string {
	for _, c := range s.Conditions {
		if c.Type == "ErrorOccurred" && c.True {
			return c.Message
		}
	}
	return ""
}

// applicationSet is the part of the resource that is read.
type applicationSet struct {
	Spec struct {
		Generators []map[string]any `json:"generators"`
		Template   struct {
			Spec struct {
				Project string `json:"project"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
	Status struct {
		Conditions []struct {
			Type               string `json:"type"`
			Reason             string `json:"reason"`
			Message            string `json:"message"`
			Status             string `json:"status"`
			LastTransitionTime string `json:"lastTransitionTime"`
		} `json:"conditions"`
	} `json:"status"`
}

// Sets returns all ApplicationSets, by name.
func (c *Client) Sets(ctx context.Context) ([]*ApplicationSet, error) {
	list, err := c.kube.Resource(applicationSets).Namespace(Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, failed("list ApplicationSets", "", err)
	}
	apps, err := c.applications().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, failed("list Applications", "", err)
	}
	owned := map[string][]string{}
	for i := range apps.Items {
		for _, o := range apps.Items[i].GetOwnerReferences() {
			if o.Kind == "ApplicationSet" {
				owned[o.Name] = append(owned[o.Name], apps.Items[i].GetName())
			}
		}
	}
	var sets []*ApplicationSet
	for i := range list.Items {
		s, err := decodeSet(&list.Items[i])
		if err != nil {
			return nil, err
		}
		s.Apps = owned[s.Name]
		slices.Sort(s.Apps)
		sets = append(sets, s)
	}
	slices.SortFunc(sets, func(a, b *ApplicationSet) int { return strings.Compare(a.Name, b.Name) })
	return sets, nil
}

func decodeSet(u *unstructured.Unstructured) (*ApplicationSet, error) {
	var r applicationSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &r); err != nil {
		return nil, fmt.Errorf("gitops: decode ApplicationSet %s: %w", u.GetName(), err)
	}
	spec, _, _ := unstructured.NestedMap(u.Object, "spec")
	s := &ApplicationSet{Name: u.GetName(), Created: u.GetCreationTimestamp().Time, Deleting: u.GetDeletionTimestamp() != nil, Project: r.Spec.Template.Spec.Project, Spec: spec}
	for _, g := range r.Spec.Generators {
		s.Generators = append(s.Generators, generatorName(g))
	}
	for _, c := range r.Status.Conditions {
		s.Conditions = append(s.Conditions, SetCondition{c.Type, c.Reason, c.Message, c.Status == "True", parseTime(c.LastTransitionTime)})
	}
	return s, nil
}

// generatorName is the kind of a generator, which has one key beside "selector";
// matrix and merge name what they are made of.
func generatorName(g map[string]any) string {
	for _, kind := range slices.Sorted(maps.Keys(g)) {
		if kind == "selector" {
			continue
		}
		inner, _ := g[kind].(map[string]any)
		parts, _ := inner["generators"].([]any)
		var names []string
		for _, p := range parts {
			if one, ok := p.(map[string]any); ok {
				names = append(names, generatorName(one))
			}
		}
		if len(names) > 0 {
			return kind + " (" + strings.Join(names, ", ") + ")"
		}
		return kind
	}
	return "none"
}

// Project is an AppProject: what its Applications may come from and go to.
type Project struct {
	Name, Description string
	SourceRepos       []string
	Destinations      []ProjectDestination
	Cluster           []string // kinds without namespace that are allowed, as "group/kind"
	Denied            []string // kinds with namespace that are not
	Roles             []ProjectRole
	Windows           []SyncWindow
	Signatures        []string // ids of keys, one of which must have signed
	Orphans           bool     // what is in its namespaces but in no Application is reported
	Spec              map[string]any
}

// ProjectDestination is where the Applications of a Project may deploy.
type ProjectDestination struct {
	Server    string `json:"server"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// ProjectRole is a role of Argo CD's in a Project.
type ProjectRole struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Policies    []string `json:"policies"`
	Groups      []string `json:"groups"`
	Tokens      int      `json:"-"` // how many there are
}

// SyncWindow allows or denies syncs at times.
type SyncWindow struct {
	Kind         string   `json:"kind"`
	Schedule     string   `json:"schedule"`
	Duration     string   `json:"duration"`
	Applications []string `json:"applications"`
	Namespaces   []string `json:"namespaces"`
	ManualSync   bool     `json:"manualSync"`
}

type groupKind struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
}

func (k groupKind) String() string {
	if k.Group == "" {
		return k.Kind
	}
	return k.Group + "/" + k.Kind
}

type project struct {
	Spec struct {
		Description       string               `json:"description"`
		SourceRepos       []string             `json:"sourceRepos"`
		Destinations      []ProjectDestination `json:"destinations"`
		ClusterWhitelist  []groupKind          `json:"clusterResourceWhitelist"`
		NamespaceDenied   []groupKind          `json:"namespaceResourceBlacklist"`
		SyncWindows       []SyncWindow         `json:"syncWindows"`
		OrphanedResources *struct{}            `json:"orphanedResources"`
		SignatureKeys     []struct {
			KeyID string `json:"keyID"`
		} `json:"signatureKeys"`
		Roles []struct {
			ProjectRole `json:",inline"`
			JWTTokens   []struct {
				IssuedAt int64 `json:"iat"`
			} `json:"jwtTokens"`
		} `json:"roles"`
	} `json:"spec"`
}

// Projects returns all AppProjects, by name.
func (c *Client) Projects(ctx context.Context) ([]*Project, error) {
	list, err := c.kube.Resource(appProjects).Namespace(Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, failed("list AppProjects", "", err)
	}
	var projects []*Project
	for i := range list.Items {
		p, err := decodeProject(&list.Items[i])
		if err != nil {
			return nil, err
		}
		projects = append(projects, p)
	}
	slices.SortFunc(projects, func(a, b *Project) int { return strings.Compare(a.Name, b.Name) })
	return projects, nil
}

func decodeProject(u *unstructured.Unstructured) (*Project, error) {
	var r project
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &r); err != nil {
		return nil, fmt.Errorf("gitops: decode AppProject %s: %w", u.GetName(), err)
	}
	spec, _, _ := unstructured.NestedMap(u.Object, "spec")
	p := &Project{Name: u.GetName(), Description: r.Spec.Description, SourceRepos: r.Spec.SourceRepos, Destinations: r.Spec.Destinations,
		Windows: r.Spec.SyncWindows, Orphans: r.Spec.OrphanedResources != nil, Spec: spec}
	for _, k := range r.Spec.ClusterWhitelist {
		p.Cluster = append(p.Cluster, k.String())
	}
	for _, k := range r.Spec.NamespaceDenied {
		p.Denied = append(p.Denied, k.String())
	}
	for _, k := range r.Spec.SignatureKeys {
		p.Signatures = append(p.Signatures, k.KeyID)
	}
	for _, role := range r.Spec.Roles {
		one := role.ProjectRole
		one.Tokens = len(role.JWTTokens)
		p.Roles = append(p.Roles, one)
	}
	return p, nil
}

// Spec returns the specification of an Application as it was written.
func (c *Client) Spec(ctx context.Context, name string) (map[string]any, error) {
	u, err := c.applications().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, failed("read Application", name, err)
	}
	spec, _, _ := unstructured.NestedMap(u.Object, "spec")
	return spec, nil
}

// RefreshSet makes the ApplicationSet controller generate at once.
func (c *Client) RefreshSet(ctx context.Context, name string) error {
	change := []byte(`{"metadata":{"annotations":{"argocd.argoproj.io/application-set-refresh":"true"}}}`)
	if _, err := c.kube.Resource(applicationSets).Namespace(Namespace).Patch(ctx, name, types.MergePatchType, change, metav1.PatchOptions{FieldManager: "slipway"}); err != nil {
		return kubewatch.Failed("gitops: refresh", "ApplicationSet", name, err)
	}
	return nil
}

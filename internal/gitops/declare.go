package gitops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/kubewatch"
)

// Kinds that people declare.
const (
	KindApplication = "Application"
	KindSet         = "ApplicationSet"
	KindProject     = "AppProject"
)

// collections are the kinds' places in Argo CD's API.
var collections = map[string]string{KindApplication: "/api/v1/applications", KindSet: "/api/v1/applicationsets", KindProject: "/api/v1/projects"}

// Declared names what a manifest declared.
type Declared struct{ Kind, Name string }

// Manifest is what somebody declares.
type Manifest struct {
	Declared
	doc map[string]any
}

// ReadManifest reads the manifest (YAML) of an Application, ApplicationSet or
// AppProject. Errors are of kind Invalid.
func ReadManifest(text string) (*Manifest, error) {
	m := &Manifest{}
	if err := yaml.UnmarshalStrict([]byte(text), &m.doc); err != nil {
		return nil, &delivery.Error{Kind: delivery.Invalid, Message: "The manifest is no YAML: " + err.Error()}
	}
	m.Kind, _ = m.doc["kind"].(string)
	meta, _ := m.doc["metadata"].(map[string]any)
	m.Name, _ = meta["name"].(string)
	switch {
	case collections[m.Kind] == "":
		return nil, delivery.Errorf(delivery.Invalid, "The manifest's kind must be Application, ApplicationSet or AppProject, and is %q.", m.Kind)
	case m.doc["apiVersion"] != "argoproj.io/v1alpha1":
		return nil, delivery.Errorf(delivery.Invalid, "The manifest's apiVersion must be argoproj.io/v1alpha1, and is %q.", fmt.Sprint(m.doc["apiVersion"]))
	case m.Name == "":
		return nil, delivery.Errorf(delivery.Invalid, "The manifest has no metadata.name.")
	}
	if ns, ok := meta["namespace"]; ok && ns != Namespace {
		return nil, delivery.Errorf(delivery.Invalid, "The manifest's namespace must be %s, and is %q.", Namespace, fmt.Sprint(ns))
	}
	meta["namespace"] = Namespace
	return m, nil
}

// Respecified is the manifest of something there with another specification (YAML).
func Respecified(d Declared, spec string) (*Manifest, error) {
	var doc map[string]any
	if err := yaml.UnmarshalStrict([]byte(spec), &doc); err != nil {
		return nil, &delivery.Error{Kind: delivery.Invalid, Message: "The specification is no YAML: " + err.Error()}
	}
	return &Manifest{d, map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": d.Kind,
		"metadata": map[string]any{"name": d.Name, "namespace": Namespace}, "spec": doc}}, nil
}

var declaredResources = map[string]schema.GroupVersionResource{KindApplication: Resource, KindSet: applicationSets, KindProject: appProjects}

// Check asks the cluster whether it would take the manifest, and changes
// nothing: Argo CD's API drops fields that it does not know, a misspelled
// policy for example, without a word. It is Invalid with the field named.
func (c *Client) Check(ctx context.Context, m *Manifest) error {
	body, err := json.Marshal(m.doc)
	if err != nil {
		return fmt.Errorf("gitops: check %s: %w", m.Name, err)
	}
	force := true
	_, err = c.kube.Resource(declaredResources[m.Kind]).Namespace(Namespace).Patch(ctx, m.Name, types.ApplyPatchType, body,
		metav1.PatchOptions{FieldManager: "slipway-check", Force: &force, DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	var answer apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer) && !apierrors.IsServiceUnavailable(err) && !apierrors.IsServerTimeout(err) && !apierrors.IsTooManyRequests(err):
		// The API server has looked at it: what is no field of the schema, it
		// answers with status 500.
		return &delivery.Error{Kind: delivery.Invalid, Op: "gitops: check", Message: err.Error()}
	}
	return kubewatch.Failed("gitops: check", m.Kind, m.Name, err)
}

// Declare creates what the manifest says, or changes the one of this name where
// replace is set. It asks Argo CD in the name of the token's owner, so that
// Argo CD's policy decides and its checks are made: of the repository, the path,
// and what the AppProject allows. Errors are of kind Invalid, Forbidden,
// Conflict or Unavailable.
func (s *Server) Declare(ctx context.Context, token string, m *Manifest, replace bool) error {
	path := collections[m.Kind]
	if m.Kind != KindProject {
		if replace {
			path += "?upsert=true"
		}
		return s.send(ctx, http.MethodPost, path, token, m.doc)
	}
	in := map[string]any{"project": m.doc}
	if !replace {
		return s.send(ctx, http.MethodPost, path, token, in)
	}
	path += "/" + url.PathEscape(m.Name)
	meta, _ := m.doc["metadata"].(map[string]any)
	if err := s.keepVersion(ctx, token, path, meta); err != nil {
		return err
	}
	return s.send(ctx, http.MethodPut, path, token, in)
}

// keepVersion makes a change of what is there: Argo CD asks for its version.
func (s *Server) keepVersion(ctx context.Context, token, path string, meta map[string]any) error {
	body, err := s.call(ctx, http.MethodGet, path, token, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	var now struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.NewDecoder(body).Decode(&now); err != nil {
		return fmt.Errorf("gitops: read %s: %w", path, err)
	}
	meta["resourceVersion"] = now.Metadata.ResourceVersion
	return nil
}

// Respecify changes the specification of an Application, in the name of the
// token's owner; see Declare.
func (s *Server) Respecify(ctx context.Context, token string, m *Manifest) error {
	return s.send(ctx, http.MethodPut, collections[KindApplication]+"/"+url.PathEscape(m.Name)+"/spec", token, m.doc["spec"])
}

// Undeclare deletes an ApplicationSet, with its Applications, or an AppProject,
// in the name of the token's owner.
func (s *Server) Undeclare(ctx context.Context, token string, d Declared) error {
	return s.send(ctx, http.MethodDelete, collections[d.Kind]+"/"+url.PathEscape(d.Name), token, nil)
}

func (s *Server) send(ctx context.Context, method, path, token string, in any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("gitops: %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(data)
	}
	answer, err := s.call(ctx, method, path, token, body)
	if err != nil {
		return err
	}
	return answer.Close()
}

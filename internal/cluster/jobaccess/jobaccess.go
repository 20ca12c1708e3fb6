// Package jobaccess gives the jobs of pipelines a limited access to the
// cluster: an account of their project's environment, with the rights of a
// namespace's administrator in named namespaces and no others.
//
// It owns those namespaces, accounts and role bindings, which carry the label
// slipway.dev/project. It receives requests for one job and a client of the
// cluster's administrator, and emits a credential that ends with the job. It
// must not import Kubernetes' own programs, the store or a stage.
package jobaccess

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Request describes the job that gets access.
type Request struct {
	ProjectID   int64
	ProjectPath string // the last part of its full path
	Environment string
	Slug        string   // of the environment
	Granted     []string // namespaces that the job may change beside its own
	Wanted      string   // the namespace to work in; empty: the first granted one, or its own
	Lifetime    time.Duration
}

// Access is what the job gets.
type Access struct {
	Kubeconfig string
	Namespace  string
	Token      string
}

// NotGrantedError is a job's wish for a namespace that nobody gave it.
type NotGrantedError struct{ Namespace, Environment string }

func (e *NotGrantedError) Error() string {
	return fmt.Sprintf("environment %s: the namespace %s is not granted", e.Environment, e.Namespace)
}

// account is the name of the service account in the environment's namespace,
// and of what binds it.
const account = "slipway-ci"

// clusterRole holds the rights on the platform's own kinds, which the built-in
// role admin lacks.
const clusterRole = "slipway:ci"

// minimumLifetime is the shortest life that the API server gives a token.
const minimumLifetime = 10 * time.Minute

var (
	namespaces      = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	serviceAccounts = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	roleBindings    = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}
	clusterRoles    = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}
)

// OwnNamespace is the namespace that an environment always has, by GitLab's
// pattern for managed clusters: project, its number, environment; at most 63
// characters.
func OwnNamespace(r Request) string {
	tail := "-" + strconv.FormatInt(r.ProjectID, 10) + "-" + r.Slug
	head := slug(r.ProjectPath)
	if len(head)+len(tail) > 63 {
		head = strings.Trim(head[:max(1, 63-len(tail))], "-")
	}
	return strings.Trim((head + tail)[:min(63, len(head)+len(tail))], "-")
}

func slug(s string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(s) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
		} else {
			b.WriteByte('-')
		}
	}
	if out := strings.Trim(b.String(), "-"); out != "" {
		return out
	}
	return "project"
}

// For makes what the job's environment needs in the cluster, all of it only
// once, and returns a credential for server with the authority ca (PEM). The
// error is a *NotGrantedError for a namespace that the job may not have; any
// other one is the cluster's.
func For(ctx context.Context, client dynamic.Interface, server string, ca []byte, r Request) (Access, error) {
	own := OwnNamespace(r)
	allowed := append(slices.Clone(r.Granted), own)
	target := allowed[0]
	if r.Wanted != "" {
		if !slices.Contains(allowed, r.Wanted) {
			return Access{}, &NotGrantedError{r.Wanted, r.Environment}
		}
		target = r.Wanted
	}
	m := maker{ctx, client, r, own}
	if err := m.role(); err != nil {
		return Access{}, err
	}
	for _, ns := range allowed {
		if err := m.namespace(ns); err != nil {
			return Access{}, err
		}
	}
	if err := m.ensure(serviceAccounts, own, m.object("v1", "ServiceAccount", account)); err != nil {
		return Access{}, err
	}
	if err := m.withdraw(allowed); err != nil {
		return Access{}, err
	}
	for _, ns := range allowed {
		for _, role := range []string{"admin", clusterRole} {
			if err := m.bind(ns, role); err != nil {
				return Access{}, err
			}
		}
	}
	token, err := m.token()
	if err != nil {
		return Access{}, err
	}
	config, err := kubeconfig(server, ca, target, token)
	return Access{Kubeconfig: string(config), Namespace: target, Token: token}, err
}

// maker makes the objects of one environment.
type maker struct {
	ctx     context.Context
	client  dynamic.Interface
	request Request
	own     string // the environment's namespace
}

func (m maker) object(version, kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(version)
	o.SetKind(kind)
	o.SetName(name)
	o.SetLabels(map[string]string{"slipway.dev/project": strconv.FormatInt(m.request.ProjectID, 10), "slipway.dev/environment": m.request.Slug})
	return o
}

// ensure makes an object unless it is there already.
func (m maker) ensure(kind schema.GroupVersionResource, namespace string, o *unstructured.Unstructured) error {
	var resource dynamic.ResourceInterface = m.client.Resource(kind)
	if namespace != "" {
		resource = m.client.Resource(kind).Namespace(namespace)
	}
	_, err := resource.Get(m.ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = resource.Create(m.ctx, o, metav1.CreateOptions{FieldManager: account})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make %s %s of the job's environment: %w", kind.Resource, o.GetName(), err)
	}
	return nil
}

// namespace makes a namespace. Pods in one that is made here are held to the
// baseline of pod security: none of them can become the machine's root.
func (m maker) namespace(name string) error {
	o := m.object("v1", "Namespace", name)
	labels := o.GetLabels()
	maps.Copy(labels, map[string]string{"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "latest"})
	o.SetLabels(labels)
	return m.ensure(namespaces, "", o)
}

// role makes the rights on what the platform adds to Kubernetes.
func (m maker) role() error {
	o := &unstructured.Unstructured{Object: map[string]any{"rules": []any{map[string]any{
		"apiGroups": []any{"argoproj.io"},
		"resources": []any{"rollouts", "rollouts/status", "rollouts/scale", "analysistemplates", "analysisruns", "experiments"},
		"verbs":     []any{"*"},
	}}}}
	o.SetAPIVersion("rbac.authorization.k8s.io/v1")
	o.SetKind("ClusterRole")
	o.SetName(clusterRole)
	return m.ensure(clusterRoles, "", o)
}

// bind gives the account a role in a namespace. The binding is named after the
// account's own namespace, since several may be bound in one.
func (m maker) bind(namespace, role string) error {
	o := m.object("rbac.authorization.k8s.io/v1", "RoleBinding", account+":"+m.own+":"+strings.TrimPrefix(role, "slipway:"))
	o.Object["roleRef"] = map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
	o.Object["subjects"] = []any{map[string]any{"kind": "ServiceAccount", "name": account, "namespace": m.own}}
	return m.ensure(roleBindings, namespace, o)
}

// withdraw takes back the rights in namespaces that are not granted any more.
func (m maker) withdraw(allowed []string) error {
	selector := fmt.Sprintf("slipway.dev/project=%d,slipway.dev/environment=%s", m.request.ProjectID, m.request.Slug)
	list, err := m.client.Resource(roleBindings).List(m.ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return fmt.Errorf("list the rights of the job's environment: %w", err)
	}
	for i := range list.Items {
		if o := &list.Items[i]; !slices.Contains(allowed, o.GetNamespace()) {
			err := m.client.Resource(roleBindings).Namespace(o.GetNamespace()).Delete(m.ctx, o.GetName(), metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("withdraw the job's rights in %s: %w", o.GetNamespace(), err)
			}
		}
	}
	return nil
}

// token asks the API server for a token of the account.
func (m maker) token() (string, error) {
	seconds := int64(max(m.request.Lifetime, minimumLifetime) / time.Second)
	o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"expirationSeconds": seconds}}}
	o.SetAPIVersion("authentication.k8s.io/v1")
	o.SetKind("TokenRequest")
	o.SetName(account)
	made, err := m.client.Resource(serviceAccounts).Namespace(m.own).Create(m.ctx, o, metav1.CreateOptions{}, "token")
	if err != nil {
		return "", fmt.Errorf("make a token for the job: %w", err)
	}
	token, _, err := unstructured.NestedString(made.Object, "status", "token")
	if err != nil || token == "" {
		return "", fmt.Errorf("the API server's answer has no token (%v)", err)
	}
	return token, nil
}

func kubeconfig(server string, ca []byte, namespace, token string) ([]byte, error) {
	const name = "slipway"
	c := clientcmdapi.NewConfig()
	c.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	c.AuthInfos[account] = &clientcmdapi.AuthInfo{Token: token}
	c.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: account, Namespace: namespace}
	c.CurrentContext = name
	text, err := clientcmd.Write(*c)
	if err != nil {
		return nil, fmt.Errorf("write kubeconfig: %w", err)
	}
	return text, nil
}

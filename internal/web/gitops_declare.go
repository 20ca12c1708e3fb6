package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// Where what belongs to no one application lives; "-" is no name of Kubernetes.
const (
	declarePath  = "/-/applications/-/new"
	setsPath     = "/-/applications/-/sets"
	projectsPath = "/-/applications/-/projects"
)

// inCluster is this platform's cluster, as Argo CD calls it.
const inCluster = "https://kubernetes.default.svc"

// declareView is the form of a new application, and of a manifest.
type declareView struct {
	Error                            string
	Name, Project, Repo, Path        string
	Revision, Namespace              string
	Auto, Prune, Heal, MakeNamespace bool
	Projects                         []*gitops.Project
	Repos                            []string // of the forge, that the caller may see
	Manifest                         string   // where that is what was sent
	Replace                          bool
}

// reposOffered are at most listed in the form; others can be typed.
const reposOffered = 200

func (s *Server) declareForm(w http.ResponseWriter, r *Request) error {
	if err := signedIn(r); err != nil {
		return err
	}
	v := declareView{Project: "default", Repo: r.FormValue("repo"), Path: r.FormValue("path"), Auto: true, Prune: true, Heal: true, MakeNamespace: true}
	if kind := r.FormValue("kind"); kind == gitops.KindSet || kind == gitops.KindProject {
		v.Manifest = manifestStarts[kind]
	}
	return s.renderDeclare(w, r, http.StatusOK, v)
}

func signedIn(r *Request) error {
	if r.Who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in first."}
	}
	return nil
}

func (s *Server) renderDeclare(w http.ResponseWriter, r *Request, status int, v declareView) error {
	client, err := s.Operations.Apps()
	if err != nil {
		return err
	}
	if v.Projects, err = client.Projects(r.Context()); err != nil {
		return err
	}
	list, _, err := s.Forge.Projects(r.Context(), forge.FilterFor(r.Who), reposOffered, 0)
	if err != nil {
		return err
	}
	for _, p := range list {
		v.Repos = append(v.Repos, s.ExternalURL+"/"+p.FullPath+".git")
	}
	slices.Sort(v.Repos)
	return s.render(w, r, status, "application_new", Page{Title: "New application", Data: v})
}

// manifestStarts are what an empty manifest begins with.
var manifestStarts = map[string]string{
	gitops.KindSet: `apiVersion: argoproj.io/v1alpha1
kind: ApplicationSet
metadata: {name: previews}
spec:
  goTemplate: true
  generators:
  - list: {elements: [{name: one}, {name: two}]}
  template:
    metadata: {name: 'preview-{{.name}}'}
    spec:
      project: default
      source: {repoURL: "", targetRevision: main, path: preview}
      destination: {server: "https://kubernetes.default.svc", namespace: 'preview-{{.name}}'}
      syncPolicy: {automated: {prune: true, selfHeal: true}, syncOptions: [CreateNamespace=true]}
`,
	gitops.KindProject: `apiVersion: argoproj.io/v1alpha1
kind: AppProject
metadata: {name: team}
spec:
  description: What the team deploys
  sourceRepos: ["*"]
  destinations: [{server: "https://kubernetes.default.svc", namespace: "team-*"}]
  clusterResourceWhitelist: [{group: "", kind: Namespace}]
`,
}

// declare creates what the form or the manifest says, in the caller's name:
// Argo CD decides whether that is allowed.
func (s *Server) declare(w http.ResponseWriter, r *Request) error {
	if err := signedIn(r); err != nil {
		return err
	}
	v := declareView{
		Name: strings.TrimSpace(r.FormValue("name")), Project: r.FormValue("project"), Repo: strings.TrimSpace(r.FormValue("repo")),
		Path: strings.Trim(strings.TrimSpace(r.FormValue("path")), "/"), Revision: strings.TrimSpace(r.FormValue("revision")), Namespace: strings.TrimSpace(r.FormValue("namespace")),
		Auto: r.FormValue("auto") != "", Prune: r.FormValue("prune") != "", Heal: r.FormValue("heal") != "", MakeNamespace: r.FormValue("make_namespace") != "",
		Manifest: r.FormValue("manifest"), Replace: r.FormValue("replace") != "",
	}
	text := v.Manifest
	if r.FormValue("as") != "manifest" {
		v.Manifest, v.Replace = "", false
		var err error
		if text, err = v.manifest(); err != nil {
			return err
		}
	}
	m, err := gitops.ReadManifest(text)
	if err == nil {
		err = s.declareAs(r, m, v.Replace)
	}
	if err != nil {
		if k := delivery.KindOf(err); k != delivery.Invalid && k != delivery.Conflict && k != delivery.Forbidden {
			return err
		}
		v.Error = delivery.UserMessage(err)
		return s.renderDeclare(w, r, http.StatusUnprocessableEntity, v)
	}
	s.Access.Audit(r.Context(), r.Who, "application.declared", strings.ToLower(m.Kind), 0, m.Name, "")
	return redirect(w, r, declaredAt(m.Declared), m.Kind+" "+m.Name+" is saved.")
}

func declaredAt(d gitops.Declared) string {
	switch d.Kind {
	case gitops.KindSet:
		return setsPath + "/" + url.PathEscape(d.Name)
	case gitops.KindProject:
		return projectsPath + "/" + url.PathEscape(d.Name)
	}
	return applicationPath(d.Name)
}

// checkDeclared asks the cluster, which names unknown fields, and returns what
// Argo CD is then asked with: a token in the caller's name.
func (s *Server) checkDeclared(r *Request, m *gitops.Manifest) (string, error) {
	client, err := s.Operations.Apps()
	if err != nil {
		return "", err
	}
	if err := client.Check(r.Context(), m); err != nil {
		return "", err
	}
	return s.Operations.Token(r.Context(), r.Who)
}

// declareAs asks the cluster first, then Argo CD in the caller's name.
func (s *Server) declareAs(r *Request, m *gitops.Manifest, replace bool) error {
	token, err := s.checkDeclared(r, m)
	if err != nil {
		return err
	}
	return s.Operations.Server.Declare(r.Context(), token, m, replace)
}

// manifest is the Application that the form describes.
func (v *declareView) manifest() (string, error) {
	options := []string{}
	if v.MakeNamespace {
		options = append(options, "CreateNamespace=true")
	}
	policy := map[string]any{"syncOptions": options}
	if v.Auto {
		policy["automated"] = map[string]any{"prune": v.Prune, "selfHeal": v.Heal}
	}
	revision, path := v.Revision, v.Path
	if revision == "" {
		revision = "HEAD"
	}
	if path == "" {
		path = "."
	}
	if v.Namespace == "" {
		v.Namespace = v.Name
	}
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "argoproj.io/v1alpha1", "kind": gitops.KindApplication,
		"metadata": map[string]any{"name": v.Name, "finalizers": []string{"resources-finalizer.argocd.argoproj.io"}},
		"spec": map[string]any{
			"project":     v.Project,
			"source":      map[string]any{"repoURL": v.Repo, "targetRevision": revision, "path": path},
			"destination": map[string]any{"server": inCluster, "namespace": v.Namespace},
			"syncPolicy":  policy,
		},
	})
	return string(text), err
}

// applicationEditView is an Application's specification, to be changed.
type applicationEditView struct {
	*gitops.Application
	At    string
	Error string
	Spec  string // YAML
}

func (s *Server) editForm(w http.ResponseWriter, r *Request) error {
	a, _, err := s.application(r, toManage)
	if err != nil {
		return err
	}
	client, err := s.Operations.Apps()
	if err != nil {
		return err
	}
	spec, err := client.Spec(r.Context(), a.Name)
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(spec)
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "application_edit", Page{Title: "Edit " + a.Name, Data: applicationEditView{Application: a, At: applicationPath(a.Name), Spec: string(text)}})
}

func (s *Server) edit(w http.ResponseWriter, r *Request) error {
	a, _, err := s.application(r, toManage)
	if err != nil {
		return err
	}
	v := applicationEditView{Application: a, At: applicationPath(a.Name), Spec: r.FormValue("spec")}
	m, err := gitops.Respecified(gitops.Declared{Kind: gitops.KindApplication, Name: a.Name}, v.Spec)
	if err == nil {
		err = s.respecify(r, m)
	}
	if err != nil {
		if k := delivery.KindOf(err); k != delivery.Invalid && k != delivery.Conflict && k != delivery.Forbidden {
			return err
		}
		v.Error = delivery.UserMessage(err)
		return s.render(w, r, http.StatusUnprocessableEntity, "application_edit", Page{Title: "Edit " + a.Name, Data: v})
	}
	s.Access.Audit(r.Context(), r.Who, "application.edited", "application", 0, a.Name, "")
	return redirect(w, r, v.At, "The application is saved.")
}

func (s *Server) respecify(r *Request, m *gitops.Manifest) error {
	token, err := s.checkDeclared(r, m)
	if err != nil {
		return err
	}
	return s.Operations.Server.Respecify(r.Context(), token, m)
}

package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/release"
	starterkit "github.com/slipwayhq/slipway/internal/starter"
)

// maxDetected bounds a file that is read to guess a repository's language, in bytes.
const maxDetected = 256 << 10

func (s *Server) startRoutes() {
	s.handleProject("GET /start", delivery.Developer, s.startPage)
	s.handleProject("POST /start", delivery.Maintainer, s.startDeploy)
	s.handleProject("POST /start/token", delivery.Developer, s.startToken)
	s.handleProject("POST /start/example", delivery.Developer, s.startExample)
}

// startView leads a project to its first deployment: code, files, progress.
type startView struct {
	Project   *delivery.Project
	CloneHTTP string // with the person's name, so that git asks for the password only
	CloneSSH  string
	Username  string
	Token     string // made a moment ago; shown once
	Stage     string // code, files or progress
	Live      string
	Guess     starterkit.Guess
	Choice    starterkit.Choice
	Names     starterkit.Names
	Kit       starterkit.Kit
	Languages []startLanguage
	Examples  []startLanguage
	MayDeploy bool
	Error     string
	Steps     []startStep
	Served    string // address, once it answers
	Release   string // sha that is on its way
}

type startLanguage struct{ Name, Title string }

// startStep is one line of the progress.
type startStep struct{ Title, State, Text, Link, LinkText string }

func (s *Server) startPage(w http.ResponseWriter, r *Request) error {
	v, err := s.start(r)
	if err != nil {
		return err
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "start", "start", v)
	}
	return s.showStart(w, r, http.StatusOK, v)
}

func (s *Server) showStart(w http.ResponseWriter, r *Request, status int, v startView) error {
	return s.render(w, r, status, "start", Page{Title: "First deployment", Active: "start", Data: v})
}

// start finds out how far the project has come.
func (s *Server) start(r *Request) (startView, error) {
	if r.Who.User == nil {
		return startView{}, &delivery.Error{Kind: delivery.Forbidden, Message: "Sign in as a person to deploy a project."}
	}
	p := r.Project
	v := startView{Project: p, CloneHTTP: s.Forge.HTTPURL(*p), CloneSSH: s.Forge.SSHURL(*p), Username: r.Who.User.Username, MayDeploy: r.Role >= delivery.Maintainer, Stage: "code"}
	if scheme, rest, ok := strings.Cut(v.CloneHTTP, "://"); ok {
		v.CloneHTTP = scheme + "://" + url.PathEscape(v.Username) + "@" + rest
	}
	for _, e := range starterExamples {
		v.Examples = append(v.Examples, startLanguage{e.name, e.title})
	}
	head := ""
	if !p.Empty {
		var err error
		if head, err = s.Forge.ResolveRef(r.Context(), p.ID, p.DefaultBranch); err != nil && !delivery.IsNotFound(err) {
			return v, err
		}
	}
	live := projectPath(p.FullPath, "start")
	if head == "" {
		v.Live = live
		return v, nil
	}
	placed, err := s.placed(r)
	if err != nil {
		return v, err
	}
	if placed && r.FormValue("again") == "" {
		v.Stage, v.Live = "progress", live
		return v, s.startProgress(r, &v, head)
	}
	v.Stage = "files"
	return v, s.startFiles(r, &v, head, starterkit.Language(r.FormValue("language")))
}

// startNames says what the objects of a project are called.
func (s *Server) startNames(p delivery.Project, host string) starterkit.Names {
	_, authority, _ := strings.Cut(s.ExternalURL, "://")
	n := starterkit.Names{
		Project: p.FullPath, Config: p.FullPath + "-deploy", ProjectURL: s.ExternalURL + "/" + p.FullPath, Image: authority + "/" + strings.ToLower(p.FullPath),
		Name: starterkit.Label(p.Path), Namespace: starterkit.Label(p.FullPath), Domain: s.AppsDomain, Branch: "main", CIConfig: configPath(&p),
	}
	n.ConfigURL = s.ExternalURL + "/" + n.Config + ".git"
	n.URL = "http://" + host + "." + s.AppsDomain
	if s.AppsPort != 80 && s.AppsPort != 0 {
		n.URL += ":" + strconv.Itoa(s.AppsPort)
	}
	return n
}

// freeHost proposes the first label of the address: the project's name, or the
// namespace's where another application has that already.
func (s *Server) freeHost(p delivery.Project) string {
	host, namespace := starterkit.Label(p.Path), starterkit.Label(p.FullPath)
	if s.Routes == nil {
		return host
	}
	for _, route := range s.Routes() {
		if route.Host == host+"."+s.AppsDomain && route.Namespace != namespace {
			return namespace
		}
	}
	return host
}

// startFiles guesses and renders; the caller may have chosen the language.
func (s *Server) startFiles(r *Request, v *startView, head string, want starterkit.Language) error {
	if !want.Valid() {
		want = ""
	}
	ctx, p := r.Context(), r.Project
	paths, err := s.Forge.ListFiles(ctx, p.ID, head)
	if err != nil {
		return err
	}
	var failed error
	v.Guess = starterkit.Detect(paths, configPath(p), want, func(name string) string {
		body, err := s.Forge.ReadFile(ctx, p.ID, head, name, maxDetected)
		if err != nil && !delivery.IsNotFound(err) && delivery.KindOf(err) != delivery.TooLarge {
			failed = err
		}
		return string(body)
	})
	if failed != nil {
		return failed
	}
	v.Choice = v.Guess.Choice
	v.Choice.Host = s.freeHost(*p)
	for _, l := range starterkit.Languages {
		v.Languages = append(v.Languages, startLanguage{string(l.Language), l.Title})
	}
	return s.renderKit(r, v)
}

// renderKit makes the files of the view's choice; what does not fit together
// yet is told when the person sends the form.
func (s *Server) renderKit(r *Request, v *startView) error {
	v.Names = s.startNames(*r.Project, v.Choice.Host)
	if v.Choice.Check() != nil {
		return nil
	}
	var err error
	v.Kit, err = starterkit.Render(v.Guess, v.Choice, v.Names)
	return err
}

// startDeploy makes and commits everything and hands it to Argo CD. Every step
// can be repeated, so that a second click goes on where the first one failed.
func (s *Server) startDeploy(w http.ResponseWriter, r *Request) error {
	v, err := s.start(r)
	if err != nil {
		return err
	}
	if v.Stage == "progress" {
		return redirect(w, r, projectPath(r.Project.FullPath, "start"), "")
	}
	if v.Stage == "code" {
		return delivery.Errorf(delivery.Conflict, "The repository is empty: push something first.")
	}
	port, _ := strconv.Atoi(r.FormValue("port")) // 0 is refused by Check
	v.Choice = starterkit.Choice{Language: starterkit.Language(r.FormValue("language")), Port: port, Command: strings.TrimSpace(r.FormValue("command")),
		Host: strings.TrimSpace(r.FormValue("host")), Ready: strings.TrimSpace(r.FormValue("ready"))}
	if err := v.Choice.Check(); err != nil {
		v.Error = err.Error()
		return s.showStart(w, r, http.StatusUnprocessableEntity, v)
	}
	if err := s.renderKit(r, &v); err != nil {
		return err
	}
	if err := s.deployKit(r, v); err != nil {
		switch delivery.KindOf(err) {
		case delivery.Invalid, delivery.Conflict, delivery.Forbidden, delivery.Unavailable:
			v.Error = delivery.UserMessage(err)
			return s.showStart(w, r, statusOf(delivery.KindOf(err)), v)
		}
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "start"), "Committed. The pipeline begins.")
}

func (s *Server) deployKit(r *Request, v startView) error {
	apps, err := s.applications()
	if err != nil {
		return err
	}
	config, err := s.configProject(r, v.Names.Config)
	if err != nil {
		return err
	}
	if err := s.commitMissing(r, config, v.Names.Branch, "Describe "+starterkit.Environment, v.Kit.Config); err != nil {
		return err
	}
	if err := s.Access.SetAllowance(r.Context(), r.Who, config.ID, r.Project.ID, true); err != nil {
		return err
	}
	placement := gitops.Placement{Owner: strconv.FormatInt(r.Project.ID, 10), Namespace: v.Names.Namespace, ImageFile: starterkit.Folder + "/kustomization.yaml"}
	if placement.Project, err = object(v.Kit.Project); err != nil {
		return err
	}
	if placement.Application, err = object(v.Kit.Application); err != nil {
		return err
	}
	if err := apps.Place(r.Context(), placement); err != nil {
		return err
	}
	return s.commitMissing(r, *r.Project, r.Project.DefaultBranch, "Build, check and deploy every commit", v.Kit.App)
}

func object(text string) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		return nil, fmt.Errorf("web: a manifest of the templates: %w", err)
	}
	return u, nil
}

// configProject finds or makes the GitOps project.
func (s *Server) configProject(r *Request, full string) (delivery.Project, error) {
	p, role, err := s.Access.VisibleProject(r.Context(), r.Who, full)
	if err == nil && role < delivery.Maintainer {
		return p, delivery.Errorf(delivery.Forbidden, "The manifests belong into %s, where this needs the role maintainer.", full)
	}
	if err == nil || !delivery.IsNotFound(err) {
		return p, err
	}
	return s.Forge.CreateProject(r.Context(), r.Who, forge.NewProject{
		NamespacePath: r.Project.Namespace.FullPath, Path: r.Project.Path + "-deploy", Visibility: r.Project.Visibility, DefaultBranch: "main",
		Description: "What runs of " + r.Project.FullPath + ", as files",
	})
}

// commitMissing commits the files that the branch does not have; those that it
// has are a person's.
func (s *Server) commitMissing(r *Request, p delivery.Project, branch, message string, files []starterkit.File) error {
	there := map[string]bool{}
	if sha, err := s.Forge.ResolveRef(r.Context(), p.ID, branch); err == nil {
		paths, err := s.Forge.ListFiles(r.Context(), p.ID, sha)
		if err != nil {
			return err
		}
		for _, one := range paths {
			there[one] = true
		}
	} else if !delivery.IsNotFound(err) {
		return err
	}
	n := delivery.NewCommit{Branch: branch, Message: message}
	for _, f := range files {
		if !there[f.Path] {
			n.Actions = append(n.Actions, delivery.CommitAction{Action: "create", Path: f.Path, Content: []byte(f.Content)})
		}
	}
	if len(n.Actions) == 0 {
		return nil
	}
	_, err := s.Forge.CommitFiles(r.Context(), r.Who, p, n)
	return err
}

func (s *Server) applications() (*gitops.Client, error) {
	if s.Operations == nil || s.AppsDomain == "" {
		return nil, delivery.Errorf(delivery.Unavailable, "There is no cluster on this platform to deploy to.")
	}
	return s.Operations.Apps()
}

// placed reports whether Argo CD has an Application that this page made for
// the project. A cluster that is away has none that could be shown.
func (s *Server) placed(r *Request) (bool, error) {
	apps, err := s.applications()
	if delivery.KindOf(err) == delivery.Unavailable {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	owner, err := apps.PlacedFor(r.Context(), starterkit.Label(r.Project.FullPath))
	if delivery.IsNotFound(err) || delivery.KindOf(err) == delivery.Unavailable {
		return false, nil
	}
	return owner == strconv.FormatInt(r.Project.ID, 10), err
}

// startToken makes a token to push with and shows it once.
func (s *Server) startToken(w http.ResponseWriter, r *Request) error {
	v, err := s.start(r)
	if err != nil {
		return err
	}
	_, v.Token, err = s.Access.CreatePersonalToken(r.Context(), r.Who, r.Who.User.ID, access.NewToken{
		Name: "git push to " + r.Project.FullPath, Scopes: []string{"read_repository", "write_repository"}, ExpiresAt: time.Now().UTC().AddDate(0, 0, 90),
	})
	if err != nil {
		return err
	}
	return s.showStart(w, r, http.StatusOK, v)
}

// startExample commits an example into an empty repository, for who has no
// code at hand.
func (s *Server) startExample(w http.ResponseWriter, r *Request) error {
	if !r.Project.Empty {
		return delivery.Errorf(delivery.Conflict, "The repository is not empty any more.")
	}
	for _, e := range starterExamples {
		if e.name != r.FormValue("example") {
			continue
		}
		files, err := e.read()
		if err == nil {
			err = s.commitMissing(r, *r.Project, r.Project.DefaultBranch, "Begin with an example", files)
		}
		if err != nil {
			return err
		}
		return redirect(w, r, projectPath(r.Project.FullPath, "start"), "The example is there.")
	}
	return notFound()
}

// startProgress follows the newest commit to its address.
func (s *Server) startProgress(r *Request, v *startView, head string) error {
	apps, err := s.applications()
	if err != nil {
		return err
	}
	p := r.Project
	v.Names, v.Release = s.startNames(*p, starterkit.Label(p.Path)), head
	app, err := apps.Get(r.Context(), v.Names.Namespace)
	if err != nil {
		return err
	}
	var rel release.Release
	if s.Timeline != nil {
		if rel, err = s.Timeline.Release(r.Context(), *p, head); err != nil && !delivery.IsNotFound(err) {
			return err
		}
	}
	v.Steps = append(v.Steps, startStep{"Files", "success", "In " + p.FullPath + " and " + v.Names.Config + ".", "/" + v.Names.Config, "Manifests"})
	v.Steps = append(v.Steps, pipelineStep(p, rel), imageStep(p, rel), syncStep(app))
	served := startStep{"Served", "created", "Nobody is served by this commit yet.", "", ""}
	for _, d := range rel.Environments {
		if d.Environment != starterkit.Environment {
			continue
		}
		if d.Weight == 100 {
			v.Served = s.addressOf(v.Names.Namespace)
		}
		switch {
		case v.Served != "":
			served = startStep{"Served", "success", "All users get this commit.", v.Served, v.Served}
		case rel.Status == release.RolledBack || rel.Status == release.Failed:
			served = startStep{"Served", "failed", rel.Sentence, "", ""}
		default:
			served = startStep{"Served", "running", rel.Sentence, projectPath(p.FullPath, "releases-timeline", head), "Watch it"}
		}
	}
	v.Steps = append(v.Steps, served)
	if v.Served != "" {
		v.Live = ""
	}
	return nil
}

// addressOf is where the ingress serves an application of the namespace that
// has pods to answer; "" while there is none.
func (s *Server) addressOf(namespace string) string {
	if s.Routes == nil {
		return ""
	}
	for _, route := range s.Routes() {
		if route.Namespace == namespace && route.Endpoints > 0 && route.URL != "" {
			return route.URL
		}
	}
	return ""
}

func pipelineStep(p *delivery.Project, rel release.Release) startStep {
	if len(rel.Pipelines) == 0 {
		return startStep{"Pipeline", "pending", "It is about to be made.", projectPath(p.FullPath, "pipelines"), "Pipelines"}
	}
	one := rel.Pipelines[0]
	step := startStep{"Pipeline", one.Status, "", projectPath(p.FullPath, "pipelines", strconv.FormatInt(one.ID, 10)), fmt.Sprintf("Pipeline #%d", one.ID)}
	var parts []string
	for _, j := range one.Jobs {
		parts = append(parts, j.Name+" "+strings.ReplaceAll(j.Status, "_", " "))
	}
	if step.Text = strings.Join(parts, ", "); one.Error != "" {
		step.Text = one.Error
	}
	return step
}

func imageStep(p *delivery.Project, rel release.Release) startStep {
	for _, i := range rel.Images {
		if i.Repository == strings.ToLower(p.FullPath) {
			text := delivery.BytesText(i.Size)
			if i.Scan != nil && i.Scan.Status == "success" {
				text += ", scanned"
			}
			return startStep{"Image", "success", text, projectPath(p.FullPath, "container_registry"), short(strings.TrimPrefix(i.Digest, "sha256:"))}
		}
	}
	return startStep{"Image", "created", "Made by the pipeline.", "", ""}
}

func syncStep(app *gitops.Application) startStep {
	step := startStep{"Argo CD", "running", strings.TrimSpace(app.Sync.Status + " " + short(app.Sync.Revision)), "/-/applications/" + app.Name, app.Name}
	switch {
	case app.Failed() != "":
		step.State, step.Text = "failed", app.Failed()
	case app.Waiting():
		step.State, step.Text = "created", "Waits for the first image."
	case app.Sync.Status == "Synced":
		step.State = "success"
	}
	return step
}

// mayStart tells a page whether the project could be deployed from here.
func (s *Server) mayStart(r *Request) bool {
	return s.Operations != nil && s.AppsDomain != "" && r.Who.User != nil && r.Role >= delivery.Developer
}

// example is a small program that the templates can deploy.
type example struct {
	name, title string
	files       []string // below starters/examples; where they go is after the arrow
}

var starterExamples = []example{
	{"static", "A static page", []string{"index.html > public/index.html"}},
	{"python", "A Python service", []string{"main.py > main.py", "test_main.py > test_main.py"}},
}

func (e example) read() ([]starterkit.File, error) {
	var out []starterkit.File
	for _, one := range e.files {
		from, to, _ := strings.Cut(one, " > ")
		body, err := starters.ReadFile("starters/examples/" + from)
		if err != nil {
			return nil, fmt.Errorf("web: %w", err)
		}
		out = append(out, starterkit.File{Path: to, Content: string(body)})
	}
	return out, nil
}

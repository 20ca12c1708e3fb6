package web

import (
	"embed"
	"fmt"
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

//go:embed starters
var starters embed.FS

// starter is a configuration to begin with.
type starter struct{ Name, Title, About string }

var starterList = []starter{
	{"python", "Python", "pytest with reports, then an image"},
	{"go", "Go", "vet, tests, a binary and an image"},
	{"node", "Node", "lint, test, build, with npm's cache"},
	{"static", "Static site", "publish a folder"},
	{"docker", "Dockerfile", "build, scan and publish an image"},
	{"minimal", "Minimal", "three stages to fill in"},
}

const maxConfig = 2 << 20 // bytes

func (s *Server) editorRoutes() {
	s.handleProject("GET /ci/editor", delivery.Developer, s.editorPage)
	s.handleProject("POST /ci/editor", delivery.Developer, s.commitConfig)
	s.handleProject("POST /ci/lint", delivery.Developer, s.lintPage)
	s.handleProject("GET /ci/lint", delivery.Developer, func(w http.ResponseWriter, r *Request) error {
		return redirect(w, r, projectPath(r.Project.FullPath, "ci", "editor"), "")
	})
}

// editorView is the pipeline editor.
type editorView struct {
	Project  *delivery.Project
	Path     string
	Branch   string // the file is from here
	Target   string // and will be committed to this branch
	Base     string // commit that the file was read at
	Content  string
	Exists   bool
	Message  string
	Branches []delivery.Ref
	Starters []starter
	Lint     lintView
	Error    string
}

// lintView is the verdict on a configuration.
type lintView struct {
	Empty    bool
	Valid    bool
	Errors   []gitlabci.Diagnostic
	Warnings []gitlabci.Diagnostic
	Runs     bool
	Reason   string
	Columns  []graphColumn
	DAG      dagView
	Jobs     int
	HasNeeds bool
	Merged   string
}

func (s *Server) editorPage(w http.ResponseWriter, r *Request) error {
	v := editorView{Branch: r.FormValue("branch")}
	if v.Branch == "" {
		v.Branch = r.Project.DefaultBranch
	}
	v.Target = v.Branch
	if err := s.loadConfig(r, &v); err != nil {
		return err
	}
	if name := r.FormValue("template"); name != "" && !v.Exists {
		body, err := starters.ReadFile("starters/" + name + ".yml")
		if err != nil || strings.ContainsAny(name, "/.") {
			return notFound()
		}
		v.Content = string(body)
	}
	return s.showEditor(w, r, http.StatusOK, v)
}

// loadConfig reads the configuration of the branch.
func (s *Server) loadConfig(r *Request, v *editorView) error {
	v.Path = configPath(r.Project)
	if r.Project.Empty {
		return nil
	}
	ref, err := s.Forge.Branch(r.Context(), *r.Project, v.Branch)
	if err != nil {
		return err
	}
	v.Base = ref.SHA
	body, err := s.Forge.ReadFile(r.Context(), r.Project.ID, ref.SHA, v.Path, maxConfig)
	if delivery.IsNotFound(err) {
		return nil
	}
	v.Content, v.Exists = string(body), err == nil
	return err
}

func (s *Server) showEditor(w http.ResponseWriter, r *Request, status int, v editorView) error {
	var err error
	v.Project, v.Starters, v.Path = r.Project, starterList, configPath(r.Project)
	if v.Message == "" {
		v.Message = "Update " + v.Path
		if !v.Exists {
			v.Message = "Add " + v.Path
		}
	}
	if v.Branches, _, err = s.allRefs(r); err != nil {
		return err
	}
	if v.Lint, err = s.lint(r, v.Branch, v.Content); err != nil {
		return err
	}
	return s.render(w, r, status, "ci_editor", Page{Title: "Pipeline editor", Active: "editor", Data: v})
}

// lint compiles a configuration and draws what a push to the branch would run.
func (s *Server) lint(r *Request, branch, content string) (lintView, error) {
	var v lintView
	if strings.TrimSpace(content) == "" {
		v.Empty = true
		return v, nil
	}
	req := pipeline.LintRequest{UserID: r.Who.User.ID, ProjectID: r.Project.ID, Content: content, Ref: branch, DryRun: true}
	result, err := s.Pipelines.Lint(r.Context(), req)
	if err != nil {
		return v, err
	}
	v.Valid, v.Merged = result.Valid, result.MergedYAML
	v.Errors, v.Warnings = result.Details.Errors(), result.Details.Warnings()
	if result.Plan == nil || !result.Valid {
		return v, nil
	}
	v.Runs, v.Reason, v.Jobs = result.Plan.Run, result.Plan.Reason, len(result.Plan.Jobs)
	v.Columns = planGraph(result.Plan)
	for _, j := range result.Plan.Jobs {
		v.HasNeeds = v.HasNeeds || j.Needs != nil
	}
	if v.HasNeeds {
		v.DAG = layout(v.Columns)
	}
	return v, nil
}

// readEditor reads the editor's form.
func (s *Server) readEditor(r *Request) (editorView, error) {
	v := editorView{Branch: strings.TrimSpace(r.FormValue("branch")), Target: strings.TrimSpace(r.FormValue("target")), Base: r.FormValue("base"), Message: strings.TrimSpace(r.FormValue("message")),
		Content: strings.ReplaceAll(r.FormValue("content"), "\r\n", "\n"), Exists: r.FormValue("exists") != ""}
	if v.Branch == "" {
		v.Branch = r.Project.DefaultBranch
	}
	if v.Target == "" {
		v.Target = v.Branch
	}
	if len(v.Content) > maxConfig {
		return v, delivery.Errorf(delivery.TooLarge, "The configuration is larger than %d bytes.", maxConfig)
	}
	return v, nil
}

// lintPage answers with the verdict, as a fragment for the script or with the
// whole editor without it.
func (s *Server) lintPage(w http.ResponseWriter, r *Request) error {
	v, err := s.readEditor(r)
	if err != nil {
		return err
	}
	if r.Header.Get("X-Fragment") == "" {
		return s.showEditor(w, r, http.StatusOK, v)
	}
	verdict, err := s.lint(r, v.Branch, v.Content)
	if err != nil {
		return err
	}
	return s.fragment(w, "ci_editor", "lint", verdict)
}

func (s *Server) commitConfig(w http.ResponseWriter, r *Request) error {
	v, err := s.readEditor(r)
	if err != nil {
		return err
	}
	if v.Message == "" {
		v.Message = "Update " + configPath(r.Project)
	}
	if !strings.HasSuffix(v.Content, "\n") {
		v.Content += "\n"
	}
	action := delivery.CommitAction{Action: "create", Path: configPath(r.Project), Content: []byte(v.Content)}
	if v.Exists {
		action.Action, action.LastCommit = "update", v.Base
	}
	n := delivery.NewCommit{Branch: v.Target, Message: v.Message, Actions: []delivery.CommitAction{action}}
	if v.Target != v.Branch {
		n.StartBranch = v.Branch
	}
	if _, err := s.Forge.CommitFiles(r.Context(), r.Who, *r.Project, n); err != nil {
		switch delivery.KindOf(err) {
		case delivery.Invalid, delivery.Conflict, delivery.Forbidden, delivery.NotFound:
			v.Error = delivery.UserMessage(err)
			return s.showEditor(w, r, statusOf(delivery.KindOf(err)), v)
		}
		return err
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "pipelines")+"?ref="+escapePath(v.Target), fmt.Sprintf("Committed to %s. The pipeline appears below as soon as it is made.", v.Target))
}

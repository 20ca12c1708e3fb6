package starter

import (
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"text/template"
)

//go:embed files
var files embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{"json": quoted, "base": path.Base}).ParseFS(files, "files/*"))

// quoted writes a value as JSON, which is YAML and the form of a CMD as well.
func quoted(v any) (string, error) {
	b, err := json.Marshal(v)
	return strings.ReplaceAll(string(b), `","`, `", "`), err
}

// view is what the templates see.
type view struct {
	Guess
	Names
	Environment, Folder string // of the manifests
	Site                string // folder of a static site
	NeedsCIImage        bool
	Keep                bool // the Dockerfile is the repository's own
}

// Render makes the files of a choice. What the repository already has is not
// made again.
func Render(g Guess, c Choice, n Names) (Kit, error) {
	if err := c.Check(); err != nil {
		return Kit{}, err
	}
	g.Choice = c
	v := view{Guess: g, Names: n, Environment: Environment, Folder: Folder, Site: g.Folder, Keep: g.Dockerfile}
	// An own Dockerfile has no stage of the templates.
	v.NeedsCIImage = !g.Dockerfile && (c.Language == Python || c.Language == Go || c.Language == Node)
	var k Kit
	var failed error
	make := func(name string) string {
		var b strings.Builder
		if err := templates.ExecuteTemplate(&b, name, v); err != nil && failed == nil {
			failed = fmt.Errorf("starter: %s: %w", name, err)
		}
		return b.String()
	}
	add := func(list *[]File, path, name, about string) {
		*list = append(*list, File{path, make(name), about})
	}
	if !g.Pipeline {
		add(&k.App, n.CIConfig, "pipeline.yml", "the pipeline: build, test, scan, deploy")
	} else {
		k.Snippet = make("snippet.yml")
	}
	if !g.Dockerfile && c.Language != Docker {
		add(&k.App, "Dockerfile", string(c.Language)+".Dockerfile", "the image")
		if c.Language == Static {
			add(&k.App, "nginx.conf", "nginx.conf", "the web server in it")
		}
	}
	if !g.Ignore {
		add(&k.App, ".dockerignore", "dockerignore", "what the image does not need")
	}
	add(&k.Config, "README.md", "README.md", "what is where")
	add(&k.Config, Folder+"/kustomization.yaml", "kustomization.yaml", "the version that production runs")
	add(&k.Config, Folder+"/rollout.yaml", "rollout.yaml", "the pods, and how a new version reaches its users")
	add(&k.Config, Folder+"/service.yaml", "service.yaml", "addresses inside the cluster")
	add(&k.Config, Folder+"/ingress.yaml", "ingress.yaml", "the address for users")
	k.Project, k.Application = make("project.yaml"), make("application.yaml")
	k.Config = append(k.Config,
		File{"argocd/project.yaml", k.Project, "what this repository may change in the cluster"},
		File{"argocd/application.yaml", k.Application, "tells Argo CD to follow this repository"})
	return k, failed
}

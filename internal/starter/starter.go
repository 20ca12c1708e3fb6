// Package starter makes the first files of a repository's way to production: a
// pipeline, a Dockerfile, and the manifests with the Argo CD objects that apply
// them.
//
// It receives the paths of a repository and a function that reads them, guesses
// the language, and emits files. It is pure: who commits and applies them is
// not known here. It must import nothing of ours.
package starter

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Language is what a template fits.
type Language string

// The languages that have templates. Docker is any with a Dockerfile of its own.
const (
	Python Language = "python"
	Go     Language = "go"
	Node   Language = "node"
	Static Language = "static"
	Docker Language = "docker"
)

// Languages lists them for a form.
var Languages = []struct {
	Language Language
	Title    string
}{{Python, "Python"}, {Go, "Go"}, {Node, "Node"}, {Static, "Static site"}, {Docker, "Own Dockerfile"}}

// Valid reports whether there are templates for the language.
func (l Language) Valid() bool {
	for _, one := range Languages {
		if one.Language == l {
			return true
		}
	}
	return false
}

// Choice is what a person confirms or corrects before files are made.
type Choice struct {
	Language Language
	Port     int    // on which the program listens, 1 to 65535; above 1023, as it is not root
	Command  string // that starts it, split at spaces; unused for Static and Docker
	Host     string // first label of its address
	Ready    string // path that answers 200 when it is ready; empty: an open port is enough
}

// Guess is what the files of a repository say.
type Guess struct {
	Choice
	Why        string // the file that decided, for a person
	Tests      bool   // there are tests to run
	Folder     string // of a static site's files, "." for the root
	Version    string // of the language, where a file names one
	Build      string // Go: the package to build; Node: "build" where there is such a script
	Lock       bool   // Python: there is a requirements.txt; Node: a package-lock.json
	Pipeline   bool   // there is a pipeline already
	Dockerfile bool   // there is a Dockerfile already
	Ignore     bool   // there is a .dockerignore already
}

// Names are what the files must know of the platform.
type Names struct {
	Project    string // full path, such as acme/web
	Config     string // full path of the GitOps project
	ConfigURL  string // its address, with .git
	ProjectURL string
	Image      string // image name without tag
	Name       string // of the objects in the cluster
	Namespace  string
	Domain     string // of the applications
	URL        string // where the application will be
	Branch     string // default branch of the GitOps project
	CIConfig   string // path of the pipeline's file
}

// File is one file to commit.
type File struct {
	Path    string
	Content string
	About   string // in a few words
}

// Kit is everything that is made.
type Kit struct {
	App         []File // into the application's repository; none replaces a file that is there
	Config      []File // into the GitOps repository
	Project     string // Argo CD AppProject, as YAML
	Application string // Argo CD Application, as YAML
	Snippet     string // what to add to a pipeline that exists already
}

// Folder of the environment in the GitOps repository, which names it too.
const (
	Environment = "production"
	Folder      = "environments/" + Environment
)

var (
	label    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	notLabel = regexp.MustCompile(`[^a-z0-9]+`)
	readable = regexp.MustCompile(`^/[A-Za-z0-9/_.~-]*$`)
	plain    = regexp.MustCompile(`^[A-Za-z0-9 _./:@=,+\[\]'-]*$`)
)

// Label makes a DNS label of a path: "Acme/Web_Shop" becomes "acme-web-shop".
// It is cut at 50 characters, so that a suffix fits.
func Label(s string) string {
	s = strings.Trim(notLabel.ReplaceAllString(strings.ToLower(s), "-"), "-")
	if len(s) > 50 {
		s = strings.TrimRight(s[:50], "-")
	}
	if s == "" {
		return "app"
	}
	return s
}

// Check says in a sentence what is wrong with a choice.
func (c Choice) Check() error {
	switch {
	case !c.Language.Valid():
		return fmt.Errorf("There are no templates for %q.", c.Language)
	case c.Port < 1024 || c.Port > 65535:
		return fmt.Errorf("The port must be from 1024 to 65535; the program does not run as root.")
	case !label.MatchString(c.Host):
		return fmt.Errorf("The address must begin with lower-case letters, digits and '-', at most 63 of them.")
	case c.Ready != "" && !readable.MatchString(c.Ready):
		return fmt.Errorf("The path of the readiness check must begin with / and hold letters, digits and /_.~- only.")
	case c.needsCommand() && strings.TrimSpace(c.Command) == "":
		return fmt.Errorf("The command that starts the program is missing.")
	case !plain.MatchString(c.Command):
		return fmt.Errorf("The command may hold letters, digits, spaces and _./:@=,+[]'- only; put more into a script.")
	}
	return nil
}

func (c Choice) needsCommand() bool { return c.Language == Python || c.Language == Node }

// Words splits the command at spaces.
func (c Choice) Words() []string { return strings.Fields(c.Command) }

// has answers questions about the paths of a repository.
type has map[string]bool

func (h has) first(paths ...string) string {
	for _, p := range paths {
		if h[p] {
			return p
		}
	}
	return ""
}

func (h has) match(ok func(string) bool) string {
	best := ""
	for p := range h {
		if ok(p) && (best == "" || p < best) {
			best = p
		}
	}
	return best
}

// Detect guesses from the paths of a repository's files; read returns the
// content of one of them, and "" where it cannot be read. A want that is not
// empty is taken for the language whatever the files say.
func Detect(paths []string, ciConfig string, want Language, read func(string) string) Guess {
	h := has{}
	for _, p := range paths {
		h[p] = true
	}
	g := Guess{Choice: Choice{Port: 8080}, Folder: "."}
	page := h.first("public/index.html", "index.html", "dist/index.html", "site/index.html", "docs/index.html")
	if want == "" {
		switch {
		case h["go.mod"]:
			want = Go
		case h["package.json"]:
			want = Node
		case h.first(pythonMarks...) != "" || h.match(topLevel(".py")) != "":
			want = Python
		case page != "":
			want = Static
		case h["Dockerfile"]:
			want = Docker
		}
	}
	switch want {
	case Go:
		g.goModule(h, read)
	case Node:
		g.node(h, read)
	case Python:
		g.python(h, read)
	case Static:
		g.Language, g.Ready = Static, "/"
		if page != "" {
			g.Why, g.Folder = page, path.Dir(page)
		}
	case Docker:
		g.Language = Docker
	}
	if g.Why != "" && !h[g.Why] {
		g.Why = ""
	}
	g.Pipeline, g.Dockerfile, g.Ignore = h[ciConfig], h["Dockerfile"], h[".dockerignore"]
	if g.Dockerfile {
		g.fromDockerfile(read("Dockerfile"))
	}
	return g
}

var pythonMarks = []string{"requirements.txt", "pyproject.toml", "setup.py", "Pipfile", "manage.py"}

func topLevel(suffix string) func(string) bool {
	return func(p string) bool { return !strings.Contains(p, "/") && strings.HasSuffix(p, suffix) }
}

var exposed = regexp.MustCompile(`(?mi)^EXPOSE\s+(\d{1,5})`)

// fromDockerfile takes over what an own Dockerfile says: it is kept.
func (g *Guess) fromDockerfile(text string) {
	if g.Language == Docker {
		g.Why = "Dockerfile"
	}
	if m := exposed.FindAllStringSubmatch(text, -1); m != nil {
		fmt.Sscan(m[len(m)-1][1], &g.Port)
	}
}

var readyPaths = regexp.MustCompile(`["'](/(?:readyz|ready|healthz|health))["']`)

func readiness(text string) string {
	if m := readyPaths.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

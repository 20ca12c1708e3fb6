package starter

import (
	"strings"
	"testing"
)

// repository is a sample repository: path -> content.
type repository map[string]string

func (r repository) detect(want Language) Guess {
	var paths []string
	for p := range r {
		paths = append(paths, p)
	}
	return Detect(paths, ".gitlab-ci.yml", want, func(p string) string { return r[p] })
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files repository
		want  Language
		check func(Guess) bool
	}{
		"FastAPI": {repository{"requirements.txt": "fastapi\nuvicorn\n", "app/main.py": "app = FastAPI(title=\"x\")\n@app.get(\"/healthz\")\n", "tests/test_a.py": ""}, Python,
			func(g Guess) bool {
				return g.Command == "uvicorn app.main:app --host 0.0.0.0 --port 8080" && g.Tests && g.Lock && g.Ready == "/healthz" && g.Why == "requirements.txt"
			}},
		"Flask behind gunicorn": {repository{"requirements.txt": "Flask==3\ngunicorn\n", "app.py": "web: Flask = Flask(__name__)\n"}, Python,
			func(g Guess) bool { return g.Command == "gunicorn --bind 0.0.0.0:8080 app:web" && !g.Tests }},
		"plain Python": {repository{"main.py": "if __name__ == '__main__':\n    serve()\n"}, Python, func(g Guess) bool { return g.Command == "python3 main.py" && !g.Lock && g.Why == "main.py" }},
		"Django":       {repository{"manage.py": "", "requirements.txt": "django"}, Python, func(g Guess) bool { return strings.HasPrefix(g.Command, "python3 manage.py runserver 0.0.0.0:") }},
		"Go in cmd": {repository{"go.mod": "module x\n\ngo 1.24.1\n", "cmd/server/main.go": `mux.Handle("/readyz", ok)`, "x_test.go": ""}, Go,
			func(g Guess) bool {
				return g.Build == "./cmd/server" && g.Version == "1.24.1" && g.Tests && g.Ready == "/readyz"
			}},
		"Go with a toolchain": {repository{"go.mod": "module x\n\ngo 1.24\n\ntoolchain go1.25.3\n", "main.go": ""}, Go, func(g Guess) bool { return g.Version == "1.25.3" && g.Build == "." }},
		"Go of two numbers":   {repository{"go.mod": "module x\ngo 1.23\n", "main.go": ""}, Go, func(g Guess) bool { return g.Version == "1.23.0" }},
		"old Go":              {repository{"go.mod": "module x\ngo 1.16\n", "main.go": ""}, Go, func(g Guess) bool { return g.Version == fallbackGo }},
		"Node": {repository{"package.json": `{"scripts":{"start":"node server.js","test":"node --test","build":"tsc"}}`, "package-lock.json": "{}", "server.js": "'/health'"}, Node,
			func(g Guess) bool {
				return g.Command == "node server.js" && g.Tests && g.Lock && g.Build == "build" && g.Ready == "/health"
			}},
		"Node without scripts": {repository{"package.json": `{"scripts":{"test":"echo \"Error: no test specified\" && exit 1"}}`, "index.js": ""}, Node,
			func(g Guess) bool { return g.Command == "node index.js" && !g.Tests && !g.Lock }},
		"a broken package.json": {repository{"package.json": `{`, "index.js": ""}, Node, func(g Guess) bool { return g.Command == "node index.js" }},
		"a site in public":      {repository{"public/index.html": "", "README.md": ""}, Static, func(g Guess) bool { return g.Folder == "public" && g.Ready == "/" }},
		"a site at the root":    {repository{"index.html": ""}, Static, func(g Guess) bool { return g.Folder == "." }},
		"only a Dockerfile":     {repository{"Dockerfile": "FROM x\nEXPOSE 9000/tcp\n", "main.rs": ""}, Docker, func(g Guess) bool { return g.Port == 9000 && g.Dockerfile && g.Why == "Dockerfile" }},
		"Go with a Dockerfile":  {repository{"go.mod": "module x\ngo 1.26.0\n", "main.go": "", "Dockerfile": "FROM x"}, Go, func(g Guess) bool { return g.Dockerfile && g.Port == 8080 }},
		"nothing known":         {repository{"README.md": ""}, "", func(g Guess) bool { return g.Why == "" }},
		"everything is there":   {repository{"main.py": "", ".gitlab-ci.yml": "", ".dockerignore": ""}, Python, func(g Guess) bool { return g.Pipeline && g.Ignore }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := c.files.detect("")
			if g.Language != c.want || !c.check(g) {
				t.Errorf("%+v", g)
			}
		})
	}
	if g := (repository{"go.mod": "module x\n", "index.html": ""}).detect(Static); g.Language != Static || g.Folder != "." || g.Why != "index.html" {
		t.Errorf("what a person says comes first: %+v", g)
	}
}

var names = Names{Project: "acme/web", Config: "acme/web-deploy", ConfigURL: "http://forge/acme/web-deploy.git", ProjectURL: "http://forge/acme/web", Image: "forge/acme/web",
	Name: "web", Namespace: "acme-web", Domain: "apps.example", URL: "http://web.apps.example", Branch: "main", CIConfig: ".gitlab-ci.yml"}

func content(t *testing.T, list []File, path string) string {
	t.Helper()
	for _, f := range list {
		if f.Path == path {
			return f.Content
		}
	}
	t.Errorf("there is no %s", path)
	return ""
}

func TestRenderKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	g := repository{"go.mod": "module x\ngo 1.26.0\n", "main.go": "", "Dockerfile": "FROM x", ".gitlab-ci.yml": "x", ".dockerignore": ""}.detect("")
	g.Host = "web"
	k, err := Render(g, g.Choice, names)
	if err != nil || len(k.App) != 0 {
		t.Fatalf("%v: %+v", err, k.App)
	}
	if !strings.Contains(k.Snippet, "repository: acme/web-deploy") {
		t.Errorf("the snippet: %s", k.Snippet)
	}
	// An image of one's own may run as root.
	if r := content(t, k.Config, "environments/production/rollout.yaml"); strings.Contains(r, "runAsUser") || strings.Contains(r, "volumeMounts") {
		t.Error(r)
	}
}

func TestRenderFitsTheLanguage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files repository
		want  map[string][]string // file -> texts
	}{
		"static": {repository{"public/index.html": ""}, map[string][]string{"Dockerfile": {"COPY public/ /srv/", "EXPOSE 8080"}, "nginx.conf": {"listen 8080;"}, ".gitlab-ci.yml": {"stages: [build, scan, deploy]"}}},
		"python": {repository{"requirements.txt": "flask", "app.py": "app = Flask(__name__)", "test_app.py": ""},
			map[string][]string{"Dockerfile": {"pip install -q -r requirements.txt", `CMD ["flask", "--app", "app:app", "run"`, "python3-pytest"}, ".gitlab-ci.yml": {"template: Test.gitlab-ci.yml", "needs: [build-image, build-ci-image, test, scan-image]"}}},
		"go":   {repository{"go.mod": "module x\ngo 1.25.1\n", "cmd/x/main.go": "", "x_test.go": ""}, map[string][]string{"Dockerfile": {"GO_VERSION=1.25.1", "/out/app ./cmd/x"}, ".gitlab-ci.yml": {"go test -coverprofile"}}},
		"node": {repository{"package.json": `{"scripts":{"start":"node s.js"}}`}, map[string][]string{"Dockerfile": {`CMD ["node", "s.js"]`, "npm install"}, ".gitlab-ci.yml": {"needs: [build-image, build-ci-image, scan-image]"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := c.files.detect("")
			g.Host = "web"
			k, err := Render(g, g.Choice, names)
			if err != nil {
				t.Fatal(err)
			}
			for file, texts := range c.want {
				body := content(t, k.App, file)
				for _, text := range texts {
					if !strings.Contains(body, text) {
						t.Errorf("%s lacks %q:\n%s", file, text, body)
					}
				}
			}
			if !strings.Contains(content(t, k.App, "Dockerfile"), "FROM debian:bookworm-slim") {
				t.Error("the image does not begin with the base that is always there")
			}
			for _, f := range append(k.App, k.Config...) {
				if strings.Contains(f.Content, "<no value>") || !strings.HasSuffix(f.Content, "\n") || f.About == "" {
					t.Errorf("%s: %q", f.Path, f.Content)
				}
			}
		})
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := Choice{Language: Python, Port: 8080, Command: "python3 main.py", Host: "web", Ready: "/healthz"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Choice){
		"no templates":    func(c *Choice) { c.Language = "cobol" },
		"port":            func(c *Choice) { c.Port = 80 },
		"address":         func(c *Choice) { c.Host = "a.b" },
		"readiness":       func(c *Choice) { c.Ready = "/x\"}" },
		"command that":    func(c *Choice) { c.Command = "  " },
		"The command may": func(c *Choice) { c.Command = "sh -c \"a && b\"" },
	} {
		c := good
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestLabel(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"acme/web": "acme-web", "Acme/Web_Shop.v2": "acme-web-shop-v2", "--": "app", strings.Repeat("x", 80): strings.Repeat("x", 50)} {
		if got := Label(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

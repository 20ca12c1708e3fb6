package starter

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"
)

var (
	goVersion = regexp.MustCompile(`(?m)^(?:toolchain go|go )(\d+\.\d+(?:\.\d+)?)\s*$`)
	fastAPI   = regexp.MustCompile(`(?m)^(\w+)\s*(?::[^=\n]+)?=\s*FastAPI\(`)
	flask     = regexp.MustCompile(`(?m)^(\w+)\s*(?::[^=\n]+)?=\s*Flask\(`)
	mainGuard = regexp.MustCompile(`__name__\s*==\s*["']__main__["']`)
)

// fallbackGo is used where go.mod names a version without a toolchain of its own.
const fallbackGo = "1.26.0"

func (g *Guess) goModule(h has, read func(string) string) {
	g.Language, g.Why, g.Version, g.Build = Go, "go.mod", fallbackGo, "."
	for _, m := range goVersion.FindAllStringSubmatch(read("go.mod"), -1) {
		g.Version = m[1] // the toolchain line comes after the go line
	}
	// Toolchains have three numbers since 1.21; older ones are not served.
	if minor := 0; strings.Count(g.Version, ".") == 1 {
		fmt.Sscanf(g.Version, "1.%d", &minor)
		if g.Version += ".0"; minor < 21 {
			g.Version = fallbackGo
		}
	}
	main := h.first("main.go")
	if main == "" {
		main = h.match(func(p string) bool { return strings.HasPrefix(p, "cmd/") && strings.HasSuffix(p, "/main.go") })
	}
	if dir := path.Dir(main); main != "" && dir != "." {
		g.Build = "./" + dir
	}
	g.Tests = h.match(func(p string) bool { return strings.HasSuffix(p, "_test.go") }) != ""
	g.Ready = readiness(read(main))
}

func (g *Guess) node(h has, read func(string) string) {
	g.Language, g.Why, g.Lock = Node, "package.json", h["package-lock.json"]
	var p struct {
		Main    string
		Scripts map[string]string
	}
	// A package.json that cannot be read gives no hints; npm will tell more.
	if err := json.Unmarshal([]byte(read("package.json")), &p); err != nil {
		p.Main, p.Scripts = "", nil
	}
	start := p.Scripts["start"]
	switch entry := h.first(p.Main, "server.js", "index.js", "app.js", "src/index.js", "dist/index.js"); {
	case strings.HasPrefix(start, "node ") && plain.MatchString(start):
		g.Command = start
	case entry != "":
		g.Command = "node " + entry
	case p.Main != "":
		g.Command = "node " + p.Main // made by the build
	}
	if p.Scripts["build"] != "" {
		g.Build = "build"
	}
	test := p.Scripts["test"]
	g.Tests = test != "" && !strings.Contains(test, "no test specified")
	if words := strings.Fields(g.Command); len(words) > 1 {
		g.Ready = readiness(read(words[1]))
	}
}

func (g *Guess) python(h has, read func(string) string) {
	g.Language, g.Lock = Python, h["requirements.txt"]
	g.Why = h.first(pythonMarks...)
	if g.Why == "" {
		g.Why = h.match(topLevel(".py"))
	}
	g.Tests = h.match(func(p string) bool {
		base := path.Base(p)
		return strings.HasPrefix(base, "test_") && strings.HasSuffix(base, ".py") || strings.HasSuffix(base, "_test.py")
	}) != ""
	listen := "0.0.0.0"
	for _, p := range []string{"main.py", "app.py", "app/main.py", "app/__init__.py", "src/main.py", "server.py", "wsgi.py", "asgi.py"} {
		if !h[p] {
			continue
		}
		text := read(p)
		module := strings.ReplaceAll(strings.TrimSuffix(strings.TrimSuffix(p, ".py"), "/__init__"), "/", ".")
		if m := fastAPI.FindStringSubmatch(text); m != nil {
			g.Command, g.Ready = fmt.Sprintf("uvicorn %s:%s --host %s --port %d", module, m[1], listen, g.Port), readiness(text)
			return
		}
		if m := flask.FindStringSubmatch(text); m != nil {
			g.Command = fmt.Sprintf("flask --app %s:%s run --host %s --port %d", module, m[1], listen, g.Port)
			if strings.Contains(strings.ToLower(read("requirements.txt")), "gunicorn") {
				g.Command = fmt.Sprintf("gunicorn --bind %s:%d %s:%s", listen, g.Port, module, m[1])
			}
			g.Ready = readiness(text)
			return
		}
		if g.Command == "" && mainGuard.MatchString(text) {
			g.Command, g.Ready = "python3 "+p, readiness(text)
		}
	}
	if h["manage.py"] {
		g.Command = fmt.Sprintf("python3 manage.py runserver %s:%d", listen, g.Port)
	}
	if g.Command == "" {
		if p := h.first("main.py", "app.py", "server.py"); p != "" {
			g.Command = "python3 " + p
		}
	}
}

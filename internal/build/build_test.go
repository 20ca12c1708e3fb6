package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	"github.com/slipwayhq/slipway/internal/toolwire"
)

func TestNearRegistries(t *testing.T) {
	t.Parallel()
	c := DaemonConfig{Registries: map[string]Registry{
		"git.example.com": {Mirrors: []string{"192.0.2.2:8080"}}, "192.0.2.2:8080": {PlainHTTP: true}, "docker.io": {Mirrors: []string{"192.0.2.2:8080/docker.io"}},
	}}
	for registry, want := range map[string]string{"git.example.com": "192.0.2.2:8080", "docker.io": "", "192.0.2.2:8080": "", "other": ""} {
		if got := c.near(registry); got != want {
			t.Errorf("near %s is %q, want %q", registry, got, want)
		}
	}
	if got := c.registryBehind("192.0.2.2:8080"); got != "git.example.com" {
		t.Errorf("behind the address is %q", got)
	}
}

func TestDaemonConfigurationGrantsNothing(t *testing.T) {
	t.Parallel()
	d := newDaemon(DaemonConfig{Dir: t.TempDir(), Program: "/bin/buildkitd", ContainerdSocket: "/run/c.sock", Instance: "x", Subnet: netip.MustParsePrefix("10.45.0.0/24"),
		Registries: map[string]Registry{"r:5000": {PlainHTTP: true}}, CacheBudget: 5e9})
	file, err := d.write()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var document map[string]any
	if err := toml.Unmarshal(raw, &document); err != nil {
		t.Fatal(err)
	}
	if granted, _ := document["insecure-entitlements"].([]any); len(granted) != 0 {
		t.Errorf("entitlements %v", granted)
	}
	worker := document["worker"].(map[string]any)["containerd"].(map[string]any)
	if worker["networkMode"] != "cni" || worker["maxUsedSpace"] != int64(5e9) || worker["defaultCgroupParent"] != "/x/builds" {
		t.Errorf("the worker is %v", worker)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v %v", info.Mode(), err)
	}
}

func TestStockFrontendIsBuiltIn(t *testing.T) {
	t.Parallel()
	for dockerfile, own := range map[string]bool{
		"# syntax=docker/dockerfile:1\nFROM x": true, "# syntax=docker/dockerfile:1.7\nFROM x": true, "# syntax=docker.io/docker/dockerfile\nFROM x": true,
		"# syntax=docker/dockerfile:1-labs\nFROM x": false, "# syntax=example.com/frontend:1\nFROM x": false, "FROM x": false,
	} {
		solve := client.SolveOpt{FrontendAttrs: map[string]string{}}
		useOwnFrontend([]byte(dockerfile), &solve)
		if _, set := solve.FrontendAttrs["cmdline"]; set != own {
			t.Errorf("%q: %v", dockerfile, set)
		}
	}
}

func TestGlobalFlagsAreDropped(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"build .": "build .|", "-H tcp://docker:2375 build .": "build .|tcp://docker:2375", "--tls --host=x --context c push y": "push y|x",
		"--version": "--version|", "-v": "--version|", "-D build -v": "build -v|", "": "|"} {
		rest, host := globalFlags(strings.Fields(given))
		if got := strings.Join(rest, " ") + "|" + host; got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

func TestOnlyTheJobsOwnDaemon(t *testing.T) {
	t.Parallel()
	for host, own := range map[string]bool{"": true, "tcp://docker:2376": true, "tcp://localhost:2375": true, "tcp://127.0.0.1:2375": true, "unix:///var/run/docker.sock": true, "tcp://my-dind:2375/": true,
		"ssh://deploy@prod": false, "ssh://deploy@prod.example.com": false, "tcp://prod.example.com:2376": false, "tcp://192.0.2.1:2375": false} {
		if err := ownHost(host, nil); (err == nil) != own {
			t.Errorf("%q: %v", host, err)
		}
		if err := ownHost("", map[string]string{"DOCKER_HOST": host}); (err == nil) != own {
			t.Errorf("DOCKER_HOST=%q: %v", host, err)
		}
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"compose": "services", "compose up": "", "buildx bake": "docker buildx build", "frobnicate": "docker --help", "swarm": "cluster"} {
		if err := unknown(name); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, one := range commands {
		if one.run == nil || one.about == "" {
			t.Errorf("docker %s has no help", name)
		}
	}
}

func TestRunErrorsHaveDockersCodes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{`exec: "nothing": executable file not found in $PATH: unknown`: 127, `exec: "/nothing": stat /nothing: no such file or directory`: 127,
		`exec: "/etc": is a directory: permission denied`: 126, "cannot mount": 125} {
		var usage usageError
		if err := runError(t.Context(), errors.New(text)); !errors.As(err, &usage) || usage.code != want {
			t.Errorf("%q: %v, want %d", text, err, want)
		}
	}
	if err := runError(t.Context(), exitError{7}); err != (exitError{7}) {
		t.Error(err)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	one := inspection{ID: "sha256:abc", RepoTags: []string{"a", "b"}, RootFS: rootFS{Type: "layers", Layers: []string{"x"}}}
	for format, want := range map[string]string{"{{.Id}}": "sha256:abc", "{{.ID}}": "sha256:abc", `{{join .RepoTags ","}}`: "a,b", `{{.RootFS.Type}}\t{{len .RootFS.Layers}}`: "layers\t1", "{{json .RepoTags}}": `["a","b"]`,
		"{{upper .Os}}{{range .RepoTags}}<{{.}}>{{end}}": "<a><b>"} {
		var out bytes.Buffer
		if err := printFormat(&out, format, one); err != nil || out.String() != want+"\n" {
			t.Errorf("%s: %q, %v", format, out.String(), err)
		}
	}
	if err := printFormat(io.Discard, "{{.Nothing}}", one); err == nil {
		t.Error("a field that is not there was printed")
	}
	var out bytes.Buffer
	if err := printRows(&out, `table {{.Repository}}\t{{.Tag}}`, imageHeaders, []imageRow{{Repository: "app", Tag: "v1"}}); err != nil || out.String() != "REPOSITORY   TAG\napp          v1\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestContainerLogs(t *testing.T) {
	t.Parallel()
	var log containerLog
	for i := range 3 {
		if _, err := (logWriter{&log, i == 1}).Write([]byte(strings.Repeat("x", i) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range map[int]string{1: "xx\n", 2: "x\nxx\n", 9: "\nx\nxx\n"} {
		var got strings.Builder
		for _, piece := range lastLines(log.all(), n) {
			got.Write(piece.text)
		}
		if got.String() != want {
			t.Errorf("%d lines: %q, want %q", n, got.String(), want)
		}
	}
	big := make([]byte, maxContainerLog)
	for range 3 {
		if _, err := (logWriter{&log, false}).Write(big); err != nil {
			t.Fatal(err)
		}
	}
	if len(log.all()) != 1 {
		t.Errorf("%d pieces are kept", len(log.all()))
	}
}

func TestContainerFilters(t *testing.T) {
	t.Parallel()
	row := containerRow{ID: "abc123", Image: "app:1", State: "running", Names: "server"}
	for filter, want := range map[string]bool{"name=serv": true, "name=other": false, "status=exited": false, "ancestor=app:1": true, "id=abc": true} {
		if got, err := filtered(row, []string{filter}); err != nil || got != want {
			t.Errorf("%s: %v, %v", filter, got, err)
		}
	}
	if _, err := filtered(row, []string{"volume=x"}); err == nil {
		t.Error("an unknown filter was ignored")
	}
}

func TestPackKeepsNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/a/b/c", []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for as, want := range map[string]string{"b": "b b/c", ".": "c"} {
		var out bytes.Buffer
		if err := pack(&out, root, "a/b", as); err != nil {
			t.Fatal(err)
		}
		var names []string
		for r := tar.NewReader(&out); ; {
			header, err := r.Next()
			if err != nil {
				break
			}
			names = append(names, strings.TrimSuffix(header.Name, "/"))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("as %q: %q, want %q", as, got, want)
		}
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	named, err := canonical("registry.example.com/team/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	c := testCommand()
	for filter, want := range map[string]bool{"reference=registry.example.com/team/app": true, "reference=registry.example.com/*/app:v*": true, "reference=other": false, "dangling=true": false, "dangling=false": true} {
		if got, err := c.passes(t.Context(), &jobImage{named: named}, []string{filter}); err != nil || got != want {
			t.Errorf("%s: %v, %v", filter, got, err)
		}
	}
	if _, err := c.passes(t.Context(), &jobImage{named: named}, []string{"since=x"}); err == nil {
		t.Error("an unknown filter was ignored")
	}
}

func testCommand(args ...string) *command {
	c := &command{endpoint: &endpoint{scope: Scope{BuildsPath: "/builds"}}, Session: &toolwire.Session{Call: toolwire.Call{Dir: "/builds/p", Args: args, Env: map[string]string{"SET": "1"}}},
		flags: pflag.NewFlagSet("docker build", pflag.ContinueOnError)}
	c.flags.SetOutput(io.Discard)
	return c
}

func TestBuildFlagsThatWouldGrantAreRefused(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"--allow security.insecure .", ". .", "", "--no-such-flag ."} {
		if _, err := testCommand(strings.Fields(line)...).buildFlags(); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
	b, err := testCommand("-t", "a:1", "--build-arg", "SET", "--provenance=false", "--sbom", "--push", ".").buildFlags()
	if err != nil || len(b.tags) != 1 || !b.push || b.sbom != "true" {
		t.Errorf("%+v: %v", b, err)
	}
}

func TestCompressionOfLayers(t *testing.T) {
	t.Parallel()
	for _, one := range []struct{ output, compression, level string }{
		{"", "", "3"},
		{"type=image,push=true", "", "3"},
		{"type=image,compression=zstd,compression-level=7", "zstd", "7"},
		{"type=registry,compression=uncompressed", "uncompressed", ""},
	} {
		b := &buildFlags{}
		if one.output != "" {
			b.outputs = []string{one.output}
		}
		var solve client.SolveOpt
		if _, err := testCommand().exports(t.Context(), b, &solve, nil); err != nil || len(solve.Exports) != 1 {
			t.Fatalf("%s: %v, %v", one.output, solve.Exports, err)
		}
		if attrs := solve.Exports[0].Attrs; attrs["compression"] != one.compression || attrs["compression-level"] != one.level {
			t.Errorf("%s: %v", one.output, attrs)
		}
	}
}

func TestRefusalsOfARegistry(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"unexpected status from PUT request to http://h/v2/a/manifests/q: 403 Forbidden\ndenied: The tag q is immutable.": "denied: The tag q is immutable.",
		"PUT http://h/v2/a/manifests/q: DENIED: The tag q is immutable.":                                                  "denied: The tag q is immutable.",
		"403 Forbidden\ndenied: requested access to the resource is denied":                                               "the registry refused: sign in with docker login",
		"401 Unauthorized": "the registry refused: sign in with docker login",
		"no route to host": "no route to host",
	} {
		if got := registryError(errors.New(text)).Error(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", text, got)
		}
	}
}

func TestVolumesNeedFolders(t *testing.T) {
	t.Parallel()
	list, err := testCommand().volumes([]string{"/builds/p:/x:ro", "./sub:/y"}, []string{"type=bind,source=/builds/q,target=/z,readonly"})
	if err != nil || len(list) != 3 || !list[0].ReadOnly || list[1].Source != "/builds/p/sub" || list[2].Target != "/z" || !list[2].ReadOnly {
		t.Errorf("%+v: %v", list, err)
	}
	for _, wrong := range []string{"name:/x", "/only"} {
		if _, err := testCommand().volumes([]string{wrong}, nil); err == nil {
			t.Errorf("%q was accepted", wrong)
		}
	}
	if _, err := testCommand().volumes(nil, []string{"type=tmpfs,target=/x"}); err == nil {
		t.Error("a tmpfs was accepted")
	}
}

func TestUntarStaysInItsFolder(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	for _, headers := range [][]tar.Header{
		{{Name: "../evil", Typeflag: tar.TypeReg}}, {{Name: "/evil", Typeflag: tar.TypeReg}},
		{{Name: "link", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "link/evil", Typeflag: tar.TypeReg}},
	} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		for _, header := range headers {
			header.Mode = 0o644
			if err := w.WriteHeader(&header); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := untar(root, &archive); err == nil {
			t.Errorf("%v was unpacked", headers)
		}
		if err := root.Close(); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Errorf("wrote outside: %v %v", left, err)
		}
	}
}

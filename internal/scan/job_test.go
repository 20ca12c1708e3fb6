package scan_test

import (
	"bytes"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipwayhq/slipway/internal/scan"
)

// job is a job's builds folder and what its trivy commands said.
type job struct {
	t              *testing.T
	s              *scan.Service
	dir            string
	stdout, stderr bytes.Buffer
	env            map[string]string
}

func newJob(t *testing.T, s *scan.Service, content map[string]string) *job {
	t.Helper()
	j := &job{t: t, s: s, dir: t.TempDir()}
	for name, body := range content {
		file := filepath.Join(j.dir, "g/p", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

func (j *job) trivy(args ...string) int {
	j.t.Helper()
	j.stdout.Reset()
	j.stderr.Reset()
	status, err := j.s.RunForJob(j.t.Context(), scan.JobCall{JobID: 1, ProjectID: 1, Args: args, Env: j.env, Dir: "/builds/g/p", BuildsPath: "/builds", BuildsDir: j.dir,
		Stdout: &j.stdout, Stderr: &j.stderr, WriteFile: func(path string, mode fs.FileMode, r io.Reader) error {
			raw, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(j.dir, strings.TrimPrefix(path, "/builds/")), raw, mode)
		}})
	if err != nil {
		j.t.Fatal(err)
	}
	return status
}

func TestTrivyOfAJob(t *testing.T) {
	t.Parallel()
	s, _ := start(t, trivy(t), shelf{}, nil)
	j := newJob(t, s, map[string]string{
		"Dockerfile":              "FROM debian:latest\nUSER root\n",
		"settings.env":            "TOKEN=" + madeUp + "\n",
		"trivy.yaml":              "server: {addr: http://127.0.0.1:1}\nformat: nonsense\n",
		"lib/var/lib/dpkg/status": "Package: zlib1g\nStatus: install ok installed\nSource: zlib\nVersion: 1:1.2.13.dfsg-1\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n\n",
		"lib/etc/debian_version":  "12.4\n",
		"lib/etc/os-release":      "ID=debian\nVERSION_ID=\"12\"\n",
		"noreason.yaml":           "vulnerabilities:\n  - id: CVE-2023-45853\n",
		"ignore.yaml":             "vulnerabilities:\n  - id: CVE-2023-45853\n    statement: MiniZip is not shipped\n    expired_at: 2099-01-01\n",
		"old.yaml":                "vulnerabilities:\n  - id: CVE-2023-45853\n    statement: MiniZip is not shipped\n    expired_at: 2020-01-01\n",
	})
	if got := j.trivy("rootfs", "lib"); got != 1 || !strings.Contains(j.stderr.String(), "There is no vulnerability database") {
		t.Fatalf("without a database: %d, %s%s", got, &j.stdout, &j.stderr)
	}
	if _, err := s.ImportDemonstration(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		env    map[string]string
		status int
		says   string
	}{
		{"rootfs --exit-code 1 --severity CRITICAL --scanners vuln lib", nil, 1, "CVE-2023-45853"},
		{"rootfs --exit-code 1 --severity CRITICAL --scanners vuln lib", nil, 1, "demonstration database"},
		{"rootfs --exit-code 1 -s CRITICAL --ignore-unfixed --scanners vuln lib", nil, 0, ""},
		{"rootfs --exit-code 1 --severity CRITICAL --scanners vuln --ignorefile ignore.yaml lib", nil, 0, ""},
		{"rootfs --exit-code 1 --severity CRITICAL --scanners vuln lib", map[string]string{"TRIVY_IGNOREFILE": "ignore.yaml"}, 0, ""},
		{"rootfs --exit-code 1 --severity CRITICAL --scanners vuln --ignorefile old.yaml lib", nil, 1, "CVE-2023-45853"},
		{"rootfs --ignorefile noreason.yaml lib", nil, 1, "noreason.yaml:2: CVE-2023-45853 is ignored without a reason"},
		{"config --exit-code 1 .", nil, 1, "AVD-DS-0002"},
		{"fs --scanners secret --exit-code 3 /builds/g/p/settings.env", nil, 3, "settings.env"},
		{"fs /etc", nil, 1, "/etc is not in the job's build folder"},
		{"fs ../../../etc", nil, 1, "is not in the job's build folder"},
		{"image example.org/x:1", nil, 1, "cannot be scanned here"},
		{"server", nil, 1, `the command "server" is not available`},
		{"fs --server http://127.0.0.1:1 .", nil, 1, "--server is not available"},
		{"fs --config trivy.yaml .", nil, 1, "--config is not available"},
		{"fs .", map[string]string{"TRIVY_SERVER": "http://127.0.0.1:1"}, 1, "TRIVY_SERVER is not available"},
		{"fs --output", nil, 1, "needs a value"},
		{"--version", nil, 0, "Version"},
	} {
		j.env = c.env
		if got := j.trivy(strings.Fields(c.args)...); got != c.status || !strings.Contains(j.stdout.String()+j.stderr.String(), c.says) {
			t.Errorf("trivy %s: %d, want %d and %q\n%s%s", c.args, got, c.status, c.says, &j.stdout, &j.stderr)
		}
		if all := j.stdout.String() + j.stderr.String(); strings.Contains(all, "/run-") {
			t.Errorf("trivy %s shows a path of the host:\n%s", c.args, all)
		}
	}
	if got := j.trivy("rootfs", "--format", "sarif", "--output", "scan.sarif", "--scanners", "vuln", "lib"); got != 0 {
		t.Errorf("SARIF: %d\n%s", got, &j.stderr)
	}
	raw, err := os.ReadFile(filepath.Join(j.dir, "g/p/scan.sarif"))
	if err != nil || !bytes.Contains(raw, []byte("CVE-2023-45853")) {
		t.Errorf("scan.sarif: %s, %v", raw, err)
	}
}

// TestTrivyImageOfAJob scans an image of a registry by tag, by digest and
// through an index.
func TestTrivyImageOfAJob(t *testing.T) {
	t.Parallel()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	t.Cleanup(secure.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	image := debian(t)
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
	push := func(short string, write func(name.Reference) error) {
		t.Helper()
		ref, err := name.ParseReference(host+"/"+short, name.Insecure)
		if err == nil {
			err = write(ref)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	push("g/app:v1", func(ref name.Reference) error { return remote.Write(ref, image) })
	push("g/multi:v1", func(ref name.Reference) error { return remote.WriteIndex(ref, index) })
	s, _ := start(t, trivy(t), shelf{}, func(c *scan.Config) { c.Registry, c.RegistryInsecure = host, true })
	if _, err := s.ImportDemonstration(t.Context()); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	indexDigest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	j := newJob(t, s, map[string]string{"a.txt": ""})
	for _, ref := range []string{"g/app:v1", "g/app@" + digest.String(), "g/app:v1@" + digest.String(), "g/multi:v1", "g/multi@" + indexDigest.String()} {
		if got := j.trivy("image", "--exit-code", "3", "--severity", "CRITICAL", "--scanners", "vuln", host+"/"+ref); got != 3 || !strings.Contains(j.stdout.String(), "CVE-2023-45853") {
			t.Errorf("%s: %d\n%s%s", ref, got, &j.stdout, &j.stderr)
		}
	}
	if got := j.trivy("image", host+"/g/none:v1"); got != 1 || !strings.Contains(j.stderr.String(), "cannot be pulled") {
		t.Errorf("an image that is not there: %d\n%s", got, &j.stderr)
	}
	host = strings.TrimPrefix(secure.URL, "https://")
	s, _ = start(t, trivy(t), shelf{}, func(c *scan.Config) {
		c.Registry, c.RegistryTransport = host, func() (http.RoundTripper, error) { return secure.Client().Transport, nil }
	})
	if _, err := s.ImportDemonstration(t.Context()); err != nil {
		t.Fatal(err)
	}
	j = newJob(t, s, map[string]string{"a.txt": ""})
	if got := j.trivy("image", "--exit-code", "3", "--severity", "CRITICAL", "--scanners", "vuln", host+"/g/app:v1"); got != 3 {
		t.Errorf("a registry with an authority of its own: %d\n%s%s", got, &j.stdout, &j.stderr)
	}
}

// TestAttackingJob tries to read the host through links.
func TestAttackingJob(t *testing.T) {
	t.Parallel()
	s, _ := start(t, trivy(t), shelf{}, nil)
	secret := filepath.Join(t.TempDir(), "host-secret")
	if err := os.WriteFile(secret, []byte("TOKEN="+madeUp+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	j := newJob(t, s, map[string]string{"a.txt": "nothing"})
	for _, name := range []string{"link.env", "sub"} {
		if err := os.Symlink(secret, filepath.Join(j.dir, "g/p", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"fs", "--scanners", "secret", "--exit-code", "1", "."}} {
		if got := j.trivy(args...); got != 0 {
			t.Errorf("trivy %v found something: %d\n%s", args, got, &j.stdout)
		}
	}
	for _, args := range [][]string{{"fs", "--scanners", "secret", "link.env"}, {"fs", "--scanners", "secret", "--ignorefile", "link.env", "."}, {"convert", "--format", "table", "link.env"}, {"fs", "--template", "@link.env", "--format", "template", "."}} {
		if got := j.trivy(args...); got != 1 && j.stdout.Len() > 0 || strings.Contains(j.stdout.String()+j.stderr.String(), madeUp[:10]) {
			t.Errorf("trivy %v: %d\n%s%s", args, got, &j.stdout, &j.stderr)
		}
	}
}

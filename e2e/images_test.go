//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/slipwayhq/slipway/e2e/instance"
	"github.com/slipwayhq/slipway/e2e/runner/dockerd"
)

// waiting makes an image that waits for ever, with the packages of an old
// Debian in its records, so that a scan has something to find.
func waiting(t *testing.T, bin string) v1.Image {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(bin, "slipway-pause"))
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	w := tar.NewWriter(&body)
	for _, f := range []struct {
		name, content string
		mode          int64
	}{
		{"pause", string(program), 0o755},
		{"etc/debian_version", "12.4\n", 0o644},
		{"etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n", 0o644},
		{"var/lib/dpkg/status", "Package: libc6\nStatus: install ok installed\nSource: glibc\nVersion: 2.36-9+deb12u1\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n\n", 0o644},
	} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Entrypoint = "linux", "amd64", []string{"/pause"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return image
}

// create makes something by the REST API and returns its id.
func create(t *testing.T, url, token string, in map[string]any) int64 {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("PRIVATE-TOKEN", token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct{ ID int64 }
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("create at %s: %s, %v", url, resp.Status, err)
	}
	return out.ID
}

// ours is a list with an advisory that the demonstration set does not have.
const ours = `date: 2026-11-20
platforms:
- {name: debian 12, source: debian, title: Debian, url: "https://example.org", packages: {glibc: [{id: CVE-2099-0001, fixed: 2.36-9+deb12u99}]}}
vulnerabilities: {CVE-2099-0001: {title: A later one, severity: CRITICAL}}
`

func pod(name, image string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{name: c, image: \"" + image + "\"}]\n"
}

// dockerClient is what people do with a Docker Engine on a machine of their
// own: sign in, push, pull, and pull public images by way of the cache.
func dockerClient(t *testing.T, host, token string, image v1.Image) {
	engine := dockerd.Start(t)
	login := func(password string) (string, error) {
		c := engine.Command("login", host, "--username", "root", "--password-stdin")
		c.Stdin = strings.NewReader(password)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := login("wrong"); err == nil || !strings.Contains(out, "HTTP Basic: Access denied") {
		t.Errorf("sign-in with a wrong password: %v\n%s", err, out)
	}
	own, public := host+"/team/app:docker", host+"/docker.io/library/tiny:1"
	engine.Load(t, image, own)
	if out, err := engine.Command("push", own).CombinedOutput(); err == nil || !strings.Contains(string(out), "denied") {
		t.Errorf("a stranger's push: %v\n%s", err, out)
	}
	if out, err := login(token); err != nil {
		t.Fatalf("sign-in: %v\n%s", err, out)
	}
	engine.Must(t, "push", own)
	engine.Must(t, "rmi", own)
	engine.Must(t, "pull", own)
	engine.Must(t, "pull", public)
	if out, err := engine.Command("pull", host+"/team/app:none").CombinedOutput(); err == nil || !strings.Contains(string(out), "not found") {
		t.Errorf("a tag that is not there: %v\n%s", err, out)
	}
	engine.Must(t, "logout", host)
	engine.Must(t, "rmi", own)
	if out, err := engine.Command("pull", own).CombinedOutput(); err == nil || !strings.Contains(string(out), "denied") {
		t.Errorf("a stranger's pull: %v\n%s", err, out)
	}
}

// TestImages shows the way of an image: pushed into a private project, scanned,
// pulled by a pod that has no pull secret, kept by the collector while it runs;
// and a base image that serves under its public name without a network.
func TestImages(t *testing.T) {
	i := instance.New(t, "swimg", 21, "gitops: {enabled: false}\nmetrics: {enabled: false}\nrunner: {enabled: false}\ningress: {enabled: false}\nssh: {port: 0}")
	i.Up()
	host := strings.TrimPrefix(i.URL, "http://")
	raw, err := os.ReadFile(filepath.Join(i.DataDir, "run", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(raw))
	group := create(t, i.URL+"/api/v4/groups", token, map[string]any{"name": "team", "path": "team"})
	create(t, i.URL+"/api/v4/projects", token, map[string]any{"name": "app", "path": "app", "namespace_id": group})
	image := waiting(t, i.Bin)
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host+"/team/app:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	signIn := remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "root", Password: token}))
	if err := remote.Write(ref, image, signIn); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(ref); err == nil {
		t.Error("a private image was shown to a stranger")
	}

	i.RunInput(pod("private", ref.Name()+"@"+digest.String()), "kubectl", "apply", "-f", "-")
	archive := filepath.Join(t.TempDir(), "tiny.tar")
	tag, err := name.NewTag("tiny:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(archive, tag, image); err != nil {
		t.Fatal(err)
	}
	i.Run("image", "push", archive, "docker.io/library/tiny:1")
	i.RunInput(pod("public", "tiny:1"), "kubectl", "apply", "-f", "-")
	t.Run("docker", func(t *testing.T) { dockerClient(t, host, token, image) })
	i.Kubectl("wait", "--for=condition=Ready", "pod/private", "pod/public", "--timeout=90s")

	if out, err := i.Try("scan", "image", "team/app:v1"); err == nil || !strings.Contains(out, "There is no vulnerability database") {
		t.Errorf("a scan without a database: %v\n%s", err, out)
	}
	if out := i.Run("scan", "db", "demo"); !strings.Contains(out, "demonstration") {
		t.Errorf("the demonstration database is not called one:\n%s", out)
	}
	out, err := i.Try("scan", "image", "team/app:v1", "--severity", "HIGH")
	if err == nil || !strings.Contains(out, "CVE-2023-4911") || !strings.Contains(out, "2.36-9+deb12u3") {
		t.Errorf("the scan: %v\n%s", err, out)
	}

	// A new database has the stored image looked at again.
	advisories := filepath.Join(t.TempDir(), "ours.yaml")
	if err := os.WriteFile(advisories, []byte(ours), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "db.tar.gz")
	i.Run("scan", "db", "build", "--source", advisories, "--output", file)
	i.Run("scan", "db", "import", file)
	i.Eventually("a stored image shows what became known since", time.Minute, func() bool {
		var list []struct {
			Digest, Status string
			Counts         map[string]int
		}
		_, body := i.Get(i.URL + "/api/v4/projects/team%2Fapp/scans?private_token=" + token)
		return json.Unmarshal([]byte(body), &list) == nil && len(list) > 0 && list[0].Digest == digest.String() && list[0].Counts["CRITICAL"] == 1
	})

	i.Run("image", "rm", "team/app:v1")
	var collected struct{ Images, Blobs int }
	if err := json.Unmarshal([]byte(i.Run("image", "gc", "--json")), &collected); err != nil || collected.Images != 0 || collected.Blobs != 0 {
		t.Errorf("the collector removed what is young and in use: %+v, %v", collected, err)
	}
	if out := i.Run("image", "cache"); !strings.Contains(out, "docker.io/library/tiny:1") || !strings.Contains(out, "seeded") {
		t.Errorf("the cache:\n%s", out)
	}
	begin := time.Now()
	i.Run("down")
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %s to stop", took)
	}
}

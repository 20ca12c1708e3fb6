package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"
)

func authority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Slipway  Root CA", Organization: []string{"Test"}}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestFilesAreFoundByOpenSSL(t *testing.T) {
	t.Parallel()
	root := authority(t)
	files, err := Files(root)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if len(files) != 3 || files[CertificateFile] != string(root) || !pool.AppendCertsFromPEM([]byte(files[BundleFile])) || !strings.Contains(files[BundleFile], strings.TrimSpace(string(root))) {
		t.Errorf("files %v", len(files))
	}
	dir := filepath.Join(t.TempDir(), "certs")
	if err := Write(dir, files); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, BundleFile))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v %v", info, err)
	}
	stale := filepath.Join(dir, "01234567.0")
	if err := os.WriteFile(stale, root, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, files); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 3 {
		t.Errorf("an earlier authority is still found: %v %v", left, err)
	}
	if _, err := Files([]byte("nonsense")); err == nil {
		t.Error("nonsense was taken")
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, openssl, "x509", "-noout", "-subject_hash", "-in", filepath.Join(dir, CertificateFile)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if files[strings.TrimSpace(string(out))+".0"] == "" {
		t.Errorf("openssl looks for %s; there are %v", out, files)
	}
}

// Every namespace has the ConfigMap, also one that is made later; one that is
// changed or deleted comes back, and somebody else's stays.
func TestDistribute(t *testing.T) {
	t.Parallel()
	namespace := func(name string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
		u.SetName(name)
		return u
	}
	foreign := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"x": "y"}}}
	foreign.SetName(ConfigMap)
	foreign.SetNamespace("theirs")
	kube := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{namespaces: "NamespaceList", configMaps: "ConfigMapList"},
		namespace("one"), namespace("theirs"), foreign)
	files := map[string]string{CertificateFile: "pem", BundleFile: "all"}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	ended := make(chan struct{})
	go func() { Distribute(ctx, kube, files, slog.New(slog.DiscardHandler)); close(ended) }()
	value := func(ns string) string {
		u, err := kube.Resource(configMaps).Namespace(ns).Get(ctx, ConfigMap, metav1.GetOptions{})
		if err != nil {
			return ""
		}
		v, _, _ := unstructured.NestedString(u.Object, "data", CertificateFile)
		return v
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			select {
			case <-ctx.Done():
				t.Fatalf("not in time: %s", what)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	eventually("the policy for pods is there", func() bool {
		for _, resource := range admission {
			if _, err := kube.Resource(resource).Get(ctx, "slipway-trust", metav1.GetOptions{}); err != nil {
				return false
			}
		}
		return true
	})
	eventually("the first namespace has it", func() bool { return value("one") == "pem" })
	// The fake forgets what happens between its list and its watch.
	eventually("both are watched", func() bool {
		n := 0
		for _, a := range kube.Actions() {
			if a.GetVerb() == "watch" {
				n++
			}
		}
		return n == 2
	})
	if _, err := kube.Resource(namespaces).Create(ctx, namespace("two"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually("a new namespace has it", func() bool { return value("two") == "pem" })
	if err := kube.Resource(configMaps).Namespace("one").Delete(ctx, ConfigMap, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually("a deleted one is back", func() bool { return value("one") == "pem" })
	if u, err := kube.Resource(configMaps).Namespace("theirs").Get(ctx, ConfigMap, metav1.GetOptions{}); err != nil || u.GetLabels()[managedBy] != "" {
		t.Errorf("somebody else's was changed: %v %v", u, err)
	}
	cancel()
	<-ended
}

// A ConfigMap with the bundle, as earlier versions made it, keeps it as long as
// a pod mounts it, and is up to date meanwhile.
func TestBundleLeavesConfigMaps(t *testing.T) {
	t.Parallel()
	object := func(kind, namespace, name, yamlText string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{}}
		if err := yaml.Unmarshal([]byte(yamlText), &u.Object); err != nil {
			t.Fatal(err)
		}
		u.SetAPIVersion("v1")
		u.SetKind(kind)
		u.SetName(name)
		u.SetNamespace(namespace)
		return u
	}
	bundled := "metadata: {labels: {app.kubernetes.io/managed-by: slipway}}\ndata: {ca.crt: pem, ca-bundle.crt: earlier}"
	volumes := map[string]string{
		"unused": `{name: slipway-ca, configMap: {name: other}}`,
		"used":   `{name: slipway-ca, configMap: {name: slipway-ca}}`,
		"merged": `{name: x, projected: {sources: [{secret: {name: s}}, {configMap: {name: slipway-ca}}]}}`,
	}
	var objects []runtime.Object
	for namespace, volume := range volumes {
		objects = append(objects, object("Namespace", "", namespace, "{}"), object("ConfigMap", namespace, ConfigMap, bundled),
			object("Pod", namespace, "pod", "spec: {volumes: ["+volume+"]}"))
	}
	kube := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{pods: "PodList"}, objects...)
	d := newDistributor(kube, map[string]string{CertificateFile: "new", BundleFile: "all"}, slog.New(slog.DiscardHandler))
	data := func(namespace string) map[string]string {
		t.Helper()
		if err := d.put(t.Context(), namespace); err != nil {
			t.Fatal(err)
		}
		u, err := kube.Resource(configMaps).Namespace(namespace).Get(t.Context(), ConfigMap, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return dataOf(u)
	}
	for namespace := range volumes {
		if got, used := data(namespace), namespace != "unused"; got[CertificateFile] != "new" || (got[BundleFile] == "all") != used || d.bundled[namespace] != used {
			t.Errorf("%s: %v, bundled %v", namespace, got, d.bundled)
		}
	}
	if err := kube.Resource(pods).Namespace("used").Delete(t.Context(), "pod", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := data("used"); len(got) != 1 || d.bundled["used"] {
		t.Errorf("without the pod: %v", got)
	}
}

//go:build e2e

package cluster_test

import (
	"io"
	"log"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/slipwayhq/slipway/e2e/cluster/lab"
	"github.com/slipwayhq/slipway/internal/node"
)

// TestRegistry pushes an image to a registry without TLS and runs a pod from
// it: containerd must know the registry, its endpoint and its credential by
// certs.d alone.
func TestRegistry(t *testing.T) {
	const credential = "Basic bm9kZTpzZWNyZXQ="
	var resolved atomic.Int32
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != credential {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if r.Method != http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			resolved.Add(1)
		}
		images.ServeHTTP(w, r)
	})}
	t.Cleanup(func() { server.Close() })
	n, ctx := start(t, "reg", func(n *lab.Node) {
		listener, err := net.Listen("tcp", net.JoinHostPort(n.HostIP(), "0"))
		must(t, err)
		go func() { _ = server.Serve(listener) }()
		host := listener.Addr().String()
		n.Config.Registry = node.RegistryConfig{Host: host, Endpoint: "http://" + host, Authorization: credential}
	})
	image := n.Config.Registry.Host + "/group/app:1"
	ctr := func(arguments ...string) {
		t.Helper()
		command := exec.CommandContext(ctx, filepath.Join(n.Config.BinDir, "ctr"),
			append([]string{"--address", n.Config.ContainerdSocket, "--namespace", node.KubernetesNamespace, "images"}, arguments...)...)
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("ctr images %s: %v\n%s", strings.Join(arguments, " "), err, out)
		}
	}
	hosts := filepath.Join(n.Config.DataDir, "containerd", "certs.d")
	ctr("push", "--hosts-dir", hosts, image, lab.TestImage)
	ctr("remove", "--sync", lab.TestImage)
	resolved.Store(0)
	kubectl(t, ctx, n, "run", "pulled", "--image="+image, "--restart=Never", "--image-pull-policy=Always", "--", "wait")
	kubectl(t, ctx, n, "wait", "--for=condition=Ready", "pod/pulled", "--timeout=60s")
	if resolved.Load() == 0 {
		t.Error("the pod runs, but the registry was not asked")
	}
}

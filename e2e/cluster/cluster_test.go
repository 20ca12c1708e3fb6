//go:build e2e

// Package cluster_test holds the end-to-end tests of the cluster: the real
// containerd and slipway-cluster on a node of their own.
package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/cluster/lab"
)

// create makes a node that is destroyed when the test ends.
func create(t *testing.T, name string) (*lab.Node, context.Context) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a node needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	n, err := lab.New(ctx, "/tmp", "sw-"+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			keepLogs(t, n)
		}
		if err := n.Destroy(ctx); err != nil {
			t.Errorf("destroy: %v", err)
		}
	})
	return n, ctx
}

// start runs a node until the test ends and waits until it is ready. The
// changes are made to its configuration before.
func start(t *testing.T, name string, changes ...func(*lab.Node)) (*lab.Node, context.Context) {
	t.Helper()
	n, ctx := create(t, name)
	for _, change := range changes {
		change(n)
	}
	must(t, n.Start(ctx))
	ready(t, ctx, n)
	must(t, n.ImportTestImage(ctx))
	return n, ctx
}

// keepLogs copies the programs' logs to where a person or CI finds them.
func keepLogs(t *testing.T, n *lab.Node) {
	dir, err := os.MkdirTemp("", "slipway-e2e-logs-")
	if err != nil {
		t.Log(err)
		return
	}
	if err := os.CopyFS(filepath.Join(dir, "logs"), os.DirFS(filepath.Join(n.Config.DataDir, "logs"))); err != nil {
		t.Log(err)
	}
	t.Logf("logs of the node: %s", dir)
}

func ready(t *testing.T, ctx context.Context, n *lab.Node) lab.Health {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	health, err := n.WaitReady(ctx)
	must(t, err)
	return health
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func kubectl(t *testing.T, ctx context.Context, n *lab.Node, arguments ...string) string {
	t.Helper()
	out, err := n.Kubectl(ctx, arguments...)
	must(t, err)
	return out
}

func apply(t *testing.T, ctx context.Context, n *lab.Node, manifest string) {
	t.Helper()
	_, err := n.KubectlInput(ctx, manifest, "apply", "-f", "-")
	must(t, err)
}

// eventually waits for a condition with the context's deadline or a minute.
func eventually(t *testing.T, ctx context.Context, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := lab.Until(ctx, f); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// podState lists every pod with its container's id and restarts.
const podState = `jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}`

// workload is a deployment behind a service, and a pod with a volume.
const workload = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers: [{name: c, image: ` + lab.TestImage + `}]
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: store}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: ` + lab.TestImage + `
    args: [wait]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`

func deploy(t *testing.T, ctx context.Context, n *lab.Node) {
	t.Helper()
	apply(t, ctx, n, workload)
	kubectl(t, ctx, n, "rollout", "status", "deployment/hello", "--timeout=60s")
	kubectl(t, ctx, n, "wait", "--for=condition=Ready", "pod/store", "--timeout=60s")
	kubectl(t, ctx, n, "exec", "store", "--", "/program", "write", "/data/file", "kept")
}

// checkWorkload asks the service by its name from within a pod.
func checkWorkload(t *testing.T, ctx context.Context, n *lab.Node) {
	t.Helper()
	eventually(t, ctx, "the service answers by name", func() error {
		out, err := n.Kubectl(ctx, "exec", "store", "--", "/program", "get", "http://hello")
		if err == nil && !strings.HasPrefix(out, "hello from hello-") {
			err = fmt.Errorf("the service says %q", out)
		}
		return err
	})
	if got := kubectl(t, ctx, n, "exec", "store", "--", "/program", "read", "/data/file"); got != "kept" {
		t.Errorf("the volume holds %q", got)
	}
}

func TestKubectl(t *testing.T) {
	n, ctx := start(t, "use")
	deploy(t, ctx, n)
	checkWorkload(t, ctx, n)
	t.Run("version", func(t *testing.T) {
		if out := kubectl(t, ctx, n, "version"); !strings.Contains(out, "Server Version: v1.36.") {
			t.Errorf("version:\n%s", out)
		}
	})
	t.Run("logs", func(t *testing.T) {
		if out := kubectl(t, ctx, n, "logs", "store"); out != "waiting\n" {
			t.Errorf("log %q", out)
		}
	})
	t.Run("dns", func(t *testing.T) {
		out := kubectl(t, ctx, n, "exec", "store", "--", "/program", "lookup", "kubernetes.default")
		if strings.TrimSpace(out) != "10.43.0.1" {
			t.Errorf("kubernetes.default is %q", out)
		}
	})
	t.Run("port-forward", func(t *testing.T) { testPortForward(t, ctx, n) })
	t.Run("node port", func(t *testing.T) {
		kubectl(t, ctx, n, "expose", "deployment", "hello", "--name=outside", "--type=NodePort", "--port=8080")
		port := kubectl(t, ctx, n, "get", "service", "outside", "-o", "jsonpath={.spec.ports[0].nodePort}")
		answers(t, ctx, "http://"+n.Config.Node.IP+":"+port, "hello from hello-")
	})
	t.Run("debug", func(t *testing.T) {
		kubectl(t, ctx, n, "debug", "store", "--image="+lab.TestImage, "--container=debugger", "--", "/program", "lookup", "hello")
		eventually(t, ctx, "the debug container ran", func() error {
			out, err := n.Kubectl(ctx, "logs", "store", "-c", "debugger")
			if err == nil && !strings.HasPrefix(out, "10.43.") {
				err = fmt.Errorf("it says %q", out)
			}
			return err
		})
	})
	t.Run("top", func(t *testing.T) {
		eventually(t, ctx, "kubectl top", func() error {
			_, err := n.Kubectl(ctx, "top", "node")
			if err == nil {
				_, err = n.Kubectl(ctx, "top", "pod")
			}
			return err
		})
	})
	t.Run("volume", func(t *testing.T) { testVolumeGoes(t, ctx, n) })
	t.Run("secrets", func(t *testing.T) { testSecrets(t, ctx, n) })
	t.Run("anonymous", func(t *testing.T) { testAnonymous(t, ctx, n) })
	t.Run("renewal", func(t *testing.T) { testRenewal(t, ctx, n) })
	t.Run("rbac", func(t *testing.T) {
		out, err := n.Kubectl(ctx, "auth", "can-i", "list", "secrets", "--as=system:serviceaccount:default:default")
		if err == nil || strings.TrimSpace(out) != "no" {
			t.Errorf("a pod's account may list secrets: %q, %v", out, err)
		}
	})
}

// answers waits until a URL answers the host with a text.
func answers(t *testing.T, ctx context.Context, url, prefix string) {
	t.Helper()
	eventually(t, ctx, url+" answers", func() error {
		status, body, err := fetch(ctx, url, nil)
		if err == nil && (status != 200 || !strings.HasPrefix(body, prefix)) {
			err = fmt.Errorf("%d %q", status, body)
		}
		return err
	})
}

func testPortForward(t *testing.T, ctx context.Context, n *lab.Node) {
	ctx, cancel := context.WithCancel(ctx)
	command := n.KubectlCommand(ctx, "port-forward", "service/hello", ":80")
	out, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	defer func() {
		cancel()
		_ = command.Wait() // ended by us
	}()
	buffer := make([]byte, 200)
	length, err := out.Read(buffer)
	must(t, err)
	var port int
	if _, err := fmt.Sscanf(string(buffer[:length]), "Forwarding from 127.0.0.1:%d", &port); err != nil {
		t.Fatalf("kubectl says %q", buffer[:length])
	}
	status, body, err := fetch(ctx, fmt.Sprintf("http://127.0.0.1:%d", port), nil)
	if err != nil || status != 200 || !strings.HasPrefix(body, "hello from hello-") {
		t.Errorf("through the forwarded port: %d %q, %v", status, body, err)
	}
}

// testVolumeGoes deletes the claim, with which its directory must go.
func testVolumeGoes(t *testing.T, ctx context.Context, n *lab.Node) {
	dirs, err := filepath.Glob(filepath.Join(n.Config.VolumeDir(), "default_data_*"))
	must(t, err)
	if len(dirs) != 1 {
		t.Fatalf("directories of the claim: %v", dirs)
	}
	kubectl(t, ctx, n, "delete", "pod/store", "persistentvolumeclaim/data", "--timeout=60s")
	eventually(t, ctx, "the directory is removed", func() error {
		if _, err := os.Stat(dirs[0]); !os.IsNotExist(err) {
			return fmt.Errorf("%s remains (%v)", dirs[0], err)
		}
		return nil
	})
}

// testSecrets looks for a secret's text where it must not be.
func testSecrets(t *testing.T, ctx context.Context, n *lab.Node) {
	const text = "correct-horse-battery-staple"
	kubectl(t, ctx, n, "create", "secret", "generic", "secret", "--from-literal=password="+text)
	if got := kubectl(t, ctx, n, "get", "secret", "secret", "-o", "jsonpath={.data.password}"); got != "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==" {
		t.Errorf("the secret reads %q", got)
	}
	audit := filepath.Join(n.Config.DataDir, "logs", "kube-apiserver-audit.log")
	eventually(t, ctx, "the audit log names who made and who read the secret", func() error {
		raw, err := os.ReadFile(audit)
		for _, request := range []string{
			`"requestURI":"/api/v1/namespaces/default/secrets?fieldManager=kubectl-create\u0026fieldValidation=Strict","verb":"create","user":{"username":"slipway-admin"`,
			`"requestURI":"/api/v1/namespaces/default/secrets/secret","verb":"get","user":{"username":"slipway-admin"`,
		} {
			if err == nil && !bytes.Contains(raw, []byte(request)) {
				err = fmt.Errorf("no %s in %s", request, audit)
			}
		}
		return err
	})
	err := filepath.WalkDir(n.Config.DataDir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // something that goes while we look
		}
		if !strings.Contains(path, "/etcd/") && !strings.Contains(path, "/logs/") {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err == nil && bytes.Contains(raw, []byte(text)) {
			t.Errorf("the secret is readable in %s", path)
		}
		return err
	})
	must(t, err)
	for _, path := range []string{n.Config.Kubeconfig, filepath.Join(n.Config.ClusterDir(), "pki", "ca.key"), audit} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func testAnonymous(t *testing.T, ctx context.Context, n *lab.Node) {
	for _, url := range []string{
		fmt.Sprintf("https://%s:%d/api/v1/namespaces", n.Config.Node.IP, n.Config.Ports.APIServer),
		fmt.Sprintf("https://%s:%d/version", n.Config.Node.IP, n.Config.Ports.APIServer),
		fmt.Sprintf("https://%s:%d/pods", n.Config.Node.IP, n.Config.Ports.Kubelet),
		fmt.Sprintf("https://%s:%d/apis/metrics.k8s.io/v1beta1/nodes", n.Config.Node.IP, n.Config.Ports.MetricsServer),
	} {
		status, body, err := fetch(ctx, url, nil)
		if err != nil || (status != 401 && status != 403) {
			t.Errorf("%s answers a stranger %d %q (%v)", url, status, body, err)
		}
	}
}

// testRenewal takes certificates away and has them made again: the listeners
// must present new ones without a restart, and clients must go on.
func testRenewal(t *testing.T, ctx context.Context, n *lab.Node) {
	ports := n.Config.Ports
	listeners := map[string]int{"apiserver": ports.APIServer, "kubelet-serving": ports.Kubelet, "metrics-server-serving": ports.MetricsServer}
	before := map[string]string{}
	for name, port := range listeners {
		serial, err := presented(ctx, n, port)
		must(t, err)
		before[name] = serial
		must(t, os.Remove(filepath.Join(n.Config.ClusterDir(), "pki", name+".crt")))
	}
	must(t, os.Remove(filepath.Join(n.Config.ClusterDir(), "pki", "kubelet.crt")))
	must(t, syscall.Kill(n.PID(lab.Cluster), syscall.SIGHUP))
	for name, port := range listeners {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		err := lab.Until(ctx, func() error {
			serial, err := presented(ctx, n, port)
			if err == nil && serial == before[name] {
				err = fmt.Errorf("%s still presents certificate %s", name, serial)
			}
			return err
		})
		must(t, err)
	}
	kubectl(t, ctx, n, "run", "renewed", "--image="+lab.TestImage, "--restart=Never", "--", "lookup", "hello")
	kubectl(t, ctx, n, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/renewed", "--timeout=60s")
	kubectl(t, ctx, n, "logs", "renewed")
}

// presented is the serial number of the certificate that a port presents.
func presented(ctx context.Context, n *lab.Node, port int) (string, error) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // only looked at
	connection, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", n.Config.Node.IP, port))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	return connection.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

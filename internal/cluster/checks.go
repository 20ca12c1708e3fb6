package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"

	"github.com/slipwayhq/slipway/internal/node"
)

// checks are the health checks of the components, from outside as far as
// possible: through their sockets, not through their variables.
type checks struct {
	config     node.Config
	started    time.Time
	client     *kubernetes.Clientset
	aggregator *aggregator.Clientset
	web        *http.Client
	containerd *node.ContainerdProbe
}

func newChecks(c node.Config, creds *credentials, started time.Time) (*checks, error) {
	config, err := restConfig(creds.kubeconfig("admin"))
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for health checks: %w", err)
	}
	aggregator, err := aggregator.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for health checks: %w", err)
	}
	ca, err := os.ReadFile(creds.cert("ca"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	containerd, err := node.NewContainerdProbe(c.ContainerdSocket)
	if err != nil {
		return nil, err
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 1}}
	return &checks{config: c, started: started, client: client, aggregator: aggregator, web: web, containerd: containerd}, nil
}

// get succeeds when the address answers 200.
func (c *checks) get(format string, arguments ...any) check {
	address := fmt.Sprintf(format, arguments...)
	return func(ctx context.Context) error {
		_, err := c.body(ctx, address)
		return err
	}
}

// body gets an address, which must answer 200.
func (c *checks) body(ctx context.Context, address string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", fmt.Errorf("check health: %w", err)
	}
	response, err := c.web.Do(request)
	if err != nil {
		return "", fmt.Errorf("check health: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return "", fmt.Errorf("check health: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return "", errors.New(failedLines(string(body)))
	}
	return string(body), nil
}

// failedLines shortens a healthz answer to the checks that failed.
func failedLines(body string) string {
	var failed []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "[-]") {
			failed = append(failed, strings.TrimSpace(strings.TrimPrefix(line, "[-]")))
		}
	}
	if len(failed) == 0 {
		return strings.TrimSpace(body)
	}
	return strings.Join(failed, "; ")
}

// controllersBuilt succeeds once the controller manager has made all of its
// controllers: it lists them in its health only then.
func (c *checks) controllersBuilt(ctx context.Context) error {
	body, err := c.body(ctx, fmt.Sprintf("https://127.0.0.1:%d/healthz?verbose=1", c.config.Ports.ControllerManager))
	if err == nil && !strings.Contains(body, "[+]"+names.PersistentVolumeAttachDetachController+" ok") {
		err = errors.New("the controllers are being made")
	}
	return err
}

func (c *checks) apiServerReady(ctx context.Context) error {
	raw, err := c.client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	if err != nil && len(raw) > 0 {
		return errors.New(failedLines(string(raw)))
	}
	return err
}

func (c *checks) nodeReady(ctx context.Context) error {
	present, err := c.client.CoreV1().Nodes().Get(ctx, c.config.Node.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read node: %w", err)
	}
	if pods := present.Spec.PodCIDR; pods != "" && pods != c.config.Network.NodePodCIDR {
		return fmt.Errorf("the cluster gave this node the pod range %s, but its network is made for %s: set network.node_pod_cidr to %[1]s", pods, c.config.Network.NodePodCIDR)
	}
	for _, condition := range present.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		// The API has seconds. Until the kubelet reports, the condition is of
		// the time before it was restarted.
		if condition.LastHeartbeatTime.Time.Before(c.started.Truncate(time.Second)) {
			return errors.New("the kubelet has not reported the node's condition since it started")
		}
		if condition.Status != corev1.ConditionTrue {
			return errors.New(condition.Message)
		}
		for _, taint := range present.Spec.Taints {
			if taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable {
				return fmt.Errorf("node is still tainted %s", taint.Key)
			}
		}
		return nil
	}
	return errors.New("the kubelet has not reported the node's condition yet")
}

// metricsServed tells whether the aggregation layer reaches metrics-server.
func (c *checks) metricsServed(ctx context.Context) error {
	service, err := c.aggregator.ApiregistrationV1().APIServices().Get(ctx, "v1beta1.metrics.k8s.io", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the metrics API service: %w", err)
	}
	for _, condition := range service.Status.Conditions {
		if condition.Type == apiregistration.Available && condition.Status == apiregistration.ConditionTrue {
			return nil
		}
		if condition.Type == apiregistration.Available {
			return errors.New(condition.Message)
		}
	}
	return errors.New("the metrics API has not been looked at yet")
}

// renewEvery is how often certificates are looked at.
const renewEvery = 12 * time.Hour

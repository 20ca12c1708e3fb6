package cluster

import (
	"context"
	"fmt"
	"net"
	"time"

	"sigs.k8s.io/metrics-server/cmd/metrics-server/app/options"

	"github.com/slipwayhq/slipway/internal/node"
)

// runMetrics runs metrics-server, which serves metrics.k8s.io behind the API
// server's aggregation layer, until ctx ends.
func runMetrics(ctx context.Context, c node.Config, creds *credentials) error {
	o := options.NewOptions()
	kubeconfig := creds.kubeconfig("metrics-server")
	o.Kubeconfig = kubeconfig
	o.Authentication.RemoteKubeConfigFile = kubeconfig
	o.Authorization.RemoteKubeConfigFile = kubeconfig
	o.SecureServing.BindAddress = net.ParseIP(c.Node.IP)
	o.SecureServing.BindPort = c.Ports.MetricsServer
	o.SecureServing.ServerCert.CertKey.CertFile = creds.cert("metrics-server-serving")
	o.SecureServing.ServerCert.CertKey.KeyFile = creds.key("metrics-server-serving")
	o.KubeletClient.KubeletUseNodeStatusPort = true
	o.KubeletClient.KubeletPreferredAddressTypes = []string{"InternalIP"}
	o.KubeletClient.KubeletCAFile = creds.cert("ca")
	o.MetricResolution = 15 * time.Second
	config, err := o.ServerConfig()
	if err != nil {
		return fmt.Errorf("configure metrics-server: %w", err)
	}
	server, err := config.Complete()
	if err != nil {
		return fmt.Errorf("configure metrics-server: %w", err)
	}
	return server.RunUntil(ctx.Done())
}

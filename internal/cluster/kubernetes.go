package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	cliflag "k8s.io/component-base/cli/flag"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controlleroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"github.com/slipwayhq/slipway/internal/node"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// flags are command line flags by name, as the Kubernetes reference documents
// them.
type flags map[string]string

// parse sets the flags in a component's flag sets.
func (f flags) parse(component string, sets cliflag.NamedFlagSets) error {
	all := pflag.NewFlagSet(component, pflag.ContinueOnError)
	all.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	for _, name := range slices.Sorted(maps.Keys(sets.FlagSets)) {
		all.AddFlagSet(sets.FlagSets[name])
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if err := all.Set(name, f[name]); err != nil {
			return fmt.Errorf("configure %s: %w", component, err)
		}
	}
	return nil
}

// runAPIServer runs the API server until ctx ends.
func runAPIServer(ctx context.Context, c node.Config, creds *credentials) error {
	if err := writeAuditPolicy(c); err != nil {
		return err
	}
	options := apiserveroptions.NewServerRunOptions()
	sets := options.Flags()
	if err := apiServerFlags(c, creds).parse("kube-apiserver", sets); err != nil {
		return err
	}
	if err := options.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("set feature gates: %w", err)
	}
	completed, err := options.Complete(ctx)
	if err != nil {
		return fmt.Errorf("complete kube-apiserver's options: %w", err)
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return fmt.Errorf("validate kube-apiserver's options: %w", utilerrors.NewAggregate(errs))
	}
	config, err := apiserver.NewConfig(completed)
	if err != nil {
		return fmt.Errorf("configure kube-apiserver: %w", err)
	}
	chain, err := config.Complete()
	if err != nil {
		return fmt.Errorf("configure kube-apiserver: %w", err)
	}
	server, err := apiserver.CreateServerChain(chain)
	if err != nil {
		return fmt.Errorf("set up kube-apiserver: %w", err)
	}
	paths := server.GenericAPIServer.Handler.NonGoRestfulMux
	paths.Unregister("/metrics")
	paths.Handle("/metrics", thinMetrics())
	prepared, err := server.PrepareRun()
	if err != nil {
		return fmt.Errorf("prepare kube-apiserver: %w", err)
	}
	return prepared.Run(ctx)
}

func apiServerFlags(c node.Config, creds *credentials) flags {
	issuer := "https://kubernetes.default.svc." + c.Network.ClusterDomain
	return flags{
		"advertise-address":                  c.Node.IP,
		"bind-address":                       "0.0.0.0",
		"secure-port":                        fmt.Sprint(c.Ports.APIServer),
		"etcd-servers":                       "unix://" + c.EtcdSocket(),
		"client-ca-file":                     creds.cert("ca"),
		"tls-cert-file":                      creds.cert("apiserver"),
		"tls-private-key-file":               creds.key("apiserver"),
		"tls-min-version":                    "VersionTLS12",
		"kubelet-certificate-authority":      creds.cert("ca"),
		"kubelet-client-certificate":         creds.cert("apiserver-kubelet-client"),
		"kubelet-client-key":                 creds.key("apiserver-kubelet-client"),
		"kubelet-preferred-address-types":    "InternalIP",
		"proxy-client-cert-file":             creds.cert("front-proxy-client"),
		"proxy-client-key-file":              creds.key("front-proxy-client"),
		"requestheader-client-ca-file":       creds.cert("front-proxy-ca"),
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
		"service-account-issuer":             issuer,
		"service-account-key-file":           creds.key("service-account"),
		"service-account-signing-key-file":   creds.key("service-account"),
		"api-audiences":                      issuer,
		"service-cluster-ip-range":           c.Network.ServiceCIDR,
		"service-node-port-range":            c.Network.NodePortRange,
		"authorization-mode":                 "Node,RBAC",
		"enable-admission-plugins":           "NodeRestriction",
		"anonymous-auth":                     "false",
		"allow-privileged":                   "true",
		"enable-aggregator-routing":          "true",
		"encryption-provider-config":         creds.encryptionConfigFile(),
		"audit-policy-file":                  auditPolicyFile(c),
		"audit-log-path":                     filepath.Join(c.DataDir, "logs", "kube-apiserver-audit.log"),
		"audit-log-mode":                     "batch",
		"audit-log-maxsize":                  fmt.Sprint(c.Logging.AuditMaxSize),
		"audit-log-maxbackup":                fmt.Sprint(c.Logging.AuditMaxFiles),
		"profiling":                          "false",
		"shutdown-delay-duration":            "0s",
		"shutdown-send-retry-after":          "true",
		"endpoint-reconciler-type":           "lease",
	}
}

func auditPolicyFile(c node.Config) string { return filepath.Join(c.ClusterDir(), "audit-policy.yaml") }

// auditPolicy records who changed what, never the contents of Secrets and
// tokens, and not the platform's own constant traffic.
// https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*", "/metrics"]
- level: None
  users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]
- level: None
  userGroups: ["system:nodes", "system:serviceaccounts:kube-system"]
  verbs: [get, list, watch]
# Who reads secrets is recorded; other reading is not.
- level: Metadata
  resources:
  - group: ""
    resources: [secrets]
- level: None
  verbs: [get, list, watch]
- level: None
  resources:
  - group: ""
    resources: [events]
  - group: events.k8s.io
  - group: coordination.k8s.io
    resources: [leases]
  - group: authentication.k8s.io
  - group: authorization.k8s.io
- level: None
  userGroups: ["system:nodes"]
  resources:
  - group: ""
    resources: [nodes/status, pods/status]
- level: Metadata
`

func writeAuditPolicy(c node.Config) error {
	return wholefile.Write(auditPolicyFile(c), []byte(auditPolicy), 0o600)
}

// runControllerManager runs Kubernetes' controllers until ctx ends.
func runControllerManager(ctx context.Context, c node.Config, creds *credentials) error {
	options, err := controlleroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return fmt.Errorf("kube-controller-manager's options: %w", err)
	}
	sets := options.Flags(controllers.KnownControllers(), controllers.ControllersDisabledByDefault(), controllers.ControllerAliases())
	options.ParsedFlags = &sets
	kubeconfig := creds.kubeconfig("controller-manager")
	err = flags{
		"kubeconfig":                       kubeconfig,
		"authentication-kubeconfig":        kubeconfig,
		"authorization-kubeconfig":         kubeconfig,
		"bind-address":                     "127.0.0.1",
		"secure-port":                      fmt.Sprint(c.Ports.ControllerManager),
		"tls-cert-file":                    creds.cert("controller-manager-serving"),
		"tls-private-key-file":             creds.key("controller-manager-serving"),
		"leader-elect":                     "false",
		"use-service-account-credentials":  "true",
		"root-ca-file":                     creds.cert("ca"),
		"service-account-private-key-file": creds.key("service-account"),
		"cluster-signing-cert-file":        creds.cert("ca"),
		"cluster-signing-key-file":         creds.key("ca"),
		"allocate-node-cidrs":              "true",
		"cluster-cidr":                     c.Network.PodCIDR,
		"service-cluster-ip-range":         c.Network.ServiceCIDR,
		"node-cidr-mask-size":              fmt.Sprint(nodePodBits(c)),
		"profiling":                        "false",
		"controller-start-interval":        "0s",
		// Every controller asks for an account of its own at the start: at the
		// default of 20 requests a second that alone takes 5 s.
		"kube-api-qps":   "200",
		"kube-api-burst": "400",
		// A node that comes back after a crash of the control plane must not
		// lose its pods: they ran on all the time.
		"node-monitor-grace-period": "50s",
		// The default of 5 s would keep a new node tainted that long.
		"node-monitor-period":    "1s",
		"flex-volume-plugin-dir": filepath.Join(c.KubeletDir(), "volume-plugins"),
	}.parse("kube-controller-manager", sets)
	if err != nil {
		return err
	}
	config, err := options.Config(ctx, controllers.KnownControllers(), controllers.ControllersDisabledByDefault(), controllers.ControllerAliases())
	if err != nil {
		return fmt.Errorf("configure kube-controller-manager: %w", err)
	}
	return controllers.Run(ctx, config.Complete())
}

// runScheduler runs the scheduler until ctx ends.
func runScheduler(ctx context.Context, c node.Config, creds *credentials) error {
	options := scheduleroptions.NewOptions()
	kubeconfig := creds.kubeconfig("scheduler")
	err := flags{
		"kubeconfig":                kubeconfig,
		"authentication-kubeconfig": kubeconfig,
		"authorization-kubeconfig":  kubeconfig,
		"bind-address":              "127.0.0.1",
		"secure-port":               fmt.Sprint(c.Ports.Scheduler),
		"tls-cert-file":             creds.cert("scheduler-serving"),
		"tls-private-key-file":      creds.key("scheduler-serving"),
		"leader-elect":              "false",
		"kube-api-qps":              "200",
		"kube-api-burst":            "400",
		"profiling":                 "false",
	}.parse("kube-scheduler", *options.Flags)
	if err != nil {
		return err
	}
	config, instance, err := scheduler.Setup(ctx, options)
	if err != nil {
		return fmt.Errorf("configure kube-scheduler: %w", err)
	}
	err = scheduler.Run(ctx, config, instance)
	if ctx.Err() != nil {
		return nil // without leader election Run always ends with an error
	}
	return err
}

// runProxy runs kube-proxy. It cannot be stopped but with the process; its
// rules stay in the kernel, which keeps services up while the control plane is
// away.
func runProxy(_ context.Context, c node.Config, creds *credentials) error {
	path := filepath.Join(c.ClusterDir(), "kube-proxy.yaml")
	config := fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection:
  kubeconfig: %q
hostnameOverride: %q
healthzBindAddress: 127.0.0.1:%d
metricsBindAddress: 127.0.0.1:%d
detectLocalMode: ClusterCIDR
clusterCIDR: %s
logging:
  verbosity: %d
nftables:
  syncPeriod: 30s
  minSyncPeriod: 100ms
conntrack:
  maxPerCore: 0
  min: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
`, creds.kubeconfig("kube-proxy"), c.Node.Name, c.Ports.ProxyHealth, c.Ports.ProxyMetrics, c.Network.PodCIDR, c.Logging.Verbosity)
	if err := wholefile.Write(path, []byte(config), 0o600); err != nil {
		return err
	}
	command := kubeproxy.NewProxyCommand()
	command.SetArgs([]string{"--config", path})
	command.SilenceUsage, command.SilenceErrors = true, true
	command.SetOut(os.Stderr)
	if err := command.Execute(); err != nil {
		return err
	}
	return errors.New("kube-proxy ended")
}

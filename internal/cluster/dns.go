package cluster

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/metrics"
	"github.com/miekg/dns"
	"k8s.io/klog/v2"

	"github.com/slipwayhq/slipway/internal/node"
)

// runDNS answers the cluster's names on the bridge's address, to which
// kube-proxy sends the cluster DNS address, until ctx ends.
func runDNS(ctx context.Context, c node.Config, creds *credentials) error {
	dnsserver.Quiet, caddy.Quiet = true, true
	if err := dnsserver.Register(); err != nil {
		return fmt.Errorf("register CoreDNS: %w", err)
	}
	input := caddy.CaddyfileInput{
		Filepath: "Corefile", ServerTypeName: "dns",
		Contents: []byte(corefile(c, creds.kubeconfig("coredns"), upstreamResolvers(c))),
	}
	instance, err := caddy.Start(input)
	if err != nil {
		return fmt.Errorf("start CoreDNS: %w", err)
	}
	// The kubernetes plugin claims the log of the whole process.
	klog.ClearLogger()
	<-ctx.Done()
	instance.ShutdownCallbacks()
	return instance.Stop()
}

// corefile is CoreDNS's configuration. Without a resolver for other names
// these are answered with a failure at once.
// https://coredns.io/manual/configuration/
func corefile(c node.Config, kubeconfig string, resolvers []netip.AddrPort) string {
	forward := ""
	if len(resolvers) > 0 {
		var to []string
		for _, resolver := range resolvers {
			to = append(to, resolver.String())
		}
		forward = "\tforward . " + strings.Join(to, " ") + " {\n\t\tmax_concurrent 1000\n\t}\n"
	}
	return fmt.Sprintf(`.:53 {
	bind %s
	errors
	kubernetes %s in-addr.arpa ip6.arpa {
		kubeconfig %q
		pods insecure
		fallthrough in-addr.arpa ip6.arpa
		ttl 30
		startup_timeout 1s
	}
	prometheus 127.0.0.1:%d
%s	cache 30
	loadbalance
}
`, c.Gateway(), c.Network.ClusterDomain, kubeconfig, c.Ports.DNSMetrics, forward)
}

// checkDNS asks for the API server's name.
func checkDNS(ctx context.Context, c node.Config) error {
	name := "kubernetes.default.svc." + c.Network.ClusterDomain + "."
	question := new(dns.Msg)
	question.SetQuestion(name, dns.TypeA)
	client := dns.Client{Timeout: 2 * time.Second}
	answer, _, err := client.ExchangeContext(ctx, question, net.JoinHostPort(c.Gateway().String(), "53"))
	if err != nil {
		return fmt.Errorf("ask CoreDNS: %w", err)
	}
	if len(answer.Answer) == 0 {
		return fmt.Errorf("CoreDNS does not know %s yet (%s)", name, dns.RcodeToString[answer.Rcode])
	}
	return nil
}

// upstreamResolvers are the resolvers for names outside the cluster: the
// configured ones, or the host's.
func upstreamResolvers(c node.Config) []netip.AddrPort {
	var resolvers []netip.AddrPort
	for _, text := range c.Network.UpstreamDNS {
		if resolver, ok := parseResolver(text); ok {
			resolvers = append(resolvers, resolver)
		}
	}
	if len(resolvers) > 0 {
		return resolvers
	}
	// systemd-resolved's stub on 127.0.0.53 is of no use in another network
	// namespace, and pods cannot reach it: its own upstream file comes first.
	for _, path := range []string{"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"} {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		own := []string{c.Network.ClusterDNS, c.Gateway().String()}
		if resolvers = parseResolvConf(raw, own); len(resolvers) > 0 {
			return resolvers
		}
	}
	return nil
}

// parseResolvConf returns the name servers of a resolv.conf without loopback
// addresses and without own, which would make CoreDNS ask itself for ever.
func parseResolvConf(raw []byte, own []string) []netip.AddrPort {
	var resolvers []netip.AddrPort
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		resolver, ok := parseResolver(fields[1])
		if ok && !resolver.Addr().IsLoopback() && !slices.Contains(own, resolver.Addr().String()) {
			resolvers = append(resolvers, resolver)
		}
	}
	return resolvers
}

func parseResolver(text string) (netip.AddrPort, bool) {
	if resolver, err := netip.ParseAddrPort(text); err == nil {
		return resolver, true
	}
	address, err := netip.ParseAddr(text)
	return netip.AddrPortFrom(address, 53), err == nil
}

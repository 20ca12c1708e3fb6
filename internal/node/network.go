package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"github.com/vishvananda/netlink"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/hostnet"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// cniPlugins are the CNI plugins that the pod network is made of.
var cniPlugins = []string{"bridge", "host-local", "portmap"}

// findCNIPlugins returns the first usual directory that has the plugins, or
// the Debian package's directory.
func findCNIPlugins() string {
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"} {
		if missingPlugin(dir) == "" {
			return dir
		}
	}
	return "/usr/lib/cni"
}

func missingPlugin(dir string) string {
	for _, plugin := range cniPlugins {
		if info, err := os.Stat(filepath.Join(dir, plugin)); err != nil || info.Mode()&0o111 == 0 {
			return plugin
		}
	}
	return ""
}

// writeNetworkList writes the CNI network list of the pod network.
func writeNetworkList(c Config) error {
	raw, err := json.MarshalIndent(networkList(c, c.mtu()), "", "  ")
	if err != nil {
		return fmt.Errorf("encode CNI network list: %w", err)
	}
	return wholefile.Write(filepath.Join(c.cniConfDir(), "10-"+c.Instance+".conflist"), raw, 0o600)
}

// networkList is the pod network: a bridge with the node's addresses, and
// port mappings. The bridge plugin's own masquerading is off because its
// iptables rules stay behind when a pod is not torn down in order; Prepare
// installs one nftables table instead.
func networkList(c Config, mtu int) map[string]any {
	subnet := netip.MustParsePrefix(c.Network.NodePodCIDR)
	bridge := map[string]any{
		"type": "bridge", "bridge": c.Network.Bridge, "isGateway": true, "isDefaultGateway": true,
		"ipMasq": false, "hairpinMode": true, "promiscMode": false,
		"ipam": map[string]any{
			"type": "host-local", "dataDir": c.ipamDir(),
			"ranges": [][]map[string]string{{{"subnet": subnet.String()}}},
		},
	}
	if mtu > 0 {
		bridge["mtu"] = mtu
	}
	portmap := map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}, "snat": true}
	return map[string]any{"cniVersion": "1.0.0", "name": c.Instance, "plugins": []any{bridge, portmap}}
}

// ipamDir holds host-local's allocations; they last as long as the pods do.
func (c *Config) ipamDir() string { return filepath.Join(c.containerdDir(), "ipam") }

// Gateway is the bridge's own address: the first of the node's pod range.
func (c *Config) Gateway() netip.Addr {
	return netip.MustParsePrefix(c.Network.NodePodCIDR).Addr().Next()
}

// addBridge makes the pod bridge with the gateway address before the first pod
// needs it, because CoreDNS listens there.
func addBridge(c Config) error {
	name := c.Network.Bridge
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = name
		attributes.MTU = c.mtu()
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
			return fmt.Errorf("make bridge %s: %w", name, err)
		}
		link, err = netlink.LinkByName(name)
	}
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("interface %s exists and is no bridge but a %s: choose another network.bridge", name, link.Type())
	}
	subnet := netip.MustParsePrefix(c.Network.NodePodCIDR)
	address, err := netlink.ParseAddr(netip.PrefixFrom(c.Gateway(), subnet.Bits()).String())
	if err != nil {
		return fmt.Errorf("gateway of %s: %w", subnet, err)
	}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("give bridge %s the address %s: %w", name, address.IPNet, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set bridge %s up: %w", name, err)
	}
	return nil
}

// mtu is the configured MTU of the pods' links in bytes, or that of the way out.
func (c *Config) mtu() int {
	if c.Network.MTU > 0 {
		return c.Network.MTU
	}
	return hostnet.RouteMTU()
}

// masqueradeTable is the instance's own nftables table.
func (c *Config) masqueradeTable() string { return "slipway-" + c.Instance }

// addMasquerade gives pods the node's address when they talk to anything
// outside the pod network.
func addMasquerade(ctx context.Context, c Config) error {
	table := c.masqueradeTable()
	rules := fmt.Sprintf(`table ip %[1]s
delete table ip %[1]s
table ip %[1]s {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %[2]s ip daddr != %[2]s oifname != %[3]q counter masquerade
	}
}
`, table, c.Network.PodCIDR, c.Network.Bridge)
	return nft(ctx, rules)
}

// nft runs one nftables transaction.
func nft(ctx context.Context, rules string) error {
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

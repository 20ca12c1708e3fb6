package node

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// firewallComment marks the iptables rules of an instance.
func (c *Config) firewallComment() string { return "slipway-" + c.Instance }

// firewallRules let pods through a host firewall: to the host (API server, DNS)
// and through it, in both directions.
func (c *Config) firewallRules() [][]string {
	mark := []string{"-m", "comment", "--comment", c.firewallComment(), "-j", "ACCEPT"}
	return [][]string{
		append([]string{"INPUT", "-i", c.Network.Bridge}, mark...),
		append([]string{"FORWARD", "-i", c.Network.Bridge}, mark...),
		append([]string{"FORWARD", "-o", c.Network.Bridge}, mark...),
	}
}

// openFirewall puts the rules at the top of the chains that a firewall (ufw,
// Docker) has filled. A host without one is not touched.
func openFirewall(ctx context.Context, c Config) error {
	for _, rule := range c.firewallRules() {
		chain, err := exec.CommandContext(ctx, "iptables", "--wait", "-S", rule[0]).Output()
		if err != nil {
			return fmt.Errorf("read iptables chain %s: %w", rule[0], err)
		}
		if !needsRule(string(chain), rule[0]) {
			continue
		}
		if exec.CommandContext(ctx, "iptables", append([]string{"--wait", "-C"}, rule...)...).Run() == nil {
			continue
		}
		if out, err := exec.CommandContext(ctx, "iptables", append([]string{"--wait", "-I"}, rule...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("let pods through the firewall (iptables -I %s): %w: %s", strings.Join(rule, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// needsRule reports whether a chain, as iptables -S prints it, may stop pods:
// it drops by policy or has rules of someone's.
func needsRule(printed, chain string) bool {
	return strings.TrimSpace(printed) != "-P "+chain+" ACCEPT"
}

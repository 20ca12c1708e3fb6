package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// namespace is a network namespace with a veth pair and NAT to the host.
type namespace struct {
	name     string // "sw-<node>"
	host, ip string // the addresses of both ends
}

func newNamespace(node string) namespace {
	hash := fnv.New32a()
	hash.Write([]byte(node))
	// Benchmarking space of RFC 2544, of no use to anyone else on the host.
	third := hash.Sum32()%254 + 1
	return namespace{name: "sw-" + node, host: fmt.Sprintf("198.18.%d.1", third), ip: fmt.Sprintf("198.18.%d.2", third)}
}

func (n namespace) path() string { return filepath.Join("/run/netns", n.name) }
func (n namespace) veth() string { return "v" + n.name }

// create makes the namespace; one that a killed test left is taken away first.
func (n namespace) create(ctx context.Context) error {
	if err := n.remove(ctx); err != nil {
		return err
	}
	return run(ctx,
		"ip netns add "+n.name,
		"ip link add "+n.veth()+" type veth peer name eth0 netns "+n.name,
		"ip address add "+n.host+"/30 dev "+n.veth(),
		"ip link set "+n.veth()+" up",
		"ip -n "+n.name+" link set lo up",
		"ip -n "+n.name+" address add "+n.ip+"/30 dev eth0",
		"ip -n "+n.name+" link set eth0 up",
		"ip -n "+n.name+" route add default via "+n.host,
		"sysctl -qw net.ipv4.ip_forward=1",
		"nft add table ip "+n.name,
		"nft add chain ip "+n.name+" out { type nat hook postrouting priority srcnat; }",
		"nft add rule ip "+n.name+" out ip saddr "+n.ip+" oifname != "+n.veth()+" masquerade",
	)
}

func (n namespace) remove(ctx context.Context) error {
	// Added first, so that deleting what is not there is no error.
	failed := run(ctx, "nft add table ip "+n.name, "nft delete table ip "+n.name)
	if _, err := os.Stat(n.path()); err == nil {
		failed = errors.Join(failed, run(ctx, "ip netns delete "+n.name))
	}
	if _, err := os.Stat(filepath.Join("/sys/class/net", n.veth())); err == nil {
		// The kernel may be about to remove it with the namespace.
		_ = run(ctx, "ip link delete "+n.veth())
	}
	return failed
}

// run runs commands without quoting until one fails.
func run(ctx context.Context, commands ...string) error {
	for _, line := range commands {
		words := strings.Fields(line)
		if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

package containerd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/netns"
	cnins "github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	vishnetns "github.com/vishvananda/netns"

	"github.com/slipwayhq/slipway/internal/hostnet"
)

// segmentBits is the size of one job's subnet: /28 holds the bridge, the job
// and twelve services or containers of `docker run`.
const segmentBits = 28

// maxSegments keeps interface names within 15 characters.
const maxSegments = 256

// NetworkConfig describes the network of jobs.
type NetworkConfig struct {
	// Instance is the first part of the bridges' names ("<instance>j0"), at most 11 characters.
	Instance string
	// Subnet holds one /28 for each job that may run at a time.
	Subnet netip.Prefix
	// Blocked are destinations that no job may reach: pod and service ranges,
	// the cloud's metadata address (169.254.0.0/16 is always blocked), other networks.
	Blocked []netip.Prefix
	// HostPorts are the TCP ports of this host that jobs may reach: the platform's.
	HostPorts []uint16
	// Fenced are further source ranges that get the same rules, such as the
	// network of image builds.
	Fenced []netip.Prefix
	// DNS are the resolvers of jobs (default: the host's own, loopback ones excepted).
	DNS []string
	// MTU in bytes; 0 takes that of the default route's interface.
	MTU int
}

// network hands out segments. It is safe for concurrent use.
type network struct {
	config NetworkConfig
	dir    string // network namespaces are mounted here

	mu   sync.Mutex
	used map[int]bool
}

func newNetwork(config NetworkConfig, dir string) (*network, error) {
	if !config.Subnet.Addr().Is4() || config.Subnet.Bits() > segmentBits {
		return nil, fmt.Errorf("the jobs' subnet %s must be IPv4 and at least a /%d", config.Subnet, segmentBits)
	}
	if len(config.Instance) > 11 {
		return nil, fmt.Errorf("the instance name %q is longer than 11 characters", config.Instance)
	}
	if config.MTU == 0 {
		config.MTU = hostnet.RouteMTU()
	}
	return &network{config: config, dir: dir, used: map[int]bool{}}, nil
}

func (n *network) slots() int {
	return min(maxSegments, 1<<(segmentBits-n.config.Subnet.Bits()))
}

func (n *network) bridge(slot int) string { return fmt.Sprintf("%sj%d", n.config.Instance, slot) }

// vethPrefix starts the names of the interface pairs: what follows is the last
// three bytes of the container's address.
func (n *network) vethPrefix() string {
	return n.config.Instance[:min(8, len(n.config.Instance))] + "v"
}

func (n *network) own(name, prefix, alphabet string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	return ours && rest != "" && strings.Trim(rest, alphabet) == ""
}

func (n *network) table() string { return n.config.Instance + "-jobs" }

// segment is one job's network: a bridge that carries nobody else.
type segment struct {
	network *network
	slot    int
	bridge  int // interface index
	gateway netip.Addr

	mu        sync.Mutex
	addresses map[netip.Addr]bool
	endpoints []*endpoint
}

// endpoint is one container's place in a segment.
type endpoint struct {
	segment *segment
	address netip.Addr
	link    string // the host's end of the interface pair
	ns      *netns.NetNS
}

// open makes a segment with its bridge.
func (n *network) open() (_ *segment, err error) {
	n.mu.Lock()
	slot := 0
	for n.used[slot] {
		slot++
	}
	if slot >= n.slots() {
		n.mu.Unlock()
		return nil, fmt.Errorf("all %d job networks are in use: enlarge the jobs' subnet %s", n.slots(), n.config.Subnet)
	}
	n.used[slot] = true
	n.mu.Unlock()
	s := &segment{network: n, slot: slot, gateway: n.base(slot).Next(), addresses: map[netip.Addr]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU = n.bridge(slot), n.config.MTU
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("make bridge %s: %w", attributes.Name, err)
	}
	s.bridge = bridge.Attrs().Index
	if err := disableIPv6(attributes.Name); err != nil {
		return nil, err
	}
	if err := netlink.AddrAdd(bridge, address(s.gateway)); err != nil {
		return nil, fmt.Errorf("give bridge %s its address: %w", attributes.Name, err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("set bridge %s up: %w", attributes.Name, err)
	}
	return s, nil
}

// base is the first address of a slot's subnet.
func (n *network) base(slot int) netip.Addr {
	return ipv4(binary.BigEndian.Uint32(n.config.Subnet.Masked().Addr().AsSlice()) + uint32(slot)<<(32-segmentBits))
}

func ipv4(number uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, number)))
}

func address(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(segmentBits, 32)}}
}

// attach makes a network namespace with an interface in the segment.
func (s *segment) attach() (_ *endpoint, err error) {
	s.mu.Lock()
	e := &endpoint{segment: s, address: s.gateway.Next()}
	for s.addresses[e.address] {
		e.address = e.address.Next()
	}
	if last := s.gateway.As4(); e.address.As4()[3]&0x0f == 0x0f || e.address.As4()[3]&0xf0 != last[3]&0xf0 {
		s.mu.Unlock()
		return nil, errors.New("the job has too many containers: its network holds 13")
	}
	s.addresses[e.address] = true
	s.endpoints = append(s.endpoints, e)
	s.mu.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, e.detach())
		}
	}()
	if e.ns, err = netns.NewNetNS(s.network.dir); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	handle, err := vishnetns.GetFromPath(e.ns.GetPath())
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer handle.Close()
	attributes := netlink.NewLinkAttrs()
	attributes.MasterIndex, attributes.MTU = s.bridge, s.network.config.MTU
	e.link = fmt.Sprintf("%s%06x", s.network.vethPrefix(), binary.BigEndian.Uint32(e.address.AsSlice())&0xffffff)
	attributes.Name = e.link
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(handle)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make interface of the job's network: %w", err)
	}
	if err := e.configure(handle); err != nil {
		return nil, err
	}
	if err := disableIPv6(attributes.Name); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return nil, fmt.Errorf("set interface of the job's network up: %w", err)
	}
	return e, nil
}

// configure gives the namespace's end its address and route.
func (e *endpoint) configure(handle vishnetns.NsHandle) error {
	inside, err := netlink.NewHandleAt(handle)
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer inside.Close()
	steps := []func() error{
		func() error { return e.ns.Do(func(cnins.NetNS) error { return disableIPv6("eth0") }) },
		func() error {
			loopback, err := inside.LinkByName("lo")
			if err != nil {
				return err
			}
			return inside.LinkSetUp(loopback)
		},
		func() error {
			link, err := inside.LinkByName("eth0")
			if err != nil {
				return err
			}
			if err := inside.AddrAdd(link, address(e.address)); err != nil {
				return fmt.Errorf("add address: %w", err)
			}
			if err := inside.LinkSetUp(link); err != nil {
				return fmt.Errorf("set eth0 up: %w", err)
			}
			all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
			if err := inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Gw: e.segment.gateway.AsSlice()}); err != nil {
				return fmt.Errorf("add route: %w", err)
			}
			return nil
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("configure network namespace: %w", err)
		}
	}
	return nil
}

// detach removes the interface pair and the namespace, and only then gives the
// address free: the kernel takes its time to end a namespace, and the next
// user of the address would find the old interface in its way.
func (e *endpoint) detach() error {
	s := e.segment
	var errs []error
	if e.link != "" {
		errs = append(errs, removeLink(e.link))
	}
	if e.ns != nil {
		if err := e.ns.Remove(); err != nil {
			errs = append(errs, fmt.Errorf("remove network namespace: %w", err))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.addresses, e.address)
	for i, one := range s.endpoints {
		if one == e {
			s.endpoints = append(s.endpoints[:i], s.endpoints[i+1:]...)
			break
		}
	}
	return errors.Join(errs...)
}

// close removes the segment with all endpoints. It may be called again after a
// failure.
func (s *segment) close() error {
	var errs []error
	for {
		s.mu.Lock()
		if len(s.endpoints) == 0 {
			s.mu.Unlock()
			break
		}
		one := s.endpoints[len(s.endpoints)-1]
		s.mu.Unlock()
		errs = append(errs, one.detach())
	}
	errs = append(errs, removeLink(s.network.bridge(s.slot)))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	delete(s.network.used, s.slot)
	return nil
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.Is(err, syscall.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}

// recover removes the interfaces and namespaces of an earlier process and
// installs the fence.
func (n *network) recover(ctx context.Context) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		bridge := n.own(link.Attrs().Name, n.config.Instance+"j", "0123456789") && link.Type() == "bridge"
		pair := n.own(link.Attrs().Name, n.vethPrefix(), "0123456789abcdef") && link.Type() == "veth"
		if !bridge && !pair {
			continue
		}
		// Its namespace may be on its way out and take the interface along.
		if err := removeLink(link.Attrs().Name); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(n.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	for _, entry := range entries {
		if err := netns.LoadNetNS(filepath.Join(n.dir, entry.Name())).Remove(); err != nil {
			return fmt.Errorf("remove network namespace: %w", err)
		}
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return fmt.Errorf("make folder of network namespaces: %w", err)
	}
	if err := hostnet.Forward(); err != nil {
		return err
	}
	return n.fence(ctx)
}

// fence installs the nftables table that keeps jobs apart from each other,
// from the cluster and from this host, and lets them reach everything else.
func (n *network) fence(ctx context.Context) error {
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(n.rules())
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// unfence removes the table.
func (n *network) unfence(ctx context.Context) error {
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(fmt.Sprintf("table inet %[1]s\ndelete table inet %[1]s\n", n.table()))
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// rules is the fence. A packet from a segment must have an address of that
// segment: a job has raw sockets and could speak in another's name. Traffic within one segment passes the forward chain only
// where br_netfilter is on, as Kubernetes has it: the set of bridge pairs lets
// it through.
func (n *network) rules() string {
	blocked := []string{"169.254.0.0/16", n.config.Subnet.Masked().String()}
	for _, list := range [][]netip.Prefix{n.config.Blocked, n.config.Fenced} {
		for _, prefix := range list {
			blocked = append(blocked, prefix.Masked().String())
		}
	}
	sources := []string{n.config.Subnet.Masked().String()}
	for _, prefix := range n.config.Fenced {
		sources = append(sources, prefix.Masked().String())
	}
	pairs, origins := make([]string, 0, n.slots()), make([]string, 0, n.slots())
	for slot := range n.slots() {
		pairs = append(pairs, fmt.Sprintf("%[1]q . %[1]q", n.bridge(slot)))
		origins = append(origins, fmt.Sprintf("%q . %s/%d", n.bridge(slot), n.base(slot), segmentBits))
	}
	ports := ""
	if len(n.config.HostPorts) > 0 {
		list := make([]string, 0, len(n.config.HostPorts))
		for _, port := range n.config.HostPorts {
			list = append(list, fmt.Sprint(port))
		}
		ports = fmt.Sprintf("tcp dport { %s } accept", strings.Join(list, ", "))
	}
	return fmt.Sprintf(`table inet %[1]s
delete table inet %[1]s
table inet %[1]s {
	set blocked { type ipv4_addr; flags interval; auto-merge; elements = { %[2]s } }
	set sources { type ipv4_addr; flags interval; auto-merge; elements = { %[3]s } }
	set segments { type ifname . ifname; elements = { %[4]s } }
	set origins { type ifname . ipv4_addr; flags interval; elements = { %[7]s } }
	chain forward {
		type filter hook forward priority filter - 5; policy accept;
		iifname "%[5]sj*" iifname . ip saddr != @origins counter drop
		iifname . oifname @segments accept
		ip saddr @sources jump outbound
		iifname "%[5]sj*" jump outbound
		ip daddr @sources ct state { established, related } accept
		ip daddr @sources drop
		oifname "%[5]sj*" drop
	}
	chain outbound {
		meta nfproto ipv6 drop
		ct state { established, related } accept
		ip saddr != @sources drop
		ip daddr @blocked reject with icmpx admin-prohibited
		accept
	}
	chain input {
		type filter hook input priority filter - 5; policy accept;
		iifname "%[5]sj*" iifname . ip saddr != @origins counter drop
		iifname "%[5]sj*" jump host
		ip saddr @sources jump host
	}
	chain host {
		meta nfproto ipv6 drop
		ct state { established, related } accept
		icmp type echo-request accept
		%[6]s
		reject with icmpx admin-prohibited
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @sources ip daddr != @sources masquerade
	}
}
`, n.table(), strings.Join(blocked, ", "), strings.Join(sources, ", "), strings.Join(pairs, ", "), n.config.Instance, ports, strings.Join(origins, ", "))
}

// disableIPv6 keeps an interface, in the caller's network namespace, from
// taking link-local addresses: the fence and the addresses are IPv4.
func disableIPv6(name string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("disable IPv6 on %s: %w", name, err)
	}
	return nil
}

// resolvers are the name servers of jobs: those of the host, followed through
// systemd-resolved, as Docker does. Loopback addresses are this host's alone.
func resolvers(configured []string) ([]string, error) {
	if len(configured) > 0 {
		return configured, nil
	}
	for _, file := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		raw, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read resolvers: %w", err)
		}
		var found []string
		for line := range strings.Lines(string(raw)) {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "nameserver" {
				continue
			}
			if ip, err := netip.ParseAddr(fields[1]); err == nil && ip.Is4() && !ip.IsLoopback() {
				found = append(found, fields[1])
			}
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, errors.New("no name server that jobs can reach is configured on this host: set the jobs' DNS")
}

package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/hostnet"
)

// Namespace is the network namespace of a further instance. A veth pair joins
// it to the host, which translates its addresses.
type Namespace struct {
	Name string       // of the namespace, as `ip netns` lists it
	Link netip.Prefix // of the veth pair: first address host, second instance
}

// hostNamespace is the environment variable that carries the descriptor of the
// host's network namespace into the process that runs inside.
const hostNamespace = "SLIPWAY_HOST_NETNS_FD"

// Address is the instance's own address.
func (n Namespace) Address() string { return n.gateway().Next().String() }

func (n Namespace) gateway() netip.Addr { return n.Link.Masked().Addr().Next() }

func (n Namespace) hostLink() string { return trim("h" + n.Name) }
func (n Namespace) ownLink() string  { return "eth0" }
func (n Namespace) table() string    { return "slipway_" + strings.ReplaceAll(n.Name, "-", "_") }

func trim(s string) string {
	if len(s) > 15 {
		return s[:15]
	}
	return s
}

// Inside reports whether this process was started by Enter.
func Inside() bool { return os.Getenv(hostNamespace) != "" }

// Enter creates the namespace where it is missing and replaces this process
// with a copy of itself inside it. It returns only on failure.
func (n Namespace) Enter(ctx context.Context) error {
	runtime.LockOSThread()
	host, err := netns.Get()
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if err := n.create(ctx, host); err != nil {
		return fmt.Errorf("network namespace %s: %w", n.Name, err)
	}
	own, err := netns.GetFromName(n.Name)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", n.Name, err)
	}
	if err := netns.Set(own); err != nil {
		return fmt.Errorf("network namespace %s: %w", n.Name, err)
	}
	if _, err := unix.FcntlInt(uintptr(host), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("network namespace %s: %w", n.Name, err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", n.Name, err)
	}
	env := append(os.Environ(), hostNamespace+"="+strconv.Itoa(int(host)))
	return syscall.Exec(self, os.Args, env)
}

func (n Namespace) create(ctx context.Context, host netns.NsHandle) error {
	if h, err := netns.GetFromName(n.Name); err == nil {
		h.Close()
	} else if errors.Is(err, os.ErrNotExist) {
		if out, err := exec.CommandContext(ctx, "ip", "netns", "add", n.Name).CombinedOutput(); err != nil {
			return fmt.Errorf("ip netns add: %w: %s", err, bytes.TrimSpace(out))
		}
	} else {
		return err
	}
	own, err := netns.GetFromName(n.Name)
	if err != nil {
		return err
	}
	defer own.Close()
	inside, err := netlink.NewHandleAt(own)
	if err != nil {
		return err
	}
	defer inside.Close()
	outside, err := netlink.NewHandleAt(host)
	if err != nil {
		return err
	}
	defer outside.Close()
	if err := n.join(outside, inside, own); err != nil {
		return err
	}
	if err := hostnet.Forward(); err != nil {
		return err
	}
	return n.translate(ctx)
}

// join makes the veth pair and gives both ends their addresses.
func (n Namespace) join(outside, inside *netlink.Handle, own netns.NsHandle) error {
	if _, err := inside.LinkByName(n.ownLink()); err == nil {
		return nil
	}
	if old, err := outside.LinkByName(n.hostLink()); err == nil {
		if err := outside.LinkDel(old); err != nil {
			return fmt.Errorf("remove the old link %s: %w", n.hostLink(), err)
		}
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: n.hostLink()}, PeerName: n.ownLink(), PeerNamespace: netlink.NsFd(own)}
	if err := outside.LinkAdd(pair); err != nil {
		return fmt.Errorf("create the link %s: %w", n.hostLink(), err)
	}
	up := func(h *netlink.Handle, name string, addr netip.Addr) (netlink.Link, error) {
		link, err := h.LinkByName(name)
		if err != nil {
			return nil, err
		}
		if addr.IsValid() {
			a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(n.Link.Bits(), 32)}}
			if err := h.AddrReplace(link, a); err != nil {
				return nil, fmt.Errorf("address of %s: %w", name, err)
			}
		}
		return link, h.LinkSetUp(link)
	}
	if _, err := up(outside, n.hostLink(), n.gateway()); err != nil {
		return err
	}
	if _, err := up(inside, "lo", netip.Addr{}); err != nil {
		return err
	}
	link, err := up(inside, n.ownLink(), n.gateway().Next())
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: n.gateway().AsSlice()}
	if err := inside.RouteReplace(route); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// translate lets the namespace reach what the host reaches.
func (n Namespace) translate(ctx context.Context) error {
	rules := fmt.Sprintf(`table ip %[1]s
delete table ip %[1]s
table ip %[1]s {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %[2]s oifname != "%[3]s" masquerade
	}
}
`, n.table(), n.Link.Masked(), n.hostLink())
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Remove takes the namespace, its link and its rules away. It may be called
// from inside or outside; what is missing is no error.
func (n Namespace) Remove(ctx context.Context) error {
	var failed []error
	if fd, err := strconv.Atoi(os.Getenv(hostNamespace)); err == nil {
		runtime.LockOSThread()
		if err := netns.Set(netns.NsHandle(fd)); err != nil {
			return fmt.Errorf("network namespace: return to the host's: %w", err)
		}
	}
	rules := fmt.Sprintf("table ip %[1]s\ndelete table ip %[1]s\n", n.table())
	nft := exec.CommandContext(ctx, "nft", "-f", "-")
	nft.Stdin = strings.NewReader(rules)
	if out, err := nft.CombinedOutput(); err != nil {
		failed = append(failed, fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out)))
	}
	if link, err := netlink.LinkByName(n.hostLink()); err == nil {
		if err := netlink.LinkDel(link); err != nil {
			failed = append(failed, fmt.Errorf("remove the link %s: %w", n.hostLink(), err))
		}
	}
	if h, err := netns.GetFromName(n.Name); err == nil {
		h.Close()
		if out, err := exec.CommandContext(ctx, "ip", "netns", "delete", n.Name).CombinedOutput(); err != nil {
			failed = append(failed, fmt.Errorf("ip netns delete: %w: %s", err, bytes.TrimSpace(out)))
		}
	}
	return errors.Join(failed...)
}

// Exists reports whether the namespace is there.
func (n Namespace) Exists() bool {
	h, err := netns.GetFromName(n.Name)
	if err != nil {
		return false
	}
	h.Close()
	return true
}

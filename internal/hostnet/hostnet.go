// Package hostnet reads and sets what pods, jobs and builds need of the network
// they are connected to: that of the network namespace the caller is in.
//
// It receives and emits nothing else. It must import nothing of ours.
package hostnet

import (
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// RouteMTU is the MTU in bytes of the default route's interface, or 0 where
// there is none: the kernel's own default is right then.
func RouteMTU() int {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 0
	}
	for _, route := range routes {
		if route.Dst != nil && !route.Dst.IP.IsUnspecified() {
			continue
		}
		if link, err := netlink.LinkByIndex(route.LinkIndex); err == nil {
			return link.Attrs().MTU
		}
	}
	return 0
}

// Forward lets packets pass between interfaces. A kernel that does so already
// is not written to: /proc/sys may be read only.
func Forward() error {
	const file = "/proc/sys/net/ipv4/ip_forward"
	if value, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(value)) == "1" {
		return nil
	}
	if err := os.WriteFile(file, []byte("1"), 0); err != nil {
		return fmt.Errorf("enable forwarding: %w", err)
	}
	return nil
}

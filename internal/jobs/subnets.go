package jobs

import (
	"encoding/binary"
	"net/netip"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Beside returns networks within the built-in runner's JobSubnet that it leaves
// alone, for another Place: it uses the first /20 and the last /24. The subnet
// must be at least a /18.
func Beside(subnet netip.Prefix) (jobs, builds netip.Prefix, err error) {
	if !subnet.Addr().Is4() || subnet.Bits() > 18 {
		return jobs, builds, delivery.Errorf(delivery.Invalid, "runner.job_cidr %s is too small for jobs beside the built-in runner's: make it at least a /18.", subnet)
	}
	return netip.PrefixFrom(plus(subnet, 1<<12), 21), netip.PrefixFrom(plus(subnet, 1<<12+1<<11), 24), nil
}

// plus is the address at an offset in an IPv4 subnet.
func plus(subnet netip.Prefix, offset uint32) netip.Addr {
	first := subnet.Masked().Addr().As4()
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(first[:])+offset)))
}

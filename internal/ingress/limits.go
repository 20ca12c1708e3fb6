package ingress

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits are how much one client address may ask of an Ingress, as the limit-*
// annotations say.
type limits struct {
	connections int // at a time; 0: no limit
	rps, rpm    int // requests per second and minute; 0: no limit
	multiplier  int // how many times the rate may come at once
	allow       []netip.Prefix
}

func (s *settings) withLimits() *limits {
	if s.limits == nil {
		s.limits = &limits{multiplier: 5} // ingress-nginx's default
	}
	return s.limits
}

func parseMultiplier(s *settings, v string) error {
	n, err := strconv.Atoi(strings.TrimSpace(v))
	if err != nil || n < 1 {
		return fmt.Errorf("%q is not a whole number from 1", v)
	}
	s.withLimits().multiplier = n
	return nil
}

func parseLimitAllow(s *settings, v string) error {
	ranges, err := parseRanges(v)
	s.withLimits().allow = append(s.withLimits().allow, ranges...)
	return err
}

// usage counts what clients ask of Ingresses. It outlives the table, so that a
// change of routes gives nobody a fresh allowance.
type usage struct {
	mu      sync.Mutex
	clients map[usageKey]*visitor
	now     func() time.Time
}

type usageKey struct {
	ingress string
	addr    netip.Addr
}

type visitor struct {
	limits  limits
	second  *rate.Limiter
	minute  *rate.Limiter
	running int
	seen    time.Time
}

// maxClients is how many clients are remembered; those that have been idle are
// forgotten first.
const maxClients = 50_000

func newUsage() *usage { return &usage{clients: map[usageKey]*visitor{}, now: time.Now} }

// enter admits a request or says why not. The caller must call the function
// returned when the request has ended.
func (u *usage) enter(ingress string, addr netip.Addr, l *limits) (leave func(), refused string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	k := usageKey{ingress, addr}
	now := u.now()
	c := u.clients[k]
	if c == nil || c.limits.rps != l.rps || c.limits.rpm != l.rpm || c.limits.multiplier != l.multiplier {
		fresh := &visitor{limits: *l}
		if c != nil {
			fresh.running = c.running
		}
		c = fresh
		if l.rps > 0 {
			c.second = rate.NewLimiter(rate.Limit(l.rps), l.rps*l.multiplier+1)
		}
		if l.rpm > 0 {
			c.minute = rate.NewLimiter(rate.Limit(float64(l.rpm)/60), l.rpm*l.multiplier+1)
		}
		u.forget(now)
		u.clients[k] = c
	}
	c.seen = now
	switch {
	case l.connections > 0 && c.running >= l.connections:
		return nil, fmt.Sprintf("Your address has %d requests running here already.", c.running)
	case c.second != nil && !c.second.AllowN(now, 1):
		return nil, fmt.Sprintf("Your address may ask %d times per second.", l.rps)
	case c.minute != nil && !c.minute.AllowN(now, 1):
		return nil, fmt.Sprintf("Your address may ask %d times per minute.", l.rpm)
	}
	c.running++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if now := u.clients[k]; now != nil {
			now.running--
		}
	}, ""
}

// forget makes room when there are too many clients. Whoever runs nothing and
// has not asked for a minute has a full allowance again, or nearly.
func (u *usage) forget(now time.Time) {
	if len(u.clients) < maxClients {
		return
	}
	for k, c := range u.clients {
		if c.running == 0 && now.Sub(c.seen) > time.Minute {
			delete(u.clients, k)
		}
	}
	for k, c := range u.clients { // a flood of addresses: any idle ones
		if len(u.clients) < maxClients/2 {
			return
		}
		if c.running == 0 {
			delete(u.clients, k)
		}
	}
}

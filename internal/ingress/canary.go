package ingress

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// canaryRule says which requests of a route go to the canary. Its fields and
// their precedence (header, then cookie, then weight) are ingress-nginx's.
type canaryRule struct {
	header        string
	headerValue   string
	headerPattern *regexp.Regexp
	cookie        string
	weight        int // of weightTotal
	weightTotal   int
}

func (s *settings) onCanary(f func(*canaryRule)) error {
	if s.canary == nil {
		return fmt.Errorf("has no effect without %scanary: \"true\"", annotationPrefix)
	}
	f(s.canary)
	return nil
}

func parseCanaryWeight(s *settings, v string) error {
	n, err := strconv.Atoi(strings.TrimSpace(v))
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a weight: a whole number from 0", v)
	}
	return s.onCanary(func(c *canaryRule) { c.weight = n })
}

func parseCanaryWeightTotal(s *settings, v string) error {
	n, err := strconv.Atoi(strings.TrimSpace(v))
	if err != nil || n < 1 {
		return fmt.Errorf("%q is not a total: a whole number from 1", v)
	}
	// Smaller totals are taken for 100, as ingress-nginx's balancer does.
	return s.onCanary(func(c *canaryRule) { c.weightTotal = max(n, 100) })
}

func parseCanaryHeader(s *settings, v string) error {
	if !cookieName.MatchString(v) { // a header's name has the same alphabet
		return fmt.Errorf("%q is not a header name", v)
	}
	return s.onCanary(func(c *canaryRule) { c.header = v })
}

func parseCanaryPattern(s *settings, v string) error {
	re, err := regexp.Compile(v)
	if err != nil {
		return fmt.Errorf("%q is not a regular expression: %v", v, err)
	}
	return s.onCanary(func(c *canaryRule) { c.headerPattern = re })
}

func parseCanaryCookie(s *settings, v string) error {
	if !cookieName.MatchString(v) {
		return fmt.Errorf("%q is not a cookie name", v)
	}
	return s.onCanary(func(c *canaryRule) { c.cookie = v })
}

// decide reports whether the request goes to the canary. n is drawn once per
// request that header and cookie leave undecided.
//
// The rule is that of ingress-nginx's balancer (route_to_alternative_balancer):
// a header that is present but says nothing falls through to the cookie, and
// that one to the weight.
func (c *canaryRule) decide(r *http.Request, draw func() uint64) bool {
	if c.header != "" {
		if values := r.Header.Values(c.header); len(values) > 0 {
			v := strings.Join(values, ", ")
			switch {
			case c.headerValue != "":
				if v == c.headerValue {
					return true
				}
			case c.headerPattern != nil:
				if c.headerPattern.MatchString(v) {
					return true
				}
			case v == "always":
				return true
			case v == "never":
				return false
			}
		}
	}
	if c.cookie != "" {
		if cookie, err := r.Cookie(c.cookie); err == nil {
			switch cookie.Value {
			case "always":
				return true
			case "never":
				return false
			}
		}
	}
	return c.byWeight(draw)
}

func (c *canaryRule) byWeight(draw func() uint64) bool {
	switch {
	case c.weight <= 0:
		return false
	case c.weight >= c.weightTotal:
		return true
	}
	share := float64(c.weight) / float64(c.weightTotal)
	return draw() < uint64(share*math.MaxUint64)
}

// sequence draws numbers that fill their range evenly: a Weyl sequence with
// the golden ratio. Of any n draws in a row the share that falls below a
// weight differs from that weight by O(log n / n), where independent random
// draws would differ by O(1/sqrt n): a canary gets its weight exactly, from
// the first hundred requests on.
type sequence struct{ n atomic.Uint64 }

func (s *sequence) draw() uint64 { return s.n.Add(1) * 0x9E3779B97F4A7C15 }

// counters keep what must outlive a table: the position of each route's
// sequence and of each backend's rotation, which would otherwise start anew
// at every change and favour whatever comes first.
type counters struct {
	mu  sync.Mutex
	all map[string]*sequence
}

func newCounters() *counters { return &counters{all: map[string]*sequence{}} }

// get returns the sequence of that name.
func (c *counters) get(name string) *sequence {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.all[name]
	if s == nil {
		s = new(sequence)
		c.all[name] = s
	}
	return s
}

// keep forgets all but the named sequences.
func (c *counters) keep(names map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.all {
		if !names[name] {
			delete(c.all, name)
		}
	}
}

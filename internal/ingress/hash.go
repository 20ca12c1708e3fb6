package ingress

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"
)

// parseHashBy reads the text whose value chooses the endpoint, such as
// "$request_uri" or "${remote_addr}/$http_x_tenant".
func parseHashBy(s *settings, v string) error {
	by, err := parseText(v)
	if err != nil {
		return err
	}
	if !by.varies() {
		return fmt.Errorf("%q has no variable, so that all requests would go to one endpoint", v)
	}
	s.hashBy = by
	return nil
}

// pickBy chooses the endpoint with the highest score for the text (rendezvous
// hashing): when an endpoint comes or goes, only its own share moves. Those
// tried already, and those that failed a moment ago, are passed over while
// there are others.
func (be *backend) pickBy(text string, tried []*endpoint, now time.Time) *endpoint {
	var best, second *endpoint
	var top, next uint64
	for _, e := range be.endpoints {
		h := fnv.New64a()
		h.Write([]byte(e.id))
		h.Write([]byte{0})
		h.Write([]byte(text))
		score := mix(h.Sum64())
		if slices.Contains(tried, e) || e.failed.paused(now) {
			if second == nil || score > next {
				second, next = e, score
			}
			continue
		}
		if best == nil || score > top {
			best, top = e, score
		}
	}
	if best != nil {
		return best
	}
	return second
}

// mix spreads FNV's bits (the finalizer of MurmurHash3), whose high ones
// change too little with the last bytes of the input.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

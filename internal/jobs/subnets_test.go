package jobs_test

import (
	"net/netip"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/jobs"
)

func TestBeside(t *testing.T) {
	t.Parallel()
	place, builds, err := jobs.Beside(netip.MustParsePrefix("10.44.0.0/16"))
	if err != nil || place.String() != "10.44.16.0/21" || builds.String() != "10.44.24.0/24" {
		t.Errorf("%s %s %v", place, builds, err)
	}
	if _, _, err := jobs.Beside(netip.MustParsePrefix("10.44.0.0/20")); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("a small network: %v", err)
	}
}

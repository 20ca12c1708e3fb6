package metrics

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Who lists a series instead of its family gets nothing.
func TestWhatIsKeptIsNamedByFamily(t *testing.T) {
	t.Parallel()
	for _, f := range []Families{keptAPIServer(), keptControllerManager(), keptScheduler(), keptKubelet(), keptCAdvisor(), keptEtcd(), keptCoreDNS(), keptKubeProxy(), keptPrometheus()} {
		names := slices.Sorted(slices.Values(f.names()))
		if len(names) == 0 {
			t.Error("nothing is kept")
		}
		for i, name := range names {
			if strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_bucket") {
				t.Errorf("%s is a series of a family", name)
			}
			if i > 0 && names[i-1] == name {
				t.Errorf("%s is listed twice", name)
			}
		}
	}
}

func TestAddressesAreShownWithoutTheNamesAskedFor(t *testing.T) {
	t.Parallel()
	for full, want := range map[string]string{
		"https://10.0.0.1:6443/metrics?name%5B%5D=a&name%5B%5D=b":     "https://10.0.0.1:6443/metrics",
		"http://10.42.0.7:9115/probe?module=http&target=shop.example": "http://10.42.0.7:9115/probe?module=http&target=shop.example",
		"http://10.42.0.7/federate?match%5B%5D=up&name%5B%5D=a":       "http://10.42.0.7/federate?match%5B%5D=up",
	} {
		u, err := url.Parse(full)
		if err != nil {
			t.Fatal(err)
		}
		if got, short := addressOf(u); got != full || short != want {
			t.Errorf("%s is shown as %s, want %s", got, short, want)
		}
	}
}

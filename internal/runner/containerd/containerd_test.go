package containerd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
)

func TestServiceAliases(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ image, alias, want string }{
		{"postgres:16", "", "postgres"},
		{"postgres", "db,database", "postgres db database"},
		{"registry.example.com:5000/team/db:1", "", "registry.example.com__team__db registry.example.com-team-db"},
		{"tutum/wordpress@sha256:" + strings.Repeat("0", 64), "db tutum-wordpress", "tutum__wordpress tutum-wordpress db"},
	} {
		if got := strings.Join(serviceAliases(delivery.JobImage{Name: test.image, Alias: test.alias}), " "); got != test.want {
			t.Errorf("%s: %q, want %q", test.image, got, test.want)
		}
	}
}

// TestCredentialOfTheOwnRegistry: an image is named by the platform's public
// address, and pulled from its port on this host.
func TestCredentialOfTheOwnRegistry(t *testing.T) {
	t.Parallel()
	p := &puller{executor: &Executor{config: Config{Registry: "slipway.example.com", RegistryLocal: "192.0.2.2:8080"}},
		credentials: []runner.RegistryCredential{{Host: "slipway.example.com", Username: "job", Password: "token"}, {Host: "docker.io", Username: "hub", Password: "x"}}}
	for host, want := range map[string]string{"slipway.example.com": "job", "192.0.2.2:8080": "job", "registry-1.docker.io": "hub", "other.example.com": ""} {
		if user, _, err := p.credential(host); user != want || err != nil {
			t.Errorf("%s: %q, %v", host, user, err)
		}
	}
}

func TestServiceLogShowsLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := &serviceLog{log: runner.NewLog(&out, false, time.Now), prefix: "[service:db] "}
	for _, piece := range []string{"start", "ing\r\nrea", "dy\n", "unfinished"} {
		if n, err := io.WriteString(log, piece); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := strings.Count(out.String(), "[service:db] "); got != 2 || !strings.Contains(out.String(), "] starting\x1b") || !strings.Contains(out.String(), "] ready\x1b") {
		t.Errorf("%q", out.String())
	}
}

func testNetwork(t *testing.T, subnet string) *network {
	t.Helper()
	n, err := newNetwork(NetworkConfig{Instance: "slipway", Subnet: netip.MustParsePrefix(subnet), Blocked: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, HostPorts: []uint16{8080, 2222}, MTU: 1500}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFence(t *testing.T) {
	t.Parallel()
	n := testNetwork(t, "10.44.0.0/24")
	rules := n.rules()
	for _, text := range []string{
		`elements = { 169.254.0.0/16, 10.44.0.0/24, 10.42.0.0/16 }`, `"slipwayj15" . "slipwayj15"`, `tcp dport { 8080, 2222 } accept`, `iifname "slipwayj*" jump host`,
		"delete table inet slipway-jobs",
	} {
		if !strings.Contains(rules, text) {
			t.Errorf("the rules lack %q:\n%s", text, rules)
		}
	}
	if strings.Contains(rules, "slipwayj16") {
		t.Error("a /24 has 16 segments")
	}
}

func TestSegmentsFitTheSubnetAndInterfaceNames(t *testing.T) {
	t.Parallel()
	if got := testNetwork(t, "10.44.0.0/16").slots(); got != maxSegments {
		t.Errorf("a /16 has %d segments", got)
	}
	if got := testNetwork(t, "10.44.0.0/28").slots(); got != 1 {
		t.Errorf("a /28 has %d segments", got)
	}
	for _, wrong := range []NetworkConfig{
		{Instance: "slipway", Subnet: netip.MustParsePrefix("10.44.0.0/29"), MTU: 1500}, {Instance: "slipway", Subnet: netip.MustParsePrefix("fd00::/64"), MTU: 1500},
		{Instance: "a-name-too-long", Subnet: netip.MustParsePrefix("10.44.0.0/16"), MTU: 1500},
	} {
		if _, err := newNetwork(wrong, ""); err == nil {
			t.Errorf("%+v was accepted", wrong)
		}
	}
	n := testNetwork(t, "10.44.0.0/16")
	if name := n.bridge(maxSegments - 1); len(name) > 15 {
		t.Errorf("%s is too long", name)
	}
	if !n.own("slipwayj7", "slipwayj", "0123456789") || n.own("slipwayjx", "slipwayj", "0123456789") || n.own("slipway0", "slipwayj", "0123456789") {
		t.Error("other interfaces are taken for ours")
	}
}

func TestUnreachableIsNotDenied(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want bool
	}{
		{&url.Error{Op: "Head", URL: "https://x", Err: syscall.ECONNREFUSED}, true},
		{remoteerrors.ErrUnexpectedStatus{StatusCode: 503}, true},
		{remoteerrors.ErrUnexpectedStatus{StatusCode: 401}, false},
		{remoteerrors.ErrUnexpectedStatus{StatusCode: 404}, false},
		{errors.New("insufficient_scope"), false},
	} {
		if got := unreachable(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}

func TestKeyedLock(t *testing.T) {
	t.Parallel()
	var k keyedLock
	ctx := context.Background()
	release, err := k.lock(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := k.lock(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := k.lock(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the lock was given twice: %v", err)
	}
	release()
	again, err := k.lock(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
	if len(k.held) != 0 {
		t.Errorf("%d locks are left", len(k.held))
	}
}

func TestDindIsRecognised(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"docker:dind": true, "docker:24.0-dind-rootless": true, "registry.example.com/mirror/docker:27-dind": true, "docker:24": false, "postgres:dind": false, "Bad Name": false} {
		env := &environment{}
		env.request.Log = quietLog()
		if got := env.ignoredService(delivery.JobImage{Name: name}); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	t.Parallel()
	kept := &tail{limit: 10}
	for _, piece := range []string{"first ", "second ", "third"} {
		if _, err := kept.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if got := kept.String(); got != "cond third" {
		t.Errorf("kept %q", got)
	}
}

func TestResolversSkipLoopback(t *testing.T) {
	t.Parallel()
	if got, err := resolvers([]string{"192.0.2.53"}); err != nil || !slices.Equal(got, []string{"192.0.2.53"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func quietLog() *runner.Log { return runner.NewLog(io.Discard, false, time.Now) }

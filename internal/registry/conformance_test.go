package registry_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// TestConformance runs the OCI distribution specification's own suite, all
// workflows, with token authentication. The specification leaves digests other
// than SHA-256 to the registry, and the engine keeps manifests by SHA-256 only,
// so that set of data is off. SLIPWAY_OCI_CONFORMANCE names the suite's program:
//
//	go build -o conformance github.com/opencontainers/distribution-spec/conformance@latest
func TestConformance(t *testing.T) {
	t.Parallel()
	program := os.Getenv("SLIPWAY_OCI_CONFORMANCE")
	if program == "" {
		t.Skip("SLIPWAY_OCI_CONFORMANCE does not name the suite's program")
	}
	f := start(t, nil)
	f.people.add("conformance/one", delivery.Private)
	f.people.add("conformance/two", delivery.Private)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	results := os.Getenv("SLIPWAY_OCI_CONFORMANCE_RESULTS")
	if results == "" {
		results = t.TempDir()
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "OCI_REGISTRY="+f.host, "OCI_TLS=disabled", "OCI_REPO1=conformance/one/repo", "OCI_REPO2=conformance/two/repo",
		"OCI_USERNAME=dev", "OCI_PASSWORD=dev", "OCI_VERSION=1.1", "OCI_DATA_SHA512=false",
		"OCI_RESULTS_DIR="+results)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, tail(out))
	}
	if _, err := os.Stat(filepath.Join(results, "junit.xml")); err != nil {
		t.Errorf("no report: %v\n%s", err, tail(out))
	}
}

func tail(out []byte) []byte { return out[max(0, len(out)-12000):] }

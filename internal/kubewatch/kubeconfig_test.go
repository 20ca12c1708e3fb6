package kubewatch_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/slipwayhq/slipway/internal/kubewatch"
)

const kubeconfig = `apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "https://%s"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
`

// A session begins when the kubeconfig appears, and anew when it is replaced.
func TestClusterFollowsItsKubeconfig(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	told := make(chan string, 100)
	c := kubewatch.Cluster{Kubeconfig: path, Agent: "test", Cause: func(err error) { told <- err.Error() },
		Connect: func(cfg *rest.Config) (func(context.Context), error) {
			return func(ctx context.Context) {
				told <- "begin " + cfg.Host + " " + cfg.UserAgent
				<-ctx.Done()
				told <- "end " + cfg.Host
			}, nil
		}}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	ended := make(chan struct{})
	go func() { c.Run(ctx); close(ended) }()
	expect := func(want string) {
		t.Helper()
		for {
			select {
			case got := <-told:
				if strings.HasPrefix(got, want) {
					return
				}
				if !strings.HasPrefix(got, "the cluster has not started") {
					t.Fatalf("told %q, want %q", got, want)
				}
			case <-ctx.Done():
				t.Fatalf("not told: %s", want)
			}
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	expect("the cluster has not started")
	write(fmt.Sprintf(kubeconfig, "one"))
	expect("begin https://one test")
	write(fmt.Sprintf(kubeconfig, "two"))
	expect("end https://one")
	expect("begin https://two test")
	write("nonsense: [")
	expect("end https://two")
	expect("the kubeconfig is not usable")
	cancel()
	<-ended
}

package demo

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"

	"github.com/slipwayhq/slipway/internal/gitops"
)

// newDemo is a demonstration against a forge that answers as given.
func newDemo(t *testing.T, forge http.HandlerFunc, change func(*Options)) *Demo {
	t.Helper()
	server := httptest.NewServer(forge)
	t.Cleanup(server.Close)
	kinds := map[schema.GroupVersionResource]string{gitops.Resource: "ApplicationList", {Version: "v1", Resource: "namespaces"}: "NamespaceList"}
	o := Options{URL: server.URL, Token: "secret-token", Domain: "localhost", Ingress: "127.0.0.1:80", Files: fstest.MapFS{},
		Apps: gitops.NewClient(fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds)), StepWithin: 20 * time.Second}
	if change != nil {
		change(&o)
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAStepThatDoesNotHoldIsNamed(t *testing.T) {
	t.Parallel()
	refuse := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte(`{"message":"no more groups"}`))
			return
		}
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`{"message":"404 Not Found"}`))
	}
	d := newDemo(t, refuse, nil)
	report, err := d.Run(context.Background())
	if err != nil || report.OK || len(report.Steps) != 2 {
		t.Fatalf("%v: %+v", err, report)
	}
	step := report.Steps[1]
	if step.Name != "create projects" || !strings.Contains(step.Error, "create the group demo") || !strings.Contains(step.Error, "no more groups") {
		t.Errorf("the step: %+v", step)
	}
	if !strings.HasPrefix(step.Look, d.URL) {
		t.Errorf("where to look: %q", step.Look)
	}

	d = newDemo(t, refuse, func(o *Options) {
		o.Prepare = func(context.Context, func(string, ...any)) error { return errors.New("no package mirror answers") }
	})
	if report, err = d.Run(context.Background()); err != nil || len(report.Steps) != 1 || report.Steps[0].Error != "no package mirror answers" || report.Steps[0].Look == "" {
		t.Errorf("%v: %+v", err, report.Steps)
	}
}

func TestRemoveKeepsWhatOthersPutIntoTheGroup(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		projects string
		deleted  bool
	}{
		"only the demonstration": {`[{"id":1,"path":"shortener"},{"id":2,"path":"gitops-configs"}]`, true},
		"one of somebody's":      {`[{"id":3,"path":"mine","path_with_namespace":"demo/mine"}]`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deleted := false
			d := newDemo(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch {
				case r.Method == http.MethodDelete && r.URL.Path == "/api/v4/groups/demo":
					deleted = true
					w.WriteHeader(http.StatusAccepted)
				case r.Method == http.MethodDelete:
					w.WriteHeader(http.StatusAccepted)
				case r.URL.Path == "/api/v4/groups/demo/projects":
					w.Write([]byte(c.projects))
				default:
					w.WriteHeader(http.StatusNotFound)
				}
			}, nil)
			if err := d.Remove(context.Background()); err != nil {
				t.Fatal(err)
			}
			if deleted != c.deleted {
				t.Errorf("the group was deleted: %v", deleted)
			}
		})
	}
}

func TestCountTellsWhoFailed(t *testing.T) {
	t.Parallel()
	got := count([]answer{{status: 200, version: "1"}, {status: 500, version: "2"}, {status: 0}, {status: 502}})
	if got.all != 4 || got.versions["1"] != 1 || got.failed["2"] != 1 || got.failed[""] != 2 || failures(got) != 3 {
		t.Errorf("%+v", got)
	}
}

func TestSharesAddUp(t *testing.T) {
	t.Parallel()
	got := apart([]Share{{Stage: "build", Seconds: 3}, {Stage: "push", Seconds: 0.5}, {Stage: "other build", Seconds: 3}, {Stage: "served", Seconds: 7}})
	sum := 0.0
	for _, s := range got {
		sum += s.Share
	}
	if got[0].Stage != "push" || got[1].Share != 2.5 || got[2].Share != 0 || got[3].Share != 4 || sum != 7 {
		t.Errorf("%+v", got)
	}
}

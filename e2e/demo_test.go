//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/e2e/instance"
)

// TestSeedStory plays the demonstration on a fresh instance: from git push to
// an automatic rollback and a blue-green switch, every step checked by the
// demonstration itself. Then people look at it in a browser, and it is taken
// away again.
func TestSeedStory(t *testing.T) {
	i := instance.New(t, "swdemo", 2, "")
	i.Up()
	out, err := i.TryWithin(15*time.Minute, "demo", "--json")
	start := strings.Index(out, "\n{\n")
	if err != nil || start < 0 {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	var report struct {
		OK    bool
		Steps []struct {
			Name, Proven, Error string
			Seconds             float64
		}
	}
	if err := json.Unmarshal([]byte(out[start:]), &report); err != nil {
		t.Fatalf("the report is not JSON: %v\n%s", err, out[start:])
	}
	for _, step := range report.Steps {
		t.Logf("%-30s %6.1f s  %s%s", step.Name, step.Seconds, step.Proven, step.Error)
	}
	if !report.OK || len(report.Steps) != 6 {
		t.Errorf("the story has %d steps, ok %v", len(report.Steps), report.OK)
	}

	t.Run("people do the same in a browser", func(t *testing.T) { flows(t, i.With(t)) })
	t.Run("a job deploys to its own namespace", func(t *testing.T) { deployJob(t, i.With(t)) })
	t.Run("it can be taken away", func(t *testing.T) {
		i := i.With(t)
		i.Run("demo", "--remove")
		if out := i.Kubectl("get", "applications.argoproj.io", "-n", "argocd"); strings.Contains(out, "shortener") {
			t.Error(out)
		}
		if status, _ := i.Get(i.URL + "/api/v4/projects/demo%2Fshortener"); status != 404 && status != 401 {
			t.Errorf("the project answers %d", status)
		}
	})
}

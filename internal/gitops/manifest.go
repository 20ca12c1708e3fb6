package gitops

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"sigs.k8s.io/yaml"
)

// masked stands for a value that must not be shown. Argo CD masks too, with
// more of the same sign where two values differ; its masks are kept.
const masked = "++++++++"

// Text returns a manifest, given as JSON, as YAML to be read by people: without
// the bookkeeping of managed fields, and with the values of Secrets masked. ""
// stays "".
func Text(manifest string) (string, error) {
	if manifest == "" {
		return "", nil
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(manifest), &doc); err != nil {
		return "", fmt.Errorf("gitops: read a manifest: %w", err)
	}
	meta, _ := doc["metadata"].(map[string]any)
	delete(meta, "managedFields")
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
		if len(annotations) == 0 {
			delete(meta, "annotations")
		}
	}
	if doc["kind"] == "Secret" && doc["apiVersion"] == "v1" {
		for _, field := range []string{"data", "stringData"} {
			values, _ := doc[field].(map[string]any)
			for k, v := range values {
				if s, ok := v.(string); !ok || s == "" || strings.Trim(s, "+") != "" {
					values[k] = masked
				}
			}
		}
	}
	out, err := yaml.Marshal(doc)
	return string(out), err
}

// Patch compares the resource as it is with what git wants, as the hunks of a
// unified diff from live to desired; "" where they are the same.
func (d Difference) Patch() (string, error) {
	live, err := Text(d.Live)
	if err != nil {
		return "", err
	}
	desired, err := Text(d.Desired)
	if err != nil {
		return "", err
	}
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: lines(live), B: lines(desired), Context: 3})
}

// lines splits with each line's end kept; "" has none.
func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.SplitAfter(strings.TrimSuffix(s, "\n")+"\n", "\n")[:strings.Count(strings.TrimSuffix(s, "\n"), "\n")+1]
}

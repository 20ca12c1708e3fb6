package manifest

import (
	"maps"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestMergeDefaults(t *testing.T) {
	t.Parallel()
	fresh, digests := MergeDefaults(nil, nil, map[string]string{"a": "1", "b": "1"})
	if !maps.Equal(fresh, map[string]string{"a": "1", "b": "1"}) {
		t.Fatalf("fresh: %v", fresh)
	}
	// The user changes a, deletes b, adds c; then all three defaults change.
	edited := map[string]string{"a": "mine", "c": "mine"}
	got, digests := MergeDefaults(edited, digests, map[string]string{"a": "2", "b": "2", "c": "2", "d": "2"})
	if want := map[string]string{"a": "mine", "c": "mine", "d": "2"}; !maps.Equal(got, want) {
		t.Errorf("edited: %v, want %v", got, want)
	}
	// What the platform set last follows its new default.
	got, _ = MergeDefaults(got, digests, map[string]string{"d": "3"})
	if got["d"] != "3" {
		t.Errorf("untouched default: %v", got)
	}
}

func TestDecodeFilesSkipsWhatHasNoKind(t *testing.T) {
	t.Parallel()
	objs, err := DecodeFiles(fstest.MapFS{
		"d/a.yaml":     {Data: []byte("kind: A\nmetadata: {name: a}\n---\n---\nkind: B\nmetadata: {name: b}\n")},
		"d/rules.yaml": {Data: []byte("cut: [spec]\n")},
		"d/readme.md":  {Data: []byte("no")},
	}, "d")
	if err != nil || len(objs) != 2 || objs[1].GetName() != "b" {
		t.Errorf("decoded %v, %v", objs, err)
	}
}

func TestEstablished(t *testing.T) {
	t.Parallel()
	crd := func(status string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{
			"conditions": []any{map[string]any{"type": "NamesAccepted", "status": "True"}, map[string]any{"type": "Established", "status": status}},
		}}}
	}
	if established(crd("False")) || !established(crd("True")) || established(&unstructured.Unstructured{}) {
		t.Error("the condition Established decides")
	}
}

package gitops

import (
	"strings"
	"testing"
)

func TestTextMasksSecrets(t *testing.T) {
	t.Parallel()
	got, err := Text(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"keys","managedFields":[{"manager":"x"}],
	 "annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\"a\":\"c2VjcmV0\"}}"}},
	 "data":{"a":"c2VjcmV0","b":"++++++++++"},"stringData":{"c":"secret"}}`)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got, "secret") || strings.Contains(got, "c2VjcmV0") || strings.Contains(got, "managedFields") {
		t.Errorf("shown: %s", got)
	}
	if !strings.Contains(got, "b: ++++++++++\n") {
		t.Errorf("Argo CD's mask was lost: %s", got)
	}
	got, err = Text(`{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"open"}}`)
	if err != nil || !strings.Contains(got, "a: open") {
		t.Error(got, err)
	}
}

func TestPatch(t *testing.T) {
	t.Parallel()
	config := func(v string) string { return `{"kind":"ConfigMap","data":{"color":"` + v + `"}}` }
	for _, c := range []struct{ live, desired, want string }{
		{config("red"), config("blue"), "@@ -1,3 +1,3 @@\n data:\n-  color: red\n+  color: blue\n kind: ConfigMap\n"},
		{config("red"), config("red"), ""},
		{"", config("blue"), "@@ -0,0 +1,3 @@\n+data:\n+  color: blue\n+kind: ConfigMap\n"},
		{config("red"), "", "@@ -1,3 +0,0 @@\n-data:\n-  color: red\n-kind: ConfigMap\n"},
	} {
		got, err := Difference{Live: c.live, Desired: c.desired}.Patch()
		if err != nil || got != c.want {
			t.Errorf("%q %v, want %q", got, err, c.want)
		}
	}
}

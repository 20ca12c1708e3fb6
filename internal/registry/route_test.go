package registry

import (
	"testing"
)

const zeros = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func TestParseRoute(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]route{
		"/v2/":                            {},
		"/v2/_catalog":                    {},
		"/v2/a/b/manifests/v1":            {routeManifest, "a/b", "v1"},
		"/v2/a/b/manifests/" + zeros:      {routeManifest, "a/b", zeros},
		"/v2/a/blobs/" + zeros:            {routeBlob, "a", zeros},
		"/v2/a/blobs/v1":                  {},
		"/v2/a/manifests/b/manifests/v1":  {routeManifest, "a/manifests/b", "v1"},
		"/v2/a/blobs/uploads/":            {routeUpload, "a", ""},
		"/v2/a/blobs/uploads/some-id":     {routeUpload, "a", "some-id"},
		"/v2/a/tags/list":                 {routeTags, "a", ""},
		"/v2/a/referrers/" + zeros:        {routeReferrers, "a", zeros},
		"/v2/A/manifests/v1":              {},
		"/v2/../x/manifests/v1":           {},
		"/v2/a//b/manifests/v1":           {},
		"/v2/docker.io/d/e/manifests/1.2": {routeManifest, "docker.io/d/e", "1.2"},
		"/x/a/manifests/v1":               {},
		"/v2/a/manifests/.v1":             {},
	} {
		if got := parseRoute(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
}

func TestParseReference(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]Reference{
		"g/app":                             {Repository: "g/app"},
		"g/app:v1":                          {Repository: "g/app", Tag: "v1"},
		"10.0.0.1:8080/g/app:v1@" + zeros:   {"10.0.0.1:8080", "g/app", "v1", zeros},
		"docker.io/library/debian@" + zeros: {"docker.io", "library/debian", "", zeros},
		"localhost/x":                       {"localhost", "x", "", ""},
	} {
		got, ok := ParseReference(s)
		if !ok || got != want || got.String() != s {
			t.Errorf("%s: %+v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", ":", "a:", "A/b", "a@sha256:12", "a/../b", "host:80/", "a:b c"} {
		if got, ok := ParseReference(s); ok {
			t.Errorf("%q was read as %+v", s, got)
		}
	}
}

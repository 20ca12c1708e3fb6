package registry

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzRoute: whatever the path, what is taken for a repository's end point has a
// valid name and reference, and is the path again when it is put together.
func FuzzRoute(f *testing.F) {
	d := digest.FromString("x").String()
	for _, path := range []string{"/v2/", "/v2/a/b/manifests/v1", "/v2/a/b/blobs/" + d, "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/id", "/v2/a/tags/list", "/v2/a/referrers/" + d,
		"/v2/a/../b/manifests/v1", "/v2/manifests/manifests/manifests/v1", "/v2/a/blobs/uploads/../../x"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := parseRoute(path)
		if r.kind == routeOther {
			return
		}
		if !ValidName(r.name) || strings.Contains(r.name, "..") || strings.HasPrefix(r.name, "_") {
			t.Fatalf("%q gives the repository %q", path, r.name)
		}
		if strings.Contains(r.reference, "/") {
			t.Fatalf("%q gives the reference %q", path, r.reference)
		}
		whole := map[routeKind]string{routeManifest: "/manifests/" + r.reference, routeBlob: "/blobs/" + r.reference, routeUpload: "/blobs/uploads/" + r.reference,
			routeTags: "/tags/list", routeReferrers: "/referrers/" + r.reference}[r.kind]
		if got := "/v2/" + r.name + whole; got != path && got != path+"/" {
			t.Fatalf("%q is read as %q", path, got)
		}
	})
}

// FuzzReference: a reference that is read is written as it was.
func FuzzReference(f *testing.F) {
	f.Add("host:5000/group/project:tag@" + digest.FromString("x").String())
	f.Add("localhost:5000/a/b:c@" + zeros)
	f.Add("a/b")
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := ParseReference(text)
		if !ok {
			return
		}
		if again, ok := ParseReference(r.String()); !ok || again != r {
			t.Fatalf("%q is %+v, again %+v", text, r, again)
		}
	})
}

type fixedBlobs struct{ body []byte }

func (b fixedBlobs) Get(_ context.Context, d digest.Digest) ([]byte, error) {
	if d.Validate() != nil {
		return nil, errors.New("an invalid digest")
	}
	return b.body, nil
}

func (b fixedBlobs) Stat(_ context.Context, d digest.Digest) (v1.Descriptor, error) {
	return v1.Descriptor{}, errors.New("it is not stored")
}

// FuzzManifest: whatever a client pushes as a manifest and configuration, sizes
// are never below nothing: quotas count them.
func FuzzManifest(f *testing.F) {
	d := digest.FromString("x").String()
	f.Add([]byte(`{"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+d+`","size":2},"layers":[{"digest":"`+d+`","size":-5}]}`), []byte(`{"history":[{"created_by":"x"}]}`))
	f.Add([]byte(`{"manifests":[{"digest":"`+d+`","size":1,"platform":{"os":"linux"}}]}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, raw, config []byte) {
		image, err := describe(context.Background(), fixedBlobs{config}, raw, "")
		if err != nil {
			return
		}
		if image.Size < 0 {
			t.Errorf("an image of %d bytes", image.Size)
		}
		for _, r := range image.References {
			if r.Size < 0 {
				t.Errorf("a reference of %d bytes", r.Size)
			}
		}
	})
}

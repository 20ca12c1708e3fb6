package registry

import (
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// routeKind is an end point of the distribution protocol.
type routeKind int

const (
	routeOther routeKind = iota // the base, the catalogue, and what is not known
	routeManifest
	routeBlob
	routeUpload // the start of an upload, or one under way
	routeTags
	routeReferrers
)

// route is a parsed path of the distribution protocol.
type route struct {
	kind      routeKind
	name      string // repository
	reference string // tag or digest of a manifest; digest of a blob or subject; upload id
}

var nameRegexp = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)

// parseRoute reads a path such as /v2/group/project/manifests/v1. The kind is
// routeOther where the path is none of a repository's end points or its name is
// not a valid repository name (distribution-spec, "Pulling manifests").
func parseRoute(path string) route {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}
	}
	named := func(kind routeKind, name, ref string) route {
		if !ValidName(name) {
			return route{}
		}
		return route{kind, name, ref}
	}
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return named(routeTags, name, "")
	}
	// The name may itself hold a component called blobs or manifests: the last
	// one is the end point.
	if i := strings.LastIndex(rest, "/blobs/uploads"); i >= 0 {
		tail := rest[i+len("/blobs/uploads"):]
		if tail == "" || tail[0] == '/' {
			if id := strings.TrimPrefix(tail, "/"); !strings.Contains(id, "/") {
				return named(routeUpload, rest[:i], id)
			}
		}
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return route{}
	}
	head, last := rest[:i], rest[i+1:]
	for suffix, kind := range map[string]routeKind{"/manifests": routeManifest, "/blobs": routeBlob, "/referrers": routeReferrers} {
		name, ok := strings.CutSuffix(head, suffix)
		if !ok || last == "" {
			continue
		}
		if kind == routeManifest && !validTag(last) && !validDigest(last) || kind != routeManifest && !validDigest(last) {
			return route{}
		}
		return named(kind, name, last)
	}
	return route{}
}

// ValidName reports whether name may name a repository.
func ValidName(name string) bool {
	return len(name) <= reference.RepositoryNameTotalLengthMax && nameRegexp.MatchString(name)
}

func validTag(s string) bool {
	return len(s) <= 128 && s != "" && reference.TagRegexp.FindString(s) == s
}

func validDigest(s string) bool {
	return digest.Digest(s).Validate() == nil
}

// Reference names an image: a repository with a tag or a digest.
type Reference struct {
	Host       string // as written; empty without one
	Repository string
	Tag        string
	Digest     string
}

// ParseReference reads an image reference such as
// host:port/group/project:tag@sha256:... A reference without a host, tag and
// digest is a repository. Short Docker Hub names are not expanded.
func ParseReference(s string) (Reference, bool) {
	var r Reference
	rest, dgst, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if !validDigest(dgst) {
			return Reference{}, false
		}
		r.Digest = dgst
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
		r.Tag = rest[i+1:]
		if !validTag(r.Tag) {
			return Reference{}, false
		}
		rest = rest[:i]
	}
	if host, path, ok := strings.Cut(rest, "/"); ok && looksLikeHost(host) {
		r.Host, rest = host, path
	}
	if !ValidName(rest) {
		return Reference{}, false
	}
	r.Repository = rest
	return r, true
}

// looksLikeHost tells a host from a path component as Docker does: by a dot, a
// port or "localhost".
func looksLikeHost(s string) bool {
	return s == "localhost" || strings.ContainsAny(s, ".:")
}

// String returns the reference as it is written.
func (r Reference) String() string {
	s := r.Repository
	if r.Host != "" {
		s = r.Host + "/" + s
	}
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

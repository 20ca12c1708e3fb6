// Package openapi answers a client that asks a cluster for its OpenAPI v2
// document from the cluster's v3 documents.
//
// It owns the conversion of v3 schemas into what structured merging reads of a
// v2 document: types, references and the x-kubernetes extensions, but no paths,
// defaults and descriptions. It receives requests on their way to an API
// server, and emits documents. It imports no stage.
//
// An API server has its v3 documents at hand, because they are parts. The v2
// document is one of everything: made when somebody asks, merged, written as
// JSON, read as YAML, written as protobuf, and kept in each of these forms.
package openapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const (
	v2Path     = "/openapi/v2"
	v3Path     = "/openapi/v3"
	v2Protobuf = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	// sizeLimit bounds one document, in bytes: the largest of Kubernetes is 1.5 MB.
	sizeLimit = 32 << 20
)

// Transport passes requests on to Next, but answers those for the v2 document
// itself. An API server without v3 documents (before Kubernetes 1.24) is asked
// for its own.
type Transport struct{ Next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	base, asks := strings.CutSuffix(r.URL.Path, v2Path)
	if !asks || r.Method != http.MethodGet || !wantsProtobuf(r) {
		return t.Next.RoundTrip(r)
	}
	document, err := Document(r.Context(), func(ctx context.Context, address string) ([]byte, error) {
		return t.get(ctx, r, base, address)
	})
	if err != nil {
		return t.Next.RoundTrip(r) // whoever asked learns from the server what is wrong
	}
	body, err := proto.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header:        http.Header{"Content-Type": {v2Protobuf}, "Content-Length": {strconv.Itoa(len(body))}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}, nil
}

// wantsProtobuf knows both names of the form: client-go asks with the old one.
func wantsProtobuf(r *http.Request) bool {
	accept := strings.TrimSpace(r.Header.Get("Accept"))
	return accept == v2Protobuf || accept == "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
}

// get reads one address of the server with the credentials of the request r.
func (t Transport) get(ctx context.Context, r *http.Request, base, address string) ([]byte, error) {
	to, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("openapi: address %q: %w", address, err)
	}
	ask := r.Clone(ctx)
	ask.URL.Path, ask.URL.RawPath, ask.URL.RawQuery = base+to.Path, "", to.RawQuery
	ask.Header.Set("Accept", "application/json")
	res, err := t.Next.RoundTrip(ask)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, sizeLimit))
	if err != nil {
		return nil, fmt.Errorf("openapi: read %s: %w", to.Path, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("openapi: %s answers %s", to.Path, res.Status)
	}
	return data, nil
}

// Document is the v2 document, with definitions only, of all types that a
// server describes by its v3 documents. get reads a path of the server.
func Document(ctx context.Context, get func(ctx context.Context, address string) ([]byte, error)) (*openapi_v2.Document, error) {
	var index struct {
		Paths map[string]struct {
			Address string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	data, err := get(ctx, v3Path)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("openapi: list of documents: %w", err)
	}
	definitions := map[string]*openapi_v2.Schema{}
	for _, name := range slices.Sorted(maps.Keys(index.Paths)) {
		if !describesTypes(name) {
			continue
		}
		data, err := get(ctx, index.Paths[name].Address)
		if err != nil {
			return nil, err
		}
		if err := add(definitions, data); err != nil {
			return nil, fmt.Errorf("openapi: document %s: %w", name, err)
		}
	}
	document := &openapi_v2.Document{Swagger: "2.0", Definitions: &openapi_v2.Definitions{}}
	for _, name := range slices.Sorted(maps.Keys(definitions)) {
		document.Definitions.AdditionalProperties = append(document.Definitions.AdditionalProperties, &openapi_v2.NamedSchema{Name: name, Value: definitions[name]})
	}
	return document, nil
}

// describesTypes reports whether a document is one of a version of a group:
// api/v1 or apis/GROUP/VERSION.
func describesTypes(name string) bool {
	parts := strings.Split(name, "/")
	return len(parts) == 2 && parts[0] == "api" || len(parts) == 3 && parts[0] == "apis"
}

// add converts the schemas of one v3 document. Types that several documents
// have are the same in each.
func add(definitions map[string]*openapi_v2.Schema, data []byte) error {
	var document struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return err
	}
	for name, schema := range document.Components.Schemas {
		if have := definitions[name]; have != nil {
			mergeKinds(have, schema)
			continue
		}
		out, err := convert(schema)
		if err != nil {
			return fmt.Errorf("schema %s: %w", name, err)
		}
		definitions[name] = out
	}
	return nil
}

// kinds is the extension that names the kinds a schema is of. A type that
// several groups share, such as DeleteOptions, has in each document that
// group's kinds only.
const kinds = "x-kubernetes-group-version-kind"

func mergeKinds(have *openapi_v2.Schema, more *spec.Schema) {
	added, _ := more.Extensions[kinds].([]any)
	if len(added) == 0 {
		return
	}
	for _, e := range have.VendorExtension {
		if e.Name != kinds {
			continue
		}
		var all []any
		if json.Unmarshal([]byte(e.Value.Yaml), &all) != nil {
			return
		}
		for _, one := range added {
			if !slices.ContainsFunc(all, func(a any) bool { return same(a, one) }) {
				all = append(all, one)
			}
		}
		if text, err := json.Marshal(all); err == nil {
			e.Value.Yaml = string(text)
		}
	}
}

func same(a, b any) bool {
	x, ok := a.(map[string]any)
	y, ok2 := b.(map[string]any)
	return ok && ok2 && maps.Equal(x, y)
}

// convert is one schema as version 2 has it. Where version 2 knows less, it
// follows what API servers publish there: an int-or-string or a quantity is a
// string, and a value that may be null or has fields nobody knows has no type
// (k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2).
func convert(s *spec.Schema) (*openapi_v2.Schema, error) {
	out := &openapi_v2.Schema{Format: s.Format, Required: s.Required}
	if err := extensions(out, s.Extensions); err != nil {
		return nil, err
	}
	if ref := reference(s); ref != "" {
		out.XRef, out.Format, out.Required = ref, "", nil
		return out, nil
	}
	unknown := s.Extensions["x-kubernetes-preserve-unknown-fields"] == true
	types := s.Type
	switch {
	case len(types) == 0 && scalars(s.OneOf):
		types = spec.StringOrArray{"string"}
	case s.Nullable, unknown && slices.Contains(types, "object"), slices.Contains(types, "array") && (unknown || s.Items == nil || s.Items.Schema == nil):
		types = nil
	}
	if len(types) > 0 {
		out.Type = &openapi_v2.TypeItem{Value: types}
	}
	if extra := s.AdditionalProperties; extra != nil && extra.Schema != nil {
		sub, err := convert(extra.Schema)
		if err != nil {
			return nil, err
		}
		out.AdditionalProperties = &openapi_v2.AdditionalPropertiesItem{Oneof: &openapi_v2.AdditionalPropertiesItem_Schema{Schema: sub}}
	}
	if s.Nullable || unknown {
		return out, nil
	}
	if s.Items != nil && s.Items.Schema != nil {
		sub, err := convert(s.Items.Schema)
		if err != nil {
			return nil, err
		}
		out.Items = &openapi_v2.ItemsItem{Schema: []*openapi_v2.Schema{sub}}
	}
	if len(s.Properties) > 0 {
		out.Properties = &openapi_v2.Properties{}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[name]
		sub, err := convert(&property)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.Properties.AdditionalProperties = append(out.Properties.AdditionalProperties, &openapi_v2.NamedSchema{Name: name, Value: sub})
	}
	return out, nil
}

// reference is what a schema refers to; version 3 wraps a reference that has
// anything beside it into an allOf.
func reference(s *spec.Schema) string {
	ref := s.Ref.String()
	if ref == "" && len(s.AllOf) == 1 && len(s.Properties) == 0 {
		ref = s.AllOf[0].Ref.String()
	}
	if ref == "" {
		return ""
	}
	return "#/definitions/" + path.Base(ref)
}

// scalars reports whether the alternatives are plain types, as those of
// int-or-string and of quantities.
func scalars(alternatives []spec.Schema) bool {
	for _, a := range alternatives {
		if len(a.Type) != 1 || a.Type[0] == "object" || a.Type[0] == "array" {
			return false
		}
	}
	return len(alternatives) > 0
}

// extensions copies those that tell how values are merged.
func extensions(out *openapi_v2.Schema, from spec.Extensions) error {
	for _, name := range slices.Sorted(maps.Keys(from)) {
		if !strings.HasPrefix(name, "x-kubernetes-") || name == "x-kubernetes-validations" {
			continue
		}
		text, err := json.Marshal(from[name]) // JSON is YAML
		if err != nil {
			return fmt.Errorf("extension %s: %w", name, err)
		}
		out.VendorExtension = append(out.VendorExtension, &openapi_v2.NamedAny{Name: name, Value: &openapi_v2.Any{Yaml: string(text)}})
	}
	return nil
}

package openapi

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const index = `{"paths": {
	"version": {"serverRelativeURL": "/openapi/v3/version"},
	"apis/apps": {"serverRelativeURL": "/openapi/v3/apis/apps"},
	"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=1"},
	"apis/example.org/v1": {"serverRelativeURL": "/openapi/v3/apis/example.org/v1?hash=2"}}}`

const core = `{"components": {"schemas": {
	"io.k8s.Pod": {"type": "object", "description": "A pod.", "required": ["spec"], "properties": {
		"spec": {"default": {}, "allOf": [{"$ref": "#/components/schemas/io.k8s.PodSpec"}]},
		"port": {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}},
		"x-kubernetes-group-version-kind": [{"group": "", "kind": "Pod", "version": "v1"}]},
	"io.k8s.PodSpec": {"type": "object"},
	"io.k8s.DeleteOptions": {"type": "object", "x-kubernetes-group-version-kind": [{"group": "", "kind": "DeleteOptions", "version": "v1"}]}}}}`

const custom = `{"components": {"schemas": {
	"org.example.Thing": {"type": "object", "properties": {
		"any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
		"list": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
		"maybe": {"type": "string", "nullable": true},
		"more": {"type": "object", "additionalProperties": {"type": "integer", "format": "int32"}}}},
	"io.k8s.DeleteOptions": {"type": "object", "x-kubernetes-group-version-kind": [{"group": "example.org", "kind": "DeleteOptions", "version": "v1"}]}}}}`

// server answers below /cluster, as an API server behind a proxy does.
func server(t *testing.T, answers map[string]string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address := r.URL.Path
		if hash := r.URL.Query().Get("hash"); hash != "" {
			address += "?hash=" + hash
		}
		text, ok := answers[address]
		if !ok || r.Header.Get("Authorization") != "Bearer secret" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return s
}

// ask asks as Argo CD does.
func ask(t *testing.T, s *httptest.Server) map[string]*openapi_v2.Schema {
	t.Helper()
	config := &rest.Config{Host: s.URL + "/cluster", BearerToken: "secret"}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return Transport{Next: next} })
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	document, err := client.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*openapi_v2.Schema{}
	for _, d := range document.Definitions.AdditionalProperties {
		byName[d.Name] = d.Value
	}
	return byName
}

func TestTransport(t *testing.T) {
	t.Parallel()
	byName := ask(t, server(t, map[string]string{
		"/cluster/openapi/v3":                            index,
		"/cluster/openapi/v3/api/v1?hash=1":              core,
		"/cluster/openapi/v3/apis/example.org/v1?hash=2": custom,
	}))
	names := slices.Sorted(maps.Keys(byName))
	if got := strings.Join(names, " "); got != "io.k8s.DeleteOptions io.k8s.Pod io.k8s.PodSpec org.example.Thing" {
		t.Errorf("definitions: %s", got)
	}
	var shared []map[string]string
	if err := json.Unmarshal([]byte(byName["io.k8s.DeleteOptions"].VendorExtension[0].Value.Yaml), &shared); err != nil || len(shared) != 2 {
		t.Errorf("kinds of a shared type: %v, %v", shared, err)
	}
	pod := byName["io.k8s.Pod"]
	if pod.Description != "" || len(pod.Required) != 1 || pod.Properties.AdditionalProperties[1].Value.XRef != "#/definitions/io.k8s.PodSpec" {
		t.Errorf("pod: %v", pod)
	}
	if port := pod.Properties.AdditionalProperties[0].Value; port.Type.Value[0] != "string" || port.Format != "int-or-string" {
		t.Errorf("port: %v", port)
	}
	for _, p := range byName["org.example.Thing"].Properties.AdditionalProperties {
		switch v := p.Value; p.Name {
		case "any", "maybe":
			if v.Type != nil || v.Properties != nil {
				t.Errorf("%s has a type: %v", p.Name, v)
			}
		case "list":
			if v.Type.Value[0] != "array" || v.Items.Schema[0].Type.Value[0] != "string" || v.VendorExtension[0].Name != "x-kubernetes-list-type" {
				t.Errorf("list: %v", v)
			}
		case "more":
			if v.AdditionalProperties.GetSchema().Format != "int32" {
				t.Errorf("more: %v", v)
			}
		}
	}
}

// TestTransportWithoutVersion3: an old server, or one that answers what is no
// document, is asked for its own.
func TestTransportWithoutVersion3(t *testing.T) {
	t.Parallel()
	own, err := proto.Marshal(&openapi_v2.Document{Definitions: &openapi_v2.Definitions{AdditionalProperties: []*openapi_v2.NamedSchema{{Name: "its own", Value: &openapi_v2.Schema{}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, answers := range map[string]map[string]string{
		"none":    {},
		"garbage": {"/cluster/openapi/v3": "<html>"},
		"partial": {"/cluster/openapi/v3": index, "/cluster/openapi/v3/api/v1?hash=1": core},
	} {
		answers["/cluster/openapi/v2"] = string(own)
		if got := ask(t, server(t, answers)); len(got) != 1 || got["its own"] == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// FuzzConvert looks for documents that make the conversion panic, or that give
// schemas which cannot be sent.
func FuzzConvert(f *testing.F) {
	f.Add([]byte(core))
	f.Add([]byte(custom))
	f.Fuzz(func(t *testing.T, data []byte) {
		definitions := map[string]*openapi_v2.Schema{}
		if !utf8.Valid(data) || add(definitions, data) != nil {
			return
		}
		for name, d := range definitions {
			if _, err := proto.Marshal(d); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestScalars(t *testing.T) {
	t.Parallel()
	object := *spec.MapProperty(nil)
	if scalars(nil) || scalars([]spec.Schema{*spec.StringProperty(), object}) || !scalars([]spec.Schema{*spec.StringProperty()}) {
		t.Error("only alternatives that are plain types are scalars")
	}
}

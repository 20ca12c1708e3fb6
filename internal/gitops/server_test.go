package gitops

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func newServer(t *testing.T, answers map[string]string) *Server {
	t.Helper()
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer sesame" {
			http.Error(w, `{"message":"no session"}`, http.StatusUnauthorized)
			return
		}
		body, ok := answers[strings.TrimPrefix(r.URL.Path, "/argocd/api/v1/applications/")]
		if !ok {
			http.Error(w, `{"message":"not here"}`, http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(ts.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return NewServer(API{Address: strings.TrimPrefix(ts.URL, "http://"), RootPath: "/argocd", TokenFile: token})
}

func TestServerTree(t *testing.T) {
	t.Parallel()
	s := newServer(t, map[string]string{"shop/resource-tree": `{"nodes":[
	 {"kind":"Pod","name":"p","uid":"3","parentRefs":[{"uid":"2"}],"health":{"status":"Healthy"},"info":[{"name":"Status Reason","value":"Running"}]},
	 {"kind":"ReplicaSet","name":"r","uid":"2","parentRefs":[{"uid":"1"}]},
	 {"kind":"Rollout","name":"x","uid":"1"},{"kind":"ConfigMap","name":"c","uid":"9"}]}`})
	nodes, err := s.Tree(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, n := range nodes {
		order = append(order, n.Kind)
	}
	if got := strings.Join(order, " "); got != "ConfigMap Rollout ReplicaSet Pod" {
		t.Errorf("order %s", got)
	}
	if nodes[3].Info["Status Reason"] != "Running" || nodes[3].Health != "Healthy" {
		t.Errorf("pod %+v", nodes[3])
	}
}

func TestServerDifferences(t *testing.T) {
	t.Parallel()
	s := newServer(t, map[string]string{"shop/managed-resources": `{"items":[
	 {"kind":"ConfigMap","name":"same","targetState":"{1}","liveState":"{2}","normalizedLiveState":"{a}","predictedLiveState":"{a}"},
	 {"kind":"ConfigMap","name":"drift","targetState":"{1}","liveState":"{2}","normalizedLiveState":"{b}","predictedLiveState":"{a}"},
	 {"kind":"Job","name":"hook","hook":true,"targetState":"{1}","liveState":"null"},
	 {"kind":"ConfigMap","name":"missing","targetState":"{1}","liveState":"null"},
	 {"kind":"ConfigMap","name":"extra","targetState":"null","liveState":"{2}"}]}`})
	list, err := s.Differences(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, d := range list {
		if d.Modified {
			got += " " + d.Name + "(" + d.Live + "→" + d.Desired + ")"
		}
	}
	if got != " drift({b}→{a}) missing(→{1}) extra({2}→)" {
		t.Errorf("modified:%s", got)
	}
}

func TestServerErrors(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	if _, err := s.Commit(t.Context(), "shop", "abc"); delivery.KindOf(err) != delivery.NotFound || !strings.Contains(err.Error(), "not here") {
		t.Errorf("unknown application: %v", err)
	}
	if err := os.Remove(s.tokenFile); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tree(t.Context(), "shop"); delivery.KindOf(err) != delivery.Unavailable {
		t.Errorf("without a token: %v", err)
	}
}

func TestServerLogs(t *testing.T) {
	t.Parallel()
	s := newServer(t, map[string]string{"shop/logs": `{"result":{"content":"one","timeStampStr":"2026-01-02T03:04:05Z","podName":"p"}}
{"result":{"content":"two","podName":"p"}}
{"result":{"last":true}}
`})
	var lines []string
	if err := s.Logs(t.Context(), "shop", LogRequest{Namespace: "shop", Pod: "p", Container: "app", Last: 10}, func(l LogLine) { lines = append(lines, l.Content) }); err != nil {
		t.Fatal(err)
	}
	if strings.Join(lines, " ") != "one two" {
		t.Errorf("lines %v", lines)
	}
}

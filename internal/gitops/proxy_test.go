package gitops

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A refusal of gRPC reaches the caller as a trailer, and a stream as it is.
func TestProxyOfGRPC(t *testing.T) {
	t.Parallel()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	serve := func(h http.Handler) string {
		s := httptest.NewUnstartedServer(h)
		s.Config.Protocols = protocols
		s.Start()
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	api := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		if r.URL.Path == "/refused" {
			w.Header().Set("Grpc-Status", "7")
			w.Header().Set("Grpc-Message", "permission denied")
			return
		}
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, "answer")
		w.Header().Set("Grpc-Status", "0")
	}))
	front := serve(NewProxy(api, true))
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	for path, want := range map[string][3]string{"/refused": {"", "7", "permission denied"}, "/list": {"answer", "0", ""}} {
		for range 20 {
			res, err := client.Post("http://"+front+path, "application/grpc", strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := [3]string{string(body), res.Trailer.Get("Grpc-Status"), res.Trailer.Get("Grpc-Message")}; got != want || res.Header.Get("Grpc-Status") != "" {
				t.Fatalf("%s: %q with %v, want %q", path, got, res.Header, want)
			}
		}
	}
}

package engine

import (
	"bytes"
	"io"
	"net/http"
)

// maxHookBytes bounds a push event; upstream's limit is the same.
const maxHookBytes = 50 << 20

// WebhookHandler takes a push event (POST /api/webhook, in any form that Argo
// CD knows) and hands it to both receivers: the API server's, which refreshes
// Applications, and the ApplicationSet controller's. It answers with the API
// server's answer, or 503 while that has not started.
func (e *Engine) WebhookHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHookBytes))
		if err != nil {
			http.Error(w, "read the event: "+err.Error(), http.StatusBadRequest)
			return
		}
		apps := e.hooks.get(ComponentServer)
		if apps == nil {
			http.Error(w, "Argo CD is starting; its next poll finds the push", http.StatusServiceUnavailable)
			return
		}
		if sets := e.hooks.get(ComponentApplicationSet); sets != nil {
			sets.ServeHTTP(discard{http.Header{}}, withBody(r, "/api/webhook", body))
		}
		apps.ServeHTTP(w, withBody(r, e.config.API.RootPath+"/api/webhook", body))
	})
}

func withBody(r *http.Request, path string, body []byte) *http.Request {
	c := r.Clone(r.Context())
	c.URL.Path = path
	c.Body = io.NopCloser(bytes.NewReader(body))
	c.ContentLength = int64(len(body))
	return c
}

// discard is the answer of the ApplicationSet receiver, which refuses events
// that no generator follows; that is no fault of the sender.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

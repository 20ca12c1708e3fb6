package footprint

import (
	"net/http"
	"net/http/pprof"
)

// Profiles adds the Go runtime's profiles to mux below /debug/pprof/
// (net/http/pprof). It belongs on a private unix socket only: profiles tell a
// lot, and taking one costs time. For example:
//
//	curl -s --unix-socket SOCKET http://x/debug/pprof/heap >heap && go tool pprof -top heap
func Profiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

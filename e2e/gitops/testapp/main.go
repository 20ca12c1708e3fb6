// Command testapp is the application that the GitOps tests deploy: it answers
// with its version on :8000, with 500 when built with a fault, and on the
// probes.
package main

import (
	"fmt"
	"log"
	"net/http"
	"time"
)

// Set at link time, so that each build is a release of its own.
var version, fault = "dev", ""

func main() {
	fault := fault != ""
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		if fault {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprintln(w, version)
	})
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
	http.HandleFunc("/healthz", ok)
	http.HandleFunc("/readyz", ok)
	server := &http.Server{Addr: ":8000", ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

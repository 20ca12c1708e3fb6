// Command testapp is the application that the GitOps tests deploy: it answers
// with its version on :8000, with 500 when FAULT is set, and on the probes.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	version, fault := os.Getenv("APP_VERSION"), os.Getenv("FAULT") != ""
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

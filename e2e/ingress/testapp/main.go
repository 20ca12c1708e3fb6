// Command testapp is the application behind the ingress in the end-to-end
// tests: it answers with its version, with 500 when $FAIL is set, and stops as
// most applications do: at once when told to, after its running requests. Under
// /echo it tells what it was asked, /slow takes two seconds, and /auth is an
// authentication service that knows one session. Port 8443 is the same by TLS.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	version, fail := os.Getenv("VERSION"), os.Getenv("FAIL") != ""
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE testapp_info gauge\ntestapp_info{version=%q} 1\n", version)
	})
	mux.HandleFunc("/echo/", echo)
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(2 * time.Second):
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/auth", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Session") != "ann" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-Auth-Request-User", "ann")
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		if fail {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprint(w, version)
	})
	srv := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	cert, err := certificate()
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", ":8443", &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- srv.ListenAndServe() }()
	go func() { ended <- srv.Serve(secure) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// echo tells what the application was asked, and which pod answers.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return
	}
	pod, _ := os.Hostname() // only a name to tell pods apart
	fmt.Fprintf(w, "%s %s host=%s proto=%s tls=%t body=%d pod=%s\n", r.Method, r.RequestURI, r.Host, r.Proto, r.TLS != nil, body, pod)
	_ = r.Header.Write(w) // the client may be gone
}

// certificate is one that nobody trusts, as most applications have.
func certificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"testapp"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

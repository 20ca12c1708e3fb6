// Command testpod is what the end-to-end tests run in pods: one static program
// that serves, writes, reads, looks names up and fetches, so that no image with
// a shell is needed.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 0 {
		arguments = []string{"serve"}
	}
	if err := run(arguments[0], arguments[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testpod:", err)
		os.Exit(1)
	}
}

func run(verb string, arguments []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case verb == "serve":
		return serve(ctx)
	case verb == "wait":
		fmt.Println("waiting")
		<-ctx.Done()
		return nil
	case verb == "write" && len(arguments) == 2:
		return os.WriteFile(arguments[0], []byte(arguments[1]), 0o644)
	case verb == "read" && len(arguments) == 1:
		content, err := os.ReadFile(arguments[0])
		fmt.Print(string(content))
		return err
	case verb == "lookup" && len(arguments) == 1:
		addresses, err := net.DefaultResolver.LookupHost(ctx, arguments[0])
		fmt.Println(strings.Join(addresses, "\n"))
		return err
	case verb == "get" && len(arguments) == 1:
		return get(ctx, arguments[0])
	}
	return fmt.Errorf("unknown arguments %q", append([]string{verb}, arguments...))
}

// serve answers every request with the pod's name until it is told to stop.
func serve(ctx context.Context) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	server := &http.Server{Addr: ":8080", ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello from", name)
	})}
	context.AfterFunc(ctx, func() { server.Close() })
	fmt.Println("serving on", server.Addr)
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}

func get(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// Command docker is what jobs find as `docker` and, by that name, as `trivy`.
// It holds no engine: it hands its arguments to the job's endpoint on the host,
// which builds, pushes, runs and scans with the rights of the job.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/slipwayhq/slipway/internal/toolwire"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		code = 125
	}
	os.Exit(code)
}

func run() (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	call := toolwire.Call{Tool: filepath.Base(os.Args[0]), Args: os.Args[1:], Dir: dir, Env: environment(os.Environ())}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	code, err := toolwire.Run(toolwire.Socket, call, os.Stdin, os.Stdout, os.Stderr, interrupts)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return 0, fmt.Errorf("this job has no endpoint at %s: the command works only in jobs of the built-in runner", toolwire.Socket)
	}
	return code, err
}

// environment passes the job's environment on: build arguments and secrets may
// name any variable. The endpoint is the job's own.
func environment(pairs []string) map[string]string {
	env := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		if name, value, found := strings.Cut(pair, "="); found && len(value) < 64<<10 {
			env[name] = value
		}
	}
	return env
}

// Command slipway is the platform's command line and its main program:
// `slipway up` runs the forge, pipelines, runner, registry, ingress, metrics
// and web UI, and supervises the other programs. This package is the only
// place where the stages are wired to each other.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// version is set by the Makefile through -ldflags.
var version = "0.1.0-dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx))
}

// exitError ends the program with a status of its own, saying nothing more.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode is the program's exit status.
func (e exitError) ExitCode() int { return int(e) }

// run executes the command line. Exit statuses: 0 done, 1 failed, 2 wrong use,
// 3 the instance does not run, 4 it stopped when asked to, but with trouble.
func run(ctx context.Context) int {
	root := newRoot()
	err := root.ExecuteContext(ctx)
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		return coded.ExitCode()
	}
	var e *delivery.Error
	if errors.As(err, &e) {
		fmt.Fprintln(os.Stderr, "slipway: "+delivery.UserMessage(err))
		if e.Err != nil {
			fmt.Fprintln(os.Stderr, "  cause: "+e.Err.Error())
		}
	} else {
		fmt.Fprintln(os.Stderr, "slipway: "+err.Error())
	}
	switch {
	case errors.As(err, new(usageError)):
		return 2
	case delivery.KindOf(err) == delivery.Unavailable:
		return 3
	}
	return 1
}

// usageError marks a wrong use of the command line.
type usageError struct{ error }

func newRoot() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:           "slipway",
		Short:         "The delivery platform for one server",
		Long:          "Slipway is the delivery platform for one server: git hosting, GitLab CI pipelines,\na container registry, Kubernetes, Argo CD, Argo Rollouts and metrics, started by\none command.",
		Example:       "  slipway up --detach\n  slipway status\n  slipway kubectl get pods -A",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w\nSee: %s --help", err, c.CommandPath())}
	})
	root.PersistentFlags().StringVar(&a.configPath, "config", "", "configuration file (default /etc/slipway/config.yaml)")
	root.PersistentFlags().StringVar(&a.dataDir, "data-dir", "", "data directory (default from the configuration)")
	root.AddGroup(&cobra.Group{ID: "platform", Title: "Platform:"}, &cobra.Group{ID: "tools", Title: "Tools:"}, &cobra.Group{ID: "delivery", Title: "Delivery:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("platform", a.upCommand(), a.downCommand(), a.statusCommand(), a.logsCommand(), a.doctorCommand(),
		a.resetCommand(), a.installCommand(), a.configCommand(), versionCommand())
	add("tools", a.toolCommands()...)
	add("delivery", a.deliveryCommands()...)
	add("delivery", a.imageCommands()...)
	add("delivery", a.forgeCommands()...)
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  slipway version", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			info, ok := debug.ReadBuildInfo()
			fmt.Fprintf(c.OutOrStdout(), "slipway %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			if !ok {
				return nil
			}
			for _, want := range engineModules {
				for _, dep := range info.Deps {
					if dep.Path == want.module {
						v := dep.Version
						if dep.Replace != nil {
							v = dep.Replace.Version
						}
						fmt.Fprintf(c.OutOrStdout(), "  %-14s %s\n", want.name, v)
					}
				}
			}
			return nil
		},
	}
}

var engineModules = []struct{ name, module string }{
	{"Caddy", "github.com/caddyserver/caddy/v2"}, {"Prometheus", "github.com/prometheus/prometheus"},
	{"containerd", "github.com/containerd/containerd/v2"}, {"BuildKit", "github.com/moby/buildkit"},
	{"Registry", "github.com/distribution/distribution/v3"}, {"Kubernetes API", "k8s.io/client-go"},
}

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/toolwire"
)

// BuildCommand builds images on the instance of this host. socket says where
// its image builds are served.
func BuildCommand(connect rest.Connect, socket func() (string, error)) *cobra.Command {
	var tags []string
	var push bool
	c := &cobra.Command{
		Use: "build [flags] PATH [-- DOCKER-FLAGS...]", Short: "Build an image with the platform's BuildKit", Args: cobra.MinimumNArgs(1),
		Long: "Build an image from a Dockerfile with the BuildKit of the instance on this host, as jobs do, and\n" +
			"push it to the platform's registry. An image is named without the registry's host: group/project:tag.\n" +
			"What follows -- is given to docker build: --build-arg, --target, --secret, --platform, -f and the like.",
		Example: "  slipway image build -t team/app:1 --push .\n  slipway image build -t team/app:1 --push . -- -f deploy/Dockerfile --build-arg VERSION=1",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			path, err := socket()
			if err != nil {
				return err
			}
			if push && len(tags) == 0 {
				return delivery.Errorf(delivery.Invalid, "--push needs a name: -t group/project:tag")
			}
			dir, err := os.Getwd()
			if err != nil {
				return fmt.Errorf("current folder: %w", err)
			}
			run := func(stdin io.Reader, stdout io.Writer, args ...string) error {
				return call(c.Context(), path, toolwire.Call{Tool: "docker", Args: args, Dir: dir, Env: environment()}, stdin, stdout, c.ErrOrStderr())
			}
			if push {
				// The password travels by standard input; the configuration of this
				// user's docker is left alone.
				login := func() error {
					return call(c.Context(), path, toolwire.Call{Tool: "docker", Args: []string{"login", "-u", "slipway", "--password-stdin", client.Host()}, Dir: dir,
						Env: map[string]string{"DOCKER_CONFIG": "/nonexistent"}}, strings.NewReader(client.Token), io.Discard, io.Discard)
				}
				if err := login(); err != nil {
					return fmt.Errorf("sign in to the registry: %w", err)
				}
			}
			command := []string{"build"}
			for _, tag := range tags {
				command = append(command, "-t", client.Host()+"/"+strings.TrimPrefix(tag, client.Host()+"/"))
			}
			if push {
				command = append(command, "--push")
			}
			command = append(command, args[1:]...)
			return run(c.InOrStdin(), c.OutOrStdout(), append(command, args[0])...)
		}),
	}
	c.Flags().StringArrayVarP(&tags, "tag", "t", nil, "name of the image: group/project[/name]:tag; may be repeated")
	c.Flags().BoolVar(&push, "push", false, "push the image to the platform's registry")
	return c
}

// call runs one command on the endpoint.
func call(ctx context.Context, socket string, call toolwire.Call, stdin io.Reader, stdout, stderr io.Writer) error {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	code, err := toolwire.Run(socket, call, stdin, stdout, stderr, interrupts)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &delivery.Error{Kind: delivery.Unavailable, Message: "Image builds are not served on this host.", Next: "See why with: slipway status", Err: err}
	case errors.Is(err, os.ErrPermission):
		return &delivery.Error{Kind: delivery.Forbidden, Message: "Only the host's administrator may build here.", Next: "Run it as root.", Err: err}
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case code != 0:
		return delivery.Errorf(delivery.Invalid, "The command failed with exit code %d.", code)
	}
	return nil
}

func environment() map[string]string {
	env := map[string]string{}
	for _, pair := range os.Environ() {
		if name, value, found := strings.Cut(pair, "="); found {
			env[name] = value
		}
	}
	return env
}

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
	"github.com/spf13/pflag"

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
		Use: "build [flags] PATH [-- DOCKER-FLAGS...]", Short: "Build an image with the platform's BuildKit", Args: onePath,
		Long: "Build an image from a Dockerfile with the BuildKit of the instance on this host, as jobs do, and\n" +
			"push it to the platform's registry. An image is named without the registry's host: group/project:tag.\n" +
			"The flags are docker build's; rarer ones of its follow --.",
		Example: "  slipway image build -t team/app:1 --push .\n  slipway image build -t team/app:1 --push -f deploy/Dockerfile --build-arg VERSION=1 .",
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
			command = append(command, passed(c.Flags())...)
			command = append(command, args[1:]...)
			return run(c.InOrStdin(), c.OutOrStdout(), append(command, args[0])...)
		}),
	}
	c.Flags().StringArrayVarP(&tags, "tag", "t", nil, "name of the image: group/project[/name]:tag; may be repeated")
	c.Flags().BoolVar(&push, "push", false, "push the image to the platform's registry")
	passedFlags(c.Flags())
	return c
}

// passes marks a flag that is docker build's own.
const passes = "slipway.dev/docker-build"

// passedFlags adds the flags of docker build that are given on as they are.
func passedFlags(f *pflag.FlagSet) {
	f.StringP("file", "f", "", "the Dockerfile (default PATH/Dockerfile)")
	f.String("target", "", "the stage to build")
	f.StringArray("build-arg", nil, "NAME=VALUE of an ARG; may be repeated, as the following")
	f.StringArray("label", nil, "NAME=VALUE to store in the image")
	f.StringArray("annotation", nil, "NAME=VALUE to store in the manifest")
	f.StringArray("secret", nil, "id=NAME[,src=FILE|,env=VARIABLE] for RUN --mount=type=secret")
	f.StringArray("ssh", nil, "default or NAME=SOCKET|KEY for RUN --mount=type=ssh")
	f.StringArray("build-context", nil, "NAME=FOLDER|IMAGE|URL beside PATH")
	f.StringArray("platform", nil, "platform to build for, such as linux/amd64")
	f.StringArray("cache-from", nil, "where to take layers from")
	f.StringArray("cache-to", nil, "where to put layers")
	f.StringArrayP("output", "o", nil, "type=local|tar|oci|docker,dest=PATH instead of an image")
	f.StringArray("add-host", nil, "NAME:ADDRESS for the build's commands")
	f.StringArray("no-cache-filter", nil, "stages to build without their cache")
	f.String("network", "", "network of the build's commands: default or none")
	f.String("iidfile", "", "file for the image's id")
	f.String("metadata-file", "", "file for the result as JSON")
	f.String("progress", "", "auto, plain or rawjson")
	f.Bool("no-cache", false, "build every step again")
	f.Bool("pull", false, "look for newer base images")
	f.BoolP("quiet", "q", false, "print the image's id alone")
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Name != "tag" && flag.Name != "push" {
			flag.Annotations = map[string][]string{passes: {}}
		}
	})
}

// passed returns what was set of passedFlags, as docker build takes it.
func passed(f *pflag.FlagSet) (args []string) {
	f.Visit(func(flag *pflag.Flag) {
		if _, ok := flag.Annotations[passes]; !ok {
			return
		}
		values := []string{flag.Value.String()}
		if many, ok := flag.Value.(pflag.SliceValue); ok {
			values = many.GetSlice()
		}
		for _, value := range values {
			args = append(args, "--"+flag.Name+"="+value)
		}
	})
	return args
}

// onePath takes one argument, and any number behind --.
func onePath(c *cobra.Command, args []string) error {
	own := len(args)
	if dash := c.ArgsLenAtDash(); dash >= 0 {
		own = dash
	}
	if own != 1 {
		return delivery.Errorf(delivery.Invalid, "PATH is wanted once, as the folder or address to build from: slipway image build -t group/project:tag .")
	}
	return nil
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

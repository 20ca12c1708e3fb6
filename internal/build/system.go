package build

import (
	"context"
	"fmt"
	"runtime"
	"strings"
)

// nothing is a command whose effect this platform gives without it.
func nothing(context.Context, *command) error { return nil }

// prune is a clean-up that the end of the job brings anyway. The job's own
// images may yet be needed.
func prune(_ context.Context, c *command) error {
	fmt.Fprintln(c.Stdout(), "Total reclaimed space: 0B")
	return nil
}

// echoNames prints its arguments, as docker does of what it did something to.
func echoNames(_ context.Context, c *command) error {
	c.flags.BoolP("force", "f", false, "")
	if err := c.parse(1, -1); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout(), strings.Join(c.flags.Args(), "\n"))
	return nil
}

func versionLine(_ context.Context, c *command) error {
	fmt.Fprintf(c.Stdout(), "Docker version %s, build slipway\n", clientVersion)
	return nil
}

// program is one side of `docker version`.
type program struct {
	Version, APIVersion, GitCommit, GoVersion, Os, Arch string
}

func version(_ context.Context, c *command) error {
	format := c.flags.StringP("format", "f", "", "Go template, or json")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	one := program{clientVersion, "1.51", "slipway", runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if *format != "" {
		return printFormat(c.Stdout(), *format, struct{ Client, Server program }{one, one})
	}
	fmt.Fprintf(c.Stdout(), "Client: docker command of Slipway\n Version:           %s\n OS/Arch:           %s/%s\n\nServer: BuildKit, started when a build needs it\n Engine:\n  Version:          %[1]s\n  OS/Arch:          %[2]s/%[3]s\n",
		one.Version, one.Os, one.Arch)
	return nil
}

// machines are docker's names of architectures.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

func info(_ context.Context, c *command) error {
	format := c.flags.StringP("format", "f", "", "Go template, or json")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	facts := struct {
		ID, Name, ServerVersion, Driver, OSType, Architecture, OperatingSystem, CgroupDriver, DockerRootDir, DefaultRuntime string
		NCPU, Images, Containers                                                                                            int
	}{Name: "slipway", ID: "slipway", ServerVersion: clientVersion, Driver: "overlayfs", OSType: runtime.GOOS, Architecture: machines[runtime.GOARCH], OperatingSystem: "Slipway",
		CgroupDriver: "cgroupfs", DockerRootDir: "/var/lib/docker", DefaultRuntime: "runc", NCPU: runtime.NumCPU(), Images: len(c.all())}
	if facts.Architecture == "" {
		facts.Architecture = runtime.GOARCH
	}
	if *format != "" {
		return printFormat(c.Stdout(), *format, facts)
	}
	fmt.Fprintf(c.Stdout(), "Client: docker command of Slipway\n Version:    %s\n\nServer:\n Images: %d\n Server Version: %s\n Storage Driver: %s\n Builder: BuildKit, started when a build needs it\n Default Runtime: runc\n OSType: %s\n Architecture: %s\n CPUs: %d\n",
		clientVersion, facts.Images, facts.ServerVersion, facts.Driver, facts.OSType, facts.Architecture, facts.NCPU)
	return nil
}

// networkCreate takes a name: the containers of a job share one network, in
// which they know each other by name.
func networkCreate(_ context.Context, c *command) error {
	c.flags.StringP("driver", "d", "", "")
	c.flags.StringArray("subnet", nil, "")
	c.flags.StringArray("label", nil, "")
	c.flags.StringArrayP("opt", "o", nil, "")
	c.flags.Bool("attachable", false, "")
	c.flags.Bool("internal", false, "")
	if err := c.parse(1, 1); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout(), c.flags.Arg(0))
	return nil
}

func builderCreate(_ context.Context, c *command) error {
	name := c.flags.String("name", "slipway", "what to call it")
	c.flags.Bool("use", false, "")
	c.flags.Bool("bootstrap", false, "")
	c.flags.Bool("append", false, "")
	c.flags.Bool("leave", false, "")
	for _, flag := range []string{"driver", "platform", "node", "buildkitd-config", "config", "buildkitd-flags"} {
		c.flags.String(flag, "", "")
	}
	c.flags.StringArray("driver-opt", nil, "")
	if err := c.parse(0, 1); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout(), *name)
	return nil
}

// platformsOf are the platforms whose programs this host runs.
func (c *command) platformsOf(ctx context.Context) (string, error) {
	buildkit, release, err := c.engine.daemon.acquire(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	workers, err := buildkit.ListWorkers(ctx)
	if err != nil {
		return "", fmt.Errorf("ask BuildKit: %w", err)
	}
	var list []string
	for _, worker := range workers {
		for _, one := range worker.Platforms {
			text := one.OS + "/" + one.Architecture
			if one.Variant != "" {
				text += "/" + one.Variant
			}
			list = append(list, text)
		}
	}
	return strings.Join(list, ", "), nil
}

func builderInspect(ctx context.Context, c *command) error {
	c.flags.Bool("bootstrap", false, "")
	if err := c.parse(0, 1); err != nil {
		return err
	}
	name := "slipway"
	if c.flags.NArg() > 0 {
		name = c.flags.Arg(0)
	}
	platforms, err := c.platformsOf(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout(), "Name:          %s\nDriver:        slipway\n\nNodes:\nName:             %[1]s0\nStatus:           running\nPlatforms:        %s\n", name, platforms)
	return nil
}

func builderList(ctx context.Context, c *command) error {
	platforms, err := c.platformsOf(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout(), "NAME/NODE     DRIVER/ENDPOINT   STATUS    PLATFORMS\nslipway*      slipway\n \\_ slipway0   slipway           running   %s\n", platforms)
	return nil
}

func buildxVersion(_ context.Context, c *command) error {
	fmt.Fprintln(c.Stdout(), "github.com/docker/buildx v0.29.1 slipway")
	return nil
}

// Contexts name daemons, and a job has one endpoint: any name is taken for it.
// The usual one is made for docker:dind with TLS.

func contextCreate(_ context.Context, c *command) error {
	c.flags.String("docker", "", "")
	c.flags.String("description", "", "")
	c.flags.String("from", "", "")
	if err := c.parse(1, 1); err != nil {
		return err
	}
	target := ""
	if parts, err := fields(c.flags.Lookup("docker").Value.String()); err == nil {
		target = parts["host"]
	}
	if err := ownHost(target, nil); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout(), c.flags.Arg(0))
	fmt.Fprintf(c.Stderr(), "Successfully created context %q\n", c.flags.Arg(0))
	return nil
}

func contextUse(_ context.Context, c *command) error {
	if err := c.parse(1, 1); err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout(), c.flags.Arg(0))
	fmt.Fprintf(c.Stderr(), "Current context is now %q\n", c.flags.Arg(0))
	return nil
}

func contextShow(_ context.Context, c *command) error {
	fmt.Fprintln(c.Stdout(), "default")
	return nil
}

func contextList(_ context.Context, c *command) error {
	fmt.Fprintln(c.Stdout(), "NAME        DESCRIPTION                        DOCKER ENDPOINT\ndefault *   The endpoint of this job")
	return nil
}

// Command nodectl drives internal/node by hand, for end-to-end tests and
// development: prepare and clean up a host, print containerd's command line,
// import an image archive, make a test image of a static program.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/slipwayhq/slipway/internal/node"
)

const usage = `usage: nodectl prepare|cleanup|containerd CONFIG.json
       nodectl import CONFIG.json NAMESPACE ARCHIVE.tar
       nodectl image NAME PROGRAM ARCHIVE.tar
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nodectl:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) == 4 && arguments[0] == "image" {
		return writeImage(arguments[1], arguments[2], arguments[3])
	}
	if len(arguments) < 2 {
		return fmt.Errorf("missing arguments\n%s", usage)
	}
	config, err := node.Load(arguments[1])
	if err != nil {
		return err
	}
	switch arguments[0] {
	case "prepare":
		return node.Prepare(ctx, config)
	case "cleanup":
		return node.Cleanup(ctx, config, false)
	case "containerd":
		command := node.ContainerdCommand(config)
		fmt.Println(strings.Join(append(append([]string{"env"}, command.Env...), append([]string{command.Path}, command.Args...)...), " "))
		return nil
	case "import":
		if len(arguments) == 4 {
			return node.ImportImage(ctx, config, arguments[2], arguments[3])
		}
	}
	return fmt.Errorf("unknown arguments %q\n%s", arguments, usage)
}

func writeImage(name, program, archive string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	file, err := os.Create(archive)
	if err != nil {
		return err
	}
	if err := node.WriteProgramImage(file, name, content); err != nil {
		return err
	}
	return file.Close()
}

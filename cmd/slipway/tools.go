package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// tool is an upstream command line that is reached through slipway and, by its
// own name, through the data directory's bin folder.
type tool struct {
	name    string // subcommand of slipway
	link    string // name in <data>/bin; empty: the subcommand's
	program string // in the programs' folder
	args    []string
	short   string
	example string
}

var toolTable = []tool{
	{name: "kubectl", program: "slipway-tools", args: []string{"kubectl"}, short: "Control the cluster", example: "  slipway kubectl get pods -A"},
	{name: "helm", program: "slipway-tools", args: []string{"helm"}, short: "Install charts", example: "  slipway helm list -A"},
	{name: "kustomize", program: "slipway-tools", args: []string{"kustomize"}, short: "Render kustomizations", example: "  slipway kustomize build ."},
	{name: "ctr", program: "ctr", short: "Talk to containerd", example: "  slipway ctr --namespace k8s.io images ls"},
	{name: "argocd", program: "argocd", short: "Argo CD's command line", example: "  slipway argocd app list"},
	{name: "rollouts", link: "kubectl-argo-rollouts", program: "kubectl-argo-rollouts", short: "Argo Rollouts' command line", example: "  slipway rollouts list rollouts -A"},
}

func (t tool) linkName() string {
	if t.link != "" {
		return t.link
	}
	return t.name
}

func (a *app) toolCommands() []*cobra.Command {
	var cmds []*cobra.Command
	for _, t := range toolTable {
		cmds = append(cmds, &cobra.Command{
			Use: t.name + " [ARGS...]", Short: t.short, Example: t.example, DisableFlagParsing: true,
			RunE: func(_ *cobra.Command, args []string) error { return a.execTool(t, args) },
		})
	}
	return cmds
}

// execTool replaces this process with the tool. The global flags --config and
// --data-dir must come before the tool's name; all others are the tool's.
func (a *app) execTool(t tool, args []string) error {
	args = a.globalFlags(args)
	s, err := a.load()
	if err != nil {
		return err
	}
	if t.name == "rollouts" && len(args) > 0 && args[0] == "dashboard" {
		// Upstream's needs a web application that its Go module does not hold.
		if err := s.resolve(); err != nil {
			return err
		}
		fmt.Fprintf(os.Stdout, "Rollouts are shown live at %s/-/rollouts\n", s.ExternalURL)
		return nil
	}
	path := filepath.Join(s.binDir, t.program)
	env := os.Environ()
	set := func(key, value string) {
		if os.Getenv(key) == "" {
			env = append(env, key+"="+value)
		}
	}
	set("KUBECONFIG", s.dir.Kubeconfig())
	set("CONTAINERD_ADDRESS", filepath.Join(s.dir.Run(), "containerd.sock"))
	if t.name == "argocd" {
		token, err := readSecret(filepath.Join(s.dir.Run(), "argocd.token"))
		if err != nil {
			return &delivery.Error{Kind: delivery.Unavailable, Message: "Argo CD has not started yet.", Next: "See: slipway status", Err: err}
		}
		if err := s.resolve(); err != nil {
			return err
		}
		set("ARGOCD_SERVER", fmt.Sprintf("%s:%d", s.nodeIP(), s.Web.Port))
		set("ARGOCD_AUTH_TOKEN", token)
		set("ARGOCD_OPTS", "--plaintext --grpc-web-root-path /argocd")
	}
	// kubectl finds its plugins, such as `kubectl argo rollouts`, in PATH.
	env = append(env, "PATH="+s.dir.Bin()+":"+s.binDir+":"+os.Getenv("PATH"))
	argv := append(append([]string{path}, t.args...), args...)
	err = syscall.Exec(path, argv, env)
	if errors.Is(err, syscall.ENOENT) {
		return &delivery.Error{Kind: delivery.Stalled, Message: fmt.Sprintf("The program %s is missing in %s.", t.program, s.binDir), Next: "Build it with: make build"}
	}
	return fmt.Errorf("%s: %w", t.name, err)
}

// globalFlags takes the global flags off the front of a tool's arguments: its
// command parses none itself, so those given before its name arrive here too.
func (a *app) globalFlags(args []string) []string {
	flags := map[string]*string{"--config": &a.configPath, "--data-dir": &a.dataDir}
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		target := flags[name]
		switch {
		case target == nil:
			return args
		case joined:
			*target, args = value, args[1:]
		case len(args) > 1:
			*target, args = args[1], args[2:]
		default:
			return args
		}
	}
	return args
}

// linkTools makes the tools reachable by their own names.
func (s *settings) linkTools() error {
	for _, t := range toolTable {
		target := filepath.Join(s.binDir, t.program)
		if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := replaceLink(target, filepath.Join(s.dir.Bin(), t.linkName())); err != nil {
			return fmt.Errorf("link tools: %w", err)
		}
	}
	return replaceLink(filepath.Join(s.binDir, "slipway"), filepath.Join(s.dir.Bin(), "slipway"))
}

func replaceLink(target, link string) error {
	if have, err := os.Readlink(link); err == nil && have == target {
		return nil
	}
	tmp := link + ".new"
	os.Remove(tmp)
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, link)
}

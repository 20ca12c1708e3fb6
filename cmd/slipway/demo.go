package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/applications"
	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/demo"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/rollout"
)

func (a *app) demoCommand() *cobra.Command {
	var asJSON, remove bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Take a sample application from git push to a reversible release",
		Long: "Play the seed story on the running platform: create a group and two projects, push\n" +
			"them over git, release a version, promote a canary by its metrics, have a bad version\n" +
			"rolled back, switch blue-green. Every step is checked on what a user would see; exit\n" +
			"status 1 names the step that did not hold and where to look. It can be repeated: what\n" +
			"an earlier run left is replaced.",
		Example: "  slipway demo\n  slipway demo --json\n  slipway demo --remove",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			if err := s.resolve(); err != nil {
				return err
			}
			say := func(format string, args ...any) { fmt.Fprintf(c.OutOrStdout(), format+"\n", args...) }
			if asJSON {
				say = func(format string, args ...any) { fmt.Fprintf(c.ErrOrStderr(), format+"\n", args...) }
			}
			d, err := a.newDemo(c.Context(), s, say)
			if err != nil {
				return err
			}
			defer d.Close()
			if remove {
				ctx, cancel := context.WithTimeout(c.Context(), 3*time.Minute)
				defer cancel()
				if err := d.Remove(ctx); err != nil {
					return err
				}
				say("The demonstration is gone.")
				return nil
			}
			r, err := d.Run(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = output.JSON(c.OutOrStdout(), r)
			} else {
				printDemo(c.OutOrStdout(), s, r)
			}
			if err == nil && !r.OK {
				err = exitError(1)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON; progress goes to standard error")
	cmd.Flags().BoolVar(&remove, "remove", false, "take the demonstration away")
	return cmd
}

func (a *app) newDemo(ctx context.Context, s *settings, say func(string, ...any)) (*demo.Demo, error) {
	if err := s.dir.Call(ctx, "GET", "/status", nil, nil); err != nil {
		return nil, err
	}
	token, err := readSecret(s.adminTokenFile())
	if err != nil {
		return nil, fmt.Errorf("the administrator's token: %w", err)
	}
	kube, err := s.dynamicClient()
	if err != nil {
		return nil, err
	}
	return demo.New(demo.Options{
		URL: s.ExternalURL, Token: token, Ingress: fmt.Sprintf("%s:%d", s.nodeIP(), s.Ingress.HTTPPort), Domain: s.Domain,
		Files: applications.Files, Apps: gitops.NewClient(kube), Rollouts: rollout.NewClient(kube), Say: say,
		Prepare: func(ctx context.Context, say func(string, ...any)) error { return a.prepareDemo(ctx, say) },
	})
}

func (s *settings) dynamicClient() (dynamic.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", s.dir.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("access to the cluster: %w", err)
	}
	cfg.QPS, cfg.Burst = 50, 100
	cfg.WarningHandler = rest.NoWarnings{}
	return dynamic.NewForConfig(cfg)
}

// prepareDemo makes the base image from the machine's own package mirror
// unless the registry has it or can fetch it, and a vulnerability database
// unless there is one.
func (a *app) prepareDemo(ctx context.Context, say func(string, ...any)) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, self, append(a.flags(), args...)...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("slipway %s: %s", strings.Join(args, " "), tail(string(out), 10))
		}
		if text := strings.TrimSpace(string(out)); text != "" {
			say("   %s", strings.ReplaceAll(tail(text, 6), "\n", "\n   "))
		}
		return err
	}
	if err := run("image", "bootstrap", "--if-missing", "debian:bookworm-slim"); err != nil {
		return err
	}
	return run("scan", "db", "demo")
}

// printDemo ends with a table and what to look at next.
func printDemo(w io.Writer, s *settings, r demo.Report) {
	fmt.Fprintf(w, "\n%-30s %8s  %s\n", "STEP", "SECONDS", "PROVEN")
	for _, step := range r.Steps {
		text := step.Proven
		if step.Error != "" {
			text = "FAILED: " + step.Error
		}
		fmt.Fprintf(w, "%-30s %8.1f  %s\n", step.Name, step.Seconds, text)
		if step.Look != "" {
			fmt.Fprintf(w, "%-30s %8s  look at %s\n", "", "", step.Look)
		}
	}
	fmt.Fprintf(w, "%-30s %8.1f\n", "in all", r.Seconds)
	if len(r.Release) > 0 {
		fmt.Fprintf(w, "\nThe release of v1.1.0, in seconds from git push:\n  %-40s %8s %8s\n", "STAGE", "SHARE", "DONE AT")
		for _, share := range r.Release {
			fmt.Fprintf(w, "  %-40s %8.1f %8.1f\n", share.Stage, share.Share, share.Seconds)
		}
	}
	if !r.OK {
		return
	}
	fmt.Fprintf(w, "\nAddresses (names under localhost work on this machine; others need DNS):\n")
	names := make([]string, 0, len(r.Addresses))
	for name := range r.Addresses {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(w, "  %-20s %s\n", name, r.Addresses[name])
	}
	fmt.Fprintf(w, "\nSign in as root with the password in %s.\nNext things to try:\n", s.rootPasswordFile())
	fmt.Fprintf(w, "  edit release.env in %s/demo/shortener and watch the release\n", s.ExternalURL)
	fmt.Fprintf(w, "  create a project of your own: %s/projects/new\n", s.ExternalURL)
	fmt.Fprintf(w, "  %s rollouts -n shortener-production get rollout shortener --watch\n", os.Args[0])
	fmt.Fprintf(w, "  %s demo --remove\n", os.Args[0])
}

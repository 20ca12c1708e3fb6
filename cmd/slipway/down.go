package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/doctor"
)

type downRequest struct {
	KeepWorkloads bool `json:"keep_workloads"`
}

func (a *app) downCommand() *cobra.Command {
	var req downRequest
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the platform",
		Long: "Stop the platform and all pods; no process, mount, network interface, nftables table\nor cgroup stays. All data stays. With --keep-workloads pods go on running, and the\n" +
			"next slipway up takes them over.",
		Example: "  slipway down\n  slipway down --keep-workloads",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			return s.down(ctx, c.OutOrStdout(), req)
		},
	}
	cmd.Flags().BoolVar(&req.KeepWorkloads, "keep-workloads", false, "leave pods running")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait")
	return cmd
}

func (s *settings) down(ctx context.Context, out io.Writer, req downRequest) error {
	err := s.dir.Call(ctx, "POST", "/down", req, nil)
	switch {
	case err == nil:
	case delivery.KindOf(err) == delivery.Unavailable && !s.dir.Running():
		// Nothing answers: what an earlier run may have left is taken away here.
		if err := s.cleanLeftovers(ctx, out, req); err != nil {
			return err
		}
		if err := os.Remove(s.stopErrorFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	default:
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for s.dir.Running() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &delivery.Error{Kind: delivery.Waiting, Message: "The platform has not stopped yet.", Next: "See: slipway logs slipway"}
		}
	}
	if b, err := os.ReadFile(s.stopErrorFile()); err == nil {
		return fmt.Errorf("stopped, but not everything could be taken away: %s\nRun slipway down again to retry", b)
	}
	fmt.Fprintln(out, "Stopped.")
	return nil
}

func (a *app) resetCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "reset",
		Short:   "Stop the platform and delete all its data",
		Long:    "Stop the platform and delete its data directory: repositories, pipelines, images,\nthe cluster and its volumes. This cannot be undone, so it asks first.",
		Example: "  slipway reset\n  slipway reset --yes",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			if !looksLikeData(s.DataDir) {
				return &delivery.Error{Kind: delivery.Invalid, Message: fmt.Sprintf("%s is not a data directory of Slipway, so nothing was deleted.", s.DataDir), Next: "Name the right one with --data-dir."}
			}
			if !yes {
				fmt.Fprintf(c.OutOrStdout(), "This deletes everything in %s: repositories, images, volumes. Type the word reset to go on: ", s.DataDir)
				line, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
				if err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				if strings.TrimSpace(line) != "reset" {
					fmt.Fprintln(c.OutOrStdout(), "Nothing was deleted.")
					return exitError(1)
				}
			}
			if err := s.down(c.Context(), c.OutOrStdout(), downRequest{}); err != nil {
				return err
			}
			if err := os.RemoveAll(s.DataDir); err != nil {
				return fmt.Errorf("delete %s: %w", s.DataDir, err)
			}
			fmt.Fprintf(c.OutOrStdout(), "Deleted %s.\n", s.DataDir)
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// looksLikeData guards against deleting a folder that was named by mistake.
func looksLikeData(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "run"))
	return err == nil && info.IsDir()
}

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "Check what this machine may lack, with the commands that mend it",
		Example: "  slipway doctor",
		Long:    "Check tools, kernel features, cgroups, ports, disk, memory, inotify limits, clock and\nswap. Exit status 1 when something would keep the platform from starting.",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			findings := doctor.Run(c.Context(), s.doctorSettings())
			if asJSON {
				if err := output.JSON(c.OutOrStdout(), findings); err != nil {
					return err
				}
			} else {
				for _, f := range findings {
					fmt.Fprintf(c.OutOrStdout(), "%-8s %-16s %s\n", f.Severity, f.Check, f.Message)
					if f.Fix != "" {
						fmt.Fprintf(c.OutOrStdout(), "%-8s %-16s   mend it with: %s\n", "", "", f.Fix)
					}
				}
			}
			if doctor.Err(findings) != nil {
				return exitError(1)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

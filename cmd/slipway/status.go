package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/ingress/route"
	"github.com/slipwayhq/slipway/internal/supervise"
)

// report is what the control socket says of the running instance.
type report struct {
	Version      string             `json:"version"`
	PID          int                `json:"pid"`
	DataDir      string             `json:"data_dir"`
	URL          string             `json:"url"`
	Since        time.Time          `json:"since"`
	Ready        bool               `json:"ready"`
	Components   []supervise.Status `json:"components"`
	Budget       []budgetRow        `json:"budget"`
	BudgetTotal  int64              `json:"budget_total_bytes"`
	PSSTotal     int64              `json:"pss_total_bytes"`
	Announcement string             `json:"announcement,omitempty"`
	Addresses    []address          `json:"addresses,omitempty"`
}

// address is where an application is reached.
type address struct {
	URL       string   `json:"url"`
	Namespace string   `json:"namespace"`
	Service   string   `json:"service"`
	Endpoints int      `json:"endpoints"`
	Problems  []string `json:"problems,omitempty"`
}

// addressesOf lists the routes that a browser can open, by address.
func addressesOf(routes []route.Route) []address {
	var out []address
	for _, r := range routes {
		if r.URL != "" {
			out = append(out, address{r.URL, r.Namespace, r.Service, r.Endpoints, r.Problems})
		}
	}
	slices.SortFunc(out, func(a, b address) int { return strings.Compare(a.URL+" "+a.Namespace, b.URL+" "+b.Namespace) })
	return out
}

// budgetRow is one line of the budget table.
type budgetRow struct {
	Name   string `json:"name"`
	Budget int64  `json:"budget_bytes"`
	PSS    int64  `json:"pss_bytes"`
	Peak   int64  `json:"peak_bytes"`
}

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show every component, why it is not ready, and its memory",
		Long:    "Show every component with its state and, where it is not ready, the root cause; the\naddresses of applications; then the memory budget and the use of every program. Exit status: 0 everything is ready,\n1 something is not, 3 the platform does not run.",
		Example: "  slipway status\n  slipway status --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			var r report
			if err := s.dir.Call(c.Context(), "GET", "/status?memory=1", nil, &r); err != nil {
				return err
			}
			if asJSON {
				if err := output.JSON(c.OutOrStdout(), r); err != nil {
					return err
				}
			} else {
				printStatus(c.OutOrStdout(), r)
			}
			if !r.Ready {
				return exitError(1)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStatus(w io.Writer, r report) {
	fmt.Fprintf(w, "Slipway %s, process %d, up %s\n%s\n\n", r.Version, r.PID, time.Since(r.Since).Round(time.Second), r.URL)
	fmt.Fprintf(w, "%-18s %-9s %8s %9s  %s\n", "COMPONENT", "STATE", "TIME", "RESTARTS", "")
	for _, c := range r.Components {
		seconds := "-"
		if c.Seconds > 0 {
			seconds = fmt.Sprintf("%.1f s", c.Seconds)
		}
		fmt.Fprintf(w, "%-18s %-9s %8s %9d  %s\n", c.Name, c.State, seconds, c.Restarts, c.Message)
		for _, p := range c.Parts {
			if !p.Ready {
				fmt.Fprintf(w, "  %-16s %-9s %8s %9s  %s\n", p.Name, "starting", "", "", p.Message)
			}
		}
	}
	if len(r.Addresses) > 0 {
		fmt.Fprintf(w, "\n%-42s %-28s %s\n", "ADDRESS", "SERVICE", "")
	}
	for _, a := range r.Addresses {
		note := ""
		switch {
		case a.Endpoints == 0:
			note = "no pod is ready"
		case len(a.Problems) > 0:
			note = a.Problems[0]
		}
		fmt.Fprintf(w, "%-42s %-28s %s\n", a.URL, a.Namespace+"/"+a.Service, note)
	}
	fmt.Fprintf(w, "\n%-18s %10s %10s %10s\n", "MEMORY", "BUDGET", "USE (PSS)", "PEAK")
	for _, b := range r.Budget {
		fmt.Fprintf(w, "%-18s %10s %10s %10s\n", b.Name, megabytes(b.Budget), megabytes(b.PSS), megabytes(b.Peak))
	}
	fmt.Fprintf(w, "%-18s %10s %10s\n", "total", megabytes(r.BudgetTotal), megabytes(r.PSSTotal))
}

func (a *app) logsCommand() *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:     "logs COMPONENT",
		Short:   "Show the log of a program",
		Long:    "Show the log of a program: slipway (forge, pipelines, web and all else that lives in\nit), slipway-cluster, slipway-gitops, containerd, buildkitd.",
		Example: "  slipway logs slipway-cluster -f\n  slipway logs slipway -n 50",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.load()
			if err != nil {
				return err
			}
			path := filepath.Join(s.dir.Logs(), filepath.Base(args[0])+".log")
			if _, err := os.Stat(path); err != nil {
				names, globErr := filepath.Glob(filepath.Join(s.dir.Logs(), "*.log"))
				if globErr != nil {
					return globErr
				}
				for i, n := range names {
					n = filepath.Base(n)
					names[i] = n[:len(n)-len(".log")]
				}
				return &delivery.Error{Kind: delivery.NotFound, Message: fmt.Sprintf("There is no log of %q.", args[0]), Next: fmt.Sprintf("There is one of each of: %v", names)}
			}
			return showLog(c.Context(), c.OutOrStdout(), path, lines, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as lines are written")
	cmd.Flags().IntVarP(&lines, "lines", "n", 200, "how many of the last lines to show")
	return cmd
}

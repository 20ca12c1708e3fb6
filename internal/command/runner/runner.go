// Package runner is `slipway runner`: the runners of a platform, and the runner
// of a further machine.
//
// It receives a way to connect to the platform, whose REST API lists and
// changes runners, and a way to execute jobs; what is registered on this
// machine is kept in one file. It must import no stage but the runner.
package runner

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// Start executes the jobs of one registration until ctx ends.
type Start func(ctx context.Context, r Registration, session delivery.RunnerSession, c delivery.Coordinator) error

// New returns the command with its subcommands. start executes jobs by the
// executor of its name; nil offers what needs nothing but this program.
func New(connect rest.Connect, start map[string]Start) *cobra.Command {
	executors := map[string]Start{"shell": shell}
	for name, one := range start {
		executors[name] = one
	}
	c := &cobra.Command{
		Use: "runner", Short: "List, add, pause and remove runners, and run one on another machine",
		Long: "The built-in runner needs nothing. This command shows and changes all runners of the platform, the\n" +
			"official gitlab-runner's included, and attaches a further machine: make a runner (create), register its\n" +
			"token on that machine (register), and run it (run).",
		Example: "  slipway runner list\n  slipway runner create --description builder --tags arm64\n" +
			"  slipway runner register --url http://192.0.2.2:8080 --token glrt-...\n  slipway runner run",
	}
	c.AddCommand(list(connect), create(connect), pause(connect, true), pause(connect, false), remove(connect))
	c.AddCommand(register(executors), verify(), unregister(), run(executors))
	return c
}

type platformRunner struct {
	ID          int64    `json:"id"`
	Description string   `json:"description"`
	Type        string   `json:"runner_type"`
	Status      string   `json:"status"`
	Paused      bool     `json:"paused"`
	Tags        []string `json:"tag_list"`
}

func list(connect rest.Connect) *cobra.Command {
	var local, asJSON bool
	var file string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the platform's runners, or with --local those registered on this machine", Args: cobra.NoArgs,
		Example: "  slipway runner list\n  slipway runner list --local",
		RunE: func(c *cobra.Command, _ []string) error {
			if local {
				return listLocal(c, file, asJSON)
			}
			client, err := connect()
			if err != nil {
				return err
			}
			all, err := rest.All[platformRunner](c.Context(), client, "/runners/all")
			if delivery.KindOf(err) == delivery.Forbidden { // not an administrator: one's own
				all, err = rest.All[platformRunner](c.Context(), client, "/runners")
			}
			if err != nil {
				return err
			}
			return output.List(c.OutOrStdout(), asJSON, all, []string{"ID", "DESCRIPTION", "FOR", "STATUS", "TAGS"}, func(r platformRunner) []string {
				status := strings.ReplaceAll(r.Status, "_", " ")
				if r.Paused {
					status = "paused"
				}
				return []string{strconv.FormatInt(r.ID, 10), r.Description, strings.TrimSuffix(r.Type, "_type"), status, strings.Join(r.Tags, ",")}
			})
		},
	}
	c.Flags().BoolVar(&local, "local", false, "list what is registered on this machine")
	fileFlag(c, &file)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func create(connect rest.Connect) *cobra.Command {
	var description, project, group, note string
	var tags []string
	var untagged, locked, paused, protected, asJSON bool
	var timeout int
	c := &cobra.Command{
		Use: "create", Short: "Make a runner and print its token, which is shown once", Args: cobra.NoArgs,
		Long:    "Make a runner for the whole platform, a group or a project and print its token. Register that with\n\"slipway runner register\" or the official \"gitlab-runner register --token\" on the machine that shall run jobs.",
		Example: "  slipway runner create --description builder --tags arm64,large\n  slipway runner create --project team/app",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, _ []string) error {
			in := map[string]any{"runner_type": "instance_type", "description": description, "locked": locked, "paused": paused, "maintenance_note": note}
			if c.Flags().Changed("tags") {
				in["tag_list"] = tags
			}
			if c.Flags().Changed("run-untagged") {
				in["run_untagged"] = untagged
			}
			if protected {
				in["access_level"] = "ref_protected"
			}
			if timeout > 0 {
				in["maximum_timeout"] = timeout
			}
			for kind, path := range map[string]string{"project": project, "group": group} {
				if path == "" {
					continue
				}
				var found struct{ ID int64 }
				if _, err := client.Call(c.Context(), http.MethodGet, "/"+kind+"s/"+rest.Escape(path), "", nil, &found); err != nil {
					return err
				}
				in["runner_type"], in[kind+"_id"] = kind+"_type", found.ID
			}
			var made struct {
				ID    int64  `json:"id"`
				Token string `json:"token"`
			}
			if _, err := client.Call(c.Context(), http.MethodPost, "/user/runners", "", in, &made); err != nil {
				return err
			}
			if asJSON {
				return output.JSON(c.OutOrStdout(), made)
			}
			fmt.Fprintln(c.OutOrStdout(), made.Token)
			fmt.Fprintf(c.ErrOrStderr(), "Runner %d is made. On its machine: slipway runner register --url %s --token TOKEN\n", made.ID, client.URL)
			return nil
		}),
	}
	f := c.Flags()
	f.StringVar(&description, "description", "", "what to call it")
	f.StringVar(&project, "project", "", "for one project only, such as team/app")
	f.StringVar(&group, "group", "", "for one group only")
	f.StringSliceVar(&tags, "tags", nil, "tags that its jobs may ask for")
	f.BoolVar(&untagged, "run-untagged", false, "take jobs without tags too (default: when it has no tags)")
	f.BoolVar(&locked, "locked", false, "keep a project's runner from other projects")
	f.BoolVar(&paused, "paused", false, "take no jobs yet")
	f.BoolVar(&protected, "protected", false, "take jobs of protected branches and tags only")
	f.IntVar(&timeout, "maximum-timeout", 0, "most seconds of a job")
	f.StringVar(&note, "note", "", "a note for its maintainers")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	c.MarkFlagsMutuallyExclusive("project", "group")
	return c
}

func pause(connect rest.Connect, paused bool) *cobra.Command {
	use, short, done := "pause", "Let a runner finish its jobs and take no new ones", "paused"
	if !paused {
		use, short, done = "resume", "Let a paused runner take jobs again", "resumed"
	}
	return &cobra.Command{
		Use: use + " ID...", Short: short, Args: cobra.MinimumNArgs(1), Example: "  slipway runner " + use + " 3",
		RunE: func(c *cobra.Command, args []string) error {
			return each(c, connect, args, func(client *rest.Client, id string) error {
				if _, err := client.Call(c.Context(), http.MethodPut, "/runners/"+id, "", map[string]any{"paused": paused}, nil); err != nil {
					return err
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "Runner %s is %s.\n", id, done)
				return err
			})
		},
	}
}

func remove(connect rest.Connect) *cobra.Command {
	return &cobra.Command{
		Use: "remove ID...", Aliases: []string{"rm"}, Short: "Remove a runner from the platform; its token ends", Args: cobra.MinimumNArgs(1), Example: "  slipway runner remove 3",
		RunE: func(c *cobra.Command, args []string) error {
			return each(c, connect, args, func(client *rest.Client, id string) error {
				if _, err := client.Call(c.Context(), http.MethodDelete, "/runners/"+id, "", nil, nil); err != nil {
					return err
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), "Runner %s is removed.\n", id)
				return err
			})
		},
	}
}

func each(_ *cobra.Command, connect rest.Connect, ids []string, do func(client *rest.Client, id string) error) error {
	client, err := connect()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := strconv.ParseInt(id, 10, 64); err != nil {
			return delivery.Errorf(delivery.Invalid, "%q is not the number of a runner: see slipway runner list", id)
		}
		if err := do(client, url.PathEscape(id)); err != nil {
			return err
		}
	}
	return nil
}

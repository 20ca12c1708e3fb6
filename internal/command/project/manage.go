package project

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// allMirrors lists a project's mirrors: the push mirrors by number, and the
// pull mirror.
func allMirrors(c *cobra.Command, client *rest.Client, base string) ([]mirrorState, error) {
	all, err := rest.All[mirrorState](c.Context(), client, base+"/remote_mirrors")
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Direction = "push"
	}
	pull := mirrorState{Direction: "pull"}
	_, err = client.Call(c.Context(), http.MethodGet, base+"/mirror/pull", "", nil, &pull)
	if err == nil {
		return append(all, pull), nil
	}
	if delivery.IsNotFound(err) {
		return all, nil
	}
	return nil, err
}

// path is the address of a mirror.
func (m mirrorState) path(base string) string {
	if m.Direction == "pull" {
		return base + "/mirror/pull"
	}
	return fmt.Sprintf("%s/remote_mirrors/%d", base, m.ID)
}

func noMirrors(project string) error {
	return &delivery.Error{Kind: delivery.NotFound, Message: project + " has no mirrors.", Next: "Add one with: slipway project mirror " + project + " --pull URL"}
}

func syncMirrors(connect rest.Connect) *cobra.Command {
	return &cobra.Command{
		Use: "sync PATH", Short: "Update a project's mirrors now, in the background", Args: cobra.ExactArgs(1), Example: "  slipway project sync team/app\n  slipway project mirrors team/app",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			base := "/projects/" + rest.Escape(args[0])
			all, err := allMirrors(c, client, base)
			if err != nil {
				return err
			}
			started := 0
			for _, m := range all {
				if !m.Enabled {
					continue
				}
				to := m.path(base)
				if m.Direction == "push" {
					to += "/sync"
				}
				if _, err := client.Call(c.Context(), http.MethodPost, to, "", nil, nil); err != nil {
					return err
				}
				started++
			}
			if started == 0 {
				return noMirrors(args[0])
			}
			fmt.Fprintf(c.OutOrStdout(), "%d mirrors are being updated. See them with: slipway project mirrors %s\n", started, args[0])
			return nil
		}),
	}
}

func unmirror(connect rest.Connect) *cobra.Command {
	return &cobra.Command{
		Use: "unmirror PATH ADDRESS", Short: "Remove a mirror; nothing on the other server changes", Args: cobra.ExactArgs(2), Example: "  slipway project unmirror team/app https://example.com/app.git",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			base := "/projects/" + rest.Escape(args[0])
			all, err := allMirrors(c, client, base)
			if err != nil {
				return err
			}
			removed := 0
			for _, m := range all {
				if m.URL != withoutSecret(args[1]) {
					continue
				}
				if _, err := client.Call(c.Context(), http.MethodDelete, m.path(base), "", nil, nil); err != nil {
					return err
				}
				removed++
			}
			if removed == 0 {
				return &delivery.Error{Kind: delivery.NotFound, Message: args[0] + " has no mirror of that address.", Next: "List them with: slipway project mirrors " + args[0]}
			}
			fmt.Fprintln(c.OutOrStdout(), "The mirror is removed.")
			return nil
		}),
	}
}

func archive(connect rest.Connect, on bool) *cobra.Command {
	verb, short, done := "archive", "Make a project read only", "%s is archived: it can be read, not changed.\n"
	if !on {
		verb, short, done = "unarchive", "Open an archived project for changes again", "%s is open for changes again.\n"
	}
	return &cobra.Command{
		Use: verb + " PATH", Short: short, Args: cobra.ExactArgs(1), Example: "  slipway project " + verb + " team/app",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			if _, err := client.Call(c.Context(), http.MethodPost, "/projects/"+rest.Escape(args[0])+"/"+verb, "", nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), done, args[0])
			return nil
		}),
	}
}

func transfer(connect rest.Connect) *cobra.Command {
	return &cobra.Command{
		Use: "transfer PATH GROUP", Short: "Move a project to another group or user; its old address leads to the new one", Args: cobra.ExactArgs(2), Example: "  slipway project transfer ann/app team",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			var p project
			if _, err := client.Call(c.Context(), http.MethodPut, "/projects/"+rest.Escape(args[0])+"/transfer", "", map[string]string{"namespace": args[1]}, &p); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "The project is now at %s.\n  git clone %s\n", p.Path, p.HTTPURL)
			return nil
		}),
	}
}

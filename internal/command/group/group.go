// Package group is `slipway group`: groups and their members.
//
// It receives a way to connect to the platform and works through its REST API
// alone. It must import no stage.
package group

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/command/user"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// New returns the command with its subcommands.
func New(connect rest.Connect) *cobra.Command {
	c := &cobra.Command{
		Use: "group", Short: "Create, list and delete groups and their members",
		Example: "  slipway group create team\n  slipway group create team/web --visibility internal\n  slipway group add-member team ann --role developer",
	}
	c.AddCommand(create(connect), list(connect), remove(connect), AddMember(connect, "group", "/groups/"), RemoveMember(connect, "group", "/groups/"))
	return c
}

type group struct {
	ID         int64  `json:"id"`
	FullPath   string `json:"full_path"`
	Name       string `json:"name"`
	Visibility string `json:"visibility"`
}

func create(connect rest.Connect) *cobra.Command {
	var name, description, visibility string
	var asJSON bool
	c := &cobra.Command{
		Use: "create PATH", Short: "Create a group; a path with slashes makes a subgroup", Args: cobra.ExactArgs(1),
		Example: "  slipway group create team\n  slipway group create team/web",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			in := map[string]any{"path": args[0], "name": name, "description": description}
			if visibility != "" {
				in["visibility"] = visibility
			}
			if i := strings.LastIndexByte(args[0], '/'); i > 0 {
				var parent group
				if _, err := client.Call(c.Context(), http.MethodGet, "/groups/"+rest.Escape(args[0][:i]), "", nil, &parent); err != nil {
					return err
				}
				in["path"], in["parent_id"] = args[0][i+1:], parent.ID
			}
			if name == "" {
				in["name"] = in["path"]
			}
			var g group
			if _, err := client.Call(c.Context(), http.MethodPost, "/groups", "", in, &g); err != nil {
				return err
			}
			if asJSON {
				return output.JSON(c.OutOrStdout(), g)
			}
			fmt.Fprintf(c.OutOrStdout(), "Group %s created (number %d).\n", g.FullPath, g.ID)
			return nil
		}),
	}
	c.Flags().StringVar(&name, "name", "", "display name (default: the path)")
	c.Flags().StringVar(&description, "description", "", "what it is for")
	c.Flags().StringVar(&visibility, "visibility", "", "private, internal or public (default: the parent's, or private)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func list(connect rest.Connect) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls", Short: "List groups", Args: cobra.NoArgs, Example: "  slipway group ls",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, _ []string) error {
			all, err := rest.All[group](c.Context(), client, "/groups")
			if err != nil {
				return err
			}
			return output.List(c.OutOrStdout(), asJSON, all, []string{"ID", "PATH", "NAME", "VISIBILITY"}, func(g group) []string {
				return []string{strconv.FormatInt(g.ID, 10), g.FullPath, g.Name, g.Visibility}
			})
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func remove(connect rest.Connect) *cobra.Command {
	return &cobra.Command{
		Use: "rm PATH", Short: "Delete a group without projects", Args: cobra.ExactArgs(1), Example: "  slipway group rm team/web",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			if _, err := client.Call(c.Context(), http.MethodDelete, "/groups/"+rest.Escape(args[0]), "", nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Group %s deleted.\n", args[0])
			return nil
		}),
	}
}

var roles = map[string]int{"guest": 10, "reporter": 20, "developer": 30, "maintainer": 40, "owner": 50}

// AddMember is the command that adds a member to a group or project, or changes
// the member's role.
func AddMember(connect rest.Connect, what, base string) *cobra.Command {
	var role, expires string
	c := &cobra.Command{
		Use: "add-member PATH USER", Short: "Add a member, or change the member's role", Args: cobra.ExactArgs(2),
		Example: "  slipway " + what + " add-member team ann --role developer",
		RunE: func(c *cobra.Command, args []string) error {
			level, ok := roles[strings.ToLower(role)]
			if !ok {
				return &delivery.Error{Kind: delivery.Invalid, Message: "The role " + role + " is not known.", Next: "Choose guest, reporter, developer, maintainer or owner."}
			}
			client, err := connect()
			if err != nil {
				return err
			}
			id, err := user.Find(c.Context(), client, args[1])
			if err != nil {
				return err
			}
			in := map[string]any{"user_id": id, "access_level": level}
			if expires != "" {
				in["expires_at"] = expires
			}
			path := base + rest.Escape(args[0]) + "/members"
			_, err = client.Call(c.Context(), http.MethodPost, path, "", in, nil)
			if delivery.KindOf(err) == delivery.Conflict {
				_, err = client.Call(c.Context(), http.MethodPut, fmt.Sprintf("%s/%d", path, id), "", in, nil)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is %s of %s.\n", args[1], strings.ToLower(role), args[0])
			return nil
		},
	}
	c.Flags().StringVar(&role, "role", "developer", "guest, reporter, developer, maintainer or owner")
	c.Flags().StringVar(&expires, "expires", "", "last day, such as 2030-01-31 (default: never)")
	return c
}

// RemoveMember is the command that removes a member of a group or project.
func RemoveMember(connect rest.Connect, what, base string) *cobra.Command {
	return &cobra.Command{
		Use: "rm-member PATH USER", Short: "Remove a member", Args: cobra.ExactArgs(2), Example: "  slipway " + what + " rm-member team ann",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			id, err := user.Find(c.Context(), client, args[1])
			if err != nil {
				return err
			}
			if _, err := client.Call(c.Context(), http.MethodDelete, fmt.Sprintf("%s%s/members/%d", base, rest.Escape(args[0]), id), "", nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is no longer a member of %s.\n", args[1], args[0])
			return nil
		}),
	}
}

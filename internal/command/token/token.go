// Package token is `slipway token`: personal access tokens, for
// administrators and scripts.
//
// It receives a way to connect to the platform and works through its REST API
// alone. It must import no stage.
package token

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/command/user"
)

// New returns the command with its subcommands.
func New(connect rest.Connect) *cobra.Command {
	c := &cobra.Command{
		Use: "token", Short: "Create, list and revoke access tokens",
		Example: "  slipway token create ann --name laptop --scopes api\n  slipway token ls ann\n  slipway token revoke 12",
	}
	c.AddCommand(create(connect), list(connect), revoke(connect))
	return c
}

type token struct {
	ID        int64    `json:"id"`
	Name      string   `json:"name"`
	Scopes    []string `json:"scopes"`
	Active    bool     `json:"active"`
	ExpiresAt *string  `json:"expires_at"`
	LastUsed  *string  `json:"last_used_at"`
	Token     string   `json:"token,omitempty"`
}

// defaultName is what a token is called without --name. It differs from that of
// the platform's own token for these commands, whose namesakes of the first
// administrator are revoked at every start.
const defaultName = "slipway token create"

func create(connect rest.Connect) *cobra.Command {
	var name, expires string
	var scopes []string
	var asJSON bool
	c := &cobra.Command{
		Use: "create USER", Short: "Create a personal access token; it is shown once", Args: cobra.ExactArgs(1),
		Example: "  slipway token create ann --name laptop --scopes api\n  slipway token create ci --scopes read_repository,write_repository --expires 2030-01-31",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			id, err := user.Find(c.Context(), client, args[0])
			if err != nil {
				return err
			}
			var t token
			in := map[string]any{"name": name, "scopes": scopes}
			if expires != "" {
				in["expires_at"] = expires
			}
			if _, err := client.Call(c.Context(), http.MethodPost, fmt.Sprintf("/users/%d/personal_access_tokens", id), "", in, &t); err != nil {
				return err
			}
			if asJSON {
				return output.JSON(c.OutOrStdout(), t)
			}
			fmt.Fprintln(c.OutOrStdout(), t.Token)
			return nil
		}),
	}
	c.Flags().StringVar(&name, "name", defaultName, "what to call it")
	c.Flags().StringSliceVar(&scopes, "scopes", []string{"api"}, "what it may do: api, read_api, read_user, read_repository, write_repository, read_registry, write_registry")
	c.Flags().StringVar(&expires, "expires", "", "last day, such as 2030-01-31 (default: never)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func list(connect rest.Connect) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls USER", Short: "List a user's tokens", Args: cobra.ExactArgs(1), Example: "  slipway token ls ann",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			id, err := user.Find(c.Context(), client, args[0])
			if err != nil {
				return err
			}
			all, err := rest.All[token](c.Context(), client, fmt.Sprintf("/personal_access_tokens?user_id=%d", id))
			if err != nil {
				return err
			}
			return output.List(c.OutOrStdout(), asJSON, all, []string{"ID", "NAME", "SCOPES", "STATE", "EXPIRES", "LAST USED"}, func(t token) []string {
				state := "active"
				if !t.Active {
					state = "ended"
				}
				return []string{strconv.FormatInt(t.ID, 10), t.Name, strings.Join(t.Scopes, ","), state, text(t.ExpiresAt), text(t.LastUsed)}
			})
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func text(s *string) string {
	if s == nil {
		return "never"
	}
	return *s
}

func revoke(connect rest.Connect) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "End a token at once", Args: cobra.ExactArgs(1), Example: "  slipway token revoke 12",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			if _, err := client.Call(c.Context(), http.MethodDelete, "/personal_access_tokens/"+rest.Escape(args[0]), "", nil, nil); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "Token revoked.")
			return nil
		}),
	}
}

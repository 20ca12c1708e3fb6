// Package user is `slipway user`: accounts, for administrators.
//
// It receives a way to connect to the platform and works through its REST API
// alone. It must import no stage.
package user

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// New returns the command with its subcommands.
func New(connect rest.Connect) *cobra.Command {
	c := &cobra.Command{
		Use: "user", Short: "Create, list, block and delete accounts",
		Example: "  slipway user create ann --email ann@example.com\n  slipway user ls\n  slipway user password root",
	}
	c.AddCommand(create(connect), list(connect), setState(connect, "block", "Block an account and end its sessions"), setState(connect, "unblock", "Let a blocked account in again"),
		password(connect), admin(connect), remove(connect), addKey(connect), resetTwoFactor(connect))
	return c
}

type account struct {
	ID       int64  `json:"id"`
	Username string `json:"username"`
	Name     string `json:"name"`
	Email    string `json:"email"`
	State    string `json:"state"`
	IsAdmin  bool   `json:"is_admin"`
	Password string `json:"password,omitempty"` // only when it was generated
}

// Find returns the account with a user name.
func Find(ctx context.Context, client *rest.Client, name string) (int64, error) {
	var found []account
	if _, err := client.Call(ctx, http.MethodGet, "/users?username="+url.QueryEscape(name), "", nil, &found); err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, &delivery.Error{Kind: delivery.NotFound, Message: "There is no user " + name + ".", Next: "List them with: slipway user ls"}
	}
	return found[0].ID, nil
}

// ReadSecret reads one line of at most 4096 bytes, so that secrets never are
// arguments.
func ReadSecret(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func create(connect rest.Connect) *cobra.Command {
	var email, name string
	var isAdmin, stdin, asJSON bool
	c := &cobra.Command{
		Use: "create NAME --email ADDRESS", Short: "Create an account, with a generated password unless one is given", Args: cobra.ExactArgs(1),
		Example: "  slipway user create ann --email ann@example.com\n  pass show ann | slipway user create ann --email ann@example.com --password-stdin",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			secret, generated := "", ""
			if stdin {
				given, err := ReadSecret(c.InOrStdin())
				if err != nil {
					return err
				}
				secret = given
			} else {
				secret = rand.Text()[:20]
				generated = secret
			}
			if name == "" {
				name = args[0]
			}
			var a account
			in := map[string]any{"username": args[0], "name": name, "email": email, "password": secret, "admin": isAdmin, "skip_confirmation": true}
			if _, err := client.Call(c.Context(), http.MethodPost, "/users", "", in, &a); err != nil {
				return err
			}
			a.Password = generated
			if asJSON {
				return output.JSON(c.OutOrStdout(), a)
			}
			fmt.Fprintf(c.OutOrStdout(), "User %s created (number %d).\n", a.Username, a.ID)
			if generated != "" {
				fmt.Fprintf(c.OutOrStdout(), "Password: %s\n", generated)
			}
			return nil
		}),
	}
	c.Flags().StringVar(&email, "email", "", "e-mail address (needed)")
	c.Flags().StringVar(&name, "name", "", "full name (default: the user name)")
	c.Flags().BoolVar(&isAdmin, "admin", false, "make the account an administrator")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = c.MarkFlagRequired("email")
	return c
}

func list(connect rest.Connect) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls [SEARCH]", Short: "List accounts", Args: cobra.MaximumNArgs(1), Example: "  slipway user ls\n  slipway user ls ann --json",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			path := "/users"
			if len(args) > 0 {
				path += "?search=" + url.QueryEscape(args[0])
			}
			all, err := rest.All[account](c.Context(), client, path)
			if err != nil {
				return err
			}
			return output.List(c.OutOrStdout(), asJSON, all, []string{"ID", "USER", "NAME", "EMAIL", "STATE", "ROLE"}, func(a account) []string {
				role := ""
				if a.IsAdmin {
					role = "administrator"
				}
				return []string{strconv.FormatInt(a.ID, 10), a.Username, a.Name, a.Email, a.State, role}
			})
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// change is a command that sends one request about a user.
func change(connect rest.Connect, use, short, example, done string, request func(c *cobra.Command, id int64) (method, path string, in any, err error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.ExactArgs(1),
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			id, err := Find(c.Context(), client, args[0])
			if err != nil {
				return err
			}
			method, path, in, err := request(c, id)
			if err != nil {
				return err
			}
			if _, err := client.Call(c.Context(), method, path, "", in, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), done+"\n", args[0])
			return nil
		}),
	}
}

func setState(connect rest.Connect, verb, short string) *cobra.Command {
	return change(connect, verb+" NAME", short, "  slipway user "+verb+" ann", "User %s: "+verb+"ed.", func(_ *cobra.Command, id int64) (string, string, any, error) {
		return http.MethodPost, fmt.Sprintf("/users/%d/%s", id, verb), nil, nil
	})
}

func password(connect rest.Connect) *cobra.Command {
	return change(connect, "password NAME", "Set a password, read from standard input, and end the account's sessions", "  pass show ann | slipway user password ann", "The password of %s was set.",
		func(c *cobra.Command, id int64) (string, string, any, error) {
			secret, err := ReadSecret(c.InOrStdin())
			if err == nil && secret == "" {
				err = &delivery.Error{Kind: delivery.Invalid, Message: "No password came on standard input."}
			}
			return http.MethodPut, fmt.Sprintf("/users/%d", id), map[string]string{"password": secret}, err
		})
}

func admin(connect rest.Connect) *cobra.Command {
	var revoke bool
	c := change(connect, "admin NAME", "Make an account an administrator, or take that away", "  slipway user admin ann\n  slipway user admin ann --revoke", "The rights of %s were changed.",
		func(_ *cobra.Command, id int64) (string, string, any, error) {
			return http.MethodPut, fmt.Sprintf("/users/%d", id), map[string]bool{"admin": !revoke}, nil
		})
	c.Flags().BoolVar(&revoke, "revoke", false, "take the rights away")
	return c
}

func remove(connect rest.Connect) *cobra.Command {
	return change(connect, "rm NAME", "Delete an account that owns no projects", "  slipway user rm ann", "User %s deleted.", func(_ *cobra.Command, id int64) (string, string, any, error) {
		return http.MethodDelete, fmt.Sprintf("/users/%d", id), nil, nil
	})
}

func resetTwoFactor(connect rest.Connect) *cobra.Command {
	return change(connect, "reset-two-factor NAME", "Turn an account's second factor off, when its device is lost", "  slipway user reset-two-factor ann", "The second factor of %s is off.",
		func(_ *cobra.Command, id int64) (string, string, any, error) {
			return http.MethodPatch, fmt.Sprintf("/users/%d/disable_two_factor", id), nil, nil
		})
}

func addKey(connect rest.Connect) *cobra.Command {
	var title string
	c := change(connect, "add-key NAME < key.pub", "Add an SSH key, read from standard input, to an account", "  slipway user add-key ann < ~/.ssh/id_ed25519.pub", "The key was added to %s.",
		func(c *cobra.Command, id int64) (string, string, any, error) {
			key, err := ReadSecret(c.InOrStdin())
			in := map[string]string{"key": key, "title": title}
			return http.MethodPost, fmt.Sprintf("/users/%d/keys", id), in, err
		})
	c.Flags().StringVar(&title, "title", "", "what to call it (default: the key's comment)")
	return c
}

// Package project is `slipway project`: projects, imports, mirrors and jobs.
//
// It receives a way to connect to the platform and works through its REST API
// alone. It must import no stage.
package project

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/group"
	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/command/user"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// New returns the command with its subcommands.
func New(connect rest.Connect) *cobra.Command {
	c := &cobra.Command{
		Use: "project", Short: "Create, import, mirror and delete projects",
		Example: "  slipway project create team/app\n  slipway project import https://example.com/app.git team/app\n  slipway project mirror team/app --pull https://example.com/app.git --every 30m\n  slipway project jobs team/app",
	}
	c.AddCommand(create(connect), importCommand(connect), list(connect), jobs(connect), remove(connect), mirror(connect), mirrors(connect), syncMirrors(connect), unmirror(connect), allowJobs(connect),
		archive(connect, true), archive(connect, false), transfer(connect),
		group.AddMember(connect, "project", "/projects/"), group.RemoveMember(connect, "project", "/projects/"))
	return c
}

type project struct {
	ID         int64  `json:"id"`
	Path       string `json:"path_with_namespace"`
	Visibility string `json:"visibility"`
	HTTPURL    string `json:"http_url_to_repo"`
	SSHURL     string `json:"ssh_url_to_repo"`
	WebURL     string `json:"web_url"`
}

// place splits a full path into the number of the namespace and the rest.
func place(c *cobra.Command, client *rest.Client, path string) (int64, string, error) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return 0, path, nil
	}
	var ns struct {
		ID int64 `json:"id"`
	}
	_, err := client.Call(c.Context(), http.MethodGet, "/namespaces/"+rest.Escape(path[:i]), "", nil, &ns)
	if delivery.IsNotFound(err) {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "There is no group " + path[:i] + ".", Next: "Create it with: slipway group create " + path[:i]}
	}
	return ns.ID, path[i+1:], err
}

func add(c *cobra.Command, connect rest.Connect, path string, in map[string]any, asJSON bool) error {
	client, err := connect()
	if err != nil {
		return err
	}
	id, name, err := place(c, client, path)
	if err != nil {
		return err
	}
	in["path"], in["name"] = name, name
	if id != 0 {
		in["namespace_id"] = id
	}
	var p project
	if _, err := client.Call(c.Context(), http.MethodPost, "/projects", "", in, &p); err != nil {
		return err
	}
	if asJSON {
		return output.JSON(c.OutOrStdout(), p)
	}
	fmt.Fprintf(c.OutOrStdout(), "Project %s created (number %d).\n  git clone %s\n", p.Path, p.ID, p.HTTPURL)
	return nil
}

func create(connect rest.Connect) *cobra.Command {
	var visibility, description string
	var readme, asJSON bool
	c := &cobra.Command{
		Use: "create PATH", Short: "Create a project", Args: cobra.ExactArgs(1), Example: "  slipway project create team/app --visibility internal",
		RunE: func(c *cobra.Command, args []string) error {
			return add(c, connect, args[0], map[string]any{"visibility": visibility, "description": description, "initialize_with_readme": readme}, asJSON)
		},
	}
	c.Flags().StringVar(&visibility, "visibility", "private", "private, internal or public")
	c.Flags().StringVar(&description, "description", "", "what it is")
	c.Flags().BoolVar(&readme, "readme", false, "begin with a README")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func importCommand(connect rest.Connect) *cobra.Command {
	var visibility, username string
	var stdin, asJSON bool
	c := &cobra.Command{
		Use: "import URL PATH", Short: "Create a project from a repository on another server, with its branches and tags", Args: cobra.ExactArgs(2),
		Example: "  slipway project import https://example.com/app.git team/app\n  pass show gitlab | slipway project import https://gitlab.com/me/app.git team/app --username me --password-stdin",
		RunE: func(c *cobra.Command, args []string) error {
			address, err := url.Parse(args[0])
			if err != nil {
				return &delivery.Error{Kind: delivery.Invalid, Message: "The address cannot be read.", Next: "It looks like https://example.com/app.git"}
			}
			if username != "" || stdin {
				secret, err := readSecret(c, stdin)
				if err != nil {
					return err
				}
				address.User = url.UserPassword(username, secret)
			}
			fmt.Fprintf(c.ErrOrStderr(), "Importing %s ...\n", withoutSecret(args[0]))
			return add(c, connect, args[1], map[string]any{"visibility": visibility, "import_url": address.String()}, asJSON)
		},
	}
	c.Flags().StringVar(&visibility, "visibility", "private", "private, internal or public")
	c.Flags().StringVar(&username, "username", "", "user name on the other server")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password or token of the other server from standard input")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// readSecret reads a line of standard input where asked for, so that secrets
// never are arguments.
func readSecret(c *cobra.Command, stdin bool) (string, error) {
	if !stdin {
		return "", nil
	}
	return user.ReadSecret(c.InOrStdin())
}

func withoutSecret(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if i := strings.LastIndexByte(rest, '@'); ok && i >= 0 {
		return scheme + "://" + rest[i+1:]
	}
	return address
}

func list(connect rest.Connect) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls", Short: "List projects", Args: cobra.NoArgs, Example: "  slipway project ls --json",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, _ []string) error {
			all, err := rest.All[project](c.Context(), client, "/projects?simple=true&order_by=id&sort=asc")
			if err != nil {
				return err
			}
			return output.List(c.OutOrStdout(), asJSON, all, []string{"ID", "PATH", "VISIBILITY", "ADDRESS"}, func(p project) []string {
				return []string{strconv.FormatInt(p.ID, 10), p.Path, p.Visibility, p.HTTPURL}
			})
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func remove(connect rest.Connect) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "rm PATH --yes", Short: "Delete a project with its repository and everything about it", Args: cobra.ExactArgs(1), Example: "  slipway project rm team/app --yes",
		RunE: func(c *cobra.Command, args []string) error {
			if !yes {
				return &delivery.Error{Kind: delivery.Invalid, Message: "This deletes the repository of " + args[0] + " for good.", Next: "Repeat it with --yes."}
			}
			client, err := connect()
			if err != nil {
				return err
			}
			if _, err := client.Call(c.Context(), http.MethodDelete, "/projects/"+rest.Escape(args[0]), "", nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Project %s deleted.\n", args[0])
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "really delete it")
	return c
}

func mirror(connect rest.Connect) *cobra.Command {
	var pull, push, username string
	var every time.Duration
	var protected, stdin bool
	c := &cobra.Command{
		Use: "mirror PATH (--pull URL | --push URL)", Short: "Keep a project in step with a repository on another server", Args: cobra.ExactArgs(1),
		Long:    "Keep a project in step with a repository on another server: by fetching from it, or\nby pushing to it, on a schedule. Branches with commits of their own are left alone when pulling.",
		Example: "  slipway project mirror team/app --pull https://example.com/app.git --every 30m\n  pass show backup | slipway project mirror team/app --push https://backup.example.com/app.git --username bot --password-stdin",
		RunE: func(c *cobra.Command, args []string) error {
			if (pull == "") == (push == "") {
				return &delivery.Error{Kind: delivery.Invalid, Message: "Either --pull or --push is needed."}
			}
			client, err := connect()
			if err != nil {
				return err
			}
			in := map[string]any{"url": pull + push, "enabled": true, "interval_seconds": int(every / time.Second), "only_protected_branches": protected, "auth_user": username}
			if stdin {
				if in["auth_password"], err = readSecret(c, stdin); err != nil {
					return err
				}
			}
			base := "/projects/" + rest.Escape(args[0])
			if pull != "" {
				_, err = client.Call(c.Context(), http.MethodPut, base+"/mirror/pull", "", in, nil)
			} else {
				_, err = client.Call(c.Context(), http.MethodPost, base+"/remote_mirrors", "", in, nil)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is mirrored every %s.\n", args[0], every)
			return nil
		},
	}
	c.Flags().StringVar(&pull, "pull", "", "address to fetch from")
	c.Flags().StringVar(&push, "push", "", "address to push to")
	c.Flags().DurationVar(&every, "every", 30*time.Minute, "how often")
	c.Flags().BoolVar(&protected, "only-protected", false, "push protected branches only")
	c.Flags().StringVar(&username, "username", "", "user name on the other server")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password or token from standard input")
	return c
}

type mirrorState struct {
	ID          int64   `json:"id"`
	URL         string  `json:"url"`
	Enabled     bool    `json:"enabled"`
	Status      string  `json:"update_status"`
	LastError   *string `json:"last_error"`
	LastSuccess *string `json:"last_successful_update_at"`
	Direction   string  `json:"direction"`
}

func mirrors(connect rest.Connect) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "mirrors PATH", Short: "List a project's mirrors and how they are doing", Args: cobra.ExactArgs(1), Example: "  slipway project mirrors team/app",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			all, err := allMirrors(c, client, "/projects/"+rest.Escape(args[0]))
			if err != nil {
				return err
			}
			return output.List(c.OutOrStdout(), asJSON, all, []string{"DIRECTION", "ADDRESS", "STATUS", "LAST SUCCESS", "PROBLEM"}, func(m mirrorState) []string {
				last, problem := "never", ""
				if m.LastSuccess != nil {
					last = *m.LastSuccess
				}
				if m.LastError != nil {
					problem = *m.LastError
				}
				return []string{m.Direction, m.URL, m.Status, last, problem}
			})
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func allowJobs(connect rest.Connect) *cobra.Command {
	var push bool
	c := &cobra.Command{
		Use: "allow-jobs PATH SOURCE", Short: "Let the jobs of another project use this one with their token", Args: cobra.ExactArgs(2),
		Example: "  slipway project allow-jobs team/gitops-configs team/app --push",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			var source project
			if _, err := client.Call(c.Context(), http.MethodGet, "/projects/"+rest.Escape(args[1]), "", nil, &source); err != nil {
				return err
			}
			in := map[string]any{"target_project_id": source.ID, "push": push}
			if _, err := client.Call(c.Context(), http.MethodPost, "/projects/"+rest.Escape(args[0])+"/job_token_scope/allowlist", "", in, nil); err != nil {
				return err
			}
			what := "read"
			if push {
				what = "read and push to"
			}
			fmt.Fprintf(c.OutOrStdout(), "Jobs of %s may %s %s.\n", args[1], what, args[0])
			return nil
		}),
	}
	c.Flags().BoolVar(&push, "push", false, "let them push as well")
	return c
}

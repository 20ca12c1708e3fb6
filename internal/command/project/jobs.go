package project

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// job is what the API says of a job; see docs/jobs.md.
type job struct {
	ID       int64   `json:"id"`
	Name     string  `json:"name"`
	Stage    string  `json:"stage"`
	Status   string  `json:"status"`
	Duration float64 `json:"duration"` // seconds
	WebURL   string  `json:"web_url"`
	Waits    string  `json:"waiting_reason,omitempty"` // why it does not run yet
	Failure  string  `json:"failure_reason,omitempty"`
}

func jobs(connect rest.Connect) *cobra.Command {
	var asJSON bool
	var number int64
	var ref string
	c := &cobra.Command{
		Use: "jobs PATH", Short: "List the jobs of a project's newest pipeline, and why one waits", Args: cobra.ExactArgs(1),
		Example: "  slipway project jobs team/app\n  slipway project jobs team/app --ref v1.2.0\n  slipway project jobs team/app --pipeline 12 --json",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			at := "/projects/" + rest.Escape(args[0]) + "/pipelines"
			if number == 0 {
				var err error
				if number, err = newest(c, client, at, args[0], ref); err != nil {
					return err
				}
			}
			all, err := rest.All[job](c.Context(), client, at+"/"+strconv.FormatInt(number, 10)+"/jobs")
			if err != nil {
				return err
			}
			if asJSON {
				return output.JSON(c.OutOrStdout(), all)
			}
			rows := make([][]string, len(all))
			for i, j := range all {
				took := ""
				if j.Duration > 0 {
					took = time.Duration(j.Duration * float64(time.Second)).Round(100 * time.Millisecond).String()
				}
				why := j.Waits
				if why == "" && j.Status == "failed" {
					why = j.Failure
				}
				rows[i] = []string{strconv.FormatInt(j.ID, 10), j.Stage, j.Name, j.Status, took, why}
			}
			fmt.Fprintf(c.OutOrStdout(), "Pipeline %d\n", number)
			return output.Table(c.OutOrStdout(), []string{"ID", "STAGE", "JOB", "STATUS", "TOOK", "WHY"}, rows)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().Int64Var(&number, "pipeline", 0, "number of the pipeline (default: the newest)")
	c.Flags().StringVar(&ref, "ref", "", "branch or tag whose newest pipeline is meant")
	return c
}

// newest is the number of the newest pipeline, of a ref unless that is empty.
func newest(c *cobra.Command, client *rest.Client, at, path, ref string) (int64, error) {
	query, of := "?per_page=1", path
	if ref != "" {
		query, of = query+"&ref="+url.QueryEscape(ref), ref+" of "+path
	}
	var found []struct {
		ID int64 `json:"id"`
	}
	if _, err := client.Call(c.Context(), http.MethodGet, at+query, "", nil, &found); err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, &delivery.Error{Kind: delivery.NotFound, Message: "No pipeline of " + of + " has run.", Next: "Push a commit with a .gitlab-ci.yml, or start one in the web interface."}
	}
	return found[0].ID, nil
}

package image

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/delivery"
)

func cacheCommand(connect rest.Connect) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "cache", Short: "List the images of the pull-through cache", Args: cobra.NoArgs, Example: "  slipway image cache",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, _ []string) error {
			type cached struct {
				Reference string     `json:"reference"`
				Digest    string     `json:"digest"`
				Size      int64      `json:"size"`
				Seeded    bool       `json:"seeded"`
				LastUsed  *time.Time `json:"last_used_at,omitempty"`
			}
			list := []cached{}
			if _, err := client.Call(c.Context(), http.MethodGet, "/registry/cache", "", nil, &list); err != nil {
				return err
			}
			return output.List(c.OutOrStdout(), asJSON, list, []string{"IMAGE", "DIGEST", "SIZE", "LAST USED"}, func(i cached) []string {
				used := "seeded: kept"
				if i.LastUsed != nil {
					used = i.LastUsed.Format("2006-01-02 15:04")
				}
				return []string{i.Reference, shortDigest(i.Digest), delivery.BytesText(i.Size), used}
			})
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func collectCommand(connect rest.Connect) *cobra.Command {
	var asJSON, untagged bool
	c := &cobra.Command{
		Use: "gc", Short: "Remove now what no tag and no workload needs", Args: cobra.NoArgs,
		Long:    "Apply the clean-up policies that are due, and remove untagged images and unreferenced blobs\nthat are old enough: a day for images, an hour since a client last asked for blobs. The\nplatform does the same every hour; pushes and pulls go on meanwhile. With --untagged images\nwithout a tag need be an hour old only.",
		Example: "  slipway image gc\n  slipway image gc --untagged",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, _ []string) error {
			var done struct {
				Tags    int     `json:"tags"`
				Images  int     `json:"images"`
				Blobs   int     `json:"blobs"`
				Bytes   int64   `json:"bytes"`
				Seconds float64 `json:"seconds"`

				WaitingImages int   `json:"waiting_images"`
				WaitingBlobs  int   `json:"waiting_blobs"`
				WaitingBytes  int64 `json:"waiting_bytes"`
			}
			if _, err := client.Call(c.Context(), http.MethodPost, fmt.Sprintf("/registry/collect?untagged=%t", untagged), "", nil, &done); err != nil {
				return err
			}
			if asJSON {
				return output.JSON(c.OutOrStdout(), done)
			}
			fmt.Fprintf(c.OutOrStdout(), "Removed %d tags, %d images and %d blobs: %s freed in %.1f s.\n", done.Tags, done.Images, done.Blobs, delivery.BytesText(done.Bytes), done.Seconds)
			if done.WaitingImages+done.WaitingBlobs > 0 {
				fmt.Fprintf(c.OutOrStdout(), "Too young to go: %d images without a tag, and %d blobs (%s) that a push under way could still need.\n", done.WaitingImages, done.WaitingBlobs, delivery.BytesText(done.WaitingBytes))
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&untagged, "untagged", false, "do not keep images without a tag for a day")
	return c
}

func policyCommand(connect rest.Connect) *cobra.Command {
	var keep int
	var older, match, except, every string
	var off, dry, asJSON bool
	c := &cobra.Command{
		Use: "policy PROJECT", Short: "Show or set which tags of a project go by themselves", Args: cobra.ExactArgs(1),
		Long:    "Show or set the clean-up policy of a project. Tags that match --match, do not match --except,\nare not among the --keep newest of their repository and are older than --older-than are removed.\nThe tag \"latest\" and what the cluster uses always stay. What is not given stays as it is.\nWith --dry-run nothing is set or removed: the tags that would go now are listed.",
		Example: "  slipway image policy team/app\n  slipway image policy team/app --match '.*' --keep 10 --dry-run\n  slipway image policy team/app --match '.*' --except 'v.+' --keep 10 --older-than 30d",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			path := "/projects/" + rest.Escape(args[0]) + "/registry/cleanup_policy"
			in := map[string]any{}
			for flag, given := range map[string]struct {
				key   string
				value any
			}{"keep": {"keep_n", keep}, "older-than": {"older_than", older}, "match": {"name_regex", match}, "except": {"name_regex_keep", except}, "every": {"cadence", every}} {
				if c.Flags().Changed(flag) {
					in[given.key] = given.value
				}
			}
			if dry {
				return previewPolicy(c, client, path, in, asJSON)
			}
			method, body := http.MethodGet, any(nil)
			if len(in) > 0 || c.Flags().Changed("off") {
				in["enabled"] = !off
				method, body = http.MethodPut, in
			}
			var now any
			if _, err := client.Call(c.Context(), method, path, "", body, &now); err != nil {
				return err
			}
			return output.JSON(c.OutOrStdout(), now)
		}),
	}
	f := c.Flags()
	f.IntVar(&keep, "keep", 0, "newest tags to keep per repository")
	f.StringVar(&older, "older-than", "", "age from which tags go: 7d, 30d, 1month")
	f.StringVar(&match, "match", "", "regular expression of the tags that may go")
	f.StringVar(&except, "except", "", "regular expression of the tags that stay")
	f.StringVar(&every, "every", "1d", "how often it runs")
	f.BoolVar(&off, "off", false, "switch the policy off")
	f.BoolVar(&dry, "dry-run", false, "list the tags that would go now")
	f.BoolVar(&asJSON, "json", false, "print JSON, which a policy always is")
	return c
}

// previewPolicy lists what a policy would remove.
func previewPolicy(c *cobra.Command, client *rest.Client, path string, policy map[string]any, asJSON bool) error {
	type expiring struct {
		Repository string    `json:"repository"`
		Tag        string    `json:"tag"`
		Digest     string    `json:"digest"`
		Size       int64     `json:"size"`
		PushedAt   time.Time `json:"pushed_at"`
	}
	list := []expiring{}
	if _, err := client.Call(c.Context(), http.MethodPost, path+"/preview", "", policy, &list); err != nil {
		return err
	}
	if len(list) == 0 && !asJSON {
		_, err := fmt.Fprintln(c.OutOrStdout(), "No tag would go.")
		return err
	}
	err := output.List(c.OutOrStdout(), asJSON, list, []string{"WOULD GO", "DIGEST", "SIZE", "PUSHED"}, func(e expiring) []string {
		return []string{e.Repository + ":" + e.Tag, shortDigest(e.Digest), delivery.BytesText(e.Size), e.PushedAt.Format("2006-01-02 15:04")}
	})
	if err == nil && !asJSON {
		_, err = fmt.Fprintf(c.OutOrStdout(), "%d tags would go; nothing was removed.\n", len(list))
	}
	return err
}

package image

import (
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

// TestBuildPassesDockersFlags gives flags on as docker build takes them.
func TestBuildPassesDockersFlags(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args, want []string
		bad        bool
	}{
		{args: []string{"."}},
		{args: []string{"-f", "deploy/Dockerfile", "--build-arg", "A=1,2", "--build-arg=B=", ".", "--no-cache"}, want: []string{"--build-arg=A=1,2", "--build-arg=B=", "--file=deploy/Dockerfile", "--no-cache=true"}},
		{args: []string{"-q", "-t", "team/app:1", "--push", "-", "--", "--sbom"}, want: []string{"--quiet=true"}},
		{args: []string{"a", "b"}, bad: true},
		{args: []string{"--", "--sbom"}, bad: true},
	} {
		var got []string
		c := &cobra.Command{Use: "build", Args: onePath, SilenceErrors: true, SilenceUsage: true, RunE: func(c *cobra.Command, _ []string) error {
			got = passed(c.Flags())
			return nil
		}}
		c.Flags().StringArrayP("tag", "t", nil, "")
		c.Flags().Bool("push", false, "")
		passedFlags(c.Flags())
		c.SetArgs(test.args)
		if err := c.Execute(); (err != nil) != test.bad {
			t.Errorf("%q: %v", test.args, err)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%q passes %q, not %q", test.args, got, test.want)
		}
	}
}

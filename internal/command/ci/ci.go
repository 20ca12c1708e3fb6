package ci

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// exitError ends the program with a status; what there is to say has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode is the program's exit status.
func (e exitError) ExitCode() int { return int(e) }

// Exit statuses of the commands.
const (
	exitInvalid = 1 // the configuration has errors, or cannot be read
	exitUsage   = 2
)

// Option changes what New builds.
type Option func(*options)

type options struct{ places Places }

// WithPlaces makes `slipway ci run` look for a place for its jobs; without, they are processes of
// this host.
func WithPlaces(p Places) Option { return func(o *options) { o.places = p } }

// New returns the command with its subcommands. A failed subcommand returns an error with a method
// ExitCode() int and has already written its message.
func New(with ...Option) *cobra.Command {
	o := options{places: hostOnly}
	for _, option := range with {
		option(&o)
	}
	c := &cobra.Command{
		Use:     "ci",
		Short:   "Check, plan, expand and run a .gitlab-ci.yml",
		Long:    "Check, plan, expand and run the .gitlab-ci.yml of a working copy, without a server.",
		Example: "  slipway ci lint\n  slipway ci plan --ref main --changed app/main.py\n  slipway ci run test",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(c, fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath()))
			}
			return c.Help()
		},
	}
	c.SetFlagErrorFunc(usage)
	c.AddCommand(lintCommand(), planCommand(), expandCommand(), runCommand(o.places))
	return c
}

// usage reports a wrong use of the command line.
func usage(c *cobra.Command, err error) error {
	fmt.Fprintf(c.ErrOrStderr(), "slipway: %v\nSee: %s --help\n", err, c.CommandPath())
	return exitError(exitUsage)
}

// oneFile accepts at most one argument.
func oneFile(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage(c, fmt.Errorf("one file at a time, not %d", len(args)))
	}
	return nil
}

// report is what lint --json prints, and every command when the configuration has errors.
type report struct {
	Valid    bool                  `json:"valid"`
	Errors   []gitlabci.Diagnostic `json:"errors"`
	Warnings []gitlabci.Diagnostic `json:"warnings"`
}

func newReport(diags gitlabci.Diagnostics) report {
	return report{Valid: !diags.Failed(), Errors: diags.Errors(), Warnings: diags.Warnings()}
}

// writeFindings prints the way compilers do, for editors to jump to.
func writeFindings(w io.Writer, diags gitlabci.Diagnostics) {
	for _, d := range diags {
		kind := "error: "
		if d.Warning {
			kind = "warning: "
		}
		message := d.Message
		d.Message = kind + message
		fmt.Fprintln(w, d.String())
	}
}

// fail reports a configuration with errors and returns the exit status.
func fail(c *cobra.Command, asJSON bool, diags gitlabci.Diagnostics) error {
	if asJSON {
		if err := output.JSON(c.OutOrStdout(), newReport(diags)); err != nil {
			return err
		}
		return exitError(exitInvalid)
	}
	writeFindings(c.ErrOrStderr(), diags)
	return exitError(exitInvalid)
}

func lintCommand() *cobra.Command {
	var e event
	var asJSON bool
	c := &cobra.Command{
		Use:   "lint [FILE]",
		Short: "Check a .gitlab-ci.yml and all it includes",
		Long: "Check a .gitlab-ci.yml (default: the one of this folder; - reads standard input) and all it\n" +
			"includes. Every mistake is listed at once, with its place. Exit status 1 means the file has errors.",
		Example: "  slipway ci lint\n  slipway ci lint ci/release.yml --json",
		Args:    oneFile,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := open(c, args)
			if err != nil {
				return err
			}
			_, _, diags, err := e.compile(c, f)
			if err != nil {
				return err
			}
			if diags.Failed() {
				return fail(c, asJSON, diags)
			}
			if asJSON {
				return output.JSON(c.OutOrStdout(), newReport(diags))
			}
			writeFindings(c.ErrOrStderr(), diags)
			fmt.Fprintf(c.OutOrStdout(), "%s is valid\n", f.name)
			return nil
		},
	}
	e.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, `print {"valid", "errors", "warnings"} as JSON`)
	return c
}

func expandCommand() *cobra.Command {
	var e event
	c := &cobra.Command{
		Use:     "expand [FILE]",
		Short:   "Print the configuration with includes, extends and references resolved",
		Long:    "Print the merged configuration as one YAML file: includes, inputs, extends, !reference and\nanchors are resolved.",
		Example: "  slipway ci expand > merged.yml",
		Args:    oneFile,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := open(c, args)
			if err != nil {
				return err
			}
			config, _, diags, err := e.compile(c, f)
			if err != nil {
				return err
			}
			if diags.Failed() {
				return fail(c, false, diags)
			}
			writeFindings(c.ErrOrStderr(), diags)
			text, err := config.YAML()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
	e.flags(c)
	return c
}

package ci

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

func planCommand() *cobra.Command {
	var e event
	var asJSON bool
	c := &cobra.Command{
		Use:   "plan [FILE]",
		Short: "Show what a push, tag, schedule or merge request would run",
		Long: "Show the jobs that an event would run, in order of their stages, after rules, only and except.\n" +
			"Without flags it is a push of the branch that is checked out. Files count as changed only when\n" +
			"named with --changed; without it rules:changes holds, as on a new branch.",
		Example: "  slipway ci plan --ref feature --changed docs/index.md\n" +
			"  slipway ci plan --tag v1.2.0 --json\n" +
			"  slipway ci plan --source schedule --var NIGHTLY=1",
		Args: oneFile,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := open(c, args)
			if err != nil {
				return err
			}
			config, facts, diags, err := e.compile(c, f)
			if err != nil {
				return err
			}
			if diags.Failed() {
				return fail(c, asJSON, diags)
			}
			pipeline, more := gitlabci.Plan(c.Context(), config, facts)
			diags = append(diags, f.placed(more)...)
			if more.Failed() {
				return fail(c, asJSON, diags)
			}
			if !asJSON {
				writeFindings(c.ErrOrStderr(), diags)
				writePlan(c.OutOrStdout(), pipeline)
				return nil
			}
			return encodePlan(c.OutOrStdout(), pipeline)
		},
	}
	e.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the plan as JSON")
	return c
}

// encodePlan writes one JSON document. It is not indented: plans are large and read by machines.
func encodePlan(w io.Writer, p *gitlabci.Pipeline) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

func writePlan(w io.Writer, p *gitlabci.Pipeline) {
	if !p.Run {
		fmt.Fprintf(w, "No pipeline: %s.\n", p.Reason)
		return
	}
	if p.Name != "" {
		fmt.Fprintf(w, "%s\n", p.Name)
	}
	stage := -1
	for i := range p.Jobs {
		j := &p.Jobs[i]
		if j.StageIndex != stage {
			stage = j.StageIndex
			fmt.Fprintf(w, "%s\n", j.Stage)
		}
		fmt.Fprintf(w, "  %s%s\n", j.Name, remarks(j))
	}
}

// remarks says what is special about a job, in brackets.
func remarks(j *gitlabci.Job) string {
	var out []string
	switch {
	case j.When == "delayed":
		out = append(out, "after "+j.StartIn)
	case j.When != "on_success":
		out = append(out, j.When)
	}
	if j.AllowFailure {
		out = append(out, "may fail")
	}
	if j.Needs != nil {
		names := make([]string, len(j.Needs))
		for i, n := range j.Needs {
			names[i] = n.Job
		}
		if len(names) == 0 {
			out = append(out, "starts at once")
		} else {
			out = append(out, "needs "+strings.Join(names, ", "))
		}
	}
	if t := j.Trigger; t != nil {
		if t.Project != "" {
			out = append(out, "triggers "+t.Project)
		} else {
			out = append(out, "child pipeline")
		}
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, "; ") + ")"
}

// Package scan is `slipway scan`: scans of images and file trees with a gate,
// and the vulnerability database.
//
// It receives a way to connect to the platform, which runs Trivy, and works
// through its REST API alone. It must import no stage but scan's pure reports
// and database builder.
package scan

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/scan/report"
)

// exitError ends the program with a status; what there is to say has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode is the program's exit status: 1 for findings that the gate stops.
func (e exitError) ExitCode() int { return int(e) }

// New returns the command with its subcommands.
func New(connect rest.Connect) *cobra.Command {
	c := &cobra.Command{
		Use:     "scan",
		Short:   "Scan images, folders, configuration and for secrets with Trivy",
		Long:    "Scan an image of the platform's registry or a folder with Trivy, which runs on the platform.\nExit status 1 says that findings at or above --severity are there, 2 a wrong use.",
		Example: "  slipway scan image team/app:v1.0.0 --severity HIGH\n  slipway scan fs . --project team/app\n  slipway scan db status",
	}
	c.AddCommand(imageCommand(connect), databaseCommand(connect))
	for _, kind := range []struct{ name, short string }{
		{"fs", "Scan a folder for vulnerable packages, misconfigurations and secrets"},
		{"config", "Scan a folder's configuration: Dockerfiles, manifests, charts, Terraform"},
		{"secret", "Scan a folder for secrets"},
	} {
		c.AddCommand(treeCommand(connect, kind.name, kind.short))
	}
	return c
}

// options are the flags of every scan.
type options struct {
	severity, ignoreFile, format, output, project string
	ignoreUnfixed                                 bool
}

func (o *options) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.severity, "severity", "", "exit with status 1 for findings as bad as this or worse: CRITICAL, HIGH, MEDIUM, LOW")
	f.BoolVar(&o.ignoreUnfixed, "ignore-unfixed", false, "let vulnerabilities without a fix pass the gate")
	f.StringVar(&o.ignoreFile, "ignore-file", "", "exceptions, each with a statement and a date (default "+report.IgnoreFile+" where it exists)")
	f.StringVar(&o.format, "format", "table", "table, json, sarif or gitlab (container scanning)")
	f.StringVarP(&o.output, "output", "o", "", "write the report to a file; the table still goes to the terminal")
	f.StringVar(&o.project, "project", "", "project that the scan belongs to (default: the image's)")
}

// gate reads what decides.
func (o *options) gate() (report.Gate, error) {
	g := report.Gate{IgnoreUnfixed: o.ignoreUnfixed}
	var err error
	if o.severity != "" {
		if g.Threshold, err = report.ParseSeverity(o.severity); err != nil {
			return g, delivery.Errorf(delivery.Invalid, "--severity: %v", err)
		}
	}
	file := o.ignoreFile
	if file == "" {
		file = report.IgnoreFile
	}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && o.ignoreFile == "" {
		return g, nil
	}
	if err != nil {
		return g, delivery.Errorf(delivery.Invalid, "The ignore file cannot be read: %v", err)
	}
	g.Ignores, err = report.ParseIgnores(file, raw)
	if err != nil {
		return g, delivery.Errorf(delivery.Invalid, "%v", err)
	}
	return g, nil
}

func (o *options) check() error {
	switch o.format {
	case "table", "json", "sarif", "gitlab":
		return nil
	}
	return delivery.Errorf(delivery.Invalid, "--format %q is not known: use table, json, sarif or gitlab", o.format)
}

type scanAnswer struct {
	ID        int64       `json:"id"`
	ProjectID int64       `json:"project_id"`
	Status    scan.Status `json:"status"`
	Error     string      `json:"error"`
}

func imageCommand(connect rest.Connect) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "image IMAGE", Short: "Scan an image of the platform's registry", Args: cobra.ExactArgs(1),
		Example: "  slipway scan image team/app:v1.0.0 --severity HIGH --ignore-unfixed\n  slipway scan image team/app@sha256:... --format sarif -o scan.sarif",
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c, connect, func(ctx context.Context, client *rest.Client) (scanAnswer, error) {
				var answer scanAnswer
				project := o.project
				if project == "" {
					var err error
					if project, err = projectOf(ctx, client, args[0]); err != nil {
						return answer, err
					}
				}
				_, err := client.Call(ctx, http.MethodPost, "/projects/"+rest.Escape(project)+"/scans", "", map[string]string{"image": args[0]}, &answer)
				return answer, err
			})
		},
	}
	o.register(c)
	return c
}

// projectOf finds the project that an image belongs to: the longest part of
// its name that is one.
func projectOf(ctx context.Context, client *rest.Client, image string) (string, error) {
	path, _, _ := strings.Cut(image, "@")
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') {
		path = path[:i]
	}
	path = strings.TrimPrefix(path, client.Host()+"/")
	for prefix := path; strings.Contains(prefix, "/"); prefix = prefix[:strings.LastIndexByte(prefix, '/')] {
		_, err := client.Call(ctx, http.MethodGet, "/projects/"+rest.Escape(prefix), "", nil, nil)
		if err == nil || !delivery.IsNotFound(err) {
			return prefix, err
		}
	}
	return "", delivery.Errorf(delivery.NotFound, "There is no project for the image %s.", image)
}

func treeCommand(connect rest.Connect, kind, short string) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: kind + " FOLDER", Short: short, Args: cobra.ExactArgs(1), Example: "  slipway scan " + kind + " . --project team/app --severity HIGH",
		RunE: func(c *cobra.Command, args []string) error {
			if o.project == "" {
				return delivery.Errorf(delivery.Invalid, "Say with --project which project the scan belongs to.")
			}
			if info, err := os.Stat(args[0]); err != nil || !info.IsDir() {
				return delivery.Errorf(delivery.Invalid, "%s is not a folder.", args[0])
			}
			return o.run(c, connect, func(ctx context.Context, client *rest.Client) (scanAnswer, error) {
				reader, writer := io.Pipe()
				defer reader.Close() // ends the writer when the platform has answered early
				go func() { writer.CloseWithError(packTree(args[0], writer)) }()
				var answer scanAnswer
				q := url.Values{"type": {kind}, "name": {args[0]}}
				_, err := client.Call(ctx, http.MethodPost, "/projects/"+rest.Escape(o.project)+"/scans?"+q.Encode(), "application/x-tar", reader, &answer)
				return answer, err
			})
		},
	}
	o.register(c)
	return c
}

// packTree writes the regular files of a folder as a tar stream, without .git.
func packTree(dir string, w io.Writer) error {
	archive := tar.NewWriter(w)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
			return err
		}
		_, err = io.CopyN(archive, f, info.Size())
		return err
	})
	return errors.Join(err, archive.Close())
}

// run asks for the scan, waits for it, writes the report and judges.
func (o *options) run(c *cobra.Command, connect rest.Connect, ask func(context.Context, *rest.Client) (scanAnswer, error)) error {
	if err := o.check(); err != nil {
		return err
	}
	gate, err := o.gate()
	if err != nil {
		return err
	}
	client, err := connect()
	if err != nil {
		return err
	}
	ctx := c.Context()
	answer, err := ask(ctx, client)
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/projects/%d/scans/%d", answer.ProjectID, answer.ID)
	for answer.Status == scan.Pending || answer.Status == scan.Running {
		if _, err := client.Call(ctx, http.MethodGet, path+"?wait=30", "", nil, &answer); err != nil {
			return err
		}
	}
	if answer.Status == scan.Failed {
		return delivery.Errorf(delivery.Stalled, "The scan failed: %s", answer.Error)
	}
	var rep report.Report
	if _, err := client.Call(ctx, http.MethodGet, path+"/report", "", nil, &rep); err != nil {
		return err
	}
	return o.finish(c, gate, rep)
}

func (o *options) finish(c *cobra.Command, gate report.Gate, rep report.Report) error {
	now := time.Now()
	verdict := gate.Judge(rep.Findings, now)
	body, err := o.encode(rep)
	if err != nil {
		return err
	}
	switch {
	case o.output != "" && body != nil:
		if err := os.WriteFile(o.output, append(body, '\n'), 0o644); err != nil {
			return delivery.Errorf(delivery.Invalid, "The report cannot be written: %v", err)
		}
	case body != nil:
		if _, err := fmt.Fprintf(c.OutOrStdout(), "%s\n", body); err != nil {
			return err
		}
	}
	if o.output != "" || body == nil {
		if err := rep.Table(c.OutOrStdout(), verdict, now); err != nil {
			return err
		}
	}
	if !verdict.Pass() {
		fmt.Fprintf(c.ErrOrStderr(), "slipway: %s at or above %s\n", report.CountsText(report.Counts(verdict.Stopping)), gate.Threshold)
		return exitError(1)
	}
	return nil
}

// encode returns nil for the table.
func (o *options) encode(rep report.Report) ([]byte, error) {
	switch o.format {
	case "json":
		return json.MarshalIndent(rep, "", "  ")
	case "sarif":
		return rep.SARIF()
	case "gitlab":
		return rep.GitLab()
	}
	return nil, nil
}

func databaseCommand(connect rest.Connect) *cobra.Command {
	c := &cobra.Command{
		Use: "db", Short: "The vulnerability database: its age, updates, imports",
		Example: "  slipway scan db status\n  slipway scan db import db.tar.gz",
	}
	c.AddCommand(
		databaseCall(connect, "status", "Show which database scans use, and its age", http.MethodGet, "/scan/database"),
		databaseCall(connect, "update", "Fetch the database from its configured source now", http.MethodPost, "/scan/database/update"),
		databaseCall(connect, "demo", "Install the small demonstration database where there is no real one", http.MethodPost, "/scan/database/demonstration"),
		importCommand(connect), buildCommand())
	return c
}

type databaseAnswer struct {
	report.Database
	AgeSeconds int64 `json:"age_seconds"`
}

func (d databaseAnswer) write(c *cobra.Command, asJSON bool) error {
	if asJSON {
		return output.JSON(c.OutOrStdout(), d)
	}
	fmt.Fprintf(c.OutOrStdout(), "Vulnerability database of %s (%d days old), from %s.\n", d.UpdatedAt.Format(time.DateOnly), d.AgeSeconds/86400, d.Origin)
	if warning := d.Warning(time.Now()); warning != "" {
		fmt.Fprintln(c.OutOrStdout(), "WARNING: "+warning)
	}
	if d.Demonstration {
		fmt.Fprintln(c.OutOrStdout(), "NOTE: this is a demonstration database. "+d.Note)
	}
	return nil
}

func databaseCall(connect rest.Connect, use, short, method, path string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs, Example: "  slipway scan db " + use,
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, _ []string) error {
			var db databaseAnswer
			if _, err := client.Call(c.Context(), method, path, "", nil, &db); err != nil {
				return err
			}
			return db.write(c, asJSON)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func importCommand(connect rest.Connect) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "import FILE", Short: "Install a database from a file, such as Trivy's db.tar.gz", Args: cobra.ExactArgs(1),
		Long:    "Install a database from a tar file, compressed or not, that holds trivy.db and metadata.json:\nthe layer of the artifact ghcr.io/aquasecurity/trivy-db:2, fetched where there is a network.",
		Example: "  oras pull ghcr.io/aquasecurity/trivy-db:2 && slipway scan db import db.tar.gz",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return delivery.Errorf(delivery.Invalid, "%s cannot be read: %v", args[0], err)
			}
			defer f.Close()
			var db databaseAnswer
			q := url.Values{"name": {filepath.Base(args[0])}}
			if _, err := client.Call(c.Context(), http.MethodPost, "/scan/database?"+q.Encode(), "application/octet-stream", f, &db); err != nil {
				return err
			}
			return db.write(c, asJSON)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func buildCommand() *cobra.Command {
	var source, output string
	c := &cobra.Command{
		Use: "build", Short: "Build a database file from a list of advisories", Args: cobra.NoArgs,
		Long:    "Build a database in Trivy's format from a YAML list of advisories; without --source from the\nbuilt-in demonstration set, a few well-known Debian 12 advisories. Install it with import.",
		Example: "  slipway scan db build --output db.tar.gz\n  slipway scan db build --source ours.yaml --output db.tar.gz",
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := os.Create(output)
			if err != nil {
				return delivery.Errorf(delivery.Invalid, "The file cannot be written: %v", err)
			}
			if source == "" {
				err = scan.BuildDemonstration(f)
			} else {
				var raw []byte
				if raw, err = os.ReadFile(source); err != nil {
					err = delivery.Errorf(delivery.Invalid, "%s cannot be read: %v", source, err)
				} else {
					err = scan.BuildDatabase(raw, f)
				}
			}
			if err = errors.Join(err, f.Close()); err != nil {
				return errors.Join(err, os.Remove(output))
			}
			fmt.Fprintln(c.OutOrStdout(), "Wrote "+output)
			return nil
		},
	}
	c.Flags().StringVar(&source, "source", "", "list of advisories in YAML")
	c.Flags().StringVarP(&output, "output", "o", "db.tar.gz", "file to write")
	return c
}

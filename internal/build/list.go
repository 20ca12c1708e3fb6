package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageRow is what `docker images --format` may name.
type imageRow struct {
	Repository, Tag, ID, Digest, CreatedSince, CreatedAt, Size string
}

// imageHeaders head the columns of imageRow.
var imageHeaders = imageRow{"REPOSITORY", "TAG", "IMAGE ID", "DIGEST", "CREATED", "CREATED AT", "SIZE"}

func listImages(ctx context.Context, c *command) error {
	quiet := c.flags.BoolP("quiet", "q", false, "ids alone")
	format := c.flags.String("format", "", "Go template, or json")
	filters := c.flags.StringArrayP("filter", "f", nil, "reference=PATTERN, label=NAME[=VALUE] or dangling=BOOL")
	noTrunc := c.flags.Bool("no-trunc", false, "whole ids")
	digests := c.flags.Bool("digests", false, "digests too")
	c.flags.BoolP("all", "a", false, "")
	c.flags.Bool("tree", false, "")
	if err := c.parse(0, 1); err != nil {
		return err
	}
	var rows []imageRow
	for _, image := range c.all() {
		if c.flags.NArg() > 0 && !matches(c.flags.Arg(0), image.named) {
			continue
		}
		wanted, err := c.passes(ctx, image, *filters)
		if err != nil {
			return err
		}
		if !wanted {
			continue
		}
		row, err := c.row(ctx, image)
		if err != nil {
			return err
		}
		if !*noTrunc {
			row.ID = row.ID[7:19]
		}
		rows = append(rows, row)
	}
	switch {
	case *quiet:
		seen := map[string]bool{}
		for _, row := range rows {
			if !seen[row.ID] {
				fmt.Fprintln(c.Stdout(), row.ID)
			}
			seen[row.ID] = true
		}
		return nil
	case *format == "" && *digests:
		*format = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	case *format == "" || *format == "table":
		*format = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	return printRows(c.Stdout(), *format, imageHeaders, rows)
}

// matches reports whether an image is in the repository, or has the name.
func matches(wanted string, named reference.Named) bool {
	return named != nil && (reference.FamiliarName(named) == wanted || reference.FamiliarString(named) == wanted || named.String() == wanted || named.Name() == wanted)
}

// passes applies the filters of docker images.
func (c *command) passes(ctx context.Context, image *jobImage, filters []string) (bool, error) {
	for _, filter := range filters {
		name, value, _ := strings.Cut(filter, "=")
		pass := false
		switch name {
		case "reference":
			pass = image.named != nil && (like(value, reference.FamiliarString(image.named)) || like(value, reference.FamiliarName(image.named)))
		case "dangling":
			pass = (image.named == nil) == (value == "true" || value == "1")
		case "label":
			one, err := c.inspect(ctx, image)
			if err != nil {
				return false, err
			}
			label, want, exact := strings.Cut(value, "=")
			have, found := one.Config.Labels[label]
			pass = found && (!exact || have == want)
		default:
			return false, fmt.Errorf("invalid filter '%s': offered are reference, label and dangling", name)
		}
		if !pass {
			return false, nil
		}
	}
	return true, nil
}

// like matches a pattern of the shell.
func like(pattern, name string) bool {
	matched, err := path.Match(pattern, name)
	return err == nil && matched
}

func (c *command) row(ctx context.Context, image *jobImage) (imageRow, error) {
	size, err := (&images.Image{Target: image.target}).Size(ctx, c.engine.containerd.ContentStore(), platforms.Default())
	if err != nil {
		return imageRow{}, err
	}
	row := imageRow{Repository: "<none>", Tag: "<none>", ID: image.id.String(), Digest: image.target.Digest.String(),
		CreatedSince: time.Since(image.created).Round(time.Second).String() + " ago", CreatedAt: image.created.UTC().Format("2006-01-02 15:04:05 -0700 MST"), Size: megabytes(size)}
	if image.named != nil {
		row.Repository = reference.FamiliarName(image.named)
		if tagged, ok := image.named.(reference.Tagged); ok {
			row.Tag = tagged.Tag()
		}
	}
	return row, nil
}

func megabytes(size int64) string {
	if size < 1e6 {
		return fmt.Sprintf("%.3gkB", float64(size)/1e3)
	}
	return fmt.Sprintf("%.3gMB", float64(size)/1e6)
}

// functions are those of docker's templates.
var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		err := encoder.Encode(v)
		return strings.TrimSpace(out.String()), err
	},
	"join": strings.Join, "split": strings.Split, "lower": strings.ToLower, "upper": strings.ToUpper,
	"title": func(text string) string {
		if text == "" {
			return ""
		}
		return strings.ToUpper(text[:1]) + text[1:]
	},
	"truncate": func(text string, length int) string { return text[:min(len(text), max(length, 0))] },
	"pad": func(text string, before, after int) string {
		return strings.Repeat(" ", max(before, 0)) + text + strings.Repeat(" ", max(after, 0))
	},
	"println": fmt.Sprintln,
}

// parseFormat reads a template as docker does: \t and \n may be written out.
func parseFormat(format string) (*template.Template, error) {
	format = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
	if format == "json" {
		format = "{{json .}}"
	}
	parsed, err := template.New("").Funcs(functions).Option("missingkey=error").Parse(format)
	if err != nil {
		return nil, usageError{64, fmt.Sprintf("template parsing error: %v", err)}
	}
	return parsed, nil
}

// printFormat prints a value by a template, which may name what the value's
// JSON has too.
func printFormat(w io.Writer, format string, value any) error {
	parsed, err := parseFormat(format)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, value); err != nil {
		raw, jsonErr := json.Marshal(value)
		var object any
		if jsonErr == nil {
			jsonErr = json.Unmarshal(raw, &object)
		}
		out.Reset()
		if jsonErr != nil || parsed.Execute(&out, object) != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
	}
	_, err = fmt.Fprintln(w, out.String())
	return err
}

// printRows prints a line for each row; a format that begins with "table" is
// headed and aligned.
func printRows[T any](w io.Writer, format string, headers T, rows []T) error {
	columns, isTable := strings.CutPrefix(format, "table ")
	if !isTable {
		for _, row := range rows {
			if err := printFormat(w, format, row); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	for _, row := range append([]T{headers}, rows...) {
		if err := printFormat(table, columns, row); err != nil {
			return err
		}
	}
	return table.Flush()
}

// inspection is what `docker inspect` tells of an image; the names are
// docker's.
type inspection struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Parent       string
	Comment      string
	Created      string
	Author       string
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	Size         int64
	VirtualSize  int64
	Config       ocispec.ImageConfig
	RootFS       rootFS
	Metadata     map[string]string
}

type rootFS struct {
	Type   string
	Layers []string
}

func inspectImages(ctx context.Context, c *command) error {
	return inspectAll(c, func(name string) (any, error) {
		image, err := c.find(name)
		if err != nil {
			return nil, err
		}
		return c.inspect(ctx, image)
	})
}

// inspectAll prints what look finds of each argument. What is missing is
// reported at the end, as docker does.
func inspectAll(c *command, look func(name string) (any, error)) error {
	format := c.flags.StringP("format", "f", "", "Go template, or json")
	c.flags.String("type", "", "image or container")
	c.flags.BoolP("size", "s", false, "")
	c.flags.String("platform", "", "")
	if err := c.parse(1, -1); err != nil {
		return err
	}
	list, missing := []any{}, []string{}
	for _, name := range c.flags.Args() {
		one, err := look(name)
		if err != nil {
			missing = append(missing, "Error: "+err.Error())
			continue
		}
		if *format == "" || *format == "json" {
			list = append(list, one)
		} else if err := printFormat(c.Stdout(), *format, one); err != nil {
			return err
		}
	}
	if *format == "" {
		raw, err := json.MarshalIndent(list, "", "    ")
		if err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout(), "%s\n", raw)
	} else if *format == "json" {
		if err := printFormat(c.Stdout(), *format, list); err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		if *format != "" && *format != "json" && len(missing) == c.flags.NArg() {
			fmt.Fprintln(c.Stdout())
		}
		fmt.Fprintln(c.Stderr(), strings.Join(missing, "\n"))
		return exitError{1}
	}
	return nil
}

// imageConfig reads an image's configuration.
func (c *command) imageConfig(ctx context.Context, image *jobImage) (config ocispec.Image, err error) {
	store := c.engine.containerd.ContentStore()
	descriptor, err := images.Config(ctx, store, image.target, platforms.Default())
	if err != nil {
		return config, fmt.Errorf("read image: %w", err)
	}
	raw, err := content.ReadBlob(ctx, store, descriptor)
	if err == nil {
		err = json.Unmarshal(raw, &config)
	}
	if err != nil {
		return config, fmt.Errorf("read image: %w", err)
	}
	return config, nil
}

func (c *command) inspect(ctx context.Context, image *jobImage) (inspection, error) {
	config, err := c.imageConfig(ctx, image)
	if err != nil {
		return inspection{}, err
	}
	size, err := (&images.Image{Target: image.target}).Size(ctx, c.engine.containerd.ContentStore(), platforms.Default())
	if err != nil {
		return inspection{}, fmt.Errorf("read image: %w", err)
	}
	one := inspection{ID: image.id.String(), RepoTags: []string{}, RepoDigests: []string{}, Author: config.Author, Architecture: config.Architecture, Variant: config.Variant, Os: config.OS,
		Size: size, VirtualSize: size, Config: config.Config, RootFS: rootFS{Type: config.RootFS.Type}, Metadata: map[string]string{"LastTagTime": image.created.Format(time.RFC3339Nano)}}
	if config.Created != nil {
		one.Created = config.Created.Format(time.RFC3339Nano)
	}
	for _, layer := range config.RootFS.DiffIDs {
		one.RootFS.Layers = append(one.RootFS.Layers, layer.String())
	}
	repositories := map[string]bool{}
	for _, other := range c.all() {
		if other.named == nil || other.target.Digest != image.target.Digest {
			continue
		}
		one.RepoTags = append(one.RepoTags, reference.FamiliarString(other.named))
		if repository := reference.FamiliarName(other.named); !repositories[repository] {
			repositories[repository] = true
			one.RepoDigests = append(one.RepoDigests, repository+"@"+image.target.Digest.String())
		}
	}
	return one, nil
}

// historyRow is what `docker history --format` may name.
type historyRow struct {
	ID, CreatedSince, CreatedAt, CreatedBy, Size, Comment string
}

func history(ctx context.Context, c *command) error {
	quiet := c.flags.BoolP("quiet", "q", false, "ids alone")
	format := c.flags.String("format", "", "Go template, or json")
	noTrunc := c.flags.Bool("no-trunc", false, "whole texts")
	c.flags.BoolP("human", "H", true, "")
	c.flags.String("platform", "", "")
	if err := c.parse(1, 1); err != nil {
		return err
	}
	image, err := c.find(c.flags.Arg(0))
	if err != nil {
		return err
	}
	config, err := c.imageConfig(ctx, image)
	if err != nil {
		return err
	}
	manifest, err := images.Manifest(ctx, c.engine.containerd.ContentStore(), image.target, platforms.Default())
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	var rows []historyRow
	layer := 0
	for _, one := range config.History {
		row := historyRow{ID: "<missing>", CreatedBy: one.CreatedBy, Comment: one.Comment, Size: "0B"}
		if one.Created != nil {
			row.CreatedAt = one.Created.Format(time.RFC3339)
			row.CreatedSince = time.Since(*one.Created).Round(time.Second).String() + " ago"
		}
		if !one.EmptyLayer && layer < len(manifest.Layers) {
			row.Size = megabytes(manifest.Layers[layer].Size)
			layer++
		}
		if !*noTrunc && len(row.CreatedBy) > 45 {
			row.CreatedBy = row.CreatedBy[:44] + "…"
		}
		rows = append([]historyRow{row}, rows...)
	}
	if len(rows) > 0 {
		rows[0].ID = image.id.String()
		if !*noTrunc {
			rows[0].ID = image.id.Encoded()[:12]
		}
	}
	if *quiet {
		*format = "{{.ID}}"
	} else if *format == "" {
		*format = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	}
	return printRows(c.Stdout(), *format, historyRow{"IMAGE", "CREATED", "CREATED AT", "CREATED BY", "SIZE", "COMMENT"}, rows)
}

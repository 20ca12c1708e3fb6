// Package image is `slipway image`: what people and scripts do with the images
// of the platform's registry.
//
// It receives a way to connect to the platform and works through its REST API
// and its registry alone. It must import no stage.
package image

import (
	"archive/tar"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/output"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// New returns the command with its subcommands.
func New(connect rest.Connect) *cobra.Command {
	c := &cobra.Command{
		Use:     "image",
		Short:   "List, inspect, push and remove images",
		Long:    "List, inspect, push and remove images of the platform's registry. An image is named as\nin docker, without the registry's host: group/project:tag or group/project/name@sha256:...",
		Example: "  slipway image ls\n  slipway image tags team/app\n  slipway image push debian.tar docker.io/library/debian:bookworm-slim",
	}
	c.AddCommand(listCommand(connect), tagsCommand(connect), inspectCommand(connect), removeCommand(connect), pushCommand(connect),
		bootstrapCommand(connect), cacheCommand(connect), collectCommand(connect), policyCommand(connect))
	return c
}

type repository struct {
	ID        int64     `json:"id"`
	Path      string    `json:"path"`
	ProjectID int64     `json:"project_id"`
	Location  string    `json:"location"`
	TagsCount int       `json:"tags_count"`
	Images    int       `json:"images_count"`
	Size      int64     `json:"size"`
	CreatedAt time.Time `json:"created_at"`
}

type tag struct {
	Name      string    `json:"name"`
	Location  string    `json:"location"`
	Digest    string    `json:"digest"`
	TotalSize int64     `json:"total_size"`
	CreatedAt time.Time `json:"created_at"`
	JobID     int64     `json:"job_id,omitempty"`
}

type project struct {
	ID   int64  `json:"id"`
	Path string `json:"path_with_namespace"`
}

func listCommand(connect rest.Connect) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ls [PROJECT]", Short: "List the image repositories of a project, or of all", Args: cobra.MaximumNArgs(1),
		Example: "  slipway image ls\n  slipway image ls team/app --json",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			projects := args
			if len(args) == 0 {
				all, err := rest.All[project](c.Context(), client, "/projects?simple=true")
				if err != nil {
					return err
				}
				for _, p := range all {
					projects = append(projects, p.Path)
				}
			}
			list := []repository{}
			for _, p := range projects {
				repos, err := repositories(c.Context(), client, p)
				if err != nil {
					return err
				}
				list = append(list, repos...)
			}
			return output.List(c.OutOrStdout(), asJSON, list, []string{"REPOSITORY", "TAGS", "IMAGES", "SIZE", "SINCE"}, func(r repository) []string {
				return []string{r.Path, strconv.Itoa(r.TagsCount), strconv.Itoa(r.Images), delivery.BytesText(r.Size), r.CreatedAt.Format(time.DateOnly)}
			})
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func repositories(ctx context.Context, client *rest.Client, project string) ([]repository, error) {
	return rest.All[repository](ctx, client, "/projects/"+rest.Escape(project)+"/registry/repositories")
}

// find returns the repository with the path, whatever project it belongs to:
// the longest part of the path that is a project.
func find(ctx context.Context, client *rest.Client, path string) (repository, error) {
	for prefix := path; strings.Contains(prefix, "/"); prefix = prefix[:strings.LastIndexByte(prefix, '/')] {
		repos, err := repositories(ctx, client, prefix)
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return repository{}, err
		}
		for _, r := range repos {
			if r.Path == strings.ToLower(path) {
				return r, nil
			}
		}
		break
	}
	return repository{}, delivery.Errorf(delivery.NotFound, "There is no image repository %s.", path)
}

func (r repository) url() string {
	return fmt.Sprintf("/projects/%d/registry/repositories/%d", r.ProjectID, r.ID)
}

func tagsCommand(connect rest.Connect) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "tags REPOSITORY", Short: "List the tags of a repository", Args: cobra.ExactArgs(1), Example: "  slipway image tags team/app",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			repo, err := find(c.Context(), client, args[0])
			if err != nil {
				return err
			}
			tags, err := rest.All[tag](c.Context(), client, repo.url()+"/tags")
			if err != nil {
				return err
			}
			return output.List(c.OutOrStdout(), asJSON, tags, []string{"TAG", "DIGEST", "SIZE", "PUSHED", "JOB"}, func(t tag) []string {
				job := ""
				if t.JobID != 0 {
					job = fmt.Sprint(t.JobID)
				}
				return []string{t.Name, shortDigest(t.Digest), delivery.BytesText(t.TotalSize), t.CreatedAt.Format("2006-01-02 15:04"), job}
			})
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// splitRef reads repository[:tag|@digest].
func splitRef(s string) (path, ref string, err error) {
	if p, d, ok := strings.Cut(s, "@"); ok {
		if i := strings.LastIndexByte(p, ':'); i > strings.LastIndexByte(p, '/') {
			p = p[:i]
		}
		return p, d, nil
	}
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		return s[:i], s[i+1:], nil
	}
	return s, "", nil
}

func inspectCommand(connect rest.Connect) *cobra.Command {
	return &cobra.Command{
		Use: "inspect IMAGE", Short: "Show an image's digest, platform, labels and layers as JSON", Args: cobra.ExactArgs(1), Example: "  slipway image inspect team/app:v1.0.0",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			path, ref, err := splitRef(args[0])
			if err != nil {
				return err
			}
			if ref == "" {
				ref = "latest"
			}
			repo, err := find(c.Context(), client, path)
			if err != nil {
				return err
			}
			var image any
			if _, err := client.Call(c.Context(), http.MethodGet, repo.url()+"/images/"+ref, "", nil, &image); err != nil {
				return err
			}
			return output.JSON(c.OutOrStdout(), image)
		}),
	}
}

func removeCommand(connect rest.Connect) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "rm IMAGE...", Short: "Remove tags, images by digest, or a whole repository", Args: cobra.MinimumNArgs(1),
		Example: "  slipway image rm team/app:old\n  slipway image rm --all team/app/experiment",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			for _, arg := range args {
				path, ref, err := splitRef(arg)
				if err != nil {
					return err
				}
				repo, err := find(c.Context(), client, path)
				if err != nil {
					return err
				}
				target := repo.url()
				switch {
				case strings.HasPrefix(ref, "sha256:"):
					target += "/images/" + ref
				case ref != "":
					target += "/tags/" + ref
				case !all:
					return delivery.Errorf(delivery.Invalid, "%s names no tag. Name one, or remove the whole repository with --all.", arg)
				}
				if _, err := client.Call(c.Context(), http.MethodDelete, target, "", nil, nil); err != nil {
					return fmt.Errorf("%s: %w", arg, err)
				}
				fmt.Fprintln(c.OutOrStdout(), "Removed "+arg)
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&all, "all", false, "remove the repository with everything in it")
	return c
}

func pushCommand(connect rest.Connect) *cobra.Command {
	return &cobra.Command{
		Use: "push SOURCE IMAGE", Short: "Push an image from a docker archive or an OCI layout", Args: cobra.ExactArgs(2),
		Long:    "Push an image from a file of \"docker save\" or a folder in OCI layout. A name below a public\nregistry's host, such as docker.io/library/debian:12, goes into the pull-through cache and\nserves under its public name while that registry is away (for administrators).",
		Example: "  docker save app:1 -o app.tar && slipway image push app.tar team/app:1\n  slipway image push ./layout docker.io/library/debian:12",
		RunE: connect.Run(func(c *cobra.Command, client *rest.Client, args []string) error {
			stored, err := Push(c.Context(), client, args[0], args[1])
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), stored)
			return nil
		}),
	}
}

// Push stores an image from a file of `docker save` or a folder in OCI layout
// under a name without the registry's host, and returns repository@digest.
func Push(ctx context.Context, client *rest.Client, path, image string) (string, error) {
	var opts []name.Option
	if client.Insecure() {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(client.Host()+"/"+image, opts...)
	if err != nil {
		return "", delivery.Errorf(delivery.Invalid, "%q is not an image name: %v", image, err)
	}
	path, done, err := unpacked(path)
	if err != nil {
		return "", err
	}
	defer done()
	push, err := source(path)
	if err != nil {
		return "", err
	}
	digest, err := push(ref, registryOptions(ctx, client)...)
	if err != nil {
		return "", fmt.Errorf("push %s: %w", image, err)
	}
	return ref.Context().RepositoryStr() + "@" + digest.String(), nil
}

// registryOptions sign in at the platform's registry and trust what the client
// trusts: the platform's own authority, where that signed its certificate.
func registryOptions(ctx context.Context, client *rest.Client) []remote.Option {
	opts := []remote.Option{remote.WithContext(ctx), remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "slipway", Password: client.Token}))}
	if client.HTTP != nil && client.HTTP.Transport != nil {
		opts = append(opts, remote.WithTransport(client.HTTP.Transport))
	}
	return opts
}

// unpacked returns the folder of an OCI layout that comes as one file, as
// "slipway image bootstrap --output" and "skopeo copy oci-archive:" write it,
// and anything else as it is. done removes what it made.
func unpacked(path string) (folder string, done func(), err error) {
	nothing := func() {}
	file, err := os.Open(path)
	if err != nil {
		return path, nothing, nil //nolint:nilerr // source says what is wrong with it
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.IsDir() {
		return path, nothing, err
	}
	for archive := tar.NewReader(file); ; {
		header, err := archive.Next()
		if err != nil {
			return path, nothing, nil //nolint:nilerr // no layout; source says what is wrong with it
		}
		if strings.TrimPrefix(header.Name, "./") == "oci-layout" {
			break
		}
	}
	dir, err := os.MkdirTemp("", "slipway-image-")
	if err != nil {
		return "", nothing, fmt.Errorf("make folder: %w", err)
	}
	done = func() { _ = os.RemoveAll(dir) } // the system's own clean-up takes what is left
	if err := unpackLayout(path, dir); err != nil {
		done()
		return "", nothing, delivery.Errorf(delivery.Invalid, "%s cannot be unpacked: %v", path, err)
	}
	return dir, done, nil
}

type pusher func(ref name.Reference, opts ...remote.Option) (v1.Hash, error)

// source opens what is to be pushed.
func source(path string) (pusher, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, delivery.Errorf(delivery.Invalid, "%s cannot be read: %w", path, err)
	}
	if !info.IsDir() {
		image, err := tarball.ImageFromPath(path, nil)
		if err != nil {
			return nil, delivery.Errorf(delivery.Invalid, "%s is not a docker archive with one image: %v", path, err)
		}
		return pushImage(image), nil
	}
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return nil, delivery.Errorf(delivery.Invalid, "%s is not an OCI layout: %v", path, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, delivery.Errorf(delivery.Invalid, "%s: the index cannot be read: %v", path, err)
	}
	if len(manifest.Manifests) != 1 {
		return nil, delivery.Errorf(delivery.Invalid, "%s holds %d images; push a layout of one.", path, len(manifest.Manifests))
	}
	only := manifest.Manifests[0]
	if only.MediaType.IsIndex() {
		inner, err := index.ImageIndex(only.Digest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return func(ref name.Reference, opts ...remote.Option) (v1.Hash, error) {
			return only.Digest, remote.WriteIndex(ref, inner, opts...)
		}, nil
	}
	image, err := index.Image(only.Digest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return pushImage(image), nil
}

func pushImage(image v1.Image) pusher {
	return func(ref name.Reference, opts ...remote.Option) (v1.Hash, error) {
		digest, err := image.Digest()
		if err != nil {
			return digest, err
		}
		return digest, remote.Write(ref, image, opts...)
	}
}

func shortDigest(d string) string {
	_, hex, _ := strings.Cut(d, ":")
	return hex[:min(len(hex), 12)]
}

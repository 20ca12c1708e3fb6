package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// resolver reaches registries with the job's logins. The tracker learns what a
// push finds there; it may be nil.
func (e *endpoint) resolver(ctx context.Context, tracker docker.StatusTracker) remotes.Resolver {
	options := config.HostOptions{Credentials: func(host string) (string, string, error) {
		login := e.login(host)
		return login.Username, login.Password, nil
	}}
	if dir := e.engine.config.RegistryHosts; dir != "" {
		options.HostDir = config.HostDirFromRoot(dir)
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: config.ConfigureHosts(ctx, options), Tracker: tracker})
}

func (e *endpoint) login(host string) Credential {
	if host == "registry-1.docker.io" || host == "index.docker.io" {
		host = "docker.io"
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if login, found := e.logins[host]; found {
		return login
	}
	return e.logins[e.engine.daemon.config.registryBehind(host)]
}

// plainHTTP reports whether a registry host is configured without TLS.
func (e *endpoint) plainHTTP(host string) bool {
	return e.engine.daemon.config.Registries[host].PlainHTTP
}

func tagImage(ctx context.Context, c *command) error {
	if err := c.parse(2, 2); err != nil {
		return err
	}
	source, err := c.find(c.flags.Arg(0))
	if err != nil {
		return err
	}
	target, err := canonical(c.flags.Arg(1))
	if err != nil {
		return err
	}
	_, err = c.keep(ctx, target, source.target)
	return err
}

func pushImages(ctx context.Context, c *command) error {
	all := c.flags.BoolP("all-tags", "a", false, "push all tags of the repository")
	quiet := c.flags.BoolP("quiet", "q", false, "")
	c.flags.Bool("disable-content-trust", true, "")
	c.flags.String("platform", "", "")
	if err := c.parse(1, 1); err != nil {
		return err
	}
	named, err := canonical(c.flags.Arg(0))
	if err != nil {
		return err
	}
	var list []*jobImage
	for _, image := range c.all() {
		if image.named != nil && image.named.Name() == named.Name() && (*all || image.name == named.String()) {
			list = append(list, image)
		}
	}
	if !*quiet {
		c.sayDefaultTag(*all)
		fmt.Fprintf(c.Stdout(), "The push refers to repository [%s]\n", named.Name())
	}
	if len(list) == 0 {
		for _, image := range c.all() {
			if image.named != nil && image.named.Name() == named.Name() {
				return fmt.Errorf("tag does not exist: %s", reference.FamiliarString(named))
			}
		}
		return fmt.Errorf("An image does not exist locally with the tag: %s", reference.FamiliarName(named)) //nolint:staticcheck // docker's own words
	}
	for _, image := range list {
		if err := c.push(ctx, image); err != nil {
			return err
		}
		if tagged, ok := image.named.(reference.Tagged); ok && !*quiet {
			fmt.Fprintf(c.Stdout(), "%s: digest: %s size: %d\n", tagged.Tag(), image.target.Digest, image.target.Size)
		}
	}
	if *quiet && *all {
		fmt.Fprintln(c.Stdout(), named.Name())
	} else if *quiet {
		fmt.Fprintln(c.Stdout(), named.String())
	}
	return nil
}

// push sends an image to the registry its name says.
func (c *command) push(ctx context.Context, image *jobImage) error {
	tracker := docker.NewInMemoryTracker()
	err := c.engine.containerd.Push(ctx, image.name, image.target, containerd.WithResolver(c.resolver(ctx, tracker)))
	if err != nil {
		return fmt.Errorf("push %s: %w", image.name, registryError(err))
	}
	if status, err := tracker.GetStatus(remotes.MakeRefKey(ctx, image.target)); err == nil && status.Exists {
		return c.pushAgain(ctx, image)
	}
	return nil
}

// pushAgain puts the manifest of an image whose tag is there already, as docker
// does and containerd's client does not: the registry learns who made it.
func (c *command) pushAgain(ctx context.Context, image *jobImage) error {
	daemon, host := &c.engine.daemon.config, reference.Domain(image.named)
	if len(daemon.Registries[host].Mirrors) > 0 && daemon.near(host) == "" {
		return nil // a public registry; its mirror takes no pushes
	}
	raw, err := content.ReadBlob(ctx, c.engine.containerd.ContentStore(), image.target)
	if err != nil {
		return fmt.Errorf("push %s: %w", image.name, err)
	}
	ref, options, err := c.remote(ctx, image.named)
	if err != nil {
		return err
	}
	if err := remote.Put(ref, rawManifest{raw, types.MediaType(image.target.MediaType)}, options...); err != nil {
		return fmt.Errorf("push %s: %w", image.name, registryError(err))
	}
	return nil
}

// rawManifest is a manifest as it is stored.
type rawManifest struct {
	raw       []byte
	mediaType types.MediaType
}

func (m rawManifest) RawManifest() ([]byte, error)        { return m.raw, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return m.mediaType, nil }

// denial is a registry's own reason for a refusal, as the clients print it.
var denial = regexp.MustCompile(`(?s)\b(?:denied|DENIED): (.+)`)

// registryError makes a refusal readable: in the registry's words, where it says
// more than that access is denied, as docker does.
func registryError(err error) error {
	text := err.Error()
	said := denial.FindStringSubmatch(text)
	switch {
	case said != nil && !strings.HasPrefix(said[1], "requested access to the resource is denied"):
		return fmt.Errorf("denied: %s", said[1])
	case strings.Contains(text, "401"), strings.Contains(text, "403"), strings.Contains(text, "insufficient_scope"), strings.Contains(text, "authorization failed"):
		return fmt.Errorf("the registry refused: sign in with docker login, and see that this job may do it (%w)", err)
	}
	return err
}

func pullImages(ctx context.Context, c *command) error {
	quiet := c.flags.BoolP("quiet", "q", false, "print the name alone")
	platform := c.flags.String("platform", c.Env["DOCKER_DEFAULT_PLATFORM"], "os/architecture of the image")
	all := c.flags.BoolP("all-tags", "a", false, "all tags of the repository")
	c.flags.Bool("disable-content-trust", true, "")
	if err := c.parse(1, 1); err != nil {
		return err
	}
	named, err := canonical(c.flags.Arg(0))
	if err != nil {
		return err
	}
	if !*quiet {
		c.sayDefaultTag(*all)
	}
	names := []reference.Named{named}
	if *all {
		if names, err = c.tagsOf(ctx, named); err != nil {
			return err
		}
	}
	for _, named := range names {
		before, _ := c.find(named.String()) // it may be new
		image, err := c.pull(ctx, named, *platform)
		if err != nil {
			return err
		}
		if *quiet {
			continue
		}
		tag, status := "", "Downloaded newer image"
		if tagged, ok := named.(reference.Tagged); ok {
			tag = tagged.Tag() + ": "
		}
		if before != nil && before.target.Digest == image.target.Digest {
			status = "Image is up to date"
		}
		fmt.Fprintf(c.Stdout(), "%sPulling from %s\nDigest: %s\nStatus: %s for %s\n", tag, reference.Path(named), image.target.Digest, status, reference.FamiliarString(named))
	}
	if *all {
		fmt.Fprintln(c.Stdout(), named.Name())
	} else {
		fmt.Fprintln(c.Stdout(), named.String())
	}
	return nil
}

// sayDefaultTag says which tag is meant where the command line has none.
func (c *command) sayDefaultTag(all bool) {
	if named, err := reference.ParseNormalizedNamed(c.flags.Arg(0)); err == nil && reference.IsNameOnly(named) && !all {
		fmt.Fprintln(c.Stdout(), "Using default tag: latest")
	}
}

// tagsOf lists the tags of a repository in its registry.
func (c *command) tagsOf(ctx context.Context, named reference.Named) ([]reference.Named, error) {
	repository, options, err := c.remote(ctx, reference.TrimNamed(named))
	if err != nil {
		return nil, err
	}
	tags, err := remote.List(repository.Context(), options...)
	if err != nil {
		return nil, fmt.Errorf("list the tags of %s: %w", named.Name(), registryError(err))
	}
	list := make([]reference.Named, 0, len(tags))
	for _, tag := range tags {
		one, err := reference.WithTag(reference.TrimNamed(named), tag)
		if err != nil {
			return nil, fmt.Errorf("tag %q of %s: %w", tag, named.Name(), err)
		}
		list = append(list, one)
	}
	return list, nil
}

// pull fetches an image with the job's logins and records it.
func (c *command) pull(ctx context.Context, named reference.Named, platform string) (*jobImage, error) {
	options := []containerd.RemoteOpt{containerd.WithResolver(c.resolver(ctx, nil))}
	if platform == "" {
		platform = platforms.DefaultString()
	}
	options = append(options, containerd.WithPlatform(platform))
	fetched, err := c.engine.containerd.Fetch(ctx, named.String(), options...)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("manifest for %s not found: manifest unknown", reference.FamiliarString(named))
	}
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", named, registryError(err))
	}
	target, err := c.forPlatform(ctx, fetched.Target, platform)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", named, err)
	}
	if _, err := c.keep(ctx, named, target); err != nil {
		return nil, err
	}
	// The shared name that Fetch made would let other jobs find the image.
	if err := c.engine.containerd.ImageService().Delete(ctx, fetched.Name); err != nil {
		return nil, fmt.Errorf("record image: %w", err)
	}
	return c.find(named.String())
}

// forPlatform picks the manifest of one platform from an index: what is pulled
// is that platform's image, and a push sends what was pulled.
func (c *command) forPlatform(ctx context.Context, target ocispec.Descriptor, platform string) (ocispec.Descriptor, error) {
	if !images.IsIndexType(target.MediaType) {
		return target, nil
	}
	wanted, err := platforms.Parse(platform)
	if err != nil {
		return target, fmt.Errorf("platform %q: %w", platform, err)
	}
	raw, err := content.ReadBlob(ctx, c.engine.containerd.ContentStore(), target)
	if err != nil {
		return target, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return target, fmt.Errorf("malformed index: %w", err)
	}
	matcher := platforms.Only(wanted)
	for _, one := range index.Manifests {
		if one.Platform == nil || matcher.Match(*one.Platform) {
			return one, nil
		}
	}
	return target, fmt.Errorf("no image for platform %s", platform)
}

func removeImages(ctx context.Context, c *command) error {
	force := c.flags.BoolP("force", "f", false, "an image that is not there is no failure")
	c.flags.Bool("no-prune", false, "")
	if err := c.parse(1, -1); err != nil {
		return err
	}
	var missing []string
	for _, name := range c.flags.Args() {
		image, err := c.find(name)
		if err != nil {
			missing = append(missing, "Error: "+err.Error())
			continue
		}
		names := []*jobImage{image}
		if image.named == nil || !isName(name, image) { // by its id: all its names
			names = nil
			for _, other := range c.all() {
				if other.id == image.id {
					names = append(names, other)
				}
			}
		}
		for _, one := range names {
			if err := c.forgetOne(ctx, one); err != nil {
				return err
			}
			if one.named != nil {
				fmt.Fprintf(c.Stdout(), "Untagged: %s\n", reference.FamiliarString(one.named))
			}
		}
		if _, err := c.find(image.id.String()); err != nil {
			fmt.Fprintf(c.Stdout(), "Deleted: %s\n", image.id)
		}
	}
	if len(missing) > 0 {
		fmt.Fprintln(c.Stderr(), strings.Join(missing, "\n"))
		if !*force {
			return exitError{1}
		}
	}
	return nil
}

// isName reports whether a word of the command line is the image's name, and
// not its id.
func isName(word string, image *jobImage) bool {
	named, err := canonical(word)
	return err == nil && named.String() == image.name
}

func (c *command) forgetOne(ctx context.Context, image *jobImage) error {
	if err := c.engine.containerd.ImageService().Delete(ctx, c.internalName(image.name)); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove image: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.images, image.name)
	return nil
}

func saveImages(ctx context.Context, c *command) error {
	output := c.flags.StringP("output", "o", "", "file to write, instead of STDOUT")
	c.flags.String("platform", "", "")
	if err := c.parse(1, -1); err != nil {
		return err
	}
	options := []archive.ExportOpt{archive.WithPlatform(platforms.Default()), archive.WithSkipMissing(c.engine.containerd.ContentStore())}
	for _, name := range c.flags.Args() {
		image, err := c.find(name)
		if err != nil {
			return err
		}
		var names []string
		if image.named != nil {
			names = append(names, image.name)
		}
		options = append(options, archive.WithManifest(image.target, names...))
	}
	if *output == "" {
		return c.engine.containerd.Export(ctx, c.Stdout(), options...)
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(c.engine.containerd.Export(ctx, writer, options...)) }()
	err := c.WriteFile(ctx, c.path(*output), 0o644, reader)
	reader.CloseWithError(err) // ends the export when the writing failed
	return err
}

func loadImages(ctx context.Context, c *command) error {
	input := c.flags.StringP("input", "i", "", "file to read, instead of STDIN")
	c.flags.BoolP("quiet", "q", false, "")
	c.flags.String("platform", "", "")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	reader, writer := io.Pipe()
	go func() {
		if *input == "" {
			_, err := io.Copy(writer, c.Stdin())
			writer.CloseWithError(err)
			return
		}
		writer.CloseWithError(c.CopyFile(ctx, writer, c.path(*input)))
	}()
	err := c.load(ctx, reader)
	reader.CloseWithError(err)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return nil
}

// load records the images of an archive, compressed or not, of docker or OCI.
func (c *command) load(ctx context.Context, archived io.Reader) error {
	ctx, done, err := c.engine.containerd.WithLease(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }() // the lease expires by itself
	plain, err := compression.DecompressStream(archived)
	if err != nil {
		return err
	}
	defer plain.Close()
	store := c.engine.containerd.ContentStore()
	top, err := archive.ImportIndex(ctx, store, plain)
	if err != nil {
		return err
	}
	raw, err := content.ReadBlob(ctx, store, top)
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return fmt.Errorf("malformed index: %w", err)
	}
	if len(index.Manifests) == 0 {
		return errors.New("the archive has no image")
	}
	for _, manifest := range index.Manifests {
		handler := images.FilterPlatforms(images.SetChildrenLabels(store, images.ChildrenHandler(store)), platforms.Default())
		if err := images.WalkNotEmpty(ctx, handler, manifest); err != nil {
			return err
		}
		name := manifest.Annotations[images.AnnotationImageName]
		var named reference.Named
		if name != "" {
			if named, err = canonical(name); err != nil {
				return err
			}
		}
		manifest.Annotations = nil
		image, err := c.keep(ctx, named, manifest)
		if err != nil {
			return err
		}
		if named == nil {
			fmt.Fprintf(c.Stdout(), "Loaded image ID: %s\n", image.id)
			continue
		}
		fmt.Fprintf(c.Stdout(), "Loaded image: %s\n", reference.FamiliarString(named))
	}
	return nil
}

// path makes a path of the command line absolute, as the job sees it.
func (c *command) path(given string) string {
	if path.IsAbs(given) {
		return path.Clean(given)
	}
	return path.Join(c.Dir, given)
}

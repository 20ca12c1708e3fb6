package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// remote is how a name is reached in its registry, with the job's login.
func (c *command) remote(ctx context.Context, named reference.Named) (ggcr.Reference, []remote.Option, error) {
	host := reference.Domain(named)
	login := c.login(host)
	text, options := reference.TagNameOnly(named).String(), []ggcr.Option{}
	if c.plainHTTP(host) {
		options = append(options, ggcr.Insecure)
	}
	if near := c.engine.daemon.config.near(host); near != "" {
		text, options = near+strings.TrimPrefix(text, host), []ggcr.Option{ggcr.Insecure}
	}
	if mirrors := c.engine.daemon.config.Registries[host].Mirrors; len(mirrors) == 1 && strings.Contains(mirrors[0], "/") {
		// The pull-through cache has what was ever pulled.
		text, options = mirrors[0]+strings.TrimPrefix(text, host), []ggcr.Option{ggcr.Insecure}
	}
	ref, err := ggcr.ParseReference(text, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("invalid reference %q: %w", named, err)
	}
	with := []remote.Option{remote.WithContext(ctx), remote.WithTransport(c.engine.config.Transport)}
	if login.Username != "" {
		with = append(with, remote.WithAuth(&authn.Basic{Username: login.Username, Password: login.Password}))
	}
	return ref, with, nil
}

// described is an image in its registry.
func (c *command) described(ctx context.Context, name string) (*remote.Descriptor, reference.Named, error) {
	named, err := canonical(name)
	if err != nil {
		return nil, nil, err
	}
	ref, options, err := c.remote(ctx, named)
	if err != nil {
		return nil, nil, err
	}
	found, err := remote.Get(ref, options...)
	if err != nil {
		if strings.Contains(err.Error(), "MANIFEST_UNKNOWN") || strings.Contains(err.Error(), "404") {
			return nil, nil, fmt.Errorf("no such manifest: %s", reference.FamiliarString(named))
		}
		return nil, nil, fmt.Errorf("read %s: %w", named, registryError(err))
	}
	return found, named, nil
}

// manifestInspect is docker manifest inspect and buildx imagetools inspect.
func manifestInspect(ctx context.Context, c *command) error {
	c.flags.Bool("insecure", false, "")
	c.flags.BoolP("verbose", "v", false, "")
	raw := c.flags.Bool("raw", false, "the manifest's own bytes")
	format := c.flags.String("format", "", "Go template over .Name and .Manifest")
	c.flags.String("builder", "", "")
	if err := c.parse(1, 2); err != nil {
		return err
	}
	name := c.flags.Arg(c.flags.NArg() - 1)
	if named, err := canonical(name); err == nil {
		if list := c.manifests[named.String()]; list != nil {
			index, err := list.index()
			if err != nil {
				return err
			}
			text, err := index.RawManifest()
			if err != nil {
				return err
			}
			return printManifest(c, text)
		}
	}
	found, named, err := c.described(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case *raw:
		_, err = c.Stdout().Write(found.Manifest)
		return err
	case *format != "":
		return printFormat(c.Stdout(), *format, map[string]any{"Name": named.String(), "Manifest": map[string]any{"Digest": found.Digest.String(), "MediaType": string(found.MediaType), "Size": found.Size,
			"digest": found.Digest.String(), "mediaType": string(found.MediaType), "size": found.Size}})
	case strings.HasPrefix(c.name, "buildx"):
		fmt.Fprintf(c.Stdout(), "Name:      %s\nMediaType: %s\nDigest:    %s\n", named, found.MediaType, found.Digest)
		if index, err := found.ImageIndex(); err == nil && found.MediaType.IsIndex() {
			manifest, err := index.IndexManifest()
			if err != nil {
				return fmt.Errorf("read %s: %w", named, err)
			}
			fmt.Fprint(c.Stdout(), "\nManifests:\n")
			for _, one := range manifest.Manifests {
				fmt.Fprintf(c.Stdout(), "  Name:      %s@%s\n  MediaType: %s\n  Platform:  %s\n\n", reference.TrimNamed(named), one.Digest, one.MediaType, one.Platform)
			}
		}
		return nil
	}
	return printManifest(c, found.Manifest)
}

func printManifest(c *command, raw []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "\t"); err != nil {
		return fmt.Errorf("malformed manifest: %w", err)
	}
	fmt.Fprintln(c.Stdout(), out.String())
	return nil
}

// manifestList is what docker manifest create makes, until it is pushed.
type manifestList struct {
	entries []mutate.IndexAddendum
	names   []string // canonical, of the entries
}

func (l *manifestList) index() (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.DockerManifestList)
	return mutate.AppendManifests(index, l.entries...), nil
}

// add gathers an image, or those of an index.
func (l *manifestList) add(found *remote.Descriptor, name string) error {
	if found.MediaType.IsIndex() {
		index, err := found.ImageIndex()
		if err != nil {
			return err
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return err
		}
		for _, one := range manifest.Manifests {
			image, err := index.Image(one.Digest)
			if err != nil {
				return err
			}
			l.entries, l.names = append(l.entries, mutate.IndexAddendum{Add: image, Descriptor: one}), append(l.names, name)
		}
		return nil
	}
	image, err := found.Image()
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	platform := config.Platform()
	l.entries = append(l.entries, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{MediaType: found.MediaType, Size: found.Size, Digest: found.Digest, Platform: platform}})
	l.names = append(l.names, name)
	return nil
}

func manifestCreate(ctx context.Context, c *command) error {
	amend := c.flags.BoolP("amend", "a", false, "add to a list that is there")
	c.flags.Bool("insecure", false, "")
	if err := c.parse(2, -1); err != nil {
		return err
	}
	named, err := canonical(c.flags.Arg(0))
	if err != nil {
		return err
	}
	c.mu.Lock()
	list := c.manifests[named.String()]
	c.mu.Unlock()
	if list != nil && !*amend {
		return fmt.Errorf("refusing to amend an existing manifest list with no --amend flag")
	}
	if list == nil {
		list = &manifestList{}
	}
	for _, name := range c.flags.Args()[1:] {
		found, source, err := c.described(ctx, name)
		if err != nil {
			return err
		}
		if err := list.add(found, source.String()); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	c.mu.Lock()
	c.manifests[named.String()] = list
	c.mu.Unlock()
	fmt.Fprintf(c.Stdout(), "Created manifest list %s\n", named)
	return nil
}

// listNamed returns a list that was created in this job.
func (c *command) listNamed(name string) (*manifestList, reference.Named, error) {
	named, err := canonical(name)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if list := c.manifests[named.String()]; list != nil {
		return list, named, nil
	}
	return nil, nil, fmt.Errorf("No such manifest list: %s: create it with docker manifest create", reference.FamiliarString(named)) //nolint:staticcheck // docker's own words
}

func manifestAnnotate(_ context.Context, c *command) error {
	system := c.flags.String("os", "", "operating system")
	architecture := c.flags.String("arch", "", "architecture")
	variant := c.flags.String("variant", "", "variant of the architecture")
	osVersion := c.flags.String("os-version", "", "version of the operating system")
	c.flags.StringSlice("os-features", nil, "")
	if err := c.parse(2, 2); err != nil {
		return err
	}
	list, _, err := c.listNamed(c.flags.Arg(0))
	if err != nil {
		return err
	}
	image, err := canonical(c.flags.Arg(1))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := false
	for i := range list.entries {
		if list.names[i] != image.String() {
			continue
		}
		found = true
		if list.entries[i].Platform == nil {
			list.entries[i].Platform = &v1.Platform{}
		}
		platform := list.entries[i].Platform
		for to, value := range map[*string]string{&platform.OS: *system, &platform.Architecture: *architecture, &platform.Variant: *variant, &platform.OSVersion: *osVersion} {
			if value != "" {
				*to = value
			}
		}
	}
	if !found {
		return fmt.Errorf("manifest for image %s does not exist in %s", c.flags.Arg(1), c.flags.Arg(0))
	}
	return nil
}

func manifestPush(ctx context.Context, c *command) error {
	purge := c.flags.BoolP("purge", "p", false, "forget the list afterwards")
	c.flags.Bool("insecure", false, "")
	if err := c.parse(1, 1); err != nil {
		return err
	}
	list, named, err := c.listNamed(c.flags.Arg(0))
	if err != nil {
		return err
	}
	digest, err := c.pushIndex(ctx, list, named)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout(), digest)
	if *purge {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.manifests, named.String())
	}
	return nil
}

func (c *command) pushIndex(ctx context.Context, list *manifestList, named reference.Named) (string, error) {
	index, err := list.index()
	if err != nil {
		return "", err
	}
	ref, options, err := c.remote(ctx, named)
	if err != nil {
		return "", err
	}
	if err := remote.WriteIndex(ref, index, options...); err != nil {
		return "", fmt.Errorf("push %s: %w", named, registryError(err))
	}
	digest, err := index.Digest()
	return digest.String(), err
}

func manifestRemove(_ context.Context, c *command) error {
	if err := c.parse(1, -1); err != nil {
		return err
	}
	for _, name := range c.flags.Args() {
		_, named, err := c.listNamed(name)
		if err != nil {
			return err
		}
		c.mu.Lock()
		delete(c.manifests, named.String())
		c.mu.Unlock()
	}
	return nil
}

// imagetoolsCreate names an image anew, or gathers several, without moving
// layers through the job.
func imagetoolsCreate(ctx context.Context, c *command) error {
	tags := c.flags.StringArrayP("tag", "t", nil, "name to give")
	dry := c.flags.Bool("dry-run", false, "show the result alone")
	c.flags.Bool("append", false, "")
	c.flags.String("builder", "", "")
	c.flags.String("progress", "", "")
	c.flags.Bool("prefer-index", true, "")
	if err := c.parse(1, -1); err != nil {
		return err
	}
	if len(*tags) == 0 && !*dry {
		return errors.New("docker buildx imagetools create needs a name: -t NAME")
	}
	list := &manifestList{}
	var only *remote.Descriptor
	for _, name := range c.flags.Args() {
		found, source, err := c.described(ctx, name)
		if err != nil {
			return err
		}
		only = found
		if err := list.add(found, source.String()); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	if *dry {
		index, err := list.index()
		if err != nil {
			return err
		}
		raw, err := index.RawManifest()
		if err != nil {
			return err
		}
		return printManifest(c, raw)
	}
	for _, tag := range *tags {
		named, err := canonical(tag)
		if err != nil {
			return err
		}
		if c.flags.NArg() > 1 {
			if _, err := c.pushIndex(ctx, list, named); err != nil {
				return err
			}
			continue
		}
		// One source is copied as it is: its digest stays.
		ref, options, err := c.remote(ctx, named)
		if err != nil {
			return err
		}
		if only.MediaType.IsIndex() {
			var index v1.ImageIndex
			if index, err = only.ImageIndex(); err == nil {
				err = remote.WriteIndex(ref, index, options...)
			}
		} else {
			var image v1.Image
			if image, err = only.Image(); err == nil {
				err = remote.Write(ref, image, options...)
			}
		}
		if err != nil {
			return fmt.Errorf("push %s: %w", named, registryError(err))
		}
	}
	return nil
}

package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/imagebase"
)

// bootstrapCommand makes a base image where no public registry can be reached.
func bootstrapCommand(connect rest.Connect) *cobra.Command {
	var mirror, output string
	var include []string
	var ifMissing bool
	c := &cobra.Command{
		Use: "bootstrap NAME", Short: "Make a base image from the host's package mirror", Args: cobra.ExactArgs(1),
		Long: "Make a base image with mmdebstrap from a Debian or Ubuntu package mirror and store it in the\n" +
			"pull-through cache under its public name, so that jobs, builds and the cluster find it while\n" +
			"the public registry cannot be reached. Needs root and the package mmdebstrap.\n\nCan make: " + strings.Join(imagebase.Names(), ", "),
		Example: "  slipway image bootstrap debian:bookworm-slim\n  slipway image bootstrap ubuntu:22.04 --mirror http://mirror.example.com/ubuntu\n  slipway image bootstrap debian:bookworm-slim --output base.tar",
		RunE: func(c *cobra.Command, args []string) (err error) {
			canonical, err := imagebase.Canonical(args[0])
			if err != nil {
				return err
			}
			var client *rest.Client
			if output == "" {
				// Before the long work: nobody waits for it in vain.
				if client, err = connect(); err != nil {
					return err
				}
			}
			if ifMissing && client != nil {
				there, err := present(c.Context(), client, canonical)
				if err != nil {
					return err
				}
				if there {
					fmt.Fprintln(c.OutOrStdout(), canonical+" is there")
					return nil
				}
			}
			dir, err := os.MkdirTemp("", "slipway-bootstrap-")
			if err != nil {
				return fmt.Errorf("make folder: %w", err)
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			archive := output
			if archive == "" {
				archive = filepath.Join(dir, "image.tar")
			}
			fmt.Fprintf(c.ErrOrStderr(), "making %s (this takes about a minute)\n", canonical)
			if _, err := imagebase.Make(c.Context(), imagebase.Options{Name: args[0], Mirror: mirror, Include: include, Output: archive, Log: c.ErrOrStderr()}); err != nil {
				return err
			}
			if output != "" {
				fmt.Fprintln(c.OutOrStdout(), output)
				return nil
			}
			layout := filepath.Join(dir, "layout")
			if err := unpackLayout(archive, layout); err != nil {
				return fmt.Errorf("read the image made: %w", err)
			}
			stored, err := Push(c.Context(), client, layout, canonical)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), stored)
			return nil
		},
	}
	c.Flags().StringVar(&mirror, "mirror", "", "package mirror (default: the one in this host's package sources, else the distribution's)")
	c.Flags().StringSliceVar(&include, "include", nil, "further packages to install")
	c.Flags().BoolVar(&ifMissing, "if-missing", false, "do nothing when the image is there or can be fetched")
	c.Flags().StringVar(&output, "output", "", "write the image archive to this file and store it nowhere")
	return c
}

// present reports whether the cache has an image or can fetch it.
func present(ctx context.Context, client *rest.Client, canonical string) (bool, error) {
	var opts []name.Option
	if client.Insecure() {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(client.Host()+"/"+canonical, opts...)
	if err != nil {
		return false, fmt.Errorf("image name: %w", err)
	}
	_, err = remote.Head(ref, registryOptions(ctx, client)...)
	var answer *transport.Error
	if errors.As(err, &answer) {
		return false, nil // not there, or its registry is away
	}
	return err == nil, err
}

// unpackLayout unpacks the archive of an OCI layout.
func unpackLayout(archive, dir string) (err error) {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		inside := path.Clean(header.Name)
		if !fs.ValidPath(inside) {
			return fmt.Errorf("invalid name %q", header.Name)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		target := filepath.Join(dir, filepath.FromSlash(inside))
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		out, err := os.Create(target)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, reader)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
}

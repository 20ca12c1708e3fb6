package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/image"
	"github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/imagebase"
)

func (a *app) bootstrapCommand() *cobra.Command {
	var ifMissing bool
	var mirror string
	cmd := &cobra.Command{
		Use:   "bootstrap IMAGE",
		Short: "Make a base image from the machine's package mirror",
		Long: "Make a base image with mmdebstrap from the machine's own Debian or Ubuntu mirror and\n" +
			"store it in the pull-through cache under its public name, so that jobs, builds and pods\n" +
			"use it where no image registry can be reached. Images: " + strings.Join(imagebase.Names(), ", ") + ".",
		Example: "  slipway image bootstrap debian:bookworm-slim",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect()
			if err != nil {
				return err
			}
			full, err := imagebase.Canonical(args[0])
			if err != nil {
				return err
			}
			if ifMissing {
				there, err := hasImage(c.Context(), client, full)
				if err != nil {
					return err
				}
				if there {
					fmt.Fprintf(c.OutOrStdout(), "%s is there.\n", args[0])
					return nil
				}
			}
			dir, err := os.MkdirTemp("/var/tmp", "slipway-bootstrap-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			archive := filepath.Join(dir, "image.tar")
			fmt.Fprintf(c.OutOrStdout(), "Making %s from the package mirror (about 20 s).\n", args[0])
			if _, err := imagebase.Make(c.Context(), imagebase.Options{Name: args[0], Mirror: mirror, Output: archive, Log: c.ErrOrStderr()}); err != nil {
				return err
			}
			layout := filepath.Join(dir, "layout")
			if err := unpack(archive, layout); err != nil {
				return err
			}
			stored, err := image.Push(c.Context(), client, layout, full)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Stored %s.\n", stored)
			return nil
		},
	}
	cmd.Flags().BoolVar(&ifMissing, "if-missing", false, "do nothing when the image is there or can be fetched")
	cmd.Flags().StringVar(&mirror, "mirror", "", "package mirror to use instead of the usual one")
	return cmd
}

// hasImage reports whether the registry has an image of its cache, or can fetch
// it.
func hasImage(ctx context.Context, client *rest.Client, full string) (bool, error) {
	i := strings.LastIndexByte(full, ':')
	url := client.URL + "/v2/" + full[:i] + "/manifests/" + full[i+1:]
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json")
	resp, err := client.HTTP.Do(req)
	if err != nil {
		return false, fmt.Errorf("ask the registry: %w", err)
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK, nil
}

// unpack extracts an OCI archive that imagebase wrote.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", archive, err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if h.Typeflag == tar.TypeDir {
			if err := root.MkdirAll(name, 0o700); err != nil {
				return err
			}
			continue
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		out, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, t)
		if err = errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
}

// Command bundle makes the front end's static/build folder: it installs the
// npm packages of package-lock.json and bundles our TypeScript with them by
// esbuild. It does nothing that is already done.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/evanw/esbuild/pkg/api"
)

func main() {
	if err := run("internal/web"); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	if err := install(dir); err != nil {
		return err
	}
	result := api.Build(api.BuildOptions{
		AbsWorkingDir: abs(dir),
		EntryPoints:   []string{"src/app.ts"},
		Outdir:        "static/build",
		Bundle:        true,
		Format:        api.FormatESModule,
		Splitting:     true,
		ChunkNames:    "chunk-[hash]",
		Target:        api.ES2022,
		MinifySyntax:  true, MinifyWhitespace: true, MinifyIdentifiers: true,
		LegalComments: api.LegalCommentsEndOfFile,
		Write:         false,
	})
	for _, m := range result.Errors {
		where := ""
		if m.Location != nil {
			where = fmt.Sprintf("%s:%d: ", m.Location.File, m.Location.Line)
		}
		fmt.Fprintln(os.Stderr, where+m.Text)
	}
	if len(result.Errors) > 0 {
		return fmt.Errorf("%d errors", len(result.Errors))
	}
	return write(filepath.Join(dir, "static", "build"), result.OutputFiles)
}

func abs(dir string) string {
	p, err := filepath.Abs(dir)
	if err != nil {
		return dir
	}
	return p
}

// install runs npm ci unless the installed packages are those of the lock file.
func install(dir string) error {
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return err
	}
	stamp := filepath.Join(dir, "node_modules", ".slipway-lock")
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, lock) {
		return nil
	}
	fmt.Println("== npm packages")
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return os.WriteFile(stamp, lock, 0o644)
}

// write replaces the folder's files, leaving those alone that did not change.
func write(dir string, files []api.OutputFile) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, f := range files {
		name := filepath.Join(dir, filepath.Base(f.Path))
		wanted[name] = true
		if have, err := os.ReadFile(name); err == nil && bytes.Equal(have, f.Contents) {
			continue
		}
		if err := os.WriteFile(name, f.Contents, 0o644); err != nil {
			return err
		}
	}
	old, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if !wanted[name] {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

package engine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/gitops"
)

// verifyWrapper is the helper that Argo CD runs to check the signature of a
// commit or an annotated tag. Its contract, by upstream's repo server: print
// what git says; exit 0 also where there is no valid signature (git's exit
// code 1), and with git's code where git itself failed.
const verifyWrapper = `#!/bin/sh
revision="${1:?usage: git-verify-wrapper.sh <revision>}"
if git describe --exact-match "$revision" >/dev/null 2>&1; then
	kind=tag
	out=$(git verify-tag "$revision" 2>&1)
else
	kind=commit
	out=$(git verify-commit "$revision" 2>&1)
fi
code=$?
if [ "$code" -gt 1 ]; then
	printf '%s\n' "$out" >&2
	exit "$code"
fi
if [ "$code" -eq 1 ] && [ "$kind" = tag ] && [ "${out%%:*}" = error ]; then
	out=
fi
printf '%s\n' "$out"
`

// gpgWrapper is the helper through which Argo CD lists keys. Its contract: print
// what gpg says, and exit 0 also where gpg does not know the key.
const gpgWrapper = `#!/bin/sh
gpg "$@" 2>&1 || true
`

// setEnvironment prepares the process for Argo CD's code, which takes its
// surroundings from the environment: a private home with the kubeconfig, a
// private TMPDIR (its work trees), helpers in PATH. It must run before any
// other part of the engine, once.
func setEnvironment(c *gitops.Config, f *folders) error {
	home := filepath.Join(c.DataDir, "home")
	tmp := filepath.Join(c.DataDir, "tmp")
	helpers := filepath.Join(c.DataDir, "helpers")
	for _, dir := range []string{c.DataDir, c.RunDir, home, helpers, filepath.Join(c.DataDir, "empty")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	// Work trees are caches, and a kill leaves lock files in them: start clean.
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	for name, script := range map[string]string{"git-verify-wrapper.sh": verifyWrapper, "gpg-wrapper.sh": gpgWrapper} {
		if err := os.WriteFile(filepath.Join(helpers, name), []byte(script), 0o700); err != nil {
			return err
		}
	}
	if err := f.prepare(); err != nil {
		return err
	}
	if err := installAskpass(helpers); err != nil {
		return err
	}
	if err := preferSmallKustomize(helpers); err != nil {
		return err
	}
	kubeconfig, err := argoKubeconfig(c)
	if err != nil {
		return err
	}
	path := strings.Join([]string{helpers, c.BinDir, os.Getenv("PATH")}, string(os.PathListSeparator))
	env := map[string]string{
		"HOME":                   home,
		"TMPDIR":                 tmp,
		"PATH":                   path,
		"KUBECONFIG":             kubeconfig,
		"XDG_CONFIG_HOME":        filepath.Join(home, ".config"),
		"XDG_CACHE_HOME":         filepath.Join(home, ".cache"),
		"ARGOCD_FAKE_IN_CLUSTER": "true",
	}
	maps.Copy(env, f.environment())
	if c.CABundle != "" {
		env["SSL_CERT_FILE"], env["GIT_SSL_CAINFO"] = c.CABundle, c.CABundle
	}
	for k, v := range env {
		if err := os.Setenv(k, v); err != nil {
			return err
		}
	}
	return checkTools("git", "kustomize", "helm")
}

// preferSmallKustomize puts upstream's own kustomize before the one in the bin
// folder where it was built beside this program: every sync runs it, and the
// other is part of a program that takes six times as long to start.
func preferSmallKustomize(helpers string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	link := filepath.Join(helpers, "kustomize")
	if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
		return err
	}
	small := filepath.Join(filepath.Dir(self), "kustomize")
	if info, err := os.Lstat(small); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return os.Symlink(small, link)
}

func checkTools(names ...string) error {
	var errs []error
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			errs = append(errs, fmt.Errorf("%s is needed to render manifests: %w", n, err))
		}
	}
	return errors.Join(errs...)
}

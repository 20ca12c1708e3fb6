package engine

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	log "github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/argoproj/argo-cd/v3/common"
	"github.com/argoproj/argo-cd/v3/util/sourceintegrity"

	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/kubewatch"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// folders are the ConfigMaps that pods of Argo CD have mounted, as folders of
// this machine: certificates of git servers by host name, known SSH hosts, and
// public keys of those who sign commits.
type folders struct {
	tls, ssh, gpg, keyring string

	ready bool // the keyring has been made
	stale bool // the keyring is not yet as the ConfigMap
}

func newFolders(c *gitops.Config) *folders {
	in := func(name string) string { return filepath.Join(c.DataDir, "config", name) }
	return &folders{tls: in("tls"), ssh: in("ssh"), gpg: in("gpg"), keyring: filepath.Join(c.RunDir, "gnupg")}
}

// environment tells Argo CD's code where they are. Signatures that a project
// demands are always verified: where no key is known, or there is no gpg, the
// project's Applications are not synced.
func (f *folders) environment() map[string]string {
	return map[string]string{
		common.EnvVarTLSDataPath: f.tls, common.EnvVarSSHDataPath: f.ssh,
		common.EnvGPGDataPath: f.gpg, common.EnvGnuPGHome: f.keyring,
		"ARGOCD_GPG_ENABLED": "true",
	}
}

// prepare makes them, empty.
func (f *folders) prepare() error {
	for _, dir := range []string{f.tls, f.ssh, f.gpg, f.keyring} {
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
			return err
		}
	}
	// ssh must find a file, though an empty one.
	return os.WriteFile(filepath.Join(f.ssh, common.DefaultSSHKnownHostsName), nil, 0o600)
}

// follow keeps them as the ConfigMaps are, until ctx ends.
func (f *folders) follow(ctx context.Context, e *Engine) error {
	configMaps := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	w := kubewatch.Follower[unstructured.Unstructured]{
		Resource: e.dynamic.Resource(configMaps).Namespace(Namespace),
		Decode:   func(u *unstructured.Unstructured) (*unstructured.Unstructured, error) { return u, nil },
		Tell: func(before, after *unstructured.Unstructured) {
			if after == nil {
				return
			}
			data, _, _ := unstructured.NestedStringMap(after.Object, "data")
			if err := f.take(ctx, after.GetName(), data); err != nil {
				log.WithError(err).Errorf("the ConfigMap %s is not in effect", after.GetName())
			}
			e.notifications.tell(after.GetName(), data)
			if before != nil {
				last, _, _ := unstructured.NestedStringMap(before.Object, "data")
				e.reconfigured.tell(after.GetName(), last, data)
			}
		},
	}
	w.Run(ctx)
	return nil
}

// take brings one ConfigMap into its folder.
func (f *folders) take(ctx context.Context, name string, data map[string]string) error {
	switch name {
	case common.ArgoCDTLSCertsConfigMapName:
		_, err := mirror(f.tls, data)
		return err
	case common.ArgoCDKnownHostsConfigMapName:
		_, err := mirror(f.ssh, map[string]string{common.DefaultSSHKnownHostsName: data[common.DefaultSSHKnownHostsName]})
		return err
	case common.ArgoCDGPGKeysConfigMapName:
		changed, err := mirror(f.gpg, data)
		if err != nil || !changed && !f.stale {
			return err
		}
		err = f.updateKeyring(ctx)
		f.stale = err != nil
		return err
	}
	return nil
}

// updateKeyring makes the keyring when there is a key for the first time, as
// making it takes the better part of a second, and brings the keys into it.
func (f *folders) updateKeyring(ctx context.Context) error {
	if !f.ready {
		if err := sourceintegrity.InitializeGnuPG(); err != nil {
			return err
		}
		f.ready = true
	}
	_, _, err := sourceintegrity.SyncKeyRingFromDirectory(f.gpg)
	// gpg leaves its agent behind, which verifying does not need.
	stop := exec.CommandContext(ctx, "gpgconf", "--homedir", f.keyring, "--kill", "all")
	if stopErr := stop.Run(); stopErr != nil {
		log.WithError(stopErr).Debug("stop the agent of gpg")
	}
	return err
}

// mirror makes the files of a folder those of data and reports whether it
// changed. Names that are no file names of one folder are left out, as
// Kubernetes refuses them too.
func mirror(dir string, data map[string]string) (changed bool, err error) {
	have, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range have {
		if _, ok := data[e.Name()]; !ok && !strings.HasPrefix(e.Name(), ".") {
			changed = true
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return changed, err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		file := filepath.Join(dir, name)
		if filepath.Base(name) != name || strings.HasPrefix(name, ".") {
			continue
		}
		if old, err := os.ReadFile(file); err == nil && string(old) == data[name] {
			continue
		}
		changed = true
		if err := wholefile.Write(file, []byte(data[name]), 0o600); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

package ingress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

// The snapshot keeps the last inputs on disk, so that a restart serves the old
// routes before, and without, the cluster. It holds the private keys of the
// TLS Secrets in use, so only the owner may read it.

// readSnapshot returns the inputs of the last run, or nil when there are none.
func readSnapshot(path string) (*inputs, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	in := new(inputs)
	if err := json.Unmarshal(data, in); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return in, nil
}

// writeSnapshot replaces the snapshot by what the table uses of the inputs.
func writeSnapshot(path string, in *inputs, t *table) error {
	out := inputs{Ingresses: t.served, Classes: in.Classes, Revisions: map[string]string{}}
	services, pods, secrets := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, be := range t.backends {
		services[be.namespace+"/"+be.service] = true
		for _, e := range be.endpoints {
			pods[be.namespace+"/"+e.pod] = true
		}
	}
	for _, ing := range t.served {
		for _, s := range ing.Spec.TLS {
			secrets[ing.Namespace+"/"+s.SecretName] = true
		}
	}
	for k := range t.needs {
		if k.kind == "Secret" {
			secrets[k.namespace+"/"+k.name] = true
		}
	}
	out.ConfigMaps = in.ConfigMaps
	for _, s := range in.Services {
		if services[s.Namespace+"/"+s.Name] {
			out.Services = append(out.Services, s)
		}
	}
	for _, s := range in.Slices {
		if services[s.Namespace+"/"+s.Labels["kubernetes.io/service-name"]] {
			out.Slices = append(out.Slices, s)
		}
	}
	for _, s := range in.Secrets {
		if secrets[s.Namespace+"/"+s.Name] {
			out.Secrets = append(out.Secrets, s)
		}
	}
	for pod, revision := range in.Revisions {
		if pods[pod] {
			out.Revisions[pod] = revision
		}
	}
	data, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return wholefile.Write(path, data, 0o600)
}

package engine

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/gitops/openapi"
)

// schemaProvider is the authentication provider that a kubeconfig names to have
// this program's requests for OpenAPI documents answered by package openapi. It
// authenticates nobody: providers are client-go's one way to wrap the
// transports that Argo CD makes of a kubeconfig by itself.
const schemaProvider = "slipway-openapi"

type schemas struct{}

// WrapTransport implements rest.AuthProvider.
func (schemas) WrapTransport(next http.RoundTripper) http.RoundTripper {
	return openapi.Transport{Next: next}
}

// Login implements rest.AuthProvider.
func (schemas) Login() error { return errors.New("gitops: " + schemaProvider + " has no sign-in") }

var registerSchemas = sync.OnceValue(func() error {
	return rest.RegisterAuthProviderPlugin(schemaProvider, func(string, map[string]string, rest.AuthProviderConfigPersister) (rest.AuthProvider, error) {
		return schemas{}, nil
	})
})

// argoKubeconfig writes the kubeconfig that Argo CD reads, of mode 0600, and
// returns its path: the configured one, with schemaProvider.
func argoKubeconfig(c *gitops.Config) (string, error) {
	if err := registerSchemas(); err != nil {
		return "", fmt.Errorf("OpenAPI documents: %w", err)
	}
	config, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		return "", fmt.Errorf("read kubeconfig: %w", err)
	}
	if err := clientcmd.ResolveLocalPaths(config); err != nil {
		return "", fmt.Errorf("kubeconfig %s: %w", c.Kubeconfig, err)
	}
	for _, user := range config.AuthInfos {
		user.AuthProvider = &api.AuthProviderConfig{Name: schemaProvider}
	}
	path := filepath.Join(c.RunDir, "argocd.kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	return path, nil
}

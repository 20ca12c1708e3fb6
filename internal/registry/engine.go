package registry

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/auth"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

// storageThreads bounds the concurrent file operations of one root.
const storageThreads = 100

func newDriver(dir string) (driver.StorageDriver, error) {
	drv, err := filesystem.FromParameters(map[string]any{"rootdirectory": dir, "maxthreads": storageThreads})
	if err != nil {
		return nil, fmt.Errorf("registry: storage %s: %w", dir, err)
	}
	return drv, nil
}

// newApp makes distribution's handler on a storage root; with an upstream that
// has a URL, as a pull-through cache of it. There is no descriptor cache: the
// collector removes blobs beneath the handler, which must then not promise them
// to a client.
func newApp(ctx context.Context, dir, secret string, upstream Upstream, access auth.AccessController) (app *handlers.App, err error) {
	registerAuth()
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem":  configuration.Parameters{"rootdirectory": dir, "maxthreads": storageThreads},
			"delete":      configuration.Parameters{"enabled": true},
			"redirect":    configuration.Parameters{"disable": true},
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": upstream.URL == "", "age": "24h", "interval": "6h", "dryrun": false}},
		},
		Auth: configuration.Auth{authName: configuration.Parameters{"controller": access}},
	}
	config.HTTP.Secret = secret
	config.HTTP.RelativeURLs = true
	config.Catalog.MaxEntries = 1000
	// Layers that are kept elsewhere (image-spec, non-distributable layers) may
	// be named by any web address; the engine's default is to refuse them all.
	config.Validation.Manifests.URLs.Allow = []string{`^https?://`}
	if upstream.URL != "" {
		never := time.Duration(0) // the collector expires what is cached, by use
		config.Proxy = configuration.Proxy{RemoteURL: upstream.URL, Username: upstream.Username, Password: upstream.Password, TTL: &never}
		config.Auth = nil
	}
	// The engine reports a configuration that it cannot use by a panic.
	defer func() {
		if p := recover(); p != nil {
			app, err = nil, fmt.Errorf("registry: start the engine on %s: %v", dir, p)
		}
	}()
	return handlers.NewApp(ctx, config), nil
}

// authName is the name under which the engine finds our access controller.
const authName = "slipway"

// registerAuth makes the access controller known to the engine, which looks
// controllers up by name in a table of the process; the controller itself
// travels in the parameters.
var registerAuth = sync.OnceFunc(func() {
	err := auth.Register(authName, func(options map[string]any) (auth.AccessController, error) {
		controller, ok := options["controller"].(auth.AccessController)
		if !ok {
			return nil, fmt.Errorf("registry: no access controller was passed")
		}
		return controller, nil
	})
	if err != nil {
		panic(err) // the name is ours, and this runs once
	}
})

// authorizer is the engine's access controller: it compares what the engine
// says a request needs with the token that the handler has verified.
type authorizer struct{ r *Registry }

type claimsKey struct{}

func (a authorizer) Authorized(req *http.Request, needs ...auth.Access) (*auth.Grant, error) {
	c, _ := req.Context().Value(claimsKey{}).(*claims)
	if c == nil {
		return nil, challenge{reason: "authorization token required", needs: needs}
	}
	for _, need := range needs {
		if !c.allows(need.Type, need.Name, need.Action) {
			return nil, challenge{reason: "insufficient scope", code: "insufficient_scope", needs: needs}
		}
	}
	return &auth.Grant{User: auth.UserInfo{Name: c.Subject}}, nil
}

// challenge tells a client where to get a token and for what.
type challenge struct {
	reason string
	code   string // RFC 6750's error code; empty when no token was sent
	needs  []auth.Access
}

func (c challenge) Error() string { return c.reason }

func (c challenge) SetHeaders(req *http.Request, w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", bearerChallenge(req, scopeOf(c.needs), c.code))
}

func scopeOf(needs []auth.Access) string {
	scope, last := "", auth.Resource{}
	for _, n := range needs {
		if n.Resource == last {
			scope += "," + n.Action
			continue
		}
		if scope != "" {
			scope += " "
		}
		scope += n.Type + ":" + n.Name + ":" + n.Action
		last = n.Resource
	}
	return scope
}

// bearerChallenge is the WWW-Authenticate header. The realm is at the address
// that the client used, so that it works through every name of the platform.
func bearerChallenge(req *http.Request, scope, code string) string {
	scheme := "http"
	if req.TLS != nil || req.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	s := fmt.Sprintf("Bearer realm=%q,service=%q", scheme+"://"+req.Host+"/jwt/auth", tokenService)
	if scope != "" {
		s += fmt.Sprintf(",scope=%q", scope)
	}
	if code != "" {
		s += fmt.Sprintf(",error=%q", code)
	}
	return s
}

package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// Config is what a Registry is made of. Dir, Index, Accounts and Projects are
// required.
type Config struct {
	// Dir is the registry's data directory (<data>/registry), created with mode
	// 0700: images in images/, the pull-through cache in cache/<host>/, and the
	// registry's own secrets.
	Dir      string
	Index    Index
	Accounts Accounts
	Projects Projects
	// Use names the images that must stay; nil when nothing runs here.
	Use Use
	Log *slog.Logger     // default slog.Default()
	Now func() time.Time // default time.Now

	// ProjectQuota is the most bytes that the images of one project may take;
	// 0 sets no limit.
	ProjectQuota int64
	// MinFree is the free space in bytes below which uploads are refused
	// (default 512 MiB).
	MinFree int64
	// UntaggedAfter is how long an image without a tag stays (default 24 h).
	UntaggedAfter time.Duration
	// BlobAfter is how long a blob that no image references stays, counted from
	// when a client last asked for it or uploaded it (default 1 h). It must be
	// longer than the longest push of one image.
	BlobAfter time.Duration
	// CollectEvery is how often Run collects garbage (default 1 h).
	CollectEvery time.Duration

	// Upstreams are the public registries that the cache serves (default
	// DefaultUpstreams).
	Upstreams []Upstream
	// CacheSize is the most bytes that the cache takes; the images that were
	// used least recently go first (default 20 GiB).
	CacheSize int64
	// Trusted reports whether a client's address may read the cache without
	// signing in. Default: the addresses of this host.
	Trusted func(netip.Addr) bool
}

// Registry is the container registry. Its methods are safe for concurrent use.
type Registry struct {
	cfg        Config
	dir        string
	index      Index
	accounts   Accounts
	projects   Projects
	use        Use
	log        *slog.Logger
	now        func() time.Time
	key        *ecdsa.PrivateKey
	nodeSecret string

	root   *root // the projects' images
	cache  *cache
	engine http.Handler // distribution's handler on root

	collecting sync.Mutex // one collection at a time
	tagging    sync.Mutex // one push of an immutable tag at a time
	started    time.Time
	cancel     context.CancelFunc
	apps       []*handlers.App
}

// nodeUser is the name that the node's containerd signs in with.
const nodeUser = "slipway-node"

// New opens the registry in cfg.Dir. Close it after the last request.
func New(cfg Config) (*Registry, error) {
	if cfg.Dir == "" || cfg.Index == nil || cfg.Accounts == nil || cfg.Projects == nil {
		return nil, errors.New("registry: Dir, Index, Accounts and Projects are required")
	}
	setDefault(&cfg.Now, cfg.Now == nil, time.Now)
	setDefault(&cfg.Log, cfg.Log == nil, slog.Default())
	setDefault(&cfg.MinFree, cfg.MinFree == 0, 512<<20)
	setDefault(&cfg.UntaggedAfter, cfg.UntaggedAfter == 0, 24*time.Hour)
	setDefault(&cfg.BlobAfter, cfg.BlobAfter == 0, time.Hour)
	setDefault(&cfg.CollectEvery, cfg.CollectEvery == 0, time.Hour)
	setDefault(&cfg.CacheSize, cfg.CacheSize == 0, 20<<30)
	setDefault(&cfg.Upstreams, cfg.Upstreams == nil, DefaultUpstreams())
	setDefault(&cfg.Trusted, cfg.Trusted == nil, ownAddress)
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: create folder: %w", err)
	}
	r := &Registry{
		cfg: cfg, dir: cfg.Dir, index: cfg.Index, accounts: cfg.Accounts, projects: cfg.Projects, use: cfg.Use,
		log: cfg.Log, now: cfg.Now, started: cfg.Now(),
	}
	var err error
	if r.key, err = loadKey(filepath.Join(cfg.Dir, "token.key")); err != nil {
		return nil, err
	}
	if r.nodeSecret, err = loadSecret(filepath.Join(cfg.Dir, "node.secret")); err != nil {
		return nil, err
	}
	httpSecret, err := loadSecret(filepath.Join(cfg.Dir, "upload.secret"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	if r.root, err = openRoot(ctx, filepath.Join(cfg.Dir, "images"), cfg.Now); err != nil {
		cancel()
		return nil, err
	}
	app, err := newApp(ctx, r.root.dir, httpSecret, Upstream{}, authorizer{r})
	if err != nil {
		cancel()
		return nil, err
	}
	r.engine, r.apps = app, append(r.apps, app)
	r.cache = newCache(ctx, r, filepath.Join(cfg.Dir, "cache"), httpSecret)
	return r, nil
}

func setDefault[T any](field *T, unset bool, value T) {
	if unset {
		*field = value
	}
}

// Close ends the background work of the registry and of its cache.
func (r *Registry) Close() error {
	r.cancel()
	errs := []error{r.cache.close()}
	for _, app := range r.apps {
		errs = append(errs, app.Shutdown())
	}
	return errors.Join(errs...)
}

// NodeCredential returns the user name and password with which the node's
// containerd may pull every image of this instance, so that pods need no pull
// secrets. It must only be given to the node: in hosts.toml, mode 0600, as the
// Authorization header that NodeAuthorization returns.
func (r *Registry) NodeCredential() (user, password string) { return nodeUser, r.nodeSecret }

// isNode reports whether the identity is the node's.
func (r *Registry) isNode(who delivery.Identity) bool {
	return who.Kind == delivery.SystemActor && who.Name == nodeUser
}

func sameSecret(a, b string) bool {
	return b != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// loadSecret reads a random secret, or makes it on the first start.
func loadSecret(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret := rand.Text() + rand.Text()
		return secret, wholefile.Write(path, []byte(secret+"\n"), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("registry: read secret: %w", err)
	}
	secret := strings.TrimSpace(string(raw))
	if len(secret) < 32 {
		return "", fmt.Errorf("registry: %s is not a secret of this program; remove it and a new one is made", path)
	}
	return secret, nil
}

// root is one storage root: a file system tree in distribution's layout.
type root struct {
	dir    string
	driver driver.StorageDriver
	store  distribution.Namespace
	vacuum storage.Vacuum
	seen   *seen
}

func openRoot(ctx context.Context, dir string, now func() time.Time) (*root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: create folder: %w", err)
	}
	drv, err := newDriver(dir)
	if err != nil {
		return nil, err
	}
	store, err := storage.NewRegistry(ctx, drv, storage.EnableDelete, storage.DisableDigestResumption)
	if err != nil {
		return nil, fmt.Errorf("registry: open storage %s: %w", dir, err)
	}
	return &root{dir: dir, driver: drv, store: store, vacuum: storage.NewVacuum(ctx, drv), seen: newSeen(now)}, nil
}

// seen remembers when clients last relied on a blob or manifest, so that the
// collector leaves alone what a push under way is about to reference.
//
// Noting and collecting exclude each other: either a request notes the digest
// before the collector looks, and the blob stays, or the blob is gone before
// the request is served, and the client uploads it again.
type seen struct {
	mu  sync.Mutex
	now func() time.Time
	at  map[string]time.Time
}

func newSeen(now func() time.Time) *seen { return &seen{now: now, at: map[string]time.Time{}} }

func (s *seen) note(digests ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, d := range digests {
		s.at[d] = now
	}
}

// unlessSince runs remove unless the digest was noted after the time given. No
// request can note a digest while remove runs, so remove must be quick.
func (s *seen) unlessSince(digest string, after time.Time, remove func() error) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[digest].After(after) {
		return false, nil
	}
	return true, remove()
}

// forget drops notes that are older than the time given.
func (s *seen) forget(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, at := range s.at {
		if at.Before(before) {
			delete(s.at, d)
		}
	}
}

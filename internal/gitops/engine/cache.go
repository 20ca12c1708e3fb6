package engine

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	reposervercache "github.com/argoproj/argo-cd/v3/reposerver/cache"
	servercache "github.com/argoproj/argo-cd/v3/server/cache"
	cacheutil "github.com/argoproj/argo-cd/v3/util/cache"
	"github.com/argoproj/argo-cd/v3/util/cache/appstate"
)

// Expirations as upstream's commands set them.
const (
	cacheExpiration    = 24 * time.Hour
	appStateExpiration = time.Hour
	revisionExpiration = 3 * time.Minute
	revisionLock       = 10 * time.Second
	connectionStatus   = time.Hour
	oidcExpiration     = 3 * time.Minute
	expiryTick         = 5 * time.Second
	loopbackAnyPort    = "127.0.0.1:0"
	redisPoolSize      = 8
)

// caches is Argo CD's Redis, in memory. Everything in it can be computed
// again, so it is empty after a restart.
type caches struct {
	server *miniredis.Miniredis
	client *redis.Client
}

func newCaches() (*caches, error) {
	m := miniredis.NewMiniRedis()
	password := rand.Text()
	m.RequireAuth(password)
	if err := m.StartAddr(loopbackAnyPort); err != nil {
		return nil, fmt.Errorf("start the cache: %w", err)
	}
	client := redis.NewClient(&redis.Options{Addr: m.Addr(), Password: password, MaxRetries: 3, PoolSize: redisPoolSize})
	return &caches{server: m, client: client}, nil
}

// run lets entries expire, which miniredis leaves to its user, until ctx ends.
func (c *caches) run(ctx context.Context) error {
	t := time.NewTicker(expiryTick)
	defer t.Stop()
	defer c.server.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			c.server.FastForward(expiryTick)
		}
	}
}

func (c *caches) base() *cacheutil.Cache {
	return cacheutil.NewCache(cacheutil.NewRedisCache(c.client, cacheExpiration, cacheutil.RedisCompressionGZip))
}

func (c *caches) appState() *appstate.Cache { return appstate.NewCache(c.base(), appStateExpiration) }

func (c *caches) repoServer() *reposervercache.Cache {
	return reposervercache.NewCache(c.base(), cacheExpiration, revisionExpiration, revisionLock)
}

func (c *caches) apiServer() *servercache.Cache {
	return servercache.NewCache(c.appState(), connectionStatus, oidcExpiration)
}

package kubewatch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// poll is how often a kubeconfig is looked at for a change.
const poll = time.Second

// Cluster follows a kubeconfig that may appear later and be replaced at any
// time: whenever its content changes, the session with the cluster starts
// anew. Its fields are set once, before Run.
type Cluster struct {
	Kubeconfig string // path
	Agent      string // the user agent of requests
	// Connect makes clients and returns the session, which Run then runs until
	// its context ends; it talks to no server.
	Connect func(*rest.Config) (session func(context.Context), err error)
	// Cause is told why there is no session; a session itself tells the rest.
	Cause func(error)
}

// Run follows the kubeconfig until ctx ends and the last session has returned.
func (c *Cluster) Run(ctx context.Context) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var seen [32]byte
	var wg sync.WaitGroup
	defer wg.Wait()
	end := context.CancelFunc(func() {})
	defer func() { end() }()
	for {
		data, err := os.ReadFile(c.Kubeconfig)
		switch sum := sha256.Sum256(data); {
		case errors.Is(err, fs.ErrNotExist):
			if seen == [32]byte{} {
				c.Cause(errors.New("the cluster has not started: there is no kubeconfig yet"))
			}
		case err != nil:
			c.Cause(fmt.Errorf("the kubeconfig cannot be read: %w", err))
		case sum != seen:
			seen = sum
			end()
			wg.Wait()
			session, err := c.connect(data)
			if err != nil {
				c.Cause(fmt.Errorf("the kubeconfig is not usable: %w", err))
				break
			}
			sctx, cancel := context.WithCancel(ctx)
			end = cancel
			wg.Go(func() { session(sctx) })
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *Cluster) connect(kubeconfig []byte) (func(context.Context), error) {
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.UserAgent = c.Agent
	cfg.QPS, cfg.Burst = 50, 100
	return c.Connect(cfg)
}

// Answers asks whether the API server is ready, for at most five seconds.
func Answers(ctx context.Context, client rest.Interface, host string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := client.Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return fmt.Errorf("the API server at %s does not answer: %w", host, err)
	}
	return nil
}

// Protobuf returns a copy of the configuration that speaks protobuf, which
// built-in kinds have and custom resources have not.
func Protobuf(cfg *rest.Config) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	return cfg
}

// Touching returns handlers that call touch for every change.
func Touching(touch func()) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { touch() },
		UpdateFunc: func(_, _ any) { touch() },
		DeleteFunc: func(any) { touch() },
	}
}

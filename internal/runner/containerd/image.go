package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/runner"
)

// Pull policies, as in `image:pull_policy`.
const (
	pullAlways       = "always"
	pullIfNotPresent = "if-not-present"
	pullNever        = "never"
)

// image is a pulled and unpacked image with its configuration.
type image struct {
	client.Image
	config ocispec.ImageConfig
}

// puller gets the images of one job with the job's credentials.
type puller struct {
	executor    *Executor
	credentials []runner.RegistryCredential
	log         *runner.Log
}

// get returns the image by its pull policies, tried in order. Its error is a
// *runner.JobError unless containerd itself failed.
func (p *puller) get(ctx context.Context, wanted delivery.JobImage) (*image, error) {
	named, err := reference.ParseDockerRef(wanted.Name)
	if err != nil {
		return nil, pullFailure(wanted.Name, fmt.Errorf("invalid image name: %w", err))
	}
	policies := wanted.PullPolicy
	if len(policies) == 0 {
		policies = p.executor.config.PullPolicy
	} else if err := p.allowed(policies); err != nil {
		return nil, err
	}
	var last error
	for attempt, policy := range policies {
		if attempt > 0 {
			p.log.Notice("Attempt #%d: Trying %q pull policy", attempt+1, policy)
		}
		found, err := p.try(ctx, named, wanted.Name, policy)
		if err == nil {
			return p.unpacked(ctx, found, wanted.Name)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		last = err
		if attempt+1 < len(policies) {
			p.log.Warn("Failed to pull image with policy %q: %v", policy, err)
		}
	}
	return nil, pullFailure(wanted.Name, last)
}

func pullFailure(name string, err error) error {
	var job *runner.JobError
	if errors.As(err, &job) {
		return err
	}
	return &runner.JobError{Reason: runner.ReasonImagePull, Message: fmt.Sprintf("failed to pull image %q", name), Err: err}
}

func (p *puller) allowed(policies []string) error {
	for _, policy := range policies {
		if !slices.Contains(p.executor.config.AllowedPullPolicies, policy) {
			return &runner.JobError{Reason: runner.ReasonConfiguration, Message: fmt.Sprintf(
				"pull_policy (%v) defined in GitLab pipeline config is not one of the allowed_pull_policies (%v)", policies, p.executor.config.AllowedPullPolicies)}
		}
	}
	return nil
}

// labelPrivate marks images that were pulled with a job's credentials.
const labelPrivate = "slipway.dev/pulled-with-credentials"

// try gets the image under one policy. Whatever the policy, an image of the
// platform's own registry, or one that some job's credentials were needed for,
// is resolved with this job's: that it lies on this host does not make it
// everybody's.
func (p *puller) try(ctx context.Context, named reference.Named, shown, policy string) (client.Image, error) {
	local, err := p.executor.client.GetImage(ctx, named.String())
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("look up image: %w", err)
	}
	own := reference.Domain(named) == p.executor.config.Registry || err == nil && local.Labels()[labelPrivate] != ""
	switch {
	case policy == pullNever && err != nil:
		return nil, fmt.Errorf("the image is not present and the pull policy is %q", pullNever)
	case policy != pullAlways && err == nil && !own:
		if policy == pullIfNotPresent {
			p.log.Print("Using locally found image version due to %q pull policy", policy)
		}
		return local, nil
	}
	if err != nil {
		local = nil
	}
	pulled, err := p.pull(ctx, named, shown, local)
	if err != nil && local != nil && !own && unreachable(err) && p.executor.config.UseLocalWhenUnreachable {
		p.log.Warn("The registry of %s cannot be reached; using the image that is present", shown)
		return local, nil
	}
	return pulled, err
}

// pull resolves the name and fetches what is missing.
func (p *puller) pull(ctx context.Context, named reference.Named, shown string, local client.Image) (client.Image, error) {
	resolver := p.resolver(ctx, named)
	_, descriptor, err := resolver.Resolve(ctx, named.String())
	if err != nil {
		return nil, err
	}
	if local != nil && local.Target().Digest == descriptor.Digest {
		return local, nil
	}
	p.log.Print("Pulling docker image %s ...", shown)
	// Jobs of one pipeline tend to want the same image at the same time: one
	// fetches it, the others find it.
	release, err := p.executor.pulls.lock(ctx, named.String())
	if err != nil {
		return nil, err
	}
	defer release()
	if found, err := p.executor.client.GetImage(ctx, named.String()); err == nil && found.Target().Digest == descriptor.Digest {
		return found, nil
	}
	options := []client.RemoteOpt{client.WithPullUnpack, client.WithPullSnapshotter(p.executor.config.Snapshotter),
		client.WithResolver(resolver), client.WithPullLabel("io.cri-containerd.image", "managed")}
	if p.has(reference.Domain(named)) {
		options = append(options, client.WithPullLabel(labelPrivate, "true"))
	}
	return p.executor.client.Pull(ctx, named.String(), options...)
}

// has reports whether the job has a credential for a registry.
func (p *puller) has(domain string) bool {
	return slices.ContainsFunc(p.credentials, func(c runner.RegistryCredential) bool { return c.Host == domain })
}

func (p *puller) resolver(ctx context.Context, named reference.Named) remotes.Resolver {
	domain := reference.Domain(named)
	for _, credential := range p.credentials {
		if credential.Host == domain {
			p.log.Print("Authenticating with credentials from %s", credential.Source)
			break
		}
	}
	options := config.HostOptions{Credentials: p.credential}
	if dir := p.executor.config.RegistryHosts; dir != "" {
		options.HostDir = config.HostDirFromRoot(dir)
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: config.ConfigureHosts(ctx, options)})
}

// credential finds the job's credential for a registry host.
func (p *puller) credential(host string) (string, string, error) {
	switch {
	case host == "registry-1.docker.io":
		host = "docker.io"
	case host != "" && host == p.executor.config.RegistryLocal:
		host = p.executor.config.Registry // by whose name the credential is known
	}
	for _, credential := range p.credentials {
		if credential.Host == host {
			return credential.Username, credential.Password, nil
		}
	}
	return "", "", nil
}

// unpacked makes sure that the image has a snapshot and reads its
// configuration.
func (p *puller) unpacked(ctx context.Context, found client.Image, shown string) (*image, error) {
	p.executor.sweeper.used(ctx, found)
	ready, err := found.IsUnpacked(ctx, p.executor.config.Snapshotter)
	if err == nil && !ready {
		err = found.Unpack(ctx, p.executor.config.Snapshotter)
	}
	if err != nil {
		return nil, fmt.Errorf("unpack image %s: %w", shown, err)
	}
	descriptor, err := found.Config(ctx)
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", shown, err)
	}
	raw, err := content.ReadBlob(ctx, found.ContentStore(), descriptor)
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", shown, err)
	}
	if !images.IsConfigType(descriptor.MediaType) {
		return nil, pullFailure(shown, fmt.Errorf("it is no container image but %s", descriptor.MediaType))
	}
	var parsed ocispec.Image
	if err := json.Unmarshal(raw, &parsed); err != nil {
		return nil, pullFailure(shown, fmt.Errorf("malformed image configuration: %w", err))
	}
	p.log.Print("Using docker image %s for %s with digest %s ...", descriptor.Digest, shown, digestReference(shown, found))
	return &image{Image: found, config: parsed.Config}, nil
}

func digestReference(shown string, found client.Image) string {
	name, _, _ := strings.Cut(shown, "@")
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		name = name[:at]
	}
	return name + "@" + found.Target().Digest.String()
}

// unreachable reports whether a pull failed because nobody answered, as
// opposed to an answer that denies the image.
func unreachable(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode >= http.StatusInternalServerError
	}
	var transport *url.Error
	var network net.Error
	return errors.As(err, &transport) || errors.As(err, &network)
}

// keyedLock is one lock per key, for as long as somebody holds or wants it.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]*keyed
}

type keyed struct {
	users int
	token chan struct{}
}

// lock waits for the key's lock or ctx's end.
func (k *keyedLock) lock(ctx context.Context, key string) (release func(), err error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*keyed{}
	}
	one := k.held[key]
	if one == nil {
		one = &keyed{token: make(chan struct{}, 1)}
		k.held[key] = one
	}
	one.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(k.held, key)
		}
	}
	select {
	case one.token <- struct{}{}:
		return func() { <-one.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

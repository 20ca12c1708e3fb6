package forge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const mirrorTimeout = 30 * time.Minute

// checkRemote refuses addresses of repositories that are not http(s), and
// those of internal networks where they are not allowed.
//
// The result tells git which addresses the host's name has been found to have:
// a name that leads elsewhere a moment later cannot bring git there.
func (s *Service) checkRemote(ctx context.Context, raw string) (pin string, err error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", invalidField("import_url", "must be an http or https address of a repository")
	}
	if strings.ContainsAny(raw, "\n\r\x00 ") {
		return "", invalidField("import_url", "must not contain spaces or line breaks")
	}
	if s.hostAllowed(u) {
		return "", nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return "", delivery.Errorf(delivery.Invalid, "The host %s cannot be found.", clip(u.Hostname(), 100))
	}
	var known []string
	for _, a := range addrs {
		if internalAddress(a) {
			return "", &delivery.Error{Kind: delivery.Forbidden, Message: "Requests to the local network are not allowed.", Next: "An administrator can allow the host in the configuration."}
		}
		if a = a.Unmap(); a.Is6() {
			known = append(known, "["+a.String()+"]")
		} else {
			known = append(known, a.String())
		}
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Hostname() + ":" + port + ":" + strings.Join(known, ","), nil
}

// internalAddress reports whether an address is not one of the public
// internet.
func internalAddress(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsMulticast() || a.IsUnspecified() || a.IsInterfaceLocalMulticast() ||
		netip.MustParsePrefix("100.64.0.0/10").Contains(a) || netip.MustParsePrefix("0.0.0.0/8").Contains(a) || netip.MustParsePrefix("192.0.0.0/24").Contains(a) || netip.MustParsePrefix("198.18.0.0/15").Contains(a)
}

// remoteEnv gives git credentials for an address without showing them in its
// arguments, and the addresses of its host where they are pinned.
func remoteEnv(raw, username, password, pin string) (clean string, env []string, err error) {
	clean, username, password, err = splitRemote(raw, username, password)
	if err != nil {
		return "", nil, err
	}
	config := []string{"http.followRedirects", "false"}
	if pin != "" {
		config = append(config, "http.curloptResolve", pin)
	}
	env = []string{"GIT_ALLOW_PROTOCOL=http:https"}
	if username != "" || password != "" {
		helper := `!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$SLIPWAY_REMOTE_USER" "$SLIPWAY_REMOTE_PASSWORD"; }; f`
		config = append(config, "credential.helper", helper)
		env = append(env, "SLIPWAY_REMOTE_USER="+username, "SLIPWAY_REMOTE_PASSWORD="+password)
	}
	for i := 0; i < len(config); i += 2 {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, config[i]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, config[i+1]))
	}
	return clean, append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(config)/2)), nil
}

// splitRemote takes the credentials out of an address; without any in it they
// are those given.
func splitRemote(raw, username, password string) (clean, user, secret string, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", "", "", delivery.Errorf(delivery.Invalid, "The address cannot be read.")
	}
	if u.User != nil {
		username = u.User.Username()
		password, _ = u.User.Password()
		u.User = nil
	}
	return u.String(), username, password, nil
}

// lfsOf is the LFS server of an address; close it.
func (s *Service) lfsOf(raw, username, password string) (*lfsRemote, error) {
	clean, username, password, err := splitRemote(raw, username, password)
	if err != nil {
		return nil, err
	}
	return s.lfsRemote(clean, username, password)
}

// importRepository fills a new project from another server.
func (s *Service) importRepository(ctx context.Context, who delivery.Identity, p delivery.Project, raw string) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	pin, err := s.checkRemote(ctx, raw)
	if err != nil {
		return err
	}
	clean, env, err := remoteEnv(raw, "", "", pin)
	if err != nil {
		return err
	}
	dir := s.RepositoryPath(p.ID)
	if _, err := s.git.runEnv(ctx, dir, env, nil, "fetch", "--quiet", "--no-write-fetch-head", "--no-auto-maintenance", "--prune", clean, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"); err != nil {
		return remoteError(err)
	}
	if out, err := s.git.runEnv(ctx, dir, env, nil, "ls-remote", "--symref", clean, "HEAD"); err == nil {
		for line := range strings.Lines(string(out)) {
			if ref, ok := strings.CutPrefix(line, "ref: refs/heads/"); ok {
				name, _, _ := strings.Cut(strings.TrimSpace(ref), "\t")
				if _, exists, err := s.RefExists(ctx, p.ID, "refs/heads/"+name); err == nil && exists {
					if err := s.setDefaultBranch(ctx, p, name); err != nil {
						return err
					}
					p.DefaultBranch = name
				}
			}
		}
	}
	remote, err := s.lfsOf(raw, "", "")
	if err != nil {
		return err
	}
	defer remote.close()
	if err := s.fetchLFS(ctx, p.ID, remote, nil, nil); err != nil {
		return err
	}
	return s.announceRefs(ctx, who, p, false)
}

func remoteError(err error) error {
	var g *gitError
	if !errors.As(err, &g) {
		return err
	}
	return &delivery.Error{Kind: delivery.Invalid, Message: "The other repository cannot be read or written: " + clip(lastLine(g.stderr), 300), Next: "Check the address and the credentials.", Err: err}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// Mirrors lists the mirrors of a project.
func (s *Service) Mirrors(ctx context.Context, projectID int64) ([]Mirror, error) {
	return s.store.Mirrors(ctx, projectID)
}

// SetMirror adds (ID 0) or changes a mirror. Credentials in the address are
// taken out of it. Another server does not get the password of the one before:
// it must be given with the new address.
func (s *Service) SetMirror(ctx context.Context, who delivery.Identity, m Mirror) (Mirror, error) {
	if _, err := s.checkRemote(ctx, m.URL); err != nil {
		return m, err
	}
	u, err := url.Parse(m.URL)
	if err != nil {
		return m, invalidField("url", "cannot be read")
	}
	if u.User != nil {
		m.Username = u.User.Username()
		m.Password, _ = u.User.Password()
		u.User = nil
		m.URL = u.String()
	}
	if m.ID != 0 {
		old, err := s.mirrorByID(ctx, m.ProjectID, m.ID)
		if err != nil {
			return m, err
		}
		if before, err := url.Parse(old.URL); (err != nil || before.Host != u.Host || before.Scheme != u.Scheme) && m.Password == old.Password {
			m.Username, m.Password = "", ""
		}
	}
	if m.Interval == 0 {
		m.Interval = 30 * time.Minute
	}
	if m.Interval < time.Minute {
		return m, invalidField("interval", "must be at least one minute")
	}
	if m.Status == "" {
		m.Status = "none"
	}
	if m.NextAt.IsZero() {
		m.NextAt = s.now()
	}
	m, err = s.store.SetMirror(ctx, m)
	if err == nil {
		s.access.Audit(ctx, who, "project.mirror_set", "project", m.ProjectID, m.URL, fmt.Sprintf("push=%t", m.Push))
		s.wakeMirrors()
	}
	return m, err
}

// DeleteMirror removes a mirror.
func (s *Service) DeleteMirror(ctx context.Context, who delivery.Identity, projectID, id int64) error {
	if err := s.store.DeleteMirror(ctx, projectID, id); err != nil {
		return err
	}
	s.access.Audit(ctx, who, "project.mirror_removed", "project", projectID, fmt.Sprint(id), "")
	return nil
}

func (s *Service) mirrorByID(ctx context.Context, projectID, id int64) (Mirror, error) {
	list, err := s.store.Mirrors(ctx, projectID)
	for _, m := range list {
		if m.ID == id && err == nil {
			return m, nil
		}
	}
	if err == nil {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Mirror Not Found"}
	}
	return Mirror{}, err
}

// SyncMirror lets a mirror be updated at once, in the background.
func (s *Service) SyncMirror(ctx context.Context, m Mirror) error {
	if !m.Enabled {
		return delivery.Errorf(delivery.Invalid, "The mirror is switched off.")
	}
	if m.Status != "started" {
		m.Status = "scheduled"
	}
	m.NextAt = s.now()
	if err := s.store.RecordMirror(ctx, m); err != nil {
		return err
	}
	s.wakeMirrors()
	return nil
}

func (s *Service) wakeMirrors() {
	select {
	case s.mirrors.wake <- struct{}{}:
	default:
	}
}

// mirrorRuns knows which mirrors are being updated.
type mirrorRuns struct {
	wake    chan struct{}
	mu      sync.Mutex
	running map[int64]bool
}

func newMirrorRuns() *mirrorRuns {
	return &mirrorRuns{wake: make(chan struct{}, 1), running: map[int64]bool{}}
}

func (r *mirrorRuns) begin(id int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[id] {
		return false
	}
	r.running[id] = true
	return true
}

func (r *mirrorRuns) end(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, id)
}

const (
	mirrorParallel = 3
	mirrorsEvery   = time.Minute
)

// runMirrors updates the mirrors that are due, some at a time, until ctx ends;
// one that takes long holds up no other.
func (s *Service) runMirrors(ctx context.Context) {
	slots := make(chan struct{}, mirrorParallel)
	var wg sync.WaitGroup
	defer wg.Wait()
	ticker := time.NewTicker(mirrorsEvery)
	defer ticker.Stop()
	for {
		due, err := s.store.DueMirrors(ctx, s.now())
		if err != nil && ctx.Err() == nil {
			s.log.Error("mirrors not read", "err", err)
		}
		for _, m := range due {
			if !s.mirrors.begin(m.ID) {
				continue
			}
			wg.Go(func() {
				defer s.mirrors.end(m.ID)
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
					s.runMirror(ctx, m)
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-s.mirrors.wake:
		case <-ticker.C:
		}
	}
}

// runMirror updates one mirror and records how it went.
func (s *Service) runMirror(ctx context.Context, m Mirror) {
	m.LastAt, m.Status = s.now(), "started"
	if err := s.store.RecordMirror(ctx, m); err != nil {
		if ctx.Err() == nil && !delivery.IsNotFound(err) {
			s.log.Error("state of a mirror not stored", "mirror", m.ID, "err", err)
		}
		return
	}
	err := s.syncMirror(ctx, m)
	if ctx.Err() != nil {
		return // the platform stops: it is due again at the next start
	}
	m.Status, m.LastError = "finished", ""
	m.NextAt = s.now().Add(m.Interval)
	if err != nil {
		m.Status, m.LastError = "failed", clip(delivery.UserMessage(err), 500)
		s.log.Warn("mirror failed", "project", m.ProjectID, "mirror", m.ID, "err", m.LastError)
	} else {
		m.LastSuccess = s.now()
	}
	if err := s.store.RecordMirror(ctx, m); err != nil && !delivery.IsNotFound(err) {
		s.log.Error("state of a mirror not stored", "mirror", m.ID, "err", err)
	}
}

func (s *Service) syncMirror(ctx context.Context, m Mirror) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	pin, err := s.checkRemote(ctx, m.URL)
	if err != nil {
		return err
	}
	p, err := s.store.ProjectByID(ctx, m.ProjectID)
	if err != nil {
		return err
	}
	clean, env, err := remoteEnv(m.URL, m.Username, m.Password, pin)
	if err != nil {
		return err
	}
	remote, err := s.lfsOf(m.URL, m.Username, m.Password)
	if err != nil {
		return err
	}
	defer remote.close()
	if !m.Push {
		return s.pullMirror(ctx, p, clean, env, remote)
	}
	var only []string // commits whose LFS objects go along; empty: all
	specs := []string{"+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"}
	if m.OnlyProtected {
		if specs, only, err = s.protectedSpecs(ctx, p); err != nil || len(specs) == 0 {
			return err
		}
	}
	if err := s.pushLFS(ctx, p.ID, remote, only); err != nil {
		return err
	}
	_, err = s.git.runEnv(ctx, s.RepositoryPath(p.ID), env, nil, append([]string{"push", "--quiet", "--no-verify", clean}, specs...)...)
	if err != nil {
		return remoteError(err)
	}
	return nil
}

// protectedSpecs are the protected branches as a push names them, and their
// commits.
func (s *Service) protectedSpecs(ctx context.Context, p delivery.Project) (specs, commits []string, err error) {
	branches, err := s.Branches(ctx, p, RefOptions{})
	if err != nil {
		return nil, nil, err
	}
	for _, b := range branches {
		if b.Protected {
			specs, commits = append(specs, "+"+b.FullName+":"+b.FullName), append(commits, b.SHA)
		}
	}
	return specs, commits, nil
}

// pullMirror fetches into a namespace of its own and then moves the branches
// and tags as a push does, so that pipelines and webhooks see it. LFS objects
// are there before.
func (s *Service) pullMirror(ctx context.Context, p delivery.Project, clean string, env []string, remote *lfsRemote) error {
	dir := s.RepositoryPath(p.ID)
	if _, err := s.git.runEnv(ctx, dir, env, nil, "fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", clean, "+refs/heads/*:refs/slipway/mirror/heads/*", "+refs/tags/*:refs/slipway/mirror/tags/*"); err != nil {
		return remoteError(err)
	}
	out, err := s.git.run(ctx, dir, nil, "for-each-ref", "--format=%(objectname) %(refname)", "refs/slipway/mirror/", "refs/heads/", "refs/tags/")
	if err != nil {
		return err
	}
	theirs, ours := map[string]string{}, map[string]string{}
	for line := range strings.Lines(string(out)) {
		sha, ref, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name, ok := strings.CutPrefix(ref, "refs/slipway/mirror/"); ok {
			theirs["refs/"+name] = sha
		} else {
			ours[ref] = sha
		}
	}
	var updates []RefUpdate
	for ref, sha := range theirs {
		old := ours[ref]
		switch {
		case old == sha:
		case old == "":
			updates = append(updates, RefUpdate{Ref: ref, Old: delivery.ZeroSHA, New: sha})
		default:
			// A branch that has commits of its own here is left alone.
			if ok, err := s.IsAncestor(ctx, p.ID, old, sha); err != nil {
				return err
			} else if ok {
				updates = append(updates, RefUpdate{Ref: ref, Old: old, New: sha})
			}
		}
	}
	if len(updates) == 0 {
		return nil
	}
	slices.SortFunc(updates, func(a, b RefUpdate) int { return strings.Compare(a.Ref, b.Ref) })
	var commits []string
	for _, u := range updates {
		commits = append(commits, u.New)
	}
	if err := s.fetchLFS(ctx, p.ID, remote, commits, slices.Collect(maps.Values(ours))); err != nil {
		return err
	}
	unlock, err := s.locks.lock(ctx, p.ID)
	if err != nil {
		return err
	}
	defer unlock()
	creator := delivery.Identity{Kind: delivery.SystemActor, Name: "mirror"}
	if u, err := s.access.User(ctx, p.CreatorID); err == nil {
		creator.User = &u
	}
	if err := s.updateRefs(ctx, p.ID, creator, updates, nil); err != nil {
		return err
	}
	if p.Empty {
		return s.chooseDefault(ctx, p, updates)
	}
	return nil
}

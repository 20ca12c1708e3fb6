// Package forge hosts git repositories: projects, git over HTTP and SSH,
// reading and writing of repositories, merge requests, releases, webhooks and
// LFS. The protocol work is done by the system's git.
//
// It receives pushes and calls of the API and the web, and emits
// delivery.EventPushed, EventMergeRequest, EventNote, EventReleaseCreated and
// EventProjectDeleted through the store. It must not import another stage, the
// store or the web; who may do what it asks through Access.
package forge

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"golang.org/x/crypto/ssh"
)

// Access tells who callers are and what they may do. Its methods return errors
// of the kinds Unauthenticated, Forbidden, NotFound and TooMany.
type Access interface {
	Authenticate(r *http.Request) (delivery.Identity, error)
	AuthenticateKey(ctx context.Context, key ssh.PublicKey) (delivery.Identity, error)
	VisibleProject(ctx context.Context, who delivery.Identity, ref string) (delivery.Project, delivery.Role, error)
	RoleIn(ctx context.Context, who delivery.Identity, p delivery.Project) (delivery.Role, error)
	UserRole(ctx context.Context, u delivery.User, projectID int64) (delivery.Role, error)
	JobMayPush(ctx context.Context, who delivery.Identity, projectID int64) (bool, error)
	NamespaceForProjects(ctx context.Context, who delivery.Identity, id int64, path string) (delivery.Namespace, delivery.Visibility, error)
	User(ctx context.Context, id int64) (delivery.User, error)
	UserByName(ctx context.Context, login string) (delivery.User, error)
	// SigningKey and OpenPGPKey find the keys that sign commits, by an SSH
	// fingerprint and by an OpenPGP fingerprint or key id.
	SigningKey(ctx context.Context, fingerprint string) (delivery.SigningKey, error)
	OpenPGPKey(ctx context.Context, keyID string) (delivery.SigningKey, error)
	Audit(ctx context.Context, who delivery.Identity, action, targetType string, targetID int64, target, details string)
}

// CISettings are what a project says about its pipelines: fields of the
// project's API that another stage keeps.
type CISettings interface {
	// ProjectFields returns the fields by their names in the API.
	ProjectFields(ctx context.Context, projectID int64) (map[string]any, error)
	// ChangeProjectFields changes what decode fills into a struct with the
	// current values; some fields are for administrators only. decode may be
	// called more than once.
	ChangeProjectFields(ctx context.Context, projectID int64, admin bool, decode func(any) error) error
}

// Pipelines tells about pipelines of commits, for merge requests.
type Pipelines interface {
	// HeadPipeline returns the newest pipeline for the commit: 0 and "" where
	// there is none. The status is GitLab's.
	HeadPipeline(ctx context.Context, projectID int64, sha string) (id int64, status string, err error)
}

// Options configure a Service.
type Options struct {
	Store       Store
	Access      Access
	Pipelines   Pipelines                // nil: merge requests know no pipelines
	Payloads    delivery.WebhookPayloads // nil: no pipeline, job and deployment hooks
	Root        string                   // folder of the repositories
	RunDir      string                   // folder for generated files: hooks, git's configuration, temporary files
	LFSRoot     string                   // folder of LFS objects; empty: Root/../lfs
	Git         string                   // the git program; empty: from PATH
	ExternalURL string                   // http(s)://host[:port], without a trailing slash
	SSHHost     string                   // host name for SSH addresses; empty: that of ExternalURL
	SSHPort     int                      // port for SSH addresses; 0: no SSH is offered
	Log         *slog.Logger
	Now         func() time.Time
	// MaxPushBytes limits one push; 0: 2 GiB. MaxLFSBytes limits one LFS
	// object; 0: 5 GiB.
	MaxPushBytes int64
	MaxLFSBytes  int64
	// LocalRequests lets webhooks and mirrors reach loopback, link-local and
	// private addresses. LocalHosts lists hosts or host:port that may be
	// reached although it is false.
	LocalRequests bool
	LocalHosts    []string
	// Mailer sends e-mail about merge requests; nil: none is sent.
	Mailer Mailer
}

// Service is the forge. It is safe for concurrent use. Methods that take an
// Identity check its rights; those that do not leave that to the caller.
type Service struct {
	store    Store
	access   Access
	payloads delivery.WebhookPayloads
	o        Options
	log      *slog.Logger
	now      func() time.Time
	git      *gitProgram
	readers  *readers
	pushes   *livePushes
	locks    *projectLocks
	counts   *countCache
	graphs   *graphs
	hookWake chan struct{}
	mailWake chan struct{}

	lfsTokens *lfsTokens
	mirrors   *mirrorRuns
	unsigned  unsigned

	pipeMu    sync.RWMutex
	pipelines Pipelines
	ci        CISettings
	mayMove   func(ctx context.Context, projectID int64) error
}

// SetMoveCheck provides what is asked before a project's address changes, such
// as whether images are known by the present one.
func (s *Service) SetMoveCheck(fn func(ctx context.Context, projectID int64) error) {
	s.pipeMu.Lock()
	defer s.pipeMu.Unlock()
	s.mayMove = fn
}

func (s *Service) checkMove(ctx context.Context, projectID int64) error {
	s.pipeMu.RLock()
	fn := s.mayMove
	s.pipeMu.RUnlock()
	if fn == nil {
		return nil
	}
	return fn(ctx, projectID)
}

// New prepares the folders and returns a Service. Call Recover before serving
// and Run for the background work.
func New(o Options) (*Service, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxPushBytes == 0 {
		o.MaxPushBytes = 2 << 30
	}
	if o.MaxLFSBytes == 0 {
		o.MaxLFSBytes = 5 << 30
	}
	if o.LFSRoot == "" {
		o.LFSRoot = filepath.Join(filepath.Dir(o.Root), "lfs")
	}
	o.ExternalURL = strings.TrimRight(o.ExternalURL, "/")
	if o.SSHHost == "" {
		if u, err := url.Parse(o.ExternalURL); err == nil {
			o.SSHHost = u.Hostname()
		}
	}
	for _, dir := range []string{o.Root, o.RunDir, o.LFSRoot} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("forge: create folder: %w", err)
		}
	}
	g, err := newGitProgram(o.Git, o.RunDir, o.MaxPushBytes)
	if err != nil {
		return nil, err
	}
	s := &Service{store: o.Store, access: o.Access, payloads: o.Payloads, o: o, log: o.Log, now: o.Now, git: g,
		readers: newReaders(g), pushes: newLivePushes(), locks: newProjectLocks(), counts: newCountCache(), graphs: newGraphs(),
		hookWake: make(chan struct{}, 1), mailWake: make(chan struct{}, 1), lfsTokens: newLFSTokens(), mirrors: newMirrorRuns(), unsigned: unsigned{sha: map[string]struct{}{}}, pipelines: o.Pipelines}
	return s, nil
}

// SetCISettings provides the projects' settings of pipelines, for a wiring that
// makes the pipeline engine after the forge. Without, projects show none.
func (s *Service) SetCISettings(c CISettings) { s.ci = c }

// CISettings returns what SetCISettings provided; nil for nothing.
func (s *Service) CISettings() CISettings { return s.ci }

// SetPipelines provides what merge requests ask about pipelines, for a wiring
// in which the pipelines need the forge first.
func (s *Service) SetPipelines(p Pipelines, payloads delivery.WebhookPayloads) {
	s.pipeMu.Lock()
	defer s.pipeMu.Unlock()
	s.pipelines, s.payloads = p, payloads
}

func (s *Service) headPipeline(ctx context.Context, projectID int64, sha string) (int64, string, error) {
	s.pipeMu.RLock()
	p := s.pipelines
	s.pipeMu.RUnlock()
	if p == nil {
		return 0, "", nil
	}
	return p.HeadPipeline(ctx, projectID, sha)
}

// HeadPipeline returns the newest pipeline of a commit, 0 where there is none.
func (s *Service) HeadPipeline(ctx context.Context, projectID int64, sha string) (int64, string, error) {
	return s.headPipeline(ctx, projectID, sha)
}

// ExternalURL is the address under which people and programs reach the forge.
func (s *Service) ExternalURL() string { return s.o.ExternalURL }

// WebURL is the address of a project's page.
func (s *Service) WebURL(p delivery.Project) string { return s.o.ExternalURL + "/" + p.FullPath }

// HTTPURL is the address for git over HTTP.
func (s *Service) HTTPURL(p delivery.Project) string {
	return s.o.ExternalURL + "/" + p.FullPath + ".git"
}

// SSHURL is the address for git over SSH.
func (s *Service) SSHURL(p delivery.Project) string {
	if s.o.SSHPort == 22 || s.o.SSHPort == 0 {
		return "git@" + s.o.SSHHost + ":" + p.FullPath + ".git"
	}
	return fmt.Sprintf("ssh://git@%s:%d/%s.git", s.o.SSHHost, s.o.SSHPort, p.FullPath)
}

// RepositoryPath is where the project's bare repository lies. It does not
// change when the project is renamed.
func (s *Service) RepositoryPath(projectID int64) string {
	return filepath.Join(s.o.Root, fmt.Sprintf("%02x", projectID%256), fmt.Sprintf("%d.git", projectID))
}

// Close ends the helper processes.
func (s *Service) Close() error {
	s.readers.close()
	return nil
}

// ProjectSettings are a project's choices that only the forge looks at.
type ProjectSettings struct {
	MergeMethod               string   `json:"merge_method,omitempty"`  // merge, rebase_merge or ff; empty: merge
	SquashOption              string   `json:"squash_option,omitempty"` // never, always, default_on, default_off
	PipelineMustSucceed       bool     `json:"only_allow_merge_if_pipeline_succeeds,omitempty"`
	DiscussionsMustBeResolved bool     `json:"only_allow_merge_if_all_discussions_are_resolved,omitempty"`
	ApprovalsRequired         int      `json:"approvals_before_merge,omitempty"`
	KeepSourceBranch          bool     `json:"keep_source_branch,omitempty"` // the default of new merge requests
	MergeCommitTemplate       string   `json:"merge_commit_template,omitempty"`
	LFSDisabled               bool     `json:"lfs_disabled,omitempty"`
	MergeRequestsDisabled     bool     `json:"merge_requests_disabled,omitempty"`
	Topics                    []string `json:"topics,omitempty"`
	MaxPushBytes              int64    `json:"max_push_bytes,omitempty"` // 0: the instance's limit
	AutoRevertFailedRollout   bool     `json:"auto_revert_failed_rollout,omitempty"`
	RemoveFromForkNetwork     bool     `json:"-"`
}

// projectLocks serialises changes of one project's merge requests and
// server-side commits.
type projectLocks struct {
	mu    sync.Mutex
	locks map[int64]*projectLock
}

type projectLock struct {
	ch    chan struct{}
	users int
}

func newProjectLocks() *projectLocks { return &projectLocks{locks: map[int64]*projectLock{}} }

// lock waits for the project's lock or ctx and returns the unlock function.
func (l *projectLocks) lock(ctx context.Context, id int64) (func(), error) {
	l.mu.Lock()
	pl := l.locks[id]
	if pl == nil {
		pl = &projectLock{ch: make(chan struct{}, 1)}
		l.locks[id] = pl
	}
	pl.users++
	l.mu.Unlock()
	release := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if pl.users--; pl.users == 0 {
			delete(l.locks, id)
		}
	}
	select {
	case pl.ch <- struct{}{}:
		return func() { <-pl.ch; release() }, nil
	case <-ctx.Done():
		release()
		return nil, ctx.Err()
	}
}

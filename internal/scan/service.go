package scan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan/report"
)

// Config is what a Service is made of. Program, Dir, Store and Images are
// required.
type Config struct {
	Program string // path of the trivy program
	Dir     string // the scanner's folder (<data>/scan), created with mode 0700
	Store   Store
	Images  Images
	Log     *slog.Logger     // default slog.Default()
	Now     func() time.Time // default time.Now

	// OnPush says whether every pushed image is scanned.
	OnPush bool
	// MemoryLimit is the most memory in bytes that a scan may take (default 1 GiB).
	MemoryLimit int64
	// Confine puts the scan's process into the cgroup of its budget; may be nil.
	Confine func(pid int) error
	// Timeout bounds one scan (default 10 minutes).
	Timeout time.Duration
	// Source is the image reference of the vulnerability database. The default,
	// ghcr.io/aquasecurity/trivy-db:2, is best given by way of the platform's
	// cache: <registry host>/ghcr.io/aquasecurity/trivy-db:2.
	Source         string
	SourceInsecure bool // Source is reached over plain HTTP
	// Registry is the platform registry's host:port as in image names. Jobs scan
	// its images, and those of CacheHosts by way of its cache.
	Registry         string
	RegistryInsecure bool // Registry is reached over plain HTTP
	// RegistryTransport reaches Registry; it is asked for at every pull, since the
	// authority that it trusts may be made later (default http.DefaultTransport).
	RegistryTransport func() (http.RoundTripper, error)
	CacheHosts        []string // docker.io, ghcr.io, ...
	// UpdateEvery is how often Run fetches the database (default 12 h; negative: never).
	UpdateEvery time.Duration
	// MaxTree is the most bytes of a file tree that a job sends (default 2 GiB).
	MaxTree int64
}

// Service runs scans, one at a time. It is safe for concurrent use.
type Service struct {
	cfg     Config
	version string
	wake    chan struct{}
	running sync.Mutex // held while Trivy runs or its database is replaced
	// trees holds one element for each file tree that lies on the disk.
	trees chan struct{}
	// yielding is the process of a scan of low priority; 0 while there is none.
	yielding atomic.Int64
	renew    atomic.Bool // stored images are to be looked at again
	queueing sync.Mutex  // held while it is decided whether a scan is queued
	waiting  sync.Mutex
	ended    map[int64]chan struct{} // closed when the scan of that id ends
}

// DefaultSource is where the public vulnerability database is.
const DefaultSource = "ghcr.io/aquasecurity/trivy-db:2"

// New returns a service on the folder cfg.Dir.
func New(cfg Config) (*Service, error) {
	if cfg.Program == "" || cfg.Dir == "" || cfg.Store == nil || cfg.Images == nil {
		return nil, errors.New("scan: Program, Dir, Store and Images are required")
	}
	setDefault(&cfg.Log, cfg.Log == nil, slog.Default())
	setDefault(&cfg.Now, cfg.Now == nil, time.Now)
	setDefault(&cfg.MemoryLimit, cfg.MemoryLimit == 0, 1<<30)
	setDefault(&cfg.Timeout, cfg.Timeout == 0, 10*time.Minute)
	setDefault(&cfg.Source, cfg.Source == "", DefaultSource)
	setDefault(&cfg.UpdateEvery, cfg.UpdateEvery == 0, 12*time.Hour)
	setDefault(&cfg.MaxTree, cfg.MaxTree == 0, 2<<30)
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("scan: create folder: %w", err)
	}
	s := &Service{cfg: cfg, version: "of unknown version", wake: make(chan struct{}, 1), trees: make(chan struct{}, maxTrees), ended: map[int64]chan struct{}{}}
	s.renew.Store(true)
	return s, s.cleanUp()
}

func setDefault[T any](field *T, unset bool, value T) {
	if unset {
		*field = value
	}
}

// cleanUp removes what scans that were cut off left behind.
func (s *Service) cleanUp() error {
	for _, pattern := range []string{"run-*", "import-*", "image-*"} {
		left, err := filepath.Glob(filepath.Join(s.cfg.Dir, pattern))
		if err != nil {
			return fmt.Errorf("scan: clean up: %w", err)
		}
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("scan: clean up: %w", err)
			}
		}
	}
	// A crash in the middle of replaceDatabase leaves the former one aside.
	old := s.databaseDir() + ".old"
	if _, err := os.Stat(s.databaseDir()); errors.Is(err, os.ErrNotExist) {
		if err := os.Rename(old, s.databaseDir()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("scan: restore database: %w", err)
		}
	}
	return nil
}

// Handle takes events of the outbox: a pushed image is queued for a scan when
// Config.OnPush is set. It is idempotent.
func (s *Service) Handle(ctx context.Context, e delivery.Event) error {
	if e.Kind != delivery.EventImagePushed || !s.cfg.OnPush {
		return nil
	}
	var p delivery.ImagePushed
	if err := e.Decode(&p); err != nil {
		s.cfg.Log.Error("scan: an event cannot be read", "event", e.ID, "err", err)
		return nil
	}
	_, err := s.Enqueue(ctx, Scan{ProjectID: e.ProjectID, Type: TypeImage, Repository: p.Repository, Digest: p.Digest, Name: displayName(p)})
	return err
}

func displayName(p delivery.ImagePushed) string {
	if p.Tag != "" {
		return p.Repository + ":" + p.Tag
	}
	return p.Repository + "@" + p.Digest
}

// Enqueue queues a scan. An image that was scanned with the present database,
// or waits for its scan, is not scanned again: the former scan is returned.
func (s *Service) Enqueue(ctx context.Context, scan Scan) (Scan, error) {
	if scan.Type == TypeImage {
		s.queueing.Lock() // two who ask at once get one scan
		defer s.queueing.Unlock()
		have, err := s.cfg.Store.ByDigest(ctx, scan.Repository, scan.Digest)
		if err == nil && s.current(have) {
			return have, nil
		}
		if err != nil && !delivery.IsNotFound(err) {
			return Scan{}, err
		}
	}
	scan.Status, scan.QueuedAt = Pending, s.cfg.Now().UTC()
	id, err := s.cfg.Store.Add(ctx, scan)
	if err != nil {
		return Scan{}, err
	}
	scan.ID = id
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return scan, nil
}

// current reports whether a former scan is as good as a new one.
func (s *Service) current(have Scan) bool {
	switch have.Status {
	case Pending, Running:
		return true
	case Success:
		db, err := s.Database()
		return err == nil && have.Report != nil && have.Report.Database.UpdatedAt.Equal(db.UpdatedAt) && have.Report.Database.Origin == db.Origin
	}
	return false
}

// Result returns the latest scan of an image, or an error of kind NotFound.
func (s *Service) Result(ctx context.Context, digest string) (Scan, error) {
	return s.cfg.Store.ByDigest(ctx, "", digest)
}

// ScanByID returns a scan with its report, or an error of kind NotFound.
func (s *Service) ScanByID(ctx context.Context, id int64) (Scan, error) {
	return s.cfg.Store.Scan(ctx, id)
}

// OfProject lists a project's latest scans without their reports.
func (s *Service) OfProject(ctx context.Context, projectID int64, limit, offset int) ([]Scan, int, error) {
	return s.cfg.Store.OfProject(ctx, projectID, limit, offset)
}

// OfJob lists the scans that a job asked for, without their reports.
func (s *Service) OfJob(ctx context.Context, jobID int64) ([]Scan, error) {
	return s.cfg.Store.OfJob(ctx, jobID)
}

// Scan scans an image now and waits for the result, or for ctx.
func (s *Service) Scan(ctx context.Context, projectID int64, repository, digest string) (Scan, error) {
	queued, err := s.Enqueue(ctx, Scan{ProjectID: projectID, Type: TypeImage, Repository: repository, Digest: digest, Name: repository + "@" + digest})
	if err != nil {
		return Scan{}, err
	}
	return s.Wait(ctx, queued.ID)
}

// Wait waits until a scan has ended, or for ctx, and returns it as it is then.
func (s *Service) Wait(ctx context.Context, id int64) (Scan, error) {
	for {
		ended := s.endOf(id)
		scan, err := s.cfg.Store.Scan(ctx, id)
		if err != nil || scan.Status == Success || scan.Status == Failed {
			return scan, err
		}
		select {
		case <-ctx.Done():
			return scan, nil
		case <-ended:
		}
	}
}

func (s *Service) endOf(id int64) <-chan struct{} {
	s.waiting.Lock()
	defer s.waiting.Unlock()
	if s.ended[id] == nil {
		s.ended[id] = make(chan struct{})
	}
	return s.ended[id]
}

func (s *Service) announceEnd(id int64) {
	s.waiting.Lock()
	defer s.waiting.Unlock()
	if c := s.ended[id]; c != nil {
		close(c)
		delete(s.ended, id)
	}
}

// Run works on the queue and keeps the database fresh until ctx ends. Scans
// that a former process left running are queued again. With Config.OnPush, a
// new database has the images scanned again that a tag or a workload needs, so
// that what has become known since shows on them.
func (s *Service) Run(ctx context.Context) error {
	s.readVersion(ctx)
	interrupted, err := s.cfg.Store.Interrupted(ctx)
	if err != nil {
		return err
	}
	for _, scan := range interrupted {
		scan.Status, scan.Error = Pending, ""
		if scan.Type != TypeImage {
			scan.Status, scan.Error, scan.EndedAt = Failed, "The platform was stopped in the middle of the scan; the job can be run again.", s.cfg.Now().UTC()
		}
		if err := s.cfg.Store.Update(ctx, scan); err != nil {
			return err
		}
	}
	var updates sync.WaitGroup
	defer updates.Wait()
	updates.Go(func() { s.keepFresh(ctx) })
	var again renewals
	for ctx.Err() == nil {
		next, err := s.next(ctx, &again)
		if err == nil {
			err = s.work(ctx, next)
		}
		if err != nil && !delivery.IsNotFound(err) && ctx.Err() == nil {
			s.cfg.Log.Error("scan: queue", "err", err)
		}
		if err == nil {
			continue
		}
		retry := time.NewTimer(time.Minute)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-retry.C:
		}
		retry.Stop()
	}
	return ctx.Err()
}

// keepFresh fetches the database when it is older than UpdateEvery.
func (s *Service) keepFresh(ctx context.Context) {
	if s.cfg.UpdateEvery < 0 {
		return
	}
	ticker := time.NewTicker(min(s.cfg.UpdateEvery, time.Hour))
	defer ticker.Stop()
	var last time.Time
	for {
		meta, err := readMetadata(s.databaseDir())
		db, known := s.Database()
		stale := err != nil || s.cfg.Now().Sub(meta.UpdatedAt) > s.cfg.UpdateEvery || known == nil && db.Demonstration
		if stale && s.cfg.Now().Sub(last) > s.cfg.UpdateEvery/2 {
			last = s.cfg.Now()
			if db, err := s.UpdateDatabase(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("scan: the vulnerability database was not updated", "err", err)
			} else if err == nil {
				s.cfg.Log.Info("scan: vulnerability database updated", "of", db.UpdatedAt)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// work runs one queued scan and stores its outcome. Its error is the store's;
// what goes wrong with the scan is the scan's result.
func (s *Service) work(ctx context.Context, scan Scan) error {
	scan.Status, scan.StartedAt = Running, s.cfg.Now().UTC()
	if err := s.cfg.Store.Update(ctx, scan); err != nil {
		return err
	}
	rep, err := s.scanImage(ctx, scan)
	if ctx.Err() != nil {
		return ctx.Err() // left as running: queued again by the next start
	}
	return s.finish(ctx, scan, rep, err)
}

func (s *Service) finish(ctx context.Context, scan Scan, rep report.Report, err error) error {
	scan.EndedAt = s.cfg.Now().UTC()
	if err != nil {
		scan.Status, scan.Error = Failed, delivery.UserMessage(err)
		s.cfg.Log.Warn("scan: failed", "scan", scan.ID, "name", scan.Name, "err", err)
	} else {
		scan.Status, scan.Report, scan.Counts = Success, &rep, report.Counts(rep.Findings)
	}
	if err = s.cfg.Store.Update(ctx, scan); err == nil && scan.Status == Success && scan.Type == TypeImage {
		err = s.cfg.Store.Prune(ctx, scan.Repository, scan.Digest, kept)
	}
	s.announceEnd(scan.ID)
	return err
}

func (s *Service) scanImage(ctx context.Context, scan Scan) (report.Report, error) {
	s.running.Lock()
	defer s.running.Unlock()
	if _, err := s.Database(); err != nil {
		return report.Report{}, err
	}
	dir, err := os.MkdirTemp(s.cfg.Dir, "image-")
	if err != nil {
		return report.Report{}, fmt.Errorf("scan: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := s.cfg.Images.Export(ctx, scan.Repository, scan.Digest, dir); err != nil {
		return report.Report{}, err
	}
	rep, err := s.run(ctx, target{kind: TypeImage, dir: dir, name: scan.Name})
	rep.Digest = scan.Digest
	for i := range rep.Findings {
		// Trivy names the layout's folder as the place of system packages.
		if place, ok := strings.CutPrefix(rep.Findings[i].Target, dir); ok {
			rep.Findings[i].Target = strings.TrimSpace(scan.Name + place)
		}
	}
	return rep, err
}

var versionLine = regexp.MustCompile(`(?m)^Version: (\S+)`)

// readVersion asks Trivy for its version, once.
func (s *Service) readVersion(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.cfg.Program, "--cache-dir", s.cacheDir(), "version")
	cmd.Env = []string{"HOME=" + s.cfg.Dir}
	out, err := cmd.Output()
	if err != nil {
		s.cfg.Log.Warn("scan: Trivy's version is not known", "err", err)
		return
	}
	if m := versionLine.FindSubmatch(out); m != nil && string(m[1]) != "dev" {
		s.version = string(m[1])
		return
	}
	s.version = EngineVersion
}

// EngineVersion is the version of Trivy in this module, for programs that were
// built without a version of their own.
const EngineVersion = "0.65.0"

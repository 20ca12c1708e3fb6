package forge

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func queryEscape(s string) string { return url.QueryEscape(s) }

// gitRoutes are the ends of addresses that git and its LFS client use, below
// <full path>.git.
var gitRoutes = []string{"/info/refs", "/git-upload-pack", "/git-receive-pack"}

// GitRoutes lists what is served below <full path>.git, as http.ServeMux
// patterns, for the test that walks all of it.
func GitRoutes() []string {
	return []string{
		"GET /info/refs?service=git-upload-pack", "GET /info/refs?service=git-receive-pack", "POST /git-upload-pack", "POST /git-receive-pack",
		"POST /info/lfs/objects/batch", "GET /info/lfs/locks", "POST /info/lfs/locks", "POST /info/lfs/locks/verify", "POST /info/lfs/locks/{lock}/unlock",
		"GET /gitlab-lfs/objects/{oid}", "HEAD /gitlab-lfs/objects/{oid}", "PUT /gitlab-lfs/objects/{oid}/{size}",
	}
}

// IsGit reports whether a request is for GitHandler: <project>.git/... of
// git's smart protocol or LFS.
func IsGit(r *http.Request) bool {
	_, _, ok := splitGit(r.URL.Path)
	return ok
}

// splitGit divides an address into the project's full path and the rest.
func splitGit(p string) (project, rest string, ok bool) {
	if i := strings.Index(p, ".git/"); i > 1 {
		project, rest = p[1:i], p[i+4:]
	} else {
		for _, route := range gitRoutes {
			if strings.HasSuffix(p, route) {
				project, rest = strings.Trim(strings.TrimSuffix(p, route), "/"), route
				if strings.HasPrefix(project, "-/") || strings.HasPrefix(project, "api/") || strings.Contains(project, "/-/") {
					return "", "", false
				}
			}
		}
	}
	for _, route := range gitRoutes {
		if rest == route {
			return project, rest, strings.Contains(project, "/")
		}
	}
	if strings.HasPrefix(rest, "/info/lfs/") || strings.HasPrefix(rest, "/gitlab-lfs/objects/") {
		return project, rest, strings.Contains(project, "/")
	}
	return "", "", false
}

// gitHandler serves git over HTTP.
type gitHandler struct {
	s     *Service
	slots chan struct{} // bounds the git processes that serve clients
	// waiting counts the requests that wait for a slot.
	waiting atomic.Int32

	mu     sync.Mutex
	advert []byte // the answer of protocol version 2, which no repository changes
}

// GitHandler serves git's smart HTTP protocol (versions 0 to 2) and LFS at
// /<full path>.git/.... Callers who may not know of a project get 401 without
// and 404 with credentials.
func (s *Service) GitHandler() http.Handler {
	return &gitHandler{s: s, slots: make(chan struct{}, max(16, 8*runtime.GOMAXPROCS(0)))}
}

const (
	slotWait   = 2 * time.Minute // for a free slot
	maxWaiting = 512             // requests that wait for one; more are refused at once
	earlyBytes = 64 << 10        // of a request that are read before it gets a slot
	earlyWait  = 30 * time.Second
	idleClient = 5 * time.Minute // without any progress of a transfer
)

func (h *gitHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, rest, ok := splitGit(r.URL.Path)
	if !ok {
		gitFail(w, http.StatusNotFound, "Not found.")
		return
	}
	w.Header().Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
	if err := h.serve(w, r, path, rest); err != nil {
		h.s.failGit(w, r, err)
	}
}

func (h *gitHandler) serve(w http.ResponseWriter, r *http.Request, path, rest string) error {
	who, err := h.authenticate(r, path, rest)
	if err != nil {
		return err
	}
	p, role, err := h.s.access.VisibleProject(r.Context(), who, path)
	if delivery.IsNotFound(err) && !who.Signed() {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in to reach this project, if it exists."}
	}
	if err != nil {
		return err
	}
	if strings.HasPrefix(rest, "/info/lfs/") || strings.HasPrefix(rest, "/gitlab-lfs/") {
		return h.s.serveLFS(w, r, who, p, role, rest)
	}
	service := strings.TrimPrefix(rest, "/")
	if rest == "/info/refs" {
		if r.Method != http.MethodGet {
			return delivery.Errorf(delivery.Invalid, "Use GET here.")
		}
		service = r.URL.Query().Get("service")
	} else if r.Method != http.MethodPost {
		return delivery.Errorf(delivery.Invalid, "Use POST here.")
	}
	switch service {
	case "git-upload-pack":
		if err := authorizeFetch(who, p, role); err != nil {
			return err
		}
	case "git-receive-pack":
		if !who.Signed() {
			return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in to push."}
		}
		if _, err := h.s.authorizePush(r.Context(), who, p); err != nil {
			return err
		}
	default:
		return delivery.Errorf(delivery.Forbidden, "Only git's smart protocol is served; use a newer git.")
	}
	if rest == "/info/refs" {
		return h.infoRefs(w, r, who, p, service)
	}
	return h.rpc(w, r, who, p, service)
}

// authenticate also accepts the short-lived credentials that LFS clients get
// over SSH.
func (h *gitHandler) authenticate(r *http.Request, path, rest string) (delivery.Identity, error) {
	if strings.HasPrefix(rest, "/info/lfs/") || strings.HasPrefix(rest, "/gitlab-lfs/") {
		if _, password, ok := r.BasicAuth(); ok && strings.HasPrefix(password, lfsTokenPrefix) {
			return h.s.lfsTokens.check(password, path, h.s.now())
		}
	}
	return h.s.access.Authenticate(r)
}

// authorizeFetch checks the right to read the code of a visible project.
func authorizeFetch(who delivery.Identity, p delivery.Project, role delivery.Role) error {
	if who.Signed() && !who.HasScope("read_repository", "write_repository") {
		return delivery.Errorf(delivery.Forbidden, "The token's scopes do not allow reading repositories (read_repository is needed).")
	}
	if !CanRead(p, role) {
		if !who.Signed() {
			return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in to read this repository."}
		}
		return delivery.Errorf(delivery.Forbidden, "You are not allowed to download code from this project.")
	}
	return nil
}

func (h *gitHandler) infoRefs(w http.ResponseWriter, r *http.Request, who delivery.Identity, p delivery.Project, service string) error {
	protocol := cleanProtocol(r.Header.Get("Git-Protocol"))
	w.Header().Set("Content-Type", "application/x-"+service+"-advertisement")
	if service == "git-upload-pack" && protocol == "version=2" {
		advert, err := h.versionTwo(r.Context(), p)
		if err != nil {
			return err
		}
		_, err = w.Write(advert)
		return clientGone(err)
	}
	release, err := h.acquire(r.Context())
	if err != nil {
		return err
	}
	defer release()
	body := &lateWriter{w: w, head: fmt.Appendf(nil, "%04x# service=%s\n0000", len(service)+15, service)}
	if service == "git-receive-pack" {
		err = h.s.receivePack(r.Context(), who, p, transport{in: http.NoBody, out: body, stateless: true, advertise: true, protocol: protocol})
	} else {
		err = h.s.uploadPack(r.Context(), p, transport{in: http.NoBody, out: body, stateless: true, advertise: true, protocol: protocol})
	}
	return body.failed(err)
}

// versionTwo returns the capability advertisement of protocol version 2. It
// names no refs, so that one answer of git does for all repositories.
func (h *gitHandler) versionTwo(ctx context.Context, p delivery.Project) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.advert == nil {
		var buf limited
		buf.max = 64 << 10
		err := h.s.uploadPack(ctx, p, transport{in: http.NoBody, out: &buf, stateless: true, advertise: true, protocol: "version=2"})
		if err != nil {
			return nil, err
		}
		h.advert = append([]byte(nil), buf.Bytes()...)
	}
	return h.advert, nil
}

// cleanProtocol keeps of the Git-Protocol header what git may see.
func cleanProtocol(s string) string {
	for part := range strings.SplitSeq(s, ":") {
		if part == "version=2" || part == "version=1" || part == "version=0" {
			return part
		}
	}
	return ""
}

func (h *gitHandler) acquire(ctx context.Context) (func(), error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	default:
	}
	busy := &delivery.Error{Kind: delivery.Unavailable, Message: "The server is busy with other git operations.", Next: "Try again in a minute."}
	if h.waiting.Add(1) > maxWaiting {
		h.waiting.Add(-1)
		return nil, busy
	}
	defer h.waiting.Add(-1)
	timer := time.NewTimer(slotWait)
	defer timer.Stop()
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-timer.C:
		return nil, busy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (h *gitHandler) rpc(w http.ResponseWriter, r *http.Request, who delivery.Identity, p delivery.Project, service string) error {
	if r.Header.Get("Content-Type") != "application/x-"+service+"-request" {
		return &delivery.Error{Kind: delivery.Invalid, Message: "The content type is not git's."}
	}
	early, err := earlyBody(w, r, service == "git-upload-pack")
	if err != nil {
		return err
	}
	slow := &slowGuard{rc: http.NewResponseController(w), r: early, w: w}
	// The connection may serve further requests.
	defer slow.rc.SetWriteDeadline(time.Time{}) //nolint:errcheck // unsupported by some writers, which have no deadline
	var in io.Reader = slow
	switch r.Header.Get("Content-Encoding") {
	case "":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(slow)
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "The body is not gzip.")
		}
		defer z.Close()
		in = z
	default:
		return delivery.Errorf(delivery.Invalid, "The content encoding is not known.")
	}
	release, err := h.acquire(r.Context())
	if err != nil {
		return err
	}
	defer release()
	w.Header().Set("Content-Type", "application/x-"+service+"-result")
	body := &lateWriter{w: slow}
	t := transport{in: in, out: body, stateless: true, protocol: cleanProtocol(r.Header.Get("Git-Protocol"))}
	if service == "git-receive-pack" {
		err = h.s.receivePack(r.Context(), who, p, t)
	} else {
		err = h.s.uploadPack(r.Context(), p, t)
	}
	return body.failed(err)
}

// earlyBody reads the beginning of a request before a git process is spent on
// it: all of a fetch's request as far as it is short, as most are, and of a push
// enough to see that the client sends at all. Clients that say nothing hold
// nothing but their connection, and not for long.
func earlyBody(w http.ResponseWriter, r *http.Request, whole bool) (io.Reader, error) {
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(earlyWait)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	var head []byte
	var err error
	if whole {
		head, err = io.ReadAll(io.LimitReader(r.Body, earlyBytes))
	} else {
		head = make([]byte, 4096)
		var n int
		n, err = io.ReadAtLeast(r.Body, head, 4)
		if head = head[:n]; err == io.EOF || err == io.ErrUnexpectedEOF {
			err = nil // git says what is wrong with so little
		}
	}
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Invalid, Message: "The request did not arrive in time.", Err: err}
	}
	if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	return io.MultiReader(bytes.NewReader(head), r.Body), nil
}

// feed copies what the client sends to the process. Unlike exec's own copying
// it is not waited for: a client that sends nothing more, and does not hang up
// either, must not hold the end of a transfer. It ends when the connection or
// the request does.
func feed(cmd *exec.Cmd, in io.Reader) error {
	if in == http.NoBody {
		return nil
	}
	w, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("forge: start git: %w", err)
	}
	widen(w)
	go func() {
		_ = copyWide(w, in) // git notices an early end, and tells
		w.Close()
	}()
	return nil
}

// wideBuffer is how much of a pack is moved at once: large, as each move costs
// two changes of process.
const wideBuffer = 256 << 10

var wideBuffers = sync.Pool{New: func() any { return new([wideBuffer]byte) }}

// widePipe returns a command's output by a pipe that holds much.
func widePipe(cmd *exec.Cmd) (io.ReadCloser, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("forge: start git: %w", err)
	}
	widen(out)
	return out, nil
}

// widen lets a pipe hold much at once.
func widen(pipe any) {
	f, ok := pipe.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// Where the user's share of pipe memory is used up, the usual size does.
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, wideBuffer)
	})
}

// copyWide copies until the end of r.
func copyWide(w io.Writer, r io.Reader) error {
	buf := wideBuffers.Get().(*[wideBuffer]byte)
	defer wideBuffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// uploadPack runs git upload-pack for a clone or fetch.
func (s *Service) uploadPack(ctx context.Context, p delivery.Project, t transport) error {
	args := []string{"upload-pack", "--strict"}
	if t.stateless {
		args = append(args, "--stateless-rpc")
	}
	if t.advertise {
		args = append(args, "--advertise-refs")
	}
	dir := s.RepositoryPath(p.ID)
	cmd := s.git.command(ctx, "", []string{"GIT_PROTOCOL=" + t.protocol}, append(args, dir)...)
	cmd.Dir = dir
	stderr := &limited{max: maxStderr}
	cmd.Stderr = stderr
	if t.errOut != nil {
		cmd.Stderr = io.MultiWriter(stderr, t.errOut)
	}
	if err := feed(cmd, t.in); err != nil {
		return err
	}
	out, err := widePipe(cmd)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("forge: fetch: %w", err)
	}
	copyErr := copyWide(t.out, out)
	if copyErr != nil {
		// The client is gone: what git still has to say interests nobody.
		out.Close()
	}
	err = cmd.Wait()
	if copyErr != nil {
		return clientGone(copyErr)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &gitError{args: args, code: cmd.ProcessState.ExitCode(), stderr: stderr.String(), err: err}
	}
	return nil
}

// lateWriter writes head before the first output, and remembers that there was
// some: an error can only become a status before that.
type lateWriter struct {
	w     io.Writer
	head  []byte
	begun bool
}

func (l *lateWriter) Write(p []byte) (int, error) {
	if !l.begun {
		l.begun = true
		if len(l.head) > 0 {
			if _, err := l.w.Write(l.head); err != nil {
				return 0, err
			}
		}
	}
	return l.w.Write(p)
}

// failed reduces an error of git: after output has begun git itself has told
// the client, in its protocol.
func (l *lateWriter) failed(err error) error {
	var g *gitError
	if err == nil || l.begun && errors.As(err, &g) {
		return nil
	}
	if errors.As(err, &g) {
		// The client went away in mid-sentence, or sent nonsense.
		if strings.Contains(g.stderr, "hung up") || strings.Contains(g.stderr, "protocol error") || strings.Contains(g.stderr, "bad line length") {
			return &delivery.Error{Kind: delivery.Invalid, Message: "The request is not git's protocol.", Err: err}
		}
	}
	return err
}

// slowGuard moves the connection's deadlines with the progress of a transfer,
// so that a stuck client does not hold a git process for ever, and flushes
// small writes so that progress is seen.
type slowGuard struct {
	rc   *http.ResponseController
	r    io.Reader
	w    io.Writer
	next time.Time
}

func (g *slowGuard) Read(p []byte) (int, error) {
	if now := time.Now(); now.After(g.next) {
		g.next = now.Add(idleClient / 10)
		if err := g.rc.SetReadDeadline(now.Add(idleClient)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return 0, err
		}
	}
	return g.r.Read(p)
}

func (g *slowGuard) Write(p []byte) (int, error) {
	if err := g.rc.SetWriteDeadline(time.Now().Add(idleClient)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := g.w.Write(p)
	if err == nil && len(p) < 4096 {
		if err := g.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return n, err
		}
	}
	return n, err
}

func clientGone(err error) error {
	if err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}

// failGit answers with a status and a sentence, which git shows to its user.
func (s *Service) failGit(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	switch delivery.KindOf(err) {
	case delivery.Unauthenticated:
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Basic realm="Slipway"`)
	case delivery.NotFound:
		status = http.StatusNotFound
	case delivery.Forbidden:
		status = http.StatusForbidden
	case delivery.Invalid:
		status = http.StatusBadRequest
	case delivery.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case delivery.TooMany:
		status = http.StatusTooManyRequests
	case delivery.Unavailable:
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "30")
	case delivery.Canceled:
		return
	default:
		if r.Context().Err() != nil {
			return
		}
		s.log.Error("git request failed", "path", r.URL.Path, "err", err)
	}
	gitFail(w, status, delivery.UserMessage(err))
}

func gitFail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, message) //nolint:errcheck // the client is told as well as can be
}

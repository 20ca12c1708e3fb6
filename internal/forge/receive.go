package forge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// livePushes are the pushes whose git process is ours and running; all others
// that the store knows are left-overs of a crash.
type livePushes struct {
	mu  sync.Mutex
	ids map[int64]bool
}

func newLivePushes() *livePushes { return &livePushes{ids: map[int64]bool{}} }

func (l *livePushes) add(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids[id] = true
}

func (l *livePushes) remove(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ids, id)
}

func (l *livePushes) has(id int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ids[id]
}

// transport is one connection of a git client.
type transport struct {
	in        io.Reader
	out       io.Writer
	errOut    io.Writer // the client's standard error; nil for HTTP
	stateless bool
	advertise bool
	protocol  string // GIT_PROTOCOL
}

// receivePack runs git receive-pack for a push. Before the refs move, the hook
// asks checkPush; after they moved, it waits until their events are stored, so
// that the client's success means both are on disk.
func (s *Service) receivePack(ctx context.Context, who delivery.Identity, p delivery.Project, t transport) error {
	args := []string{}
	settings, err := s.store.ProjectSettings(ctx, p.ID)
	if err != nil {
		return err
	}
	if settings.MaxPushBytes > 0 {
		args = append(args, "-c", fmt.Sprintf("receive.maxInputSize=%d", settings.MaxPushBytes))
	}
	args = append(args, "receive-pack")
	if t.stateless {
		args = append(args, "--stateless-rpc")
	}
	if t.advertise {
		args = append(args, "--advertise-refs")
	}
	dir := s.RepositoryPath(p.ID)
	askR, askW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("forge: push: %w", err)
	}
	defer askR.Close()
	sayR, sayW, err := os.Pipe()
	if err != nil {
		askW.Close()
		return fmt.Errorf("forge: push: %w", err)
	}
	defer sayW.Close()
	cmd := s.git.command(ctx, "", []string{"SLIPWAY_PUSH=1", "GIT_PROTOCOL=" + t.protocol}, append(args, dir)...)
	cmd.Dir = dir
	stderr := &limited{max: maxStderr}
	cmd.Stdout, cmd.Stderr = t.out, stderr
	if t.errOut != nil {
		cmd.Stderr = io.MultiWriter(stderr, t.errOut)
	}
	cmd.ExtraFiles = []*os.File{askW, sayR} // file descriptors 3 and 4 of git and its hooks
	if err = feed(cmd, t.in); err == nil {
		err = cmd.Start()
	}
	askW.Close()
	sayR.Close()
	if err != nil {
		return fmt.Errorf("forge: push: %w", err)
	}
	h := &hookTalk{s: s, who: who, project: p, in: bufio.NewReaderSize(askR, 32<<10), out: sayW}
	// What the hooks do must outlive a client that hangs up.
	hookCtx := context.WithoutCancel(ctx)
	talked := make(chan error, 1)
	go func() { talked <- h.run(hookCtx) }()
	runErr := cmd.Wait()
	// git and its hooks are gone, so the conversation is over; a process that
	// escaped would keep the pipe open, hence the deadline.
	if err := askR.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		s.log.Debug("no deadline on a hook's pipe", "err", err)
	}
	talkErr := <-talked
	if h.push.ID != 0 {
		finishErr := h.settle(hookCtx, cmd.ProcessState.Exited())
		s.pushes.remove(h.push.ID)
		if finishErr != nil {
			s.log.Error("push not finished; it is tried again", "project", p.ID, "push", h.push.ID, "err", finishErr)
		}
	}
	if talkErr != nil {
		s.log.Error("push hook failed", "project", p.ID, "err", talkErr)
	}
	if runErr != nil && ctx.Err() == nil {
		return &gitError{args: []string{"receive-pack"}, code: cmd.ProcessState.ExitCode(), stderr: stderr.String(), err: runErr}
	}
	return nil
}

// hookTalk answers the hooks of one receive-pack.
type hookTalk struct {
	s        *Service
	who      delivery.Identity
	project  delivery.Project
	in       *bufio.Reader
	out      io.Writer
	push     Push
	moved    bool // the post-receive hook ran
	finished bool
}

const (
	maxHookLine = 16 << 10
	maxUpdates  = 20000 // refs in one push
)

// question is what a hook was told by git.
type question struct {
	hook       string
	objects    string
	alternates string
	options    []string
	updates    []RefUpdate
}

func (h *hookTalk) run(ctx context.Context) error {
	for {
		q, err := h.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			h.answer("Something went wrong on our side.", false)
			return err
		}
		switch q.hook {
		case "pre-receive":
			err = h.before(ctx, q)
		case "post-receive":
			err = h.after(ctx, q)
		default:
			err = fmt.Errorf("forge: unknown hook %q", q.hook)
		}
		if err != nil {
			if delivery.KindOf(err) == delivery.InternalError {
				h.answer("Slipway: "+delivery.UserMessage(err), false)
				return err
			}
			h.answer("Slipway: "+delivery.UserMessage(err), false)
		}
	}
}

func (h *hookTalk) read() (question, error) {
	var q question
	for {
		line, err := h.in.ReadString('\n')
		if err != nil {
			return q, io.EOF
		}
		if len(line) > maxHookLine {
			return q, errors.New("forge: a hook sent a line that is too long")
		}
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "end":
			if len(q.updates) == 0 { // git calls no hook without any
				return q, errors.New("forge: a hook asked about no ref")
			}
			return q, nil
		case "hook":
			q = question{hook: value}
		case "objects":
			q.objects = value
		case "alternates":
			q.alternates = value
		case "option":
			if len(q.options) < 100 {
				q.options = append(q.options, value)
			}
		default:
			old, ref, ok := strings.Cut(value, " ")
			if !ok || !fullSHA.MatchString(key) || !fullSHA.MatchString(old) {
				return q, fmt.Errorf("forge: a hook sent the line %q", clip(line, 100))
			}
			if len(q.updates) == maxUpdates {
				return q, delivery.Errorf(delivery.TooLarge, "A push can move at most %d refs.", maxUpdates)
			}
			q.updates = append(q.updates, RefUpdate{Ref: ref, Old: key, New: old})
		}
	}
}

// answer writes a message for the user and the verdict.
func (h *hookTalk) answer(message string, ok bool) {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(message), "\n") {
		if message != "" {
			b.WriteString("+" + line + "\n")
		}
	}
	if ok {
		b.WriteString("ok\n")
	} else {
		b.WriteString("no\n")
	}
	if _, err := io.WriteString(h.out, b.String()); err != nil {
		h.s.log.Debug("hook went away", "err", err)
	}
}

// before decides about a push while its objects are in quarantine, and stores
// the intent so that its events cannot be lost.
func (h *hookTalk) before(ctx context.Context, q question) error {
	env := []string{}
	if q.objects != "" {
		env = append(env, "GIT_OBJECT_DIRECTORY="+q.objects, "GIT_ALTERNATE_OBJECT_DIRECTORIES="+q.alternates)
	}
	project, err := h.s.store.ProjectByID(ctx, h.project.ID)
	if err != nil {
		return err
	}
	h.project = project
	if err := h.s.authorizeUpdates(ctx, h.who, project, q.updates, env, false); err != nil {
		return err
	}
	h.push = Push{ProjectID: project.ID, JobID: h.who.JobID, At: h.s.now(), Updates: q.updates, Options: pushOptions(q.options)}
	if h.who.User != nil {
		h.push.UserID = h.who.User.ID
	}
	if h.push.ID, err = h.s.store.BeginPush(ctx, h.push); err != nil {
		return err
	}
	h.s.pushes.add(h.push.ID)
	h.answer("", true)
	return nil
}

// pushOptions turns "ci.variable=K=V" into a map; repeated keys are joined by
// line feeds.
func pushOptions(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, o := range list {
		k, v, _ := strings.Cut(o, "=")
		if old, ok := m[k]; ok && old != "" {
			v = old + "\n" + v
		}
		m[k] = v
	}
	return m
}

// after stores the events of the refs that moved.
func (h *hookTalk) after(ctx context.Context, q question) error {
	h.moved = true
	if err := h.s.finishPush(ctx, h.project, h.push, q.updates); err != nil {
		return err
	}
	h.finished = true
	h.answer(h.s.pushRequests(ctx, h.who, h.project, h.push.Options, q.updates), true)
	return nil
}

// settle finishes a push whose post-receive hook did not run or failed. A git
// that ended by itself and did not run the hook has moved nothing; of one that
// was killed only the refs can tell.
func (h *hookTalk) settle(ctx context.Context, exited bool) error {
	if h.finished {
		return nil
	}
	if exited && !h.moved {
		return h.s.store.FinishPush(ctx, h.push, nil)
	}
	done, err := h.s.tookPlace(ctx, h.project.ID, h.push.Updates)
	if err != nil {
		return err
	}
	return h.s.finishPush(ctx, h.project, h.push, done)
}

// finishPush chooses the default branch of a project that had none and stores
// the events.
func (s *Service) finishPush(ctx context.Context, p delivery.Project, push Push, done []RefUpdate) error {
	if p.Empty && len(done) > 0 {
		if err := s.chooseDefault(ctx, p, done); err != nil {
			return err
		}
	}
	return s.store.FinishPush(ctx, push, done)
}

func (s *Service) chooseDefault(ctx context.Context, p delivery.Project, done []RefUpdate) error {
	if _, ok, err := s.RefExists(ctx, p.ID, "refs/heads/"+p.DefaultBranch); err != nil || ok {
		return err
	}
	best := ""
	for _, u := range done {
		name, ok := strings.CutPrefix(u.Ref, "refs/heads/")
		if !ok || u.New == delivery.ZeroSHA {
			continue
		}
		if best == "" || name == "main" || name == "master" && best != "main" {
			best = name
		}
	}
	if best == "" {
		return nil
	}
	return s.setDefaultBranch(ctx, p, best)
}

// setDefaultBranch moves HEAD and the project's record, and protects the
// branch the way a new project's default branch is.
func (s *Service) setDefaultBranch(ctx context.Context, p delivery.Project, branch string) error {
	if _, err := s.git.run(ctx, s.RepositoryPath(p.ID), nil, "symbolic-ref", "HEAD", "refs/heads/"+branch); err != nil {
		return fmt.Errorf("forge: set default branch: %w", err)
	}
	if err := s.store.SetDefaultBranch(ctx, p.ID, branch); err != nil {
		return err
	}
	rules, err := s.store.Protections(ctx, p.ID)
	if err != nil {
		return err
	}
	if protects(rules, false, branch) {
		return nil
	}
	_, err = s.store.SetProtection(ctx, Protection{ProjectID: p.ID, Pattern: branch, PushRole: delivery.Maintainer, MergeRole: delivery.Maintainer, CreatedAt: s.now()})
	return err
}

// pushMessage invites to open a merge request for a new branch.
func (s *Service) pushMessage(_ context.Context, p delivery.Project, done []RefUpdate) string {
	var names []string
	for _, u := range done {
		name, ok := strings.CutPrefix(u.Ref, "refs/heads/")
		if ok && u.Old == delivery.ZeroSHA && name != p.DefaultBranch && !p.Empty {
			names = append(names, name)
		}
	}
	if len(names) != 1 {
		return ""
	}
	return fmt.Sprintf("\nTo create a merge request for %s, visit:\n  %s/-/merge_requests/new?merge_request%%5Bsource_branch%%5D=%s\n", names[0], s.WebURL(p), queryEscape(names[0]))
}

// PendingPushes lists pushes that are under way or that a crash interrupted.
func (s *Service) PendingPushes(ctx context.Context) ([]Push, error) {
	return s.store.PendingPushes(ctx)
}

// Recover finishes the pushes that a crash interrupted: where a ref has the
// pushed value its event is stored now. Call it before serving.
func (s *Service) Recover(ctx context.Context) error {
	pending, err := s.store.PendingPushes(ctx)
	if err != nil {
		return err
	}
	for i, push := range pending {
		if s.pushes.has(push.ID) {
			continue
		}
		p, err := s.store.ProjectByID(ctx, push.ProjectID)
		if delivery.IsNotFound(err) {
			if err := s.store.FinishPush(ctx, push, nil); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		done, err := s.tookPlace(ctx, push.ProjectID, push.Updates)
		if err != nil {
			return err
		}
		done = append(done, superseded(push, pending[i+1:], done)...)
		if len(done) < len(push.Updates) && s.now().Sub(push.At) < time.Minute {
			// git may still be at it in a process that survived us: look again
			// later at what did not happen yet.
			if len(done) == 0 {
				continue
			}
		}
		s.log.Info("push recovered after a crash", "project", p.ID, "push", push.ID, "refs", len(done))
		if err := s.finishPush(ctx, p, push, done); err != nil {
			return err
		}
	}
	return nil
}

// superseded returns the updates of a push that took place although the ref
// has another value now, because a later pending push started from them.
func superseded(push Push, later []Push, done []RefUpdate) []RefUpdate {
	has := map[string]bool{}
	for _, u := range done {
		has[u.Ref] = true
	}
	var out []RefUpdate
	for _, u := range push.Updates {
		if has[u.Ref] {
			continue
		}
		for _, l := range later {
			for _, v := range l.Updates {
				if l.ProjectID == push.ProjectID && v.Ref == u.Ref && v.Old == u.New && !has[u.Ref] {
					has[u.Ref] = true
					out = append(out, u)
				}
			}
		}
	}
	return out
}

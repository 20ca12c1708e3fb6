package forge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// readers keeps "git cat-file" processes for repositories that are being read,
// so that a page does not pay for a new process per object. Idle ones end
// after some seconds, so that nothing is held at rest.
type readers struct {
	git    *gitProgram
	mu     sync.Mutex
	idle   map[readerKey][]*reader
	count  int // idle readers
	timer  *time.Timer
	closed bool
}

type readerKey struct {
	dir   string
	check bool
}

const (
	readerIdle = 5 * time.Second
	maxIdle    = 16
)

// reader is one cat-file process: --batch, or --batch-check.
type reader struct {
	key    readerKey
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	since  time.Time
	cancel context.CancelFunc
}

func newReaders(g *gitProgram) *readers {
	return &readers{git: g, idle: map[readerKey][]*reader{}}
}

func (r *readers) get(key readerKey) (*reader, error) {
	r.mu.Lock()
	if list := r.idle[key]; len(list) > 0 {
		rd := list[len(list)-1]
		r.idle[key] = list[:len(list)-1]
		if len(list) == 1 {
			delete(r.idle, key)
		}
		r.count--
		r.mu.Unlock()
		return rd, nil
	}
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	mode := "--batch"
	if key.check {
		mode = "--batch-check"
	}
	cmd := r.git.command(ctx, key.dir, nil, "cat-file", mode)
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("forge: start cat-file: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("forge: start cat-file: %w", err)
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("forge: start cat-file: %w", err)
	}
	return &reader{key: key, cmd: cmd, in: in, out: bufio.NewReaderSize(out, 32<<10), cancel: cancel}, nil
}

func (r *readers) put(rd *reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.count >= maxIdle {
		go rd.end()
		return
	}
	rd.since = time.Now()
	r.idle[rd.key] = append(r.idle[rd.key], rd)
	r.count++
	if r.timer == nil {
		r.timer = time.AfterFunc(readerIdle, r.reap)
	}
}

func (r *readers) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = nil
	deadline := time.Now().Add(-readerIdle)
	for key, list := range r.idle {
		kept := list[:0]
		for _, rd := range list {
			if rd.since.After(deadline) && !r.closed {
				kept = append(kept, rd)
				continue
			}
			r.count--
			go rd.end()
		}
		if len(kept) == 0 {
			delete(r.idle, key)
		} else {
			r.idle[key] = kept
		}
	}
	if r.count > 0 {
		r.timer = time.AfterFunc(readerIdle, r.reap)
	}
}

// forget ends the idle readers of a repository that goes away.
func (r *readers) forget(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, check := range []bool{false, true} {
		key := readerKey{dir, check}
		for _, rd := range r.idle[key] {
			r.count--
			go rd.end()
		}
		delete(r.idle, key)
	}
}

func (r *readers) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for key, list := range r.idle {
		for _, rd := range list {
			rd.end()
		}
		delete(r.idle, key)
	}
	r.count = 0
}

func (rd *reader) end() {
	rd.in.Close()
	rd.cancel()
	_ = rd.cmd.Wait() // it was told to stop
}

// object is the header of a git object.
type object struct {
	sha  string
	kind string // commit, tree, blob or tag
	size int64
}

var errNoObject = &delivery.Error{Kind: delivery.NotFound, Op: "forge: read object", Message: "404 Not Found"}

// checkName refuses names that cat-file would read as more than a name.
func checkName(name string) error {
	if name == "" || len(name) > 4096 || strings.ContainsAny(name, "\x00\n\r") || !utf8.ValidString(name) {
		return errNoObject
	}
	return nil
}

// ask sends a name and reads the header of the answer.
func (rd *reader) ask(name string) (object, error) {
	if _, err := io.WriteString(rd.in, name+"\n"); err != nil {
		return object{}, err
	}
	line, err := rd.out.ReadString('\n')
	if err != nil {
		return object{}, err
	}
	line = strings.TrimSuffix(line, "\n")
	if strings.HasSuffix(line, " missing") || strings.HasSuffix(line, " ambiguous") {
		return object{}, errNoObject
	}
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return object{}, fmt.Errorf("forge: cat-file answered %q", line)
	}
	size, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return object{}, fmt.Errorf("forge: cat-file answered %q", line)
	}
	return object{fields[0], fields[1], size}, nil
}

// with runs fn with a reader and gives it back, or ends it where the
// conversation broke or ctx ended.
func (r *readers) with(ctx context.Context, key readerKey, fn func(*reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rd, err := r.get(key)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { rd.cancel() })
	err = fn(rd)
	if !stop() {
		go rd.end()
		if err == nil || !errors.Is(err, errNoObject) {
			return ctx.Err()
		}
		return err
	}
	var known *delivery.Error
	if err == nil || errors.As(err, &known) {
		r.put(rd)
		return err
	}
	go rd.end()
	return fmt.Errorf("forge: read object: %w", err)
}

// stat returns the header of the object that a name of git's syntax means.
func (r *readers) stat(ctx context.Context, dir, name string) (o object, err error) {
	if err := checkName(name); err != nil {
		return o, err
	}
	err = r.with(ctx, readerKey{dir, true}, func(rd *reader) error {
		o, err = rd.ask(name)
		return err
	})
	return o, err
}

// read returns an object of at most max bytes; a larger one gives an error of
// kind TooLarge.
func (r *readers) read(ctx context.Context, dir, name string, max int64) (o object, body []byte, err error) {
	if err := checkName(name); err != nil {
		return o, nil, err
	}
	err = r.with(ctx, readerKey{dir, false}, func(rd *reader) error {
		if o, err = rd.ask(name); err != nil {
			return err
		}
		if o.size > max {
			if o.size > max+(8<<20) {
				// Not worth reading to the end: give up this process.
				return errTooBig{o.size}
			}
			if _, err := io.CopyN(io.Discard, rd.out, o.size+1); err != nil {
				return err
			}
			return errTooMuch
		}
		body = make([]byte, o.size+1)
		if _, err := io.ReadFull(rd.out, body); err != nil {
			return err
		}
		body = body[:o.size]
		return nil
	})
	var big errTooBig
	if errors.As(err, &big) {
		err = errTooMuch
	}
	return o, body, err
}

type errTooBig struct{ size int64 }

func (e errTooBig) Error() string { return fmt.Sprintf("object of %d bytes", e.size) }

// copyTo streams an object's content to w. Use stat first to know what it is.
func (r *readers) copyTo(ctx context.Context, dir, sha string, w io.Writer) error {
	if err := checkName(sha); err != nil {
		return err
	}
	return r.with(ctx, readerKey{dir, false}, func(rd *reader) error {
		o, err := rd.ask(sha)
		if err != nil {
			return err
		}
		if _, err := io.CopyN(w, rd.out, o.size); err != nil {
			return err
		}
		_, err = rd.out.Discard(1)
		return err
	})
}

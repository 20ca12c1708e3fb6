package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// mask is what covers a secret in a trace. A secret is covered byte by byte, so
// that offsets in the stored trace stay those of the runner's.
const mask = "[MASKED]"

// trace is the log of a running job: a file that only grows, except that
// secrets found across the edge of two pieces are covered afterwards.
type trace struct {
	mu      sync.Mutex
	path    string
	file    *os.File
	size    int64  // bytes received, which is also the file's size
	crc     uint32 // CRC-32 (IEEE) of the bytes as received
	secrets [][]byte
	longest int    // length of the longest secret
	tail    []byte // the last bytes received, uncovered, where a secret may have begun
	shown   int64  // bytes that readers may see
	limit   int64
	resets  int
}

// openTrace opens or creates the trace file and continues after its end.
func openTrace(path string, secrets []string, limit int64) (*trace, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("pipeline: trace: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("pipeline: trace: %w", err)
	}
	t := &trace{path: path, file: f, limit: limit}
	for _, s := range secrets {
		if len(s) >= minSecret {
			t.secrets = append(t.secrets, []byte(s))
			t.longest = max(t.longest, len(s))
		}
	}
	sum := crc32.NewIEEE()
	if t.size, err = io.Copy(sum, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("pipeline: trace: %w", err)
	}
	t.crc = sum.Sum32()
	if n := min(int64(max(t.longest-1, 0)), t.size); n > 0 {
		t.tail = make([]byte, n)
		if _, err := f.ReadAt(t.tail, t.size-n); err != nil {
			f.Close()
			return nil, fmt.Errorf("pipeline: trace: %w", err)
		}
	}
	t.shown = t.size - int64(t.held(t.tail))
	return t, nil
}

// minSecret is the length below which covering a value would hide the log.
const minSecret = 4

// errOffset reports a piece that does not begin where the trace ends.
var errOffset = errors.New("pipeline: the piece does not continue the trace")

// append stores data at offset. Bytes that are stored already are skipped. It
// returns errOffset for a gap, and TooLarge over the limit.
func (t *trace) append(offset int64, data []byte) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if offset > t.size || offset < 0 {
		return t.size, errOffset
	}
	if offset+int64(len(data)) <= t.size {
		return t.size, nil
	}
	data = data[t.size-offset:]
	if t.size+int64(len(data)) > t.limit {
		return t.size, delivery.Errorf(delivery.TooLarge, "The log is longer than %d bytes.", t.limit)
	}
	if t.file == nil {
		return t.size, delivery.Errorf(delivery.NotFound, "The log is closed.")
	}
	out, tail := data, t.tail
	if len(t.secrets) > 0 {
		var covered []byte
		covered, out = t.cover(data)
		if covered != nil {
			if _, err := t.file.WriteAt(covered, t.size-int64(len(covered))); err != nil {
				return t.size, fmt.Errorf("pipeline: trace: %w", err)
			}
		}
		tail = t.nextTail(data)
	}
	if _, err := t.file.WriteAt(out, t.size); err != nil {
		return t.size, fmt.Errorf("pipeline: trace: %w", err)
	}
	t.crc = crc32.Update(t.crc, crc32.IEEETable, data)
	t.size += int64(len(data))
	t.tail = tail
	t.shown = t.size - int64(t.held(t.tail))
	return t.size, nil
}

// conclude appends a line of the platform's own, in red, in the form that
// runners give to lines with times.
func (t *trace) conclude(now time.Time, text string) error {
	t.mu.Lock()
	size, last := t.size, []byte{'\n'}
	if size > 0 && t.file != nil {
		if _, err := t.file.ReadAt(last, size-1); err != nil {
			t.mu.Unlock()
			return fmt.Errorf("pipeline: trace: %w", err)
		}
	}
	t.mu.Unlock()
	line := now.UTC().Format("2006-01-02T15:04:05.000000Z") + " 00O \x1b[31;1m" + text + "\x1b[0;m\n"
	if last[0] != '\n' { // the runner died in the middle of a line
		line = "\n" + line
	}
	_, err := t.append(size, []byte(line))
	return err
}

// cover returns the tail with secrets covered that reach into data, nil where
// there are none, and data with its secrets covered.
func (t *trace) cover(data []byte) (tail, out []byte) {
	n := len(t.tail)
	edge := t.tail
	if n > 0 {
		edge = append(append(make([]byte, 0, n+t.longest), t.tail...), data[:min(len(data), t.longest-1)]...)
	}
	out = data
	copied := false
	hide := func(from, to int) { // in data
		if !copied {
			out, copied = append([]byte(nil), data...), true
		}
		for i := max(from, 0); i < min(to, len(out)); i++ {
			out[i] = maskByte(i - from)
		}
	}
	for _, s := range t.secrets {
		for at := 0; n > 0; {
			i := bytes.Index(edge[at:], s)
			if i < 0 || at+i >= n {
				break
			}
			at += i
			if at+len(s) > n { // begins in the tail, ends in data
				if tail == nil {
					tail = append([]byte(nil), t.tail...)
				}
				for k := at; k < n; k++ {
					tail[k] = maskByte(k - at)
				}
				hide(at-n, at-n+len(s))
			}
			at++
		}
		for at := 0; ; {
			i := bytes.Index(data[at:], s)
			if i < 0 {
				break
			}
			hide(at+i, at+i+len(s))
			at += i + len(s)
		}
	}
	if tail != nil {
		// Keep what was covered in the tail before: it is not secret, only its
		// bytes on disk differ.
		stored := make([]byte, n)
		if _, err := t.file.ReadAt(stored, t.size-int64(n)); err == nil {
			for i := range tail {
				if tail[i] == t.tail[i] {
					tail[i] = stored[i]
				}
			}
		}
	}
	return tail, out
}

func maskByte(i int) byte {
	if i < len(mask) {
		return mask[i]
	}
	return '*'
}

// nextTail returns the last bytes of the trace after data, as received.
func (t *trace) nextTail(data []byte) []byte {
	want := t.longest - 1
	if len(data) >= want {
		return append([]byte(nil), data[len(data)-want:]...)
	}
	all := append(append([]byte(nil), t.tail...), data...)
	if len(all) > want {
		all = all[len(all)-want:]
	}
	return all
}

// held is how many bytes at the end of the tail may be the beginning of a
// secret, and are not shown yet.
func (t *trace) held(tail []byte) int {
	n := 0
	for _, s := range t.secrets {
		for k := min(len(s)-1, len(tail)); k > n; k-- {
			if bytes.HasSuffix(tail, s[:k]) {
				n = k
				break
			}
		}
	}
	return n
}

// check compares the trace with the runner's idea of it, and empties it where
// they differ; after three times the trace stays as it is. The checksum is that
// of the protocol, "crc32:%08x".
func (t *trace) check(checksum string, size int64) (ok bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if (checksum == "" || checksum == fmt.Sprintf("crc32:%08x", t.crc)) && (size == 0 || size == t.size) || t.resets >= 3 {
		return true, nil
	}
	t.resets++
	if t.file == nil {
		return true, nil
	}
	if err := t.file.Truncate(0); err != nil {
		return false, fmt.Errorf("pipeline: trace: %w", err)
	}
	t.size, t.crc, t.tail, t.shown = 0, 0, nil, 0
	return false, nil
}

// stored returns the bytes that are stored.
func (t *trace) stored() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size
}

// visible returns the bytes that may be read.
func (t *trace) visible() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown
}

// close ends the trace; everything may be read then.
func (t *trace) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file, t.shown = nil, t.size
	return err
}

// watchers wakes those who follow the trace of a job.
type watchers struct {
	mu        sync.Mutex
	of        map[int64]chan struct{}
	followers map[int64]int
}

// follow counts somebody who reads the job's log; the function returned ends
// that.
func (w *watchers) follow(jobID int64) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.followers == nil {
		w.followers = map[int64]int{}
	}
	w.followers[jobID]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.followers[jobID]--; w.followers[jobID] <= 0 {
			delete(w.followers, jobID)
		}
	}
}

// next returns a channel that is closed at the job's next change.
func (w *watchers) next(jobID int64) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = map[int64]chan struct{}{}
	}
	c := w.of[jobID]
	if c == nil {
		c = make(chan struct{})
		w.of[jobID] = c
	}
	return c
}

// trim wakes everybody when many channels were asked for and never closed, so
// that they do not pile up; a wake-up without a change does no harm.
func (w *watchers) trim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.of) < 10000 {
		return
	}
	for id, c := range w.of {
		close(c)
		delete(w.of, id)
	}
}

func (w *watchers) notify(jobID int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.of[jobID]; c != nil {
		close(c)
		delete(w.of, jobID)
	}
}

// removeFile deletes a file that may be gone already.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pipeline: %w", err)
	}
	return nil
}

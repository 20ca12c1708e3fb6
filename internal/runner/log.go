package runner

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// Colours and controls of the trace, as in the official runner.
const (
	ansiRed    = "\x1b[31;1m"
	ansiGreen  = "\x1b[32;1m"
	ansiCyan   = "\x1b[36;1m"
	ansiYellow = "\x1b[0;33m"
	ansiReset  = "\x1b[0;m"
	ansiClear  = "\x1b[0K"
)

// Log writes the runner's and the executor's own words to a job's trace. It is
// safe for concurrent use.
type Log struct {
	mu       sync.Mutex
	w        io.Writer
	now      func() time.Time
	sections bool
}

// NewLog returns a Log that writes to w. Sections are marked only when the
// coordinator understands them.
func NewLog(w io.Writer, sections bool, now func() time.Time) *Log {
	return &Log{w: w, sections: sections, now: now}
}

// Print writes one plain line.
func (l *Log) Print(format string, args ...any) { l.line("", format, args...) }

// Notice writes one green line.
func (l *Log) Notice(format string, args ...any) { l.line(ansiGreen, format, args...) }

// Warn writes one line that starts with WARNING.
func (l *Log) Warn(format string, args ...any) { l.line(ansiYellow+"WARNING: ", format, args...) }

// Error writes one line that starts with ERROR.
func (l *Log) Error(format string, args ...any) { l.line(ansiRed+"ERROR: ", format, args...) }

func (l *Log) line(colour, format string, args ...any) {
	l.Raw(ansiClear + colour + fmt.Sprintf(format, args...) + ansiReset + "\n")
}

// Raw writes text as it is. An error of the trace is the trace's to report.
func (l *Log) Raw(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.w, text)
}

// Section runs fn between a section's markers.
func (l *Log) Section(name, title string, fn func() error) error {
	if l.sections {
		l.Raw(fmt.Sprintf("section_start:%d:%s\r%s", l.now().Unix(), name, ansiClear))
		defer func() { l.Raw(fmt.Sprintf("section_end:%d:%s\r%s", l.now().Unix(), name, ansiClear)) }()
	}
	l.line(ansiCyan, "%s", title)
	return fn()
}

// stamper puts the official runner's line header before each line: time,
// stream and whether the line continues the one before
// (`2026-11-23T05:28:45.495403Z 01O text`). It is not safe for concurrent use.
type stamper struct {
	w        io.Writer
	now      func() time.Time
	stream   string // two hex digits and O or E
	partial  bool   // the next line continues the last one
	held     []byte
	headline []byte
}

// maxHeldLine is how much of an unfinished line waits for its end.
const maxHeldLine = 8 << 10

func newStamper(w io.Writer, stream string, now func() time.Time) *stamper {
	return &stamper{w: w, stream: stream, now: now}
}

func (s *stamper) header(to []byte) []byte {
	to = s.now().UTC().AppendFormat(to, "2006-01-02T15:04:05.000000Z ")
	to = append(to, s.stream...)
	if s.partial {
		return append(to, '+')
	}
	return append(to, ' ')
}

// Write forwards whole lines, and unfinished ones that a carriage return ends
// or that are too long to hold.
func (s *stamper) Write(p []byte) (int, error) {
	out := s.headline[:0]
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			s.held = append(s.held, rest...)
			break
		}
		out = s.line(out, rest[:end])
		s.partial = false
		rest = rest[end+1:]
	}
	if len(s.held) > maxHeldLine || bytes.IndexByte(s.held, '\r') >= 0 {
		out = s.line(out, nil)
		s.partial = true
	}
	s.headline = out[:0]
	if len(out) == 0 {
		return len(p), nil
	}
	if _, err := s.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *stamper) line(out, text []byte) []byte {
	out = s.header(out)
	out = append(out, s.held...)
	s.held = s.held[:0]
	return append(append(out, text...), '\n')
}

// Close forwards an unfinished last line.
func (s *stamper) Close() error {
	if len(s.held) == 0 {
		return nil
	}
	_, err := s.w.Write(s.line(nil, nil))
	return err
}

// stream is one of the trace's streams: masked, then stamped.
type stream struct {
	mu     sync.Mutex
	masker *masker
	stamps *stamper // nil: no stamps
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.masker.Write(p)
}

func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.masker.Close()
	if s.stamps != nil {
		if closeErr := s.stamps.Close(); err == nil {
			err = closeErr
		}
	}
	return err
}

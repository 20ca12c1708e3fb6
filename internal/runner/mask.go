package runner

import (
	"bytes"
	"io"
	"sort"
)

// masked is what the trace shows in place of a secret.
const masked = "[MASKED]"

// masker replaces secrets in a stream, also those split across writes. A tail
// that may be the start of a secret is held back until the next Write or Close.
// It is not safe for concurrent use.
type masker struct {
	w       io.Writer
	phrases [][]byte // longest first
	starts  [256]bool
	prefix  [][]byte // token prefixes: what follows them is masked too
	held    []byte
	inToken bool
}

// newMasker masks the phrases, and everything of a token's alphabet that
// follows one of the prefixes. Empty phrases are ignored.
func newMasker(w io.Writer, phrases, prefixes []string) *masker {
	m := &masker{w: w}
	for _, list := range []struct {
		from []string
		to   *[][]byte
	}{{phrases, &m.phrases}, {prefixes, &m.prefix}} {
		for _, phrase := range list.from {
			if phrase != "" {
				*list.to = append(*list.to, []byte(phrase))
				m.starts[phrase[0]] = true
			}
		}
		to := *list.to
		sort.SliceStable(to, func(i, j int) bool { return len(to[i]) > len(to[j]) })
	}
	return m
}

// Write forwards p with secrets replaced.
func (m *masker) Write(p []byte) (int, error) {
	data := p
	if len(m.held) > 0 {
		data = append(m.held, p...)
		m.held = nil
	}
	rest, err := m.scan(data, false)
	m.held = append([]byte(nil), rest...)
	return len(p), err
}

// Close forwards what was held back. It does not close the writer below.
func (m *masker) Close() error {
	_, err := m.scan(m.held, true)
	m.held = nil
	return err
}

// scan forwards data and returns the tail that needs more bytes to decide.
func (m *masker) scan(data []byte, last bool) (rest []byte, err error) {
	from := 0 // start of what is not forwarded yet
	emit := func(to int, text string) {
		if err == nil && to > from {
			_, err = m.w.Write(data[from:to])
		}
		if err == nil && text != "" {
			_, err = io.WriteString(m.w, text)
		}
	}
	for i := 0; i < len(data); {
		if m.inToken {
			for from = i; i < len(data) && tokenByte(data[i]); i++ {
			}
			from = i
			m.inToken = i == len(data)
			continue
		}
		if !m.starts[data[i]] {
			i++
			continue
		}
		length, token, more := m.match(data[i:], last)
		switch {
		case more:
			emit(i, "")
			return data[i:], err
		case length > 0:
			emit(i, masked)
			i += length
			from, m.inToken = i, token
		default:
			i++
		}
	}
	emit(len(data), "")
	return nil, err
}

// match reports the length of the secret that data starts with, whether it is
// the prefix of a token, or that more bytes are needed to tell.
func (m *masker) match(data []byte, last bool) (length int, token, more bool) {
	for _, phrase := range m.phrases {
		if bytes.HasPrefix(data, phrase) {
			return len(phrase), false, false
		}
		if !last && len(data) < len(phrase) && bytes.HasPrefix(phrase, data) {
			return 0, false, true
		}
	}
	for _, prefix := range m.prefix {
		if bytes.HasPrefix(data, prefix) {
			return len(prefix), true, false
		}
		if !last && len(data) < len(prefix) && bytes.HasPrefix(prefix, data) {
			return 0, false, true
		}
	}
	return 0, false, false
}

func tokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '='
}

// Package mailtest is a small SMTP server for tests: it keeps what it is sent.
package mailtest

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Mail is a message that arrived.
type Mail struct {
	User string // that signed in
	From string
	To   []string
	Data string // the message, with CRLF
}

// Server keeps messages.
type Server struct {
	Host string
	Port int

	mu     sync.Mutex
	refuse string
	mails  []Mail
	came   chan struct{}
}

// New starts a server on 127.0.0.1 that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	s := &Server{Host: "127.0.0.1", Port: addr.Port, came: make(chan struct{}, 1000)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return s
}

// Refuse answers the next recipient with a line such as "550 no"; "" accepts.
func (s *Server) Refuse(answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = answer
}

// Wait waits until n messages have arrived and returns all.
func (s *Server) Wait(t testing.TB, n int) []Mail {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		mails := append([]Mail(nil), s.mails...)
		s.mu.Unlock()
		if len(mails) >= n {
			return mails
		}
		select {
		case <-s.came:
		case <-deadline:
			t.Fatalf("%d of %d mails came", len(mails), n)
		}
	}
}

func (s *Server) serve(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // a test never takes longer
	r := bufio.NewReader(c)
	say := func(line string) { fmt.Fprint(c, line+"\r\n") }
	say("220 test")
	var m Mail
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb := strings.ToUpper(line)
		switch {
		case strings.HasPrefix(verb, "EHLO"):
			say("250-test\r\n250-AUTH PLAIN\r\n250 8BITMIME")
		case strings.HasPrefix(verb, "AUTH PLAIN"):
			raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line[len("AUTH PLAIN"):]))
			if parts := strings.Split(string(raw), "\x00"); err == nil && len(parts) == 3 {
				m.User = parts[1]
			}
			say("235 ok")
		case strings.HasPrefix(verb, "MAIL FROM:"):
			m.From = address(line)
			say("250 ok")
		case strings.HasPrefix(verb, "RCPT TO:"):
			s.mu.Lock()
			refuse := s.refuse
			s.refuse = ""
			s.mu.Unlock()
			if refuse != "" {
				say(refuse)
				continue
			}
			m.To = append(m.To, address(line))
			say("250 ok")
		case verb == "DATA":
			say("354 go on")
			var b strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				b.WriteString(strings.TrimPrefix(line, "."))
			}
			m.Data = b.String()
			s.mu.Lock()
			s.mails = append(s.mails, m)
			s.mu.Unlock()
			s.came <- struct{}{}
			m = Mail{User: m.User}
			say("250 ok")
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func address(line string) string {
	_, rest, _ := strings.Cut(line, "<")
	a, _, _ := strings.Cut(rest, ">")
	return a
}

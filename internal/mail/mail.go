// Package mail sends e-mail by an SMTP server. It receives messages, keeps
// nothing, and knows nothing of what they are about; who sends keeps them until
// they are accepted.
//
// It must not import any stage.
package mail

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"time"
	"unicode"

	"github.com/slipwayhq/slipway/internal/delivery"
	gomail "github.com/wneessen/go-mail"
)

// The ways to protect a connection.
const (
	StartTLS = "starttls" // begins in the clear, must go on encrypted
	TLS      = "tls"      // encrypted from the start
	None     = "none"     // in the clear; for a server on the same machine
)

const sendTimeout = 30 * time.Second // of one message

// Options say how to reach the server.
type Options struct {
	Host       string
	Port       int
	Encryption string // StartTLS, TLS or None
	Username   string // empty: no sign-in
	Password   string
	From       string // "Slipway <slipway@example.com>", or the address alone
	Hello      string // the name that it gives in HELO; empty: this machine's
}

// Message is a text to one person.
type Message struct {
	ToName, To string
	FromName   string // shown instead of the configured name
	Subject    string
	Text       string
	ID         string            // Message-ID without angle brackets
	Thread     string            // the Message-ID that it answers, likewise
	Headers    map[string]string // further ones
}

// Sender sends messages; it is safe for concurrent use.
type Sender struct {
	o    Options
	from mail.Address
}

// New checks the options; it does not connect.
func New(o Options) (*Sender, error) {
	from, err := mail.ParseAddress(o.From)
	if err != nil {
		return nil, fmt.Errorf("mail: from %q is not an address: %w", o.From, err)
	}
	switch o.Encryption {
	case StartTLS, TLS, None:
	default:
		return nil, fmt.Errorf("mail: encryption %q is none of starttls, tls, none", o.Encryption)
	}
	return &Sender{o: o, from: *from}, nil
}

// Send hands a message to the server. The error is of kind Invalid when the
// server will never take it, of kind Unavailable when it may do so later.
func (s *Sender) Send(ctx context.Context, m Message) error {
	msg, err := s.compose(m)
	if err != nil {
		return &delivery.Error{Kind: delivery.Invalid, Op: "mail: compose", Err: err}
	}
	options := []gomail.Option{gomail.WithPort(s.o.Port), gomail.WithTimeout(sendTimeout)}
	if s.o.Hello != "" {
		options = append(options, gomail.WithHELO(s.o.Hello))
	}
	switch s.o.Encryption {
	case TLS:
		options = append(options, gomail.WithSSL())
	case StartTLS:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	}
	if s.o.Username != "" {
		auth := gomail.SMTPAuthAutoDiscover
		if s.o.Encryption == None {
			auth = gomail.SMTPAuthPlainNoEnc
		}
		options = append(options, gomail.WithSMTPAuth(auth), gomail.WithUsername(s.o.Username), gomail.WithPassword(s.o.Password))
	}
	client, err := gomail.NewClient(s.o.Host, options...)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err = client.DialAndSendWithContext(ctx, msg)
	if err == nil {
		return nil
	}
	kind := delivery.Unavailable
	var failed *gomail.SendError
	if errors.As(err, &failed) && !failed.IsTemp() && failed.ErrorCode() >= 500 {
		kind = delivery.Invalid
	}
	return &delivery.Error{Kind: kind, Op: "mail: send", Message: "The mail server did not take the message.", Err: err}
}

func (s *Sender) compose(m Message) (*gomail.Msg, error) {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	name := s.from.Name
	if m.FromName != "" {
		name = m.FromName
	}
	if err := msg.FromFormat(oneLine(name), s.from.Address); err != nil {
		return nil, err
	}
	if err := msg.AddToFormat(oneLine(m.ToName), m.To); err != nil {
		return nil, err
	}
	msg.Subject(oneLine(m.Subject))
	msg.SetDate()
	msg.SetMessageIDWithValue(m.ID)
	if m.Thread != "" && m.Thread != m.ID {
		msg.SetGenHeader(gomail.HeaderInReplyTo, "<"+m.Thread+">")
		msg.SetGenHeader(gomail.HeaderReferences, "<"+m.Thread+">")
	}
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	for k, v := range m.Headers {
		msg.SetGenHeader(gomail.Header(k), oneLine(v))
	}
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	return msg, nil
}

// oneLine keeps a text from ending a header.
func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s))
}

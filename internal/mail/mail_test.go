package mail_test

import (
	"net/mail"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
	slipmail "github.com/slipwayhq/slipway/internal/mail"
	"github.com/slipwayhq/slipway/internal/mail/mailtest"
)

func TestSend(t *testing.T) {
	t.Parallel()
	server := mailtest.New(t)
	s, err := slipmail.New(slipmail.Options{Host: server.Host, Port: server.Port, Encryption: slipmail.None, Username: "u", Password: "p", From: "Slipway <slip@example.com>"})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Send(t.Context(), slipmail.Message{ToName: "Zoë", To: "zoe@example.com", FromName: "Ann\r\nBcc: x@example.com", Subject: "Überschrift\r\nX: y", Text: "Hé\n.\nend\n", ID: "1@h", Thread: "0@h", Headers: map[string]string{"X-GitLab-Project": "app"}})
	if err != nil {
		t.Fatal(err)
	}
	got := server.Wait(t, 1)[0]
	if got.From != "slip@example.com" || strings.Join(got.To, ",") != "zoe@example.com" || got.User != "u" {
		t.Errorf("%+v", got)
	}
	m, err := mail.ReadMessage(strings.NewReader(got.Data))
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Message-ID") != "<1@h>" || m.Header.Get("In-Reply-To") != "<0@h>" || m.Header.Get("Bcc") != "" || m.Header.Get("X") != "" || m.Header.Get("X-GitLab-Project") != "app" {
		t.Errorf("%+v", m.Header)
	}
	server.Refuse("550 no such person")
	if err := s.Send(t.Context(), slipmail.Message{To: "gone@example.com", Subject: "x", Text: "x", ID: "2@h"}); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("refused for good: %v", err)
	}
	server.Refuse("451 later")
	if err := s.Send(t.Context(), slipmail.Message{To: "later@example.com", Subject: "x", Text: "x", ID: "3@h"}); delivery.KindOf(err) != delivery.Unavailable {
		t.Errorf("refused for now: %v", err)
	}
	if err := s.Send(t.Context(), slipmail.Message{To: "nobody", Subject: "x", Text: "x", ID: "4@h"}); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("no address: %v", err)
	}
	away, err := slipmail.New(slipmail.Options{Host: "127.0.0.1", Port: 1, Encryption: slipmail.StartTLS, Username: "u", Password: "secret", From: "a@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	err = away.Send(t.Context(), slipmail.Message{To: "a@example.com", Subject: "x", Text: "x", ID: "5@h"})
	if delivery.KindOf(err) != delivery.Unavailable || strings.Contains(err.Error(), "secret") {
		t.Errorf("a server that is away: %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []slipmail.Options{{From: "nobody", Encryption: "tls"}, {From: "a@example.com", Encryption: "ssl"}} {
		if _, err := slipmail.New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

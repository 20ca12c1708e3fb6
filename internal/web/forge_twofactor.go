package web

import (
	"fmt"
	"html/template"
	"image/color"
	"net/http"
	"net/url"
	"strings"

	"github.com/boombuler/barcode/qr"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func (s *Server) twoFactorRoutes() {
	s.handleOwn("GET /profile/two_factor", s.twoFactorPage)
	s.handleOwn("POST /profile/two_factor", s.beginTwoFactor)
	s.handleOwn("POST /profile/two_factor/confirm", s.confirmTwoFactor)
	s.handleOwn("POST /profile/two_factor/codes", s.renewRecoveryCodes)
	s.handleOwn("POST /profile/two_factor/disable", s.disableTwoFactor)
}

// twoFactorView is the second factor of the signed-in person's account.
type twoFactorView struct {
	Tab     string
	On      bool
	Address template.URL // otpauth://, while one is being set up
	Secret  string       // of the address, in groups of four for typing
	QR      template.HTML
	Codes   []string // shown once
	Error   string
}

func (s *Server) twoFactorPage(w http.ResponseWriter, r *Request) error {
	return s.showTwoFactor(w, r, http.StatusOK, twoFactorView{})
}

func (s *Server) showTwoFactor(w http.ResponseWriter, r *Request, status int, v twoFactorView) error {
	a, err := s.Access.Account(r.Context(), r.Who.User.ID)
	if err != nil {
		return err
	}
	v.Tab, v.On = "two_factor", a.TOTPSecret != ""
	if address := s.Access.PendingTOTP(a, s.issuer()); address != "" {
		v.Address = template.URL(address) //nolint:gosec // made by us
		for i := 0; i < len(a.TOTPPending); i += 4 {
			v.Secret += a.TOTPPending[i:min(i+4, len(a.TOTPPending))] + " "
		}
		if v.QR, err = qrSVG(address); err != nil {
			return err
		}
	}
	return s.render(w, r, status, "forge_twofactor", Page{Title: "Two-factor authentication", Data: v})
}

// issuer names this platform in authenticators.
func (s *Server) issuer() string {
	if u, err := url.Parse(s.ExternalURL); err == nil && u.Host != "" {
		return s.Title + " " + u.Hostname()
	}
	return s.Title
}

// qrSVG draws a text as a QR code, dark on light in any colour scheme.
func qrSVG(text string) (template.HTML, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return "", fmt.Errorf("web: QR code: %w", err)
	}
	const quiet = 4 // modules around it, ISO/IEC 18004
	size := code.Bounds().Dx()
	var path strings.Builder
	for y := range size {
		for x := range size {
			if code.At(x, y) == color.Black {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	full := size + 2*quiet
	return template.HTML(fmt.Sprintf(`<svg class="qr" viewBox="0 0 %d %d" role="img" aria-label="QR code for the authenticator" shape-rendering="crispEdges"><rect width="%d" height="%d" fill="#fff"/><path d="%s" fill="#000"/></svg>`, full, full, full, full, path.String())), nil //nolint:gosec // digits only
}

// withPassword runs fn after the caller has given the password once more, and
// shows what was wrong.
func (s *Server) withPassword(w http.ResponseWriter, r *Request, fn func() error) error {
	err := s.Access.CheckPassword(r.Context(), r.Who, r.FormValue("current_password"), clientAddress(r.Request))
	if err == nil {
		return fn()
	}
	if delivery.KindOf(err) == delivery.Invalid {
		err = &delivery.Error{Kind: delivery.Invalid, Message: "The password is wrong.", Err: err}
	}
	message, status, rest := correctable(err)
	if rest != nil {
		return rest
	}
	return s.showTwoFactor(w, r, status, twoFactorView{Error: message})
}

func (s *Server) beginTwoFactor(w http.ResponseWriter, r *Request) error {
	return s.withPassword(w, r, func() error {
		if _, err := s.Access.BeginTOTP(r.Context(), r.Who.User.ID, s.issuer()); err != nil {
			return err
		}
		return redirect(w, r, "/profile/two_factor", "")
	})
}

func (s *Server) confirmTwoFactor(w http.ResponseWriter, r *Request) error {
	codes, err := s.Access.ConfirmTOTP(r.Context(), r.Who, r.Who.User.ID, strings.ReplaceAll(strings.TrimSpace(r.FormValue("code")), " ", ""))
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	return s.showTwoFactor(w, r, status, twoFactorView{Codes: codes, Error: message})
}

func (s *Server) renewRecoveryCodes(w http.ResponseWriter, r *Request) error {
	return s.withPassword(w, r, func() error {
		codes, err := s.Access.RenewRecoveryCodes(r.Context(), r.Who, r.Who.User.ID)
		message, status, err := correctable(err)
		if err != nil {
			return err
		}
		return s.showTwoFactor(w, r, status, twoFactorView{Codes: codes, Error: message})
	})
}

func (s *Server) disableTwoFactor(w http.ResponseWriter, r *Request) error {
	return s.withPassword(w, r, func() error {
		if err := s.Access.DisableTOTP(r.Context(), r.Who, r.Who.User.ID); err != nil {
			return err
		}
		return redirect(w, r, "/profile/two_factor", "Two-factor authentication is off.")
	})
}

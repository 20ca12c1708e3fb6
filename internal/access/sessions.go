package access

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// ErrCodeNeeded says that the password was right but the account also asks for
// a code of its second factor.
var ErrCodeNeeded = &delivery.Error{Kind: delivery.Unauthenticated, Op: "access: sign in", Message: "This account needs a code of its authenticator.", Next: "Enter the six digits that it shows, or a recovery code."}

// SignIn checks a login (user name or e-mail) and a password, and the code
// where the account has a second factor, and starts a session. It returns the
// session's secret for SetCookie. Wrong credentials are Unauthenticated
// (ErrCodeNeeded when only the code is missing), too many failures TooMany.
func (s *Service) SignIn(ctx context.Context, login, password, code, address, agent string) (string, delivery.User, error) {
	var user delivery.User
	_, err := s.throttled(ctx, login, address, func() (delivery.Identity, error) {
		a, err := s.checkLogin(ctx, login, password, verifyPassword)
		if err != nil {
			return delivery.Identity{}, err
		}
		if a.TOTPSecret != "" {
			if code == "" {
				return delivery.Identity{}, ErrCodeNeeded
			}
			if ok, err := s.checkCode(ctx, a, code); err != nil || !ok {
				if err == nil {
					err = &delivery.Error{Kind: delivery.Unauthenticated, Message: "The code is wrong or was used before."}
				}
				return delivery.Identity{}, err
			}
		}
		user = a.User
		a.LastSignIn = s.now()
		return delivery.Identity{}, s.store.UpdateUser(ctx, a)
	})
	ctx = WithAddress(ctx, address)
	if err != nil {
		if delivery.KindOf(err) == delivery.Unauthenticated && err != error(ErrCodeNeeded) {
			s.audit(ctx, delivery.Identity{Name: clip(login, 100)}, "session.failed", "user", 0, clip(login, 100), "")
		}
		if err == error(ErrWrongCredentials) {
			err = &delivery.Error{Kind: delivery.Unauthenticated, Message: "The user name or the password is wrong."}
		}
		return "", delivery.User{}, err
	}
	secret := rand.Text() + rand.Text()
	now := s.now()
	_, err = s.store.CreateSession(ctx, digest(secret), Session{UserID: user.ID, Address: address, Agent: clip(agent, 300), CreatedAt: now, LastSeen: now, ExpiresAt: now.Add(s.lifetime)})
	if err != nil {
		return "", delivery.User{}, err
	}
	s.audit(ctx, delivery.Identity{User: &user, Name: user.Username}, "session.started", "user", user.ID, user.Username, "")
	return secret, user, nil
}

func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "")
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// SetCookie gives the browser the secret of its session.
func (s *Service) SetCookie(w http.ResponseWriter, secret string) {
	http.SetCookie(w, &http.Cookie{Name: SessionCookie, Value: secret, Path: "/", HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode, MaxAge: int(s.lifetime / time.Second)})
}

// ClearCookie makes the browser forget its session.
func (s *Service) ClearCookie(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{Name: SessionCookie, Path: "/", HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode, MaxAge: -1})
}

// SessionIdentity tells whose session it is. An unknown or ended session gives
// the anonymous identity and no error.
func (s *Service) SessionIdentity(ctx context.Context, secret string) (delivery.Identity, Session, error) {
	session, err := s.store.SessionByHash(ctx, digest(secret))
	if delivery.IsNotFound(err) {
		return delivery.Identity{}, Session{}, nil
	}
	if err != nil {
		return delivery.Identity{}, Session{}, err
	}
	now := s.now()
	if now.After(session.ExpiresAt) {
		return delivery.Identity{}, Session{}, nil
	}
	a, err := s.store.UserByID(ctx, session.UserID)
	if err != nil {
		return delivery.Identity{}, Session{}, err
	}
	if a.Blocked {
		return delivery.Identity{}, Session{}, nil
	}
	if s.used.due("session", session.ID, now) {
		if err := s.store.TouchSession(context.WithoutCancel(ctx), session.ID, now, now.Add(s.lifetime)); err != nil {
			s.log.Warn("last use of a session not stored", "session", session.ID, "err", err)
		}
	}
	return identity(a, delivery.SessionUser), session, nil
}

// SignOut ends the session that has the secret.
func (s *Service) SignOut(ctx context.Context, secret string) error {
	session, err := s.store.SessionByHash(ctx, digest(secret))
	if delivery.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.store.DeleteSessions(ctx, session.UserID, session.ID, 0)
}

// Sessions lists the user's sessions, newest first.
func (s *Service) Sessions(ctx context.Context, userID int64) ([]Session, error) {
	return s.store.Sessions(ctx, userID)
}

// EndSession ends one session of the user.
func (s *Service) EndSession(ctx context.Context, who delivery.Identity, userID, id int64) error {
	if err := s.store.DeleteSessions(ctx, userID, id, 0); err != nil {
		return err
	}
	s.audit(ctx, who, "session.ended", "user", userID, "", "")
	return nil
}

// EndSessions ends all sessions of the user but keep, which may be 0.
func (s *Service) EndSessions(ctx context.Context, who delivery.Identity, userID, keep int64) error {
	if err := s.store.DeleteSessions(ctx, userID, 0, keep); err != nil {
		return err
	}
	s.audit(ctx, who, "session.all_ended", "user", userID, "", "")
	return nil
}

const totpPeriod = 30 // seconds, RFC 6238

// BeginTOTP makes a secret for the user's authenticator and returns it as an
// otpauth:// address; it counts once ConfirmTOTP has seen a right code.
func (s *Service) BeginTOTP(ctx context.Context, userID int64, issuer string) (string, error) {
	a, err := s.store.UserByID(ctx, userID)
	if err != nil {
		return "", err
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: issuer, AccountName: a.Username, Period: totpPeriod})
	if err != nil {
		return "", err
	}
	a.TOTPPending = key.Secret()
	if err := s.store.UpdateUser(ctx, a); err != nil {
		return "", err
	}
	return key.URL(), nil
}

// ConfirmTOTP turns the second factor on and returns ten recovery codes, each
// of which replaces a code once.
func (s *Service) ConfirmTOTP(ctx context.Context, who delivery.Identity, userID int64, code string) ([]string, error) {
	a, err := s.store.UserByID(ctx, userID)
	if err != nil {
		return nil, err
	}
	if a.TOTPPending == "" {
		return nil, delivery.Errorf(delivery.Invalid, "No authenticator is being set up.")
	}
	if _, ok := matchTOTP(a.TOTPPending, code, s.now()); !ok {
		return nil, &delivery.Error{Kind: delivery.Invalid, Message: "The code is wrong.", Next: "Check the clock of the device and try the next code."}
	}
	codes, err := s.newRecoveryCodes(ctx, userID)
	if err != nil {
		return nil, err
	}
	a.TOTPSecret, a.TOTPPending = a.TOTPPending, ""
	if err := s.store.UpdateUser(ctx, a); err != nil {
		return nil, err
	}
	s.audit(ctx, who, "user.two_factor_enabled", "user", userID, a.Username, "")
	return codes, nil
}

// CheckPassword reports whether it is the caller's own password, for changes
// that a session left open must not make. Failures count as those of signing
// in do.
func (s *Service) CheckPassword(ctx context.Context, who delivery.Identity, password, address string) error {
	if who.User == nil {
		return ErrWrongCredentials
	}
	_, err := s.throttled(ctx, who.User.Username, address, func() (delivery.Identity, error) {
		_, err := s.checkLogin(ctx, who.User.Username, password, verifyPassword)
		return delivery.Identity{}, err
	})
	if err == error(ErrWrongCredentials) {
		return invalid("current_password", "is wrong")
	}
	return err
}

// RenewRecoveryCodes replaces the recovery codes of an account that has a
// second factor, and returns the new ones.
func (s *Service) RenewRecoveryCodes(ctx context.Context, who delivery.Identity, userID int64) ([]string, error) {
	a, err := s.store.UserByID(ctx, userID)
	if err != nil {
		return nil, err
	}
	if a.TOTPSecret == "" {
		return nil, delivery.Errorf(delivery.Invalid, "There is no second factor.")
	}
	codes, err := s.newRecoveryCodes(ctx, userID)
	if err == nil {
		s.audit(ctx, who, "user.recovery_codes_renewed", "user", userID, a.Username, "")
	}
	return codes, err
}

func (s *Service) newRecoveryCodes(ctx context.Context, userID int64) ([]string, error) {
	codes, hashes := make([]string, 10), make([]string, 10)
	for i := range codes {
		codes[i] = strings.ToLower(rand.Text()[:16])
		hashes[i] = digest(codes[i])
	}
	return codes, s.store.SetRecoveryCodes(ctx, userID, hashes)
}

// PendingTOTP is the address for an authenticator that is being set up; empty
// where none is.
func (s *Service) PendingTOTP(a Account, issuer string) string {
	if a.TOTPPending == "" {
		return ""
	}
	q := url.Values{"secret": {a.TOTPPending}, "issuer": {issuer}, "period": {strconv.Itoa(totpPeriod)}, "digits": {"6"}, "algorithm": {"SHA1"}}
	return "otpauth://totp/" + url.PathEscape(issuer+":"+a.Username) + "?" + q.Encode()
}

// DisableTOTP turns the second factor off.
func (s *Service) DisableTOTP(ctx context.Context, who delivery.Identity, userID int64) error {
	a, err := s.store.UserByID(ctx, userID)
	if err != nil {
		return err
	}
	a.TOTPSecret, a.TOTPPending = "", ""
	if err := s.store.UpdateUser(ctx, a); err != nil {
		return err
	}
	if err := s.store.SetRecoveryCodes(ctx, userID, nil); err != nil {
		return err
	}
	s.audit(ctx, who, "user.two_factor_disabled", "user", userID, a.Username, "")
	return nil
}

// checkCode accepts a code of the authenticator, each step once, or a recovery
// code.
func (s *Service) checkCode(ctx context.Context, a Account, code string) (bool, error) {
	code = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(code), " ", ""))
	if step, ok := matchTOTP(a.TOTPSecret, code, s.now()); ok {
		return s.store.AcceptTOTP(ctx, a.ID, step)
	}
	if len(code) == 16 {
		return s.store.UseRecoveryCode(ctx, a.ID, digest(code))
	}
	return false, nil
}

// matchTOTP compares with the codes of now and one step to either side, and
// returns the step that matched.
func matchTOTP(secret, code string, now time.Time) (int64, bool) {
	if len(code) != 6 {
		return 0, false
	}
	for _, skew := range []int64{0, -1, 1} {
		at := now.Add(time.Duration(skew) * totpPeriod * time.Second)
		want, err := totp.GenerateCodeCustom(secret, at, totp.ValidateOpts{Period: totpPeriod, Digits: otp.DigitsSix})
		if err == nil && want == code {
			return at.Unix() / totpPeriod, true
		}
	}
	return 0, false
}

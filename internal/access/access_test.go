package access_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/seal"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/accessdb"
)

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

var system = delivery.Identity{Kind: delivery.SystemActor, Name: "test"}

func open(t *testing.T) (*access.Service, *clock) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "slipway.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	box, err := seal.New(make([]byte, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	return access.New(access.Options{Store: accessdb.New(db, box), Now: c.Now}), c
}

func person(t *testing.T, s *access.Service, name string) (delivery.User, delivery.Identity) {
	t.Helper()
	u, err := s.CreateUser(t.Context(), system, access.NewUser{Username: name, Email: name + "@example.com", Password: "correct horse"})
	if err != nil {
		t.Fatal(err)
	}
	return u, delivery.Identity{Kind: delivery.SessionUser, User: &u, Name: name}
}

func kind(t *testing.T, what string, err error, want delivery.Kind) {
	t.Helper()
	if got := delivery.KindOf(err); got != want {
		t.Errorf("%s: %v (%s), want %q", what, err, got, want)
	}
}

func TestAdministratorIsMadeOnce(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	password, err := s.EnsureAdministrator(t.Context())
	if err != nil || len(password) < 16 {
		t.Fatalf("%q %v", password, err)
	}
	if again, err := s.EnsureAdministrator(t.Context()); err != nil || again != "" {
		t.Errorf("again: %q %v", again, err)
	}
	if _, u, err := s.SignIn(t.Context(), "ROOT", password, "", "192.0.2.1", "test"); err != nil || !u.Admin {
		t.Errorf("%+v %v", u, err)
	}
	first, err := s.RenewAdminToken(t.Context(), "cli")
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.RenewAdminToken(t.Context(), "cli")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.AuthenticateBasic(t.Context(), "root", first, "")
	kind(t, "the earlier token", err, delivery.Unauthenticated)
	if who, err := s.AuthenticateBasic(t.Context(), "root", second, ""); err != nil || !who.User.Admin || !who.HasScope("anything") {
		t.Errorf("%+v %v", who, err)
	}
}

func TestPasswordsSessionsAndThrottling(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	u, who := person(t, s, "ann")
	secret, _, err := s.SignIn(t.Context(), "ann@example.com", "correct horse", "", "192.0.2.1", "browser")
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.SessionIdentity(t.Context(), secret); err != nil || got.User == nil || got.User.ID != u.ID {
		t.Errorf("%+v %v", got, err)
	}
	list, err := s.Sessions(t.Context(), u.ID)
	if err != nil || len(list) != 1 || list[0].Address != "192.0.2.1" {
		t.Errorf("%+v %v", list, err)
	}
	c.now = c.now.Add(15 * 24 * time.Hour)
	if got, _, _ := s.SessionIdentity(t.Context(), secret); got.Signed() {
		t.Error("an old session lives")
	}
	secret, _, err = s.SignIn(t.Context(), "ann", "correct horse", "", "192.0.2.1", "browser")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ChangePassword(t.Context(), who, "correct horse", "battery staple", 0); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := s.SessionIdentity(t.Context(), secret); got.Signed() {
		t.Error("a new password left a session open")
	}
	for range 10 {
		_, _, err := s.SignIn(t.Context(), "ann", "wrong", "", "198.51.100.7", "")
		kind(t, "wrong password", err, delivery.Unauthenticated)
	}
	_, _, err = s.SignIn(t.Context(), "ann", "battery staple", "", "198.51.100.7", "")
	kind(t, "after ten failures", err, delivery.TooMany)
	if _, _, err = s.SignIn(t.Context(), "ann", "battery staple", "", "192.0.2.1", ""); err != nil {
		t.Errorf("someone else's failures locked ann out: %v", err)
	}
	c.now = c.now.Add(11 * time.Minute)
	if _, _, err = s.SignIn(t.Context(), "ann", "battery staple", "", "198.51.100.7", ""); err != nil {
		t.Error(err)
	}
	for name, p := range map[string]string{"short": "1234567", "long": strings.Repeat("x", 129)} {
		_, err := s.UpdateUser(t.Context(), system, u.ID, access.UserChange{Password: &p})
		kind(t, name+" password", err, delivery.Invalid)
	}
	events, _, err := s.AuditEvents(t.Context(), access.AuditFilter{}, 100, 0)
	if err != nil || len(events) < 10 {
		t.Errorf("%d audit events %v", len(events), err)
	}
	for _, e := range events {
		if strings.Contains(e.Details+e.Target, "horse") || strings.Contains(e.Details+e.Target, "staple") {
			t.Errorf("a password is in the audit log: %+v", e)
		}
	}
}

func TestSecondFactor(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	u, who := person(t, s, "ann")
	url, err := s.BeginTOTP(t.Context(), u.ID, "Slipway")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(url, "secret=")
	key, _, _ := strings.Cut(rest, "&")
	code := func() string {
		v, err := totp.GenerateCode(key, c.now)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	_, err = s.ConfirmTOTP(t.Context(), who, u.ID, "000000x")
	kind(t, "wrong code", err, delivery.Invalid)
	recovery, err := s.ConfirmTOTP(t.Context(), who, u.ID, code())
	if err != nil || len(recovery) != 10 {
		t.Fatal(err)
	}
	signIn := func(code string) error {
		_, _, err := s.SignIn(t.Context(), "ann", "correct horse", code, "192.0.2.1", "")
		return err
	}
	if err := signIn(""); err != error(access.ErrCodeNeeded) {
		t.Errorf("without a code: %v", err)
	}
	if err := signIn(code()); err != nil {
		t.Error(err)
	}
	kind(t, "the same code again", signIn(code()), delivery.Unauthenticated)
	if err := signIn(recovery[3]); err != nil {
		t.Error(err)
	}
	kind(t, "the same recovery code again", signIn(recovery[3]), delivery.Unauthenticated)
	_, err = s.AuthenticateBasic(t.Context(), "ann", "correct horse", "")
	kind(t, "git with a password only", err, delivery.Unauthenticated)
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s, c := open(t)
	u, who := person(t, s, "ann")
	token, secret, err := s.CreatePersonalToken(t.Context(), who, u.ID, access.NewToken{Name: "t", Scopes: []string{"read_repository"}, ExpiresAt: c.now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	authenticate := func(header, value string) (delivery.Identity, error) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set(header, value)
		return s.Authenticate(r)
	}
	for header, value := range map[string]string{"PRIVATE-TOKEN": secret, "Authorization": "Bearer " + secret} {
		got, err := authenticate(header, value)
		if err != nil || got.User.ID != u.ID || got.HasScope("write_repository") || !got.HasScope("read_repository") {
			t.Errorf("%s: %+v %v", header, got, err)
		}
	}
	c.now = c.now.Add(2 * time.Hour)
	_, err = authenticate("PRIVATE-TOKEN", secret)
	kind(t, "an expired token", err, delivery.Unauthenticated)
	_, err = authenticate("JOB-TOKEN", "x")
	kind(t, "a job token without a validator", err, delivery.Unauthenticated)
	if stored, err := s.Token(t.Context(), token.ID); err != nil || strings.Contains(stored.Name+stored.Username, secret) {
		t.Errorf("%+v %v", stored, err)
	}
	_, _, err = s.CreatePersonalToken(t.Context(), who, u.ID, access.NewToken{Name: "t", Scopes: []string{"everything"}})
	kind(t, "an unknown scope", err, delivery.Invalid)
	name, read, err := s.RenewReadToken(t.Context(), "gitops")
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.AuthenticateBasic(t.Context(), name, read, "")
	if err != nil || got.HasScope("write_repository", "api") {
		t.Errorf("%+v %v", got, err)
	}
	if role, err := s.RoleIn(t.Context(), got, delivery.Project{ID: 99, Visibility: delivery.Private}); err != nil || role != delivery.Reporter {
		t.Errorf("%s %v", role, err)
	}
	_, err = s.AuthenticateBasic(t.Context(), "someone", read, "")
	kind(t, "a deploy token under another name", err, delivery.Unauthenticated)
}

func TestSessionsNeedTheSameOrigin(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	person(t, s, "ann")
	secret, _, err := s.SignIn(t.Context(), "ann", "correct horse", "", "192.0.2.1", "")
	if err != nil {
		t.Fatal(err)
	}
	for site, ok := range map[string]bool{"same-origin": true, "cross-site": false} {
		r := httptest.NewRequest(http.MethodPost, "/api/v4/projects", nil)
		r.AddCookie(&http.Cookie{Name: access.SessionCookie, Value: secret})
		r.Header.Set("Sec-Fetch-Site", site)
		if _, err := s.Authenticate(r); (err == nil) != ok {
			t.Errorf("%s: %v", site, err)
		}
	}
}

func TestGroupsInheritAndHide(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	_, ann := person(t, s, "ann")
	bob, bobID := person(t, s, "bob")
	_, eve := person(t, s, "eve")
	top, err := s.CreateGroup(t.Context(), ann, access.NewGroup{Path: "top"})
	if err != nil {
		t.Fatal(err)
	}
	sub, err := s.CreateGroup(t.Context(), ann, access.NewGroup{Path: "sub", ParentID: top.ID})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetMember(t.Context(), ann, delivery.Owner, access.Member{User: bob, Role: delivery.Developer, GroupID: top.ID}); err != nil {
		t.Fatal(err)
	}
	if _, role, err := s.VisibleGroup(t.Context(), bobID, "top/SUB"); err != nil || role != delivery.Developer {
		t.Errorf("%s %v", role, err)
	}
	_, _, err = s.VisibleGroup(t.Context(), eve, "top/sub")
	kind(t, "eve", err, delivery.NotFound)
	_, _, err = s.VisibleGroup(context.Background(), delivery.Identity{}, "top")
	kind(t, "anonymous", err, delivery.NotFound)
	_, err = s.CreateGroup(t.Context(), eve, access.NewGroup{Path: "x", ParentID: top.ID})
	kind(t, "eve makes a subgroup", err, delivery.NotFound)
	_, err = s.CreateGroup(t.Context(), bobID, access.NewGroup{Path: "x", ParentID: top.ID})
	kind(t, "a developer makes a subgroup", err, delivery.Forbidden)
	_, err = s.CreateGroup(t.Context(), ann, access.NewGroup{Path: "open", ParentID: top.ID, Visibility: delivery.Public})
	kind(t, "a public group in a private one", err, delivery.Invalid)
	_, err = s.SetMember(t.Context(), bobID, delivery.Maintainer, access.Member{User: bob, Role: delivery.Owner, GroupID: top.ID})
	kind(t, "a role above one's own", err, delivery.Forbidden)
	kind(t, "the last owner leaves", s.RemoveMember(t.Context(), ann, delivery.Owner, top.ID, 0, ann.User.ID), delivery.Forbidden)
	path := "peak"
	if _, err := s.UpdateGroup(t.Context(), ann, top, access.GroupChange{Path: &path}); err != nil {
		t.Fatal(err)
	}
	if g, _, err := s.VisibleGroup(t.Context(), bobID, "peak/sub"); err != nil || g.ID != sub.ID {
		t.Errorf("%+v %v", g, err)
	}
	list, total, err := s.Groups(t.Context(), access.GroupFilter{Viewer: eve.User.ID}, 10, 0)
	if err != nil || total != 0 || len(list) != 0 {
		t.Errorf("eve sees %+v %v", list, err)
	}
	if _, total, err := s.Groups(t.Context(), access.GroupFilter{Viewer: bob.ID}, 10, 0); err != nil || total != 2 {
		t.Errorf("bob sees %d %v", total, err)
	}
	for _, bad := range []string{"api", "-x", "a b", "docker.io", "x.git", "", "../x"} {
		_, err := s.CreateGroup(t.Context(), ann, access.NewGroup{Path: bad})
		kind(t, "group "+bad, err, delivery.Invalid)
	}
}

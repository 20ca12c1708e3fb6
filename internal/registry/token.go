package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/wholefile"
)

// tokenService is the audience of the registry's tokens, GitLab's name for it.
const tokenService = "container_registry"

const (
	tokenIssuer   = "slipway-issuer"
	tokenLifetime = 15 * time.Minute
)

// claims is the payload of a registry token: the distribution project's token
// authentication specification, and who the bearer is.
type claims struct {
	jwt.RegisteredClaims
	Access []accessEntry `json:"access"`
	Kind   string        `json:"auth_type,omitempty"`
	UserID int64         `json:"user_id,omitempty"`
	JobID  int64         `json:"job_id,omitempty"`
}

func (c *claims) entry(name string) (accessEntry, bool) {
	for _, e := range c.Access {
		if e.Type == "repository" && e.Name == name {
			return e, true
		}
	}
	return accessEntry{}, false
}

// allows reports whether the token allows an action on a resource.
func (c *claims) allows(kind, name, action string) bool {
	for _, e := range c.Access {
		if e.Type == kind && e.Name == name && e.allows(action) {
			return true
		}
	}
	return false
}

// TokenHandler serves /jwt/auth: it answers a Basic (or no) sign-in and the
// wanted scopes with a token for what the caller may do of them. It implements
// the Docker registry token specification, GET and the OAuth2 POST.
func (r *Registry) TokenHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if err := r.serveToken(w, req); err != nil {
			r.tokenError(w, err)
		}
	})
}

func (r *Registry) serveToken(w http.ResponseWriter, req *http.Request) error {
	if req.Method != http.MethodGet && req.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return nil
	}
	req.Body = http.MaxBytesReader(w, req.Body, 64<<10)
	if err := req.ParseForm(); err != nil {
		return delivery.Errorf(delivery.Invalid, "The form cannot be read.")
	}
	if service := req.Form.Get("service"); service != "" && service != tokenService {
		return delivery.Errorf(delivery.Invalid, "The service %q is not known here; it is %q.", service, tokenService)
	}
	user, secret, ok := req.BasicAuth()
	if req.Method == http.MethodPost && !ok {
		user, secret = req.PostForm.Get("username"), req.PostForm.Get("password")
		if req.PostForm.Get("grant_type") == "refresh_token" {
			return delivery.Errorf(delivery.Unauthenticated, "Refresh tokens are not used here: sign in with a username and a password or token.")
		}
		ok = user != "" || secret != ""
	}
	var who delivery.Identity
	if ok {
		var err error
		if who, err = r.signIn(req.Context(), user, secret); err != nil {
			return err
		}
	}
	access, err := r.grants(req.Context(), who, req.Form["scope"])
	if err != nil {
		return err
	}
	signed, now, err := r.issue(who, access)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(map[string]any{
		"token": signed, "access_token": signed,
		"expires_in": int(tokenLifetime / time.Second), "issued_at": now.Format(time.RFC3339),
	})
}

// signIn resolves a username and secret; the node's own credential is known
// here, all others by Accounts.
func (r *Registry) signIn(ctx context.Context, user, secret string) (delivery.Identity, error) {
	if user == nodeUser {
		if !sameSecret(secret, r.nodeSecret) {
			return delivery.Identity{}, delivery.Errorf(delivery.Unauthenticated, "The node's credential is wrong.")
		}
		return delivery.Identity{Kind: delivery.SystemActor, Name: nodeUser}, nil
	}
	who, err := r.accounts.SignIn(ctx, user, secret)
	if delivery.KindOf(err) == delivery.Unauthenticated {
		// Clients show this to the person who signs in; GitLab's words.
		err = &delivery.Error{Kind: delivery.Unauthenticated, Err: err,
			Message: "HTTP Basic: Access denied. The user name, or the password or token, is wrong.",
			Next:    "With two-factor authentication use an access token with the scope read_registry or write_registry as the password."}
	}
	return who, err
}

// grants turns scope parameters ("repository:a/b:pull,push", several separated
// by spaces) into what is allowed of them.
func (r *Registry) grants(ctx context.Context, who delivery.Identity, scopes []string) ([]accessEntry, error) {
	access := []accessEntry{}
	for _, param := range scopes {
		for scope := range strings.FieldsSeq(param) {
			kind, rest, ok := strings.Cut(scope, ":")
			i := strings.LastIndexByte(rest, ':')
			if !ok || i < 0 {
				return nil, delivery.Errorf(delivery.Invalid, "The scope %q is not of the form type:name:actions.", scope)
			}
			name, actions := rest[:i], strings.Split(rest[i+1:], ",")
			if len(access) == 64 {
				return nil, delivery.Errorf(delivery.Invalid, "A token holds at most 64 scopes.")
			}
			switch kind {
			case "repository":
				entry, err := r.grant(ctx, who, name, actions)
				if err != nil {
					return nil, err
				}
				access = append(access, entry)
			case "registry":
				entry := accessEntry{Type: kind, Name: name, Actions: []string{}}
				if isAdmin(who) && who.HasScope("read_registry") {
					entry.Actions = actions
				}
				access = append(access, entry)
			}
		}
	}
	return access, nil
}

func (r *Registry) issue(who delivery.Identity, access []accessEntry) (string, time.Time, error) {
	now := r.now()
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: tokenIssuer, Subject: who.Name, Audience: jwt.ClaimStrings{tokenService},
			ExpiresAt: jwt.NewNumericDate(now.Add(tokenLifetime)), NotBefore: jwt.NewNumericDate(now.Add(-5 * time.Second)),
			IssuedAt: jwt.NewNumericDate(now), ID: rand.Text(),
		},
		Access: access, Kind: string(who.Kind), JobID: who.JobID,
	}
	if who.User != nil {
		c.UserID = who.User.ID
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodES256, c).SignedString(r.key)
	if err != nil {
		return "", now, fmt.Errorf("registry: sign token: %w", err)
	}
	return signed, now, nil
}

// verify reads and checks a token. The error is of kind Unauthenticated.
func (r *Registry) verify(raw string) (*claims, error) {
	var c claims
	_, err := jwt.ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) { return &r.key.PublicKey, nil },
		jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(tokenIssuer), jwt.WithAudience(tokenService),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(r.now))
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Unauthenticated, Message: "The registry token is not valid.", Err: err}
	}
	return &c, nil
}

func (r *Registry) tokenError(w http.ResponseWriter, err error) {
	status, code := http.StatusInternalServerError, "UNKNOWN"
	switch delivery.KindOf(err) {
	case delivery.Unauthenticated, delivery.Forbidden, delivery.NotFound:
		status, code = http.StatusUnauthorized, "UNAUTHORIZED"
		w.Header().Set("WWW-Authenticate", `Basic realm="Slipway registry"`)
	case delivery.Invalid:
		status, code = http.StatusBadRequest, "UNSUPPORTED"
	case delivery.TooMany:
		status, code = http.StatusTooManyRequests, "TOOMANYREQUESTS"
	case delivery.Unavailable:
		status, code = http.StatusServiceUnavailable, "UNAVAILABLE"
	default:
		r.log.Error("registry token", "err", err)
	}
	writeErrors(w, status, code, delivery.UserMessage(err))
}

// loadKey reads the token signing key, or makes it on the first start.
func loadKey(path string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("registry: make signing key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("registry: encode signing key: %w", err)
		}
		return key, wholefile.Write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("registry: read signing key: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("registry: %s holds no key; remove it and a new one is made", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("registry: signing key %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("registry: signing key %s: not a P-256 key; remove it and a new one is made", path)
	}
	return key, nil
}

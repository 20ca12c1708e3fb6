// Package openid is the platform's OpenID provider: programs that the platform
// runs, such as Argo CD, let people sign in with their accounts here.
//
// It offers what such a client needs and no more: discovery, the authorization
// code flow with PKCE for public clients (OpenID Connect Core 1.0, RFC 7636, RFC
// 8252), and userinfo. It receives a signer, the people and the clients through
// Options; asking a person for consent is a page of the web. Codes are kept in
// memory for a minute; tokens carry everything else. It must not import a stage,
// the store or the web.
package openid

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Lifetimes of what is handed out.
const (
	codeLifetime  = time.Minute
	tokenLifetime = 12 * time.Hour
	maxCodes      = 1000 // that wait for their exchange
)

// Signer signs tokens with the key that the issuer publishes (RS256).
type Signer interface {
	SignToken(ctx context.Context, claims jwt.MapClaims) (string, error)
	PublicKey(ctx context.Context) (*rsa.PublicKey, error)
}

// Person is what tokens tell of somebody.
type Person struct {
	ID       int64
	Username string
	Name     string
	Email    string
	Groups   []string // see gitops.Policy for their form
}

// People looks people up. An account that is blocked or gone is NotFound.
type People interface {
	Person(ctx context.Context, id int64) (Person, error)
}

// Client is a program that people may sign in to. All are public clients: they
// have no secret and must use PKCE.
type Client struct {
	ID        string
	Name      string   // as the consent page calls it
	Redirects []string // a loopback address without a port stands for every port, RFC 8252 section 7.3
}

// Options make a Provider.
type Options struct {
	Issuer  string // the platform's external URL
	Signer  Signer
	People  People
	Clients []Client
	Now     func() time.Time // nil: time.Now
}

// Provider answers clients. Safe for concurrent use.
type Provider struct {
	Options

	mu    sync.Mutex
	codes map[string]grant
}

// grant is what a code stands for.
type grant struct {
	request Request
	user    int64
	at      time.Time
}

// New returns a Provider.
func New(o Options) *Provider {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Provider{Options: o, codes: map[string]grant{}}
}

// Request is a client's wish to sign somebody in.
type Request struct {
	Client    Client
	Redirect  string
	State     string
	Nonce     string
	Scopes    []string
	challenge string
}

// Origin is the scheme and host that the browser is sent back to.
func (r Request) Origin() string {
	u, err := url.Parse(r.Redirect)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Check reads the parameters of /oauth/authorize. An error is for the person to
// read: what is wrong with client or address must not be sent to the address.
func (p *Provider) Check(q url.Values) (Request, error) {
	i := slices.IndexFunc(p.Clients, func(c Client) bool { return c.ID == q.Get("client_id") })
	if i < 0 {
		return Request{}, delivery.Errorf(delivery.Invalid, "No program with the client_id %q signs in here.", q.Get("client_id"))
	}
	r := Request{
		Client: p.Clients[i], Redirect: q.Get("redirect_uri"), State: q.Get("state"), Nonce: q.Get("nonce"),
		Scopes: strings.Fields(q.Get("scope")), challenge: q.Get("code_challenge"),
	}
	switch {
	case !allowed(r.Client.Redirects, r.Redirect):
		return Request{}, delivery.Errorf(delivery.Invalid, "%s does not sign in at the address %q (redirect_uri).", r.Client.Name, r.Redirect)
	case q.Get("response_type") != "code":
		return Request{}, delivery.Errorf(delivery.Invalid, "Only response_type=code is offered.")
	case !slices.Contains(r.Scopes, "openid"):
		return Request{}, delivery.Errorf(delivery.Invalid, "The scope must contain openid.")
	case q.Get("code_challenge_method") != "S256" || len(r.challenge) != 43:
		return Request{}, delivery.Errorf(delivery.Invalid, "PKCE is required: code_challenge with code_challenge_method=S256.")
	}
	return r, nil
}

// allowed compares a redirect address with the registered ones.
func allowed(registered []string, redirect string) bool {
	u, err := url.Parse(redirect)
	if err != nil || u.User != nil || u.Fragment != "" {
		return false
	}
	for _, r := range registered {
		if r == redirect {
			return true
		}
		known, err := url.Parse(r)
		if err == nil && known.Port() == "" && loopback(known.Hostname()) &&
			u.Scheme == known.Scheme && u.Hostname() == known.Hostname() && u.Path == known.Path && u.RawQuery == "" {
			return true
		}
	}
	return false
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Grant lets the person in and returns where to send the browser.
func (p *Provider) Grant(r Request, user int64) (string, error) {
	now := p.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for code, g := range p.codes {
		if now.Sub(g.at) > codeLifetime {
			delete(p.codes, code)
		}
	}
	if len(p.codes) >= maxCodes {
		return "", delivery.Errorf(delivery.TooMany, "Too many people are signing in; try again in a minute.")
	}
	code := rand.Text()
	p.codes[code] = grant{r, user, now}
	return r.back(url.Values{"code": {code}}), nil
}

// Deny returns where to send the browser of somebody who declined.
func (p *Provider) Deny(r Request) string {
	return r.back(url.Values{"error": {"access_denied"}, "error_description": {"The sign-in was declined."}})
}

func (r Request) back(q url.Values) string {
	if r.State != "" {
		q.Set("state", r.State)
	}
	sign := "?"
	if strings.Contains(r.Redirect, "?") {
		sign = "&"
	}
	return r.Redirect + sign + q.Encode()
}

// exchange takes a code, which works once.
func (p *Provider) exchange(code, client, redirect, verifier string) (grant, bool) {
	p.mu.Lock()
	g, ok := p.codes[code]
	delete(p.codes, code)
	p.mu.Unlock()
	sum := sha256.Sum256([]byte(verifier))
	got := base64.RawURLEncoding.EncodeToString(sum[:])
	ok = ok && p.Now().Sub(g.at) <= codeLifetime && g.request.Client.ID == client && g.request.Redirect == redirect &&
		subtle.ConstantTimeCompare([]byte(got), []byte(g.request.challenge)) == 1
	return g, ok
}

// claims are those of every token; aud says what it is for.
func (p *Provider) claims(aud string, user int64, life time.Duration) jwt.MapClaims {
	now := p.Now()
	return jwt.MapClaims{
		"iss": p.Issuer, "aud": aud, "sub": strconv.FormatInt(user, 10), "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Second).Unix(), "exp": now.Add(life).Unix(),
	}
}

// describe adds what the scopes ask for.
func describe(c map[string]any, who Person, scopes []string) {
	has := func(s string) bool { return slices.Contains(scopes, s) }
	c["preferred_username"] = who.Username
	if has("profile") {
		c["name"], c["nickname"] = who.Name, who.Username
	}
	if has("email") {
		c["email"], c["email_verified"] = who.Email, false
	}
	if has("groups") {
		c["groups"] = who.Groups
	}
}

// Token signs a token of the client for a person who is known by other means
// than a code. It carries no address: Argo CD names people by it where there is
// one, and by federated_claims.user_id, which is "@" and the user name, else.
func (p *Provider) Token(ctx context.Context, client string, who Person, life time.Duration) (string, error) {
	c := p.claims(client, who.ID, life)
	describe(c, who, []string{"profile", "groups"})
	c["federated_claims"] = map[string]string{"connector_id": "slipway", "user_id": "@" + who.Username}
	return p.Signer.SignToken(ctx, c)
}

// Verify returns whose token it is. The error is Unauthenticated for a token
// that is not of this issuer, for another audience, expired, or a job's.
func (p *Provider) Verify(ctx context.Context, token, audience string) (user int64, scopes []string, err error) {
	refuse := func(err error) error {
		return &delivery.Error{Kind: delivery.Unauthenticated, Op: "openid: verify", Message: "The token is not valid.", Err: err}
	}
	key, err := p.Signer.PublicKey(ctx)
	if err != nil {
		return 0, nil, err
	}
	var c struct {
		jwt.RegisteredClaims
		Scope string `json:"scope"`
	}
	_, err = jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(p.Issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithTimeFunc(p.Now))
	if err != nil {
		return 0, nil, refuse(err)
	}
	// The subject of a job's ID token is no number.
	if user, err = strconv.ParseInt(c.Subject, 10, 64); err != nil {
		return 0, nil, refuse(fmt.Errorf("subject %q is no person", c.Subject))
	}
	return user, strings.Fields(c.Scope), nil
}

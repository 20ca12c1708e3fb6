package ingress

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"

	htpasswd "github.com/tg123/go-htpasswd"
	corev1 "k8s.io/api/core/v1"
)

// basicAuth is what auth-type: basic asks for.
type basicAuth struct {
	secret string // name, in the Ingress's namespace
	users  bool   // auth-secret-type: auth-map, one key per user
	realm  string
	creds  *credentials // nil while there are none: nobody gets in
}

// checks bounds how many passwords are compared at a time: the hashes are made
// to cost processor time, which guessing must not take from the traffic.
var checks = make(chan struct{}, 2)

// remembered is how many right passwords are kept as digests, so that only the
// first request of a client pays for the comparison.
const remembered = 1000

// credentials are the users of one Secret.
type credentials struct {
	version string // of the Secret
	users   *htpasswd.File
	key     [32]byte

	mu   sync.Mutex
	good map[[32]byte]bool
}

// readCredentials reads a Secret of ingress-nginx's form: an htpasswd file
// under the key auth, or one key per user with its hash.
func readCredentials(s *corev1.Secret, perUser bool) (*credentials, error) {
	file := s.Data["auth"]
	if perUser {
		var b bytes.Buffer
		for user, hash := range s.Data {
			fmt.Fprintf(&b, "%s:%s\n", user, strings.TrimSpace(string(hash)))
		}
		file = b.Bytes()
	} else if file == nil {
		return nil, fmt.Errorf("Secret %s has no key auth with an htpasswd file", s.Name)
	}
	bad := 0
	// Plain text passwords are left out: such a line is a mistake in most cases.
	parsers := []htpasswd.PasswdParser{htpasswd.AcceptMd5, htpasswd.AcceptSha, htpasswd.AcceptBcrypt, htpasswd.AcceptSsha, htpasswd.AcceptCryptSha}
	users, err := htpasswd.NewFromReader(bytes.NewReader(file), parsers, func(error) { bad++ }) // the error may hold the line
	if err != nil {
		return nil, fmt.Errorf("Secret %s has no htpasswd file that can be read", s.Name)
	}
	c := &credentials{version: secretVersion(s), users: users, good: map[[32]byte]bool{}}
	_, _ = rand.Read(c.key[:]) // never fails: crypto/rand
	if bad > 0 {
		return c, fmt.Errorf("Secret %s has %d lines that are no user with a hash of bcrypt, MD5, SHA or crypt", s.Name, bad)
	}
	return c, nil
}

// admit reports whether the request names a user with the right password.
func (c *credentials) admit(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	if !ok || c == nil || len(user)+len(password) > 1024 {
		return false
	}
	mac := hmac.New(sha256.New, c.key[:])
	mac.Write([]byte(user + "\x00" + password))
	digest := [32]byte(mac.Sum(nil))
	c.mu.Lock()
	known := c.good[digest]
	c.mu.Unlock()
	if known {
		return true
	}
	select {
	case checks <- struct{}{}:
		defer func() { <-checks }()
	case <-r.Context().Done():
		return false
	}
	if !c.users.Match(user, password) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.good) >= remembered {
		clear(c.good)
	}
	c.good[digest] = true
	return true
}

// ask tells the client to send a user and a password.
func (a *basicAuth) ask(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Basic realm="%s"`, strings.NewReplacer(`"`, "", `\`, "").Replace(a.realm)))
	refuse(w, http.StatusUnauthorized, "This address asks for a user and a password.")
}

func (s *settings) withAuth() *basicAuth {
	if s.auth == nil {
		s.auth = &basicAuth{realm: "Authentication Required"}
	}
	return s.auth
}

func parseAuthType(s *settings, v string) error {
	if v != "basic" {
		return fmt.Errorf("%q is not supported; the only type is basic", v)
	}
	s.withAuth()
	return nil
}

func parseAuthSecret(s *settings, v string) error {
	return parseToken(v, &s.withAuth().secret)
}

func parseAuthSecretType(s *settings, v string) error {
	switch v {
	case "auth-file", "auth-map":
		s.withAuth().users = v == "auth-map"
		return nil
	}
	return fmt.Errorf("%q is neither auth-file nor auth-map", v)
}

func parseSatisfy(s *settings, v string) error {
	switch v {
	case "any", "all":
		s.satisfyAny = v == "any"
		return nil
	}
	return fmt.Errorf("%q is neither any nor all", v)
}

// addAuth finds the users of an Ingress that asks for a password. What is
// wrong closes the route: nobody gets in without one.
func (b *builder) addAuth(p parsedIngress) {
	a := p.set.auth
	if a == nil {
		return
	}
	var before map[objectKey]*credentials
	if b.previous != nil {
		before = b.previous.creds
	}
	a.creds = fromSecret(b, p, "auth-secret", &a.secret, before, b.creds, func(s *corev1.Secret) (*credentials, error) { return readCredentials(s, a.users) })
}

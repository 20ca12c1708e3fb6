package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"golang.org/x/crypto/argon2"
)

// Parameters of argon2id: the first recommendation of OWASP's password storage
// cheat sheet that keeps a burst of sign-ins small in memory.
const (
	argonMemory  = 19 * 1024 // KiB
	argonTime    = 2
	argonThreads = 1
	argonKey     = 32
)

const (
	minPassword = 8
	maxPassword = 128 // as GitLab; longer input is refused before it is hashed
)

// hashing bounds how many passwords are hashed at once, and so the memory.
var hashing = make(chan struct{}, 2)

func checkPassword(p string) error {
	switch {
	case len(p) < minPassword:
		return invalid("password", fmt.Sprintf("is too short (minimum is %d characters)", minPassword))
	case len(p) > maxPassword:
		return invalid("password", fmt.Sprintf("is too long (maximum is %d characters)", maxPassword))
	}
	return nil
}

// hashPassword returns the password in the PHC string format.
func hashPassword(ctx context.Context, password string) (string, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	key, err := argon(ctx, password, salt, argonTime, argonMemory, argonThreads, argonKey)
	if err != nil {
		return "", err
	}
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, enc(salt), enc(key)), nil
}

func argon(ctx context.Context, password string, salt []byte, t, m uint32, p uint8, n uint32) ([]byte, error) {
	select {
	case hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(password), salt, t, m, p, n), nil
}

// verifyPassword reports whether the password has the hash. Parameters are
// read from the hash, so that old hashes stay valid when they rise.
func verifyPassword(ctx context.Context, hash, password string) (bool, error) {
	if len(password) > maxPassword {
		return false, nil
	}
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, nil
	}
	var m, t uint32
	var p uint8
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &m, &t, &p); err != nil {
		return false, fmt.Errorf("access: a stored password hash is malformed: %w", err)
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("access: a stored password hash is malformed: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil {
		return false, fmt.Errorf("access: a stored password hash is malformed: %w", err)
	}
	got, err := argon(ctx, password, salt, t, m, p, uint32(len(want)))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// absent is hashed against when an account does not exist, so that the answer
// takes as long as for one that does.
const absent = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// passwordCache remembers for some minutes that a password was right, keyed by
// a digest under a key of this process: git sends the password with every
// request, and hashing it each time would be a way to exhaust the server.
type passwordCache struct {
	key []byte
	now func() time.Time
	mu  sync.Mutex
	ok  map[[sha256.Size]byte]time.Time
}

const (
	passwordCacheTime = 5 * time.Minute
	passwordCacheSize = 1024
)

func newPasswordCache(now func() time.Time) *passwordCache {
	key := make([]byte, 32)
	rand.Read(key)
	return &passwordCache{key: key, now: now, ok: map[[sha256.Size]byte]time.Time{}}
}

func (c *passwordCache) id(hash, password string) (id [sha256.Size]byte) {
	m := hmac.New(sha256.New, c.key)
	m.Write([]byte(hash))
	m.Write([]byte{0})
	m.Write([]byte(password))
	copy(id[:], m.Sum(nil))
	return id
}

func (c *passwordCache) verify(ctx context.Context, hash, password string) (bool, error) {
	id := c.id(hash, password)
	now := c.now()
	c.mu.Lock()
	until, ok := c.ok[id]
	c.mu.Unlock()
	if ok && now.Before(until) {
		return true, nil
	}
	good, err := verifyPassword(ctx, hash, password)
	if err != nil || !good {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ok) >= passwordCacheSize {
		clear(c.ok)
	}
	c.ok[id] = now.Add(passwordCacheTime)
	return true, nil
}

// throttle slows down guessing: after burst failures for a login or an address
// further attempts are refused until the window has passed.
type throttle struct {
	now  func() time.Time
	mu   sync.Mutex
	seen map[string]*failures
}

type failures struct {
	count int
	until time.Time
}

const (
	loginFailures   = 10
	addressFailures = 50
	failureWindow   = 10 * time.Minute
	throttleSize    = 10000
)

func newThrottle(now func() time.Time) *throttle {
	return &throttle{now: now, seen: map[string]*failures{}}
}

func (t *throttle) check(login, address string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for key, limit := range t.keys(login, address) {
		f := t.seen[key]
		if f != nil && f.count >= limit && now.Before(f.until) {
			return &delivery.Error{Kind: delivery.TooMany, Op: "access: sign in", Message: "There were too many failed attempts.",
				Next: fmt.Sprintf("Try again in %s.", f.until.Sub(now).Round(time.Minute)+time.Minute)}
		}
	}
	return nil
}

func (t *throttle) keys(login, address string) map[string]int {
	keys := map[string]int{}
	if login != "" {
		// The address is part of it, so that nobody can lock out someone else
		// from elsewhere.
		keys["l:"+strings.ToLower(login)+"\x00"+address] = loginFailures
	}
	if address != "" {
		keys["a:"+address] = addressFailures
	}
	return keys
}

func (t *throttle) failed(login, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if len(t.seen) >= throttleSize {
		for k, f := range t.seen {
			if now.After(f.until) {
				delete(t.seen, k)
			}
		}
		if len(t.seen) >= throttleSize {
			clear(t.seen)
		}
	}
	for key := range t.keys(login, address) {
		f := t.seen[key]
		if f == nil || now.After(f.until) {
			f = &failures{}
			t.seen[key] = f
		}
		f.count++
		f.until = now.Add(failureWindow)
	}
}

func (t *throttle) succeeded(login, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.seen, "l:"+strings.ToLower(login)+"\x00"+address)
}

// lastUsed limits how often a token's or key's last use is written.
type lastUsed struct {
	mu sync.Mutex
	at map[lastUsedKey]time.Time
}

type lastUsedKey struct {
	kind string
	id   int64
}

func (l *lastUsed) due(kind string, id int64, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := lastUsedKey{kind, id}
	if now.Sub(l.at[key]) < 10*time.Minute {
		return false
	}
	if len(l.at) > 10000 {
		clear(l.at)
	}
	l.at[key] = now
	return true
}

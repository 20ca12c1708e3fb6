package pipeline

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"

	"github.com/slipwayhq/slipway/internal/seal"
)

// KeySize is the length in bytes of the key that seals variables and secrets.
const KeySize = seal.KeySize

// newToken returns a random token with GitLab's prefix for its kind, such as
// glrt- for runners, glcbt- for jobs and glptt- for triggers.
func newToken(prefix string) string {
	raw := make([]byte, 20)
	rand.Read(raw)
	return prefix + base64.RawURLEncoding.EncodeToString(raw)
}

// hashToken is how tokens are stored. They are random, so a plain hash will do.
func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func sameHash(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

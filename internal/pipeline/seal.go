package pipeline

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// KeySize is the length in bytes of the key that seals variables and secrets.
const KeySize = 32

// LoadKey reads the sealing key from a file readable by its owner only, and
// makes one where there is none.
func LoadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, KeySize)
		rand.Read(key)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("pipeline: key: %w", err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("pipeline: key: %w", err)
		}
		_, err = f.Write(key)
		return key, errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("pipeline: key: %w", err)
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("pipeline: key file %s has %d bytes instead of %d: restore it from a backup", path, len(key), KeySize)
	}
	return key, nil
}

// sealer encrypts values at rest with AES-256-GCM.
type sealer struct{ aead cipher.AEAD }

func newSealer(key []byte) (*sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("pipeline: key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("pipeline: key: %w", err)
	}
	return &sealer{aead}, nil
}

func (s *sealer) seal(value string) string {
	nonce := make([]byte, s.aead.NonceSize())
	rand.Read(nonce)
	return base64.RawStdEncoding.EncodeToString(s.aead.Seal(nonce, nonce, []byte(value), nil))
}

func (s *sealer) open(sealed string) (string, error) {
	raw, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil || len(raw) < s.aead.NonceSize() {
		return "", &delivery.Error{Kind: delivery.Stalled, Message: "A stored value cannot be decrypted.", Next: "Restore the key file that belongs to this database.", Err: err}
	}
	n := s.aead.NonceSize()
	plain, err := s.aead.Open(nil, raw[:n], raw[n:], nil)
	if err != nil {
		return "", &delivery.Error{Kind: delivery.Stalled, Message: "A stored value cannot be decrypted.", Next: "Restore the key file that belongs to this database.", Err: err}
	}
	return string(plain), nil
}

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

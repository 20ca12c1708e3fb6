// Package seal encrypts small values at rest: CI variables and secrets, second
// factors, the credentials of mirrors and the tokens of webhooks.
//
// It receives the key from a file beside the database and values to seal, and
// emits text for the database. It must import no stage and no store.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// KeySize is the length in bytes of the key.
const KeySize = 32

// LoadKey reads the key from a file readable by its owner only, and makes one
// where there is none.
func LoadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, KeySize)
		rand.Read(key)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("seal: key: %w", err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("seal: key: %w", err)
		}
		_, err = f.Write(key)
		return key, errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("seal: key: %w", err)
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("seal: key file %s has %d bytes instead of %d: restore it from a backup", path, len(key), KeySize)
	}
	return key, nil
}

// Box encrypts values with AES-256-GCM. It is safe for concurrent use.
type Box struct{ aead cipher.AEAD }

// New returns a Box with a key of KeySize bytes.
func New(key []byte) (*Box, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("seal: the key has %d bytes instead of %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("seal: key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("seal: key: %w", err)
	}
	return &Box{aead}, nil
}

// Seal encrypts a value, differently each time.
func (b *Box) Seal(value string) string { return b.seal(value, "") }

func (b *Box) seal(value, place string) string {
	nonce := make([]byte, b.aead.NonceSize())
	rand.Read(nonce)
	return base64.RawStdEncoding.EncodeToString(b.aead.Seal(nonce, nonce, []byte(value), []byte(place)))
}

// Open is the inverse of Seal. A value of another key gives an error of kind
// Stalled.
func (b *Box) Open(sealed string) (string, error) { return b.open(sealed, "") }

func (b *Box) open(sealed, place string) (string, error) {
	raw, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil || len(raw) < b.aead.NonceSize() {
		return "", &delivery.Error{Kind: delivery.Stalled, Message: "A stored value cannot be decrypted.", Next: "Restore the key file that belongs to this database.", Err: err}
	}
	n := b.aead.NonceSize()
	plain, err := b.aead.Open(nil, raw[:n], raw[n:], []byte(place))
	if err != nil {
		return "", &delivery.Error{Kind: delivery.Stalled, Message: "A stored value cannot be decrypted.", Next: "Restore the key file that belongs to this database.", Err: err}
	}
	return string(plain), nil
}

// mark begins a column's value that is sealed; what was stored before columns
// were sealed has none.
const mark = "sealed:1:"

// Column seals a value for a column of the database. It is bound to the place,
// such as "mirrors.password", and cannot be used in another. Empty stays empty.
func (b *Box) Column(place, value string) string {
	if value == "" {
		return ""
	}
	return mark + b.seal(value, place)
}

// OpenColumn is the inverse of Column. A value that was stored before its
// column was sealed is returned as it is.
func (b *Box) OpenColumn(place, stored string) (string, error) {
	sealed, ok := strings.CutPrefix(stored, mark)
	if !ok {
		return stored, nil
	}
	return b.open(sealed, place)
}

// IsSealed reports whether a column's value needs no sealing any more.
func IsSealed(stored string) bool { return stored == "" || strings.HasPrefix(stored, mark) }

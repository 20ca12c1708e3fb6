package access

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// GPGKey is a user's OpenPGP key, for checking the signatures of commits.
type GPGKey struct {
	ID          int64
	UserID      int64
	Fingerprint string   // of the primary key, lower-case hexadecimal
	KeyIDs      []string // the fingerprints of the key and its subkeys
	Emails      []string // of its identities
	Armored     string
	CreatedAt   time.Time
}

// Names reports whether the key has an identity with the address.
func (k GPGKey) Names(email string) bool {
	return slices.ContainsFunc(k.Emails, func(e string) bool { return strings.EqualFold(e, email) })
}

type gpgStore interface {
	CreateGPGKey(ctx context.Context, k GPGKey) (GPGKey, error)
	DeleteGPGKey(ctx context.Context, id int64) error
	GPGKeyByID(ctx context.Context, id int64) (GPGKey, error)
	// GPGKeyByKeyID finds the key that has a primary key or subkey with the
	// fingerprint, or whose last 16 digits are given.
	GPGKeyByKeyID(ctx context.Context, keyID string) (GPGKey, error)
	// GPGKeys lists a user's keys by id.
	GPGKeys(ctx context.Context, userID int64, limit, offset int) ([]GPGKey, int, error)
}

const maxGPGKey = 64 << 10 // bytes of armour

// AddGPGKey adds an OpenPGP key, given as one armoured public key, to a user.
func (s *Service) AddGPGKey(ctx context.Context, who delivery.Identity, userID int64, armored string) (GPGKey, error) {
	if len(armored) > maxGPGKey {
		return GPGKey{}, invalid("key", "is too long")
	}
	if strings.Contains(armored, "PRIVATE KEY") {
		return GPGKey{}, invalid("key", "is a private key, which must stay with you: export the public one with gpg --armor --export")
	}
	k, err := parseGPGKey(armored)
	if err != nil {
		return GPGKey{}, err
	}
	k.UserID, k.CreatedAt = userID, s.now()
	k, err = s.store.CreateGPGKey(ctx, k)
	if err != nil {
		return GPGKey{}, err
	}
	s.audit(ctx, who, "gpg_key.created", "gpg_key", k.ID, k.Fingerprint, "")
	return k, nil
}

func parseGPGKey(armored string) (GPGKey, error) {
	bad := invalid("key", "is not one armoured OpenPGP public key, such as gpg --armor --export prints")
	list, err := openpgp.ReadArmoredKeyRing(strings.NewReader(armored))
	if err != nil || len(list) != 1 || list[0].PrimaryKey == nil {
		return GPGKey{}, bad
	}
	e := list[0]
	if e.PrivateKey != nil {
		return GPGKey{}, invalid("key", "is a private key, which must stay with you")
	}
	k := GPGKey{Fingerprint: hex.EncodeToString(e.PrimaryKey.Fingerprint), Armored: strings.TrimSpace(armored) + "\n"}
	k.KeyIDs = append(k.KeyIDs, k.Fingerprint)
	for _, sub := range e.Subkeys {
		k.KeyIDs = append(k.KeyIDs, hex.EncodeToString(sub.PublicKey.Fingerprint))
	}
	for _, id := range e.Identities {
		if id.UserId != nil && id.UserId.Email != "" && !strings.ContainsAny(id.UserId.Email, " \n") {
			k.Emails = append(k.Emails, id.UserId.Email)
		}
	}
	if len(k.Emails) == 0 {
		return GPGKey{}, invalid("key", "names no e-mail address")
	}
	slices.Sort(k.Emails)
	return k, nil
}

// GPGKeys lists a user's OpenPGP keys.
func (s *Service) GPGKeys(ctx context.Context, userID int64, limit, offset int) ([]GPGKey, int, error) {
	return s.store.GPGKeys(ctx, userID, limit, offset)
}

// GPGKey returns an OpenPGP key by id.
func (s *Service) GPGKey(ctx context.Context, id int64) (GPGKey, error) {
	return s.store.GPGKeyByID(ctx, id)
}

// DeleteGPGKey removes an OpenPGP key; the signatures that it made become
// unverified.
func (s *Service) DeleteGPGKey(ctx context.Context, who delivery.Identity, k GPGKey) error {
	if err := s.store.DeleteGPGKey(ctx, k.ID); err != nil {
		return err
	}
	s.audit(ctx, who, "gpg_key.deleted", "gpg_key", k.ID, k.Fingerprint, "")
	return nil
}

// SigningKey tells whose SSH key with the fingerprint may sign commits. The
// error is of kind NotFound where there is none.
func (s *Service) SigningKey(ctx context.Context, fingerprint string) (delivery.SigningKey, error) {
	k, err := s.store.KeyByFingerprint(ctx, fingerprint)
	if err != nil {
		return delivery.SigningKey{}, err
	}
	if k.UserID == 0 || !k.Usage.Signs() {
		return delivery.SigningKey{}, &delivery.Error{Kind: delivery.NotFound, Message: "404 Key Not Found"}
	}
	u, err := s.User(ctx, k.UserID)
	return delivery.SigningKey{ID: k.ID, User: u, Title: k.Title, Text: k.PublicKey, Emails: []string{u.Email}, Usage: string(k.Usage), CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt}, err
}

// OpenPGPKey tells whose OpenPGP key has the fingerprint, or the id that is its
// last 16 digits, among its keys. The error is of kind NotFound where there is
// none.
func (s *Service) OpenPGPKey(ctx context.Context, keyID string) (delivery.SigningKey, error) {
	k, err := s.store.GPGKeyByKeyID(ctx, strings.ToLower(keyID))
	if err != nil {
		return delivery.SigningKey{}, err
	}
	u, err := s.User(ctx, k.UserID)
	return delivery.SigningKey{ID: k.ID, User: u, Title: k.Fingerprint, Text: k.Armored, Emails: k.Emails, CreatedAt: k.CreatedAt}, err
}

package forge

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/ssh"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// SignatureStatus is what is known of the signature of a commit or a tag, with GitLab's names
// (doc/user/project/repository/signed_commits).
type SignatureStatus string

// The statuses of signatures.
const (
	SignatureVerified    SignatureStatus = "verified"
	SignatureUnverified  SignatureStatus = "unverified"  // it does not fit what was signed
	SignatureUnknownKey  SignatureStatus = "unknown_key" // nobody here has the key
	SignatureKeyUnproven SignatureStatus = "unverified_key"
	SignatureOtherEmail  SignatureStatus = "same_user_different_email"
	SignatureOtherUser   SignatureStatus = "other_user"
	SignatureMultiple    SignatureStatus = "multiple_signatures"
)

// Verification is the outcome of checking the signature of a commit or a tag.
type Verification struct {
	Type        string // SSH, PGP or X509
	Status      SignatureStatus
	Reason      string               // one sentence for people
	Key         *delivery.SigningKey // nil: not known here
	Fingerprint string               // SHA256:... of an SSH key; the hexadecimal id of an OpenPGP key
	Committer   delivery.Signature   // of a commit; the tagger of a tag
	Tag         bool
}

// what names the object that is signed, and did what somebody did to it.
func (v Verification) what() (noun, did string) {
	if v.Tag {
		return "tag", "tagged"
	}
	return "commit", "committed"
}

// Verified reports whether the signature proves who committed or tagged.
func (v Verification) Verified() bool { return v.Status == SignatureVerified }

// unsigned remembers commits and tags that carry no signature, which never changes.
type unsigned struct {
	mu  sync.Mutex
	sha map[string]struct{}
}

const maxUnsigned = 100_000

func (u *unsigned) has(sha string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.sha[sha]
	return ok
}

func (u *unsigned) add(sha string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.sha) >= maxUnsigned {
		clear(u.sha)
	}
	u.sha[sha] = struct{}{}
}

// VerifyCommit checks the signature of a commit against the keys of the
// accounts. It returns nil for a commit that is not signed.
func (s *Service) VerifyCommit(ctx context.Context, projectID int64, sha string) (*Verification, error) {
	if s.unsigned.has(sha) {
		return nil, nil
	}
	_, raw, err := s.readers.read(ctx, s.RepositoryPath(projectID), sha, maxCommit)
	if err != nil {
		return nil, err
	}
	payload, signatures := splitSigned(raw)
	if len(signatures) == 0 {
		if fullSHA.MatchString(sha) {
			s.unsigned.add(sha)
		}
		return nil, nil
	}
	c, _, err := parseCommit(sha, payload)
	if err != nil {
		return nil, err
	}
	v := &Verification{Type: signatureType(signatures[0]), Committer: c.Committer}
	if len(signatures) > 1 {
		v.set(SignatureMultiple, "The commit carries more than one signature.")
		return v, nil
	}
	return v, s.verify(ctx, v, payload, signatures[0])
}

func (s *Service) verify(ctx context.Context, v *Verification, payload []byte, signature string) error {
	switch v.Type {
	case "SSH":
		return s.verifySSH(ctx, v, payload, signature)
	case "PGP":
		return s.verifyPGP(ctx, v, payload, signature)
	}
	v.set(SignatureUnverified, "X.509 signatures are not checked here.")
	return nil
}

// VerifyTag checks the signature of a tag against the keys of the accounts. It
// returns nil for a tag that is not signed.
func (s *Service) VerifyTag(ctx context.Context, projectID int64, tag delivery.Ref) (*Verification, error) {
	if tag.TagSHA == "" || s.unsigned.has(tag.TagSHA) {
		return nil, nil
	}
	_, raw, err := s.readers.read(ctx, s.RepositoryPath(projectID), tag.TagSHA, maxCommit)
	if err != nil {
		return nil, err
	}
	payload, signature := splitSignedTag(string(raw))
	if signature == "" {
		s.unsigned.add(tag.TagSHA)
		return nil, nil
	}
	v := &Verification{Type: signatureType(signature), Committer: tag.Tagger, Tag: true}
	return v, s.verify(ctx, v, []byte(payload), signature)
}

// VerifyTags checks the signatures of several tags; those without one are not
// in the result, which goes by the names.
func (s *Service) VerifyTags(ctx context.Context, projectID int64, tags []delivery.Ref) (map[string]*Verification, error) {
	out := map[string]*Verification{}
	for _, t := range tags {
		v, err := s.VerifyTag(ctx, projectID, t)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out[t.Name] = v
		}
	}
	return out, nil
}

// tagSignatures are the lines that a tag's signature can begin with, as git
// finds it (gpg-interface.c).
var tagSignatures = []string{"-----BEGIN PGP SIGNATURE-----", "-----BEGIN PGP MESSAGE-----", "-----BEGIN SSH SIGNATURE-----", "-----BEGIN SIGNED MESSAGE-----"}

// splitSignedTag cuts a tag, or its message, where its signature begins: at the
// last line that can begin one.
func splitSignedTag(raw string) (payload, signature string) {
	at, cut := 0, len(raw)
	for line := range strings.Lines(raw) {
		for _, begin := range tagSignatures {
			if strings.HasPrefix(line, begin) {
				cut = at
			}
		}
		at += len(line)
	}
	return raw[:cut], raw[cut:]
}

// VerifyCommits checks the signatures of several commits; those without one are
// not in the result.
func (s *Service) VerifyCommits(ctx context.Context, projectID int64, commits []delivery.Commit) (map[string]*Verification, error) {
	out := map[string]*Verification{}
	for _, c := range commits {
		v, err := s.VerifyCommit(ctx, projectID, c.SHA)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out[c.SHA] = v
		}
	}
	return out, nil
}

func (v *Verification) set(status SignatureStatus, reason string, args ...any) {
	v.Status, v.Reason = status, fmt.Sprintf(reason, args...)
}

func signatureType(armored string) string {
	switch {
	case strings.Contains(armored, "BEGIN SSH SIGNATURE"):
		return "SSH"
	case strings.Contains(armored, "BEGIN PGP"):
		return "PGP"
	}
	return "X509"
}

// splitSigned takes the signatures out of a raw commit object: what remains is
// what was signed (git's Documentation/gitformat-signature).
func splitSigned(raw []byte) (payload []byte, signatures []string) {
	head, message, hasMessage := bytes.Cut(raw, []byte("\n\n"))
	var kept [][]byte
	in := false
	for line := range bytes.SplitSeq(head, []byte("\n")) {
		if bytes.HasPrefix(line, []byte(" ")) && in {
			signatures[len(signatures)-1] += string(line[1:]) + "\n"
			continue
		}
		key, value, _ := bytes.Cut(line, []byte(" "))
		if in = string(key) == "gpgsig" || string(key) == "gpgsig-sha256"; in {
			signatures = append(signatures, string(value)+"\n")
			continue
		}
		kept = append(kept, line)
	}
	payload = bytes.Join(kept, []byte("\n"))
	if hasMessage {
		payload = append(append(payload, "\n\n"...), message...)
	}
	return payload, signatures
}

// sshSignature is the blob of an SSH signature (OpenSSH's PROTOCOL.sshsig).
type sshSignature struct {
	Magic         [6]byte
	Version       uint32
	PublicKey     string
	Namespace     string
	Reserved      string
	HashAlgorithm string
	Signature     string
}

// checkSSH returns the key that made the signature, and an error where the
// signature does not fit the payload.
func checkSSH(payload []byte, armored string) (ssh.PublicKey, error) {
	block, _ := pem.Decode([]byte(armored))
	if block == nil || block.Type != "SSH SIGNATURE" {
		return nil, errors.New("the armour cannot be read")
	}
	var blob sshSignature
	if err := ssh.Unmarshal(block.Bytes, &blob); err != nil || string(blob.Magic[:]) != "SSHSIG" || blob.Version != 1 {
		return nil, errors.New("the signature cannot be read")
	}
	key, err := ssh.ParsePublicKey([]byte(blob.PublicKey))
	if err != nil {
		return nil, errors.New("the key in the signature cannot be read")
	}
	if blob.Namespace != "git" {
		return key, errors.New("the signature was made for something other than git")
	}
	var sum []byte
	switch blob.HashAlgorithm {
	case "sha256":
		h := sha256.Sum256(payload)
		sum = h[:]
	case "sha512":
		h := sha512.Sum512(payload)
		sum = h[:]
	default:
		return key, errors.New("the hash algorithm is not accepted")
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal([]byte(blob.Signature), &sig); err != nil {
		return key, errors.New("the signature cannot be read")
	}
	if key.Type() == ssh.KeyAlgoRSA && sig.Format != ssh.KeyAlgoRSASHA256 && sig.Format != ssh.KeyAlgoRSASHA512 {
		return key, errors.New("RSA signatures must use SHA-2")
	}
	signed := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, HashAlgorithm, Hash string }{blob.Namespace, blob.Reserved, blob.HashAlgorithm, string(sum)})...)
	if err := key.Verify(signed, &sig); err != nil {
		return key, errors.New("it does not fit what was signed")
	}
	return key, nil
}

func (s *Service) verifySSH(ctx context.Context, v *Verification, payload []byte, armored string) error {
	key, err := checkSSH(payload, armored)
	if key != nil {
		v.Fingerprint = ssh.FingerprintSHA256(key)
	}
	if err != nil {
		v.set(SignatureUnverified, "The signature is not valid: %s.", err)
		return nil
	}
	known, err := s.access.SigningKey(ctx, v.Fingerprint)
	if delivery.IsNotFound(err) {
		noun, _ := v.what()
		v.set(SignatureUnknownKey, "The signature fits the %s, but no account here has the key %s for signing.", noun, v.Fingerprint)
		return nil
	}
	if err != nil {
		return err
	}
	v.Key = &known
	if !known.ExpiresAt.IsZero() && v.Committer.When.After(known.ExpiresAt) {
		noun, _ := v.what()
		v.set(SignatureUnverified, "The key had expired when the %s was made.", noun)
		return nil
	}
	return s.judge(ctx, v)
}

// judge compares the owner of the key with the committer.
func (s *Service) judge(ctx context.Context, v *Verification) error {
	owner, email := v.Key.User, v.Committer.Email
	_, did := v.what()
	switch {
	case owner.Blocked:
		v.set(SignatureUnverified, "The account of %s is blocked.", owner.Name)
	case strings.EqualFold(owner.Email, email) && slices.ContainsFunc(v.Key.Emails, func(e string) bool { return strings.EqualFold(e, email) }):
		v.set(SignatureVerified, "Signed with a key of %s, who %s it.", owner.Name, did)
	case strings.EqualFold(owner.Email, email):
		v.set(SignatureOtherEmail, "Signed with a key of %s that does not name the address %s, with which it was %s.", owner.Name, email, did)
	case v.Type == "PGP" && !slices.ContainsFunc(v.Key.Emails, func(e string) bool { return strings.EqualFold(e, owner.Email) }):
		v.set(SignatureKeyUnproven, "The key of %s does not name the address of the account.", owner.Name)
	default:
		if u, err := s.access.UserByName(ctx, email); err == nil {
			v.set(SignatureOtherUser, "Signed with a key of %s, but %s as %s.", owner.Name, did, u.Name)
		} else if delivery.IsNotFound(err) {
			v.set(SignatureOtherUser, "Signed with a key of %s, but %s with the address %s, which is not that account's.", owner.Name, did, email)
		} else {
			return err
		}
	}
	return nil
}

func (s *Service) verifyPGP(ctx context.Context, v *Verification, payload []byte, armored string) error {
	made, ids, err := readPGP(armored)
	if err != nil {
		v.set(SignatureUnverified, "The signature cannot be read.")
		return nil
	}
	var known delivery.SigningKey
	err = &delivery.Error{Kind: delivery.NotFound}
	for _, id := range ids {
		v.Fingerprint = id
		if known, err = s.access.OpenPGPKey(ctx, id); !delivery.IsNotFound(err) {
			break
		}
	}
	if delivery.IsNotFound(err) {
		v.set(SignatureUnknownKey, "No account here has the key %s.", strings.ToUpper(v.Fingerprint))
		return nil
	}
	if err != nil {
		return err
	}
	v.Key = &known
	ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(known.Text))
	if err != nil {
		return fmt.Errorf("forge: stored OpenPGP key %d: %w", known.ID, err)
	}
	// The key is judged as it was when it signed, as gpg does.
	config := &packet.Config{Time: func() time.Time { return made }}
	if _, err := openpgp.CheckArmoredDetachedSignature(ring, bytes.NewReader(payload), strings.NewReader(armored), config); err != nil {
		noun, _ := v.what()
		v.set(SignatureUnverified, "The signature does not fit the %s, or its key had expired or was revoked.", noun)
		return nil
	}
	return s.judge(ctx, v)
}

// readPGP reads when an armoured signature was made, and the fingerprint and id
// of the key that it says it is from.
func readPGP(armored string) (made time.Time, ids []string, err error) {
	block, err := armor.Decode(strings.NewReader(armored))
	if err != nil {
		return made, nil, err
	}
	p, err := packet.Read(io.LimitReader(block.Body, maxCommit))
	if err != nil {
		return made, nil, err
	}
	sig, ok := p.(*packet.Signature)
	if !ok || sig.Hash == crypto.MD5 {
		return made, nil, errors.New("not a signature")
	}
	if len(sig.IssuerFingerprint) > 0 {
		ids = append(ids, hex.EncodeToString(sig.IssuerFingerprint))
	}
	if sig.IssuerKeyId != nil {
		ids = append(ids, fmt.Sprintf("%016x", *sig.IssuerKeyId))
	}
	if len(ids) == 0 {
		return made, nil, errors.New("the signature does not tell its key")
	}
	return sig.CreationTime, ids, nil
}

package forge

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

func randomName() string { return strings.ToLower(rand.Text()) }

const lfsMedia = "application/vnd.git-lfs+json"

var oidPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

const (
	lfsTokenPrefix = "slfs-"
	lfsTokenLife   = time.Hour
)

// lfsTokens signs what LFS clients get over SSH to use over HTTP. The key
// lives as long as the process: after a restart clients ask anew.
type lfsTokens struct{ key []byte }

func newLFSTokens() *lfsTokens {
	key := make([]byte, 32)
	rand.Read(key)
	return &lfsTokens{key}
}

type lfsClaim struct {
	Who     delivery.Identity `json:"who"`
	Path    string            `json:"path"`
	Expires int64             `json:"exp"`
}

func (t *lfsTokens) sign(body string) string {
	m := hmac.New(sha256.New, t.key)
	m.Write([]byte(body))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func (t *lfsTokens) issue(who delivery.Identity, path string, expires time.Time) (string, error) {
	raw, err := json.Marshal(lfsClaim{who, path, expires.Unix()})
	if err != nil {
		return "", err
	}
	body := base64.RawURLEncoding.EncodeToString(raw)
	return lfsTokenPrefix + body + "." + t.sign(body), nil
}

func (t *lfsTokens) check(token, path string, now time.Time) (delivery.Identity, error) {
	bad := &delivery.Error{Kind: delivery.Unauthenticated, Message: "The LFS credentials are wrong or too old."}
	body, sig, ok := strings.Cut(strings.TrimPrefix(token, lfsTokenPrefix), ".")
	if !ok || !hmac.Equal([]byte(sig), []byte(t.sign(body))) {
		return delivery.Identity{}, bad
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return delivery.Identity{}, bad
	}
	var c lfsClaim
	if err := json.Unmarshal(raw, &c); err != nil || now.Unix() >= c.Expires || !strings.EqualFold(c.Path, path) {
		return delivery.Identity{}, bad
	}
	return c.Who, nil
}

// lfsPath is where an object lies; projects share equal objects.
func (s *Service) lfsPath(oid string) string {
	return filepath.Join(s.o.LFSRoot, oid[:2], oid[2:4], oid)
}

type lfsBatch struct {
	Operation string   `json:"operation"`
	Transfers []string `json:"transfers"`
	Objects   []lfsObj `json:"objects"`
	HashAlgo  string   `json:"hash_algo"`
}

type lfsObj struct {
	OID     string               `json:"oid"`
	Size    int64                `json:"size"`
	Actions map[string]lfsAction `json:"actions,omitempty"`
	Error   *lfsError            `json:"error,omitempty"`
}

type lfsAction struct {
	Href   string            `json:"href"`
	Header map[string]string `json:"header,omitempty"`
}

type lfsError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// serveLFS serves the batch API (git-lfs docs/api/batch.md), the basic
// transfer and the locking API.
func (s *Service) serveLFS(w http.ResponseWriter, r *http.Request, who delivery.Identity, p delivery.Project, role delivery.Role, rest string) error {
	if err := authorizeFetch(who, p, role); err != nil {
		return err
	}
	settings, err := s.store.ProjectSettings(r.Context(), p.ID)
	if err != nil {
		return err
	}
	if settings.LFSDisabled {
		return delivery.Errorf(delivery.NotFound, "LFS is switched off for this project.")
	}
	rest = strings.TrimPrefix(rest, "/info/lfs/")
	switch {
	case rest == "objects/batch" && r.Method == http.MethodPost:
		return s.lfsBatch(w, r, who, p)
	case strings.HasPrefix(rest, "/gitlab-lfs/objects/"):
		oid, tail, _ := strings.Cut(strings.TrimPrefix(rest, "/gitlab-lfs/objects/"), "/")
		if !oidPattern.MatchString(oid) {
			return delivery.Errorf(delivery.NotFound, "There is no such object.")
		}
		if r.Method == http.MethodPut {
			return s.lfsUpload(w, r, who, p, oid, tail)
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			return s.lfsDownload(w, r, p, oid)
		}
	case rest == "locks" && r.Method == http.MethodGet:
		return s.lfsListLocks(w, r, p)
	case rest == "locks/verify" && r.Method == http.MethodPost:
		return s.lfsVerifyLocks(w, r, who, p)
	case rest == "locks" && r.Method == http.MethodPost:
		return s.lfsLock(w, r, who, p)
	case strings.HasPrefix(rest, "locks/") && strings.HasSuffix(rest, "/unlock") && r.Method == http.MethodPost:
		return s.lfsUnlock(w, r, who, p, role, strings.TrimSuffix(strings.TrimPrefix(rest, "locks/"), "/unlock"))
	}
	return delivery.Errorf(delivery.NotFound, "There is no such LFS address.")
}

func writeLFS(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", lfsMedia)
	w.WriteHeader(status)
	_, err = w.Write(body)
	return clientGone(err)
}

func readLFS(r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, 8<<20))
	if err != nil {
		return delivery.Errorf(delivery.TooLarge, "The request is too large.")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return delivery.Errorf(delivery.Invalid, "The request is not what LFS sends: %v", err)
	}
	return nil
}

func (s *Service) lfsBatch(w http.ResponseWriter, r *http.Request, who delivery.Identity, p delivery.Project) error {
	var b lfsBatch
	if err := readLFS(r, &b); err != nil {
		return err
	}
	if b.HashAlgo != "" && b.HashAlgo != "sha256" {
		return delivery.Errorf(delivery.Conflict, "Only sha256 is known as hash algorithm.")
	}
	if len(b.Objects) > 10000 {
		return delivery.Errorf(delivery.TooLarge, "A batch can have at most 10000 objects.")
	}
	upload := b.Operation == "upload"
	if upload {
		if !who.Signed() {
			return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in to push."}
		}
		if _, err := s.authorizePush(r.Context(), who, p); err != nil {
			return err
		}
	} else if b.Operation != "download" {
		return delivery.Errorf(delivery.Invalid, "The operation is upload or download.")
	}
	header := map[string]string{}
	if a := r.Header.Get("Authorization"); a != "" {
		header["Authorization"] = a
	}
	have, err := s.store.LFSObjects(r.Context(), p.ID)
	if err != nil {
		return err
	}
	base := s.HTTPURL(p) + "/gitlab-lfs/objects/"
	for i := range b.Objects {
		o := &b.Objects[i]
		size, ok := have[o.OID]
		switch {
		case !oidPattern.MatchString(o.OID) || o.Size < 0:
			o.Error = &lfsError{422, "The object's id or size is not valid."}
		case upload && ok && size == o.Size:
		case upload && o.Size > s.o.MaxLFSBytes:
			o.Error = &lfsError{422, fmt.Sprintf("The object is larger than the limit of %d bytes.", s.o.MaxLFSBytes)}
		case upload:
			o.Actions = map[string]lfsAction{"upload": {Href: base + o.OID + "/" + strconv.FormatInt(o.Size, 10), Header: header}}
		case !ok:
			o.Error = &lfsError{404, "Object does not exist on the server or you don't have permissions to access it"}
		default:
			o.Size = size
			o.Actions = map[string]lfsAction{"download": {Href: base + o.OID, Header: header}}
		}
	}
	return writeLFS(w, http.StatusOK, map[string]any{"transfer": "basic", "objects": b.Objects, "hash_algo": "sha256"})
}

func (s *Service) lfsUpload(w http.ResponseWriter, r *http.Request, who delivery.Identity, p delivery.Project, oid, sizeText string) error {
	if !who.Signed() {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in to push."}
	}
	if _, err := s.authorizePush(r.Context(), who, p); err != nil {
		return err
	}
	size, err := strconv.ParseInt(sizeText, 10, 64)
	if err != nil || size < 0 {
		return delivery.Errorf(delivery.Invalid, "The size is missing in the address.")
	}
	if size > s.o.MaxLFSBytes {
		return delivery.Errorf(delivery.TooLarge, "The object is larger than the limit of %d bytes.", s.o.MaxLFSBytes)
	}
	slow := &slowGuard{rc: http.NewResponseController(w), r: http.MaxBytesReader(w, r.Body, size+1), w: w}
	defer slow.rc.SetReadDeadline(time.Time{}) //nolint:errcheck // unsupported by some writers, which have no deadline
	if err := s.storeLFS(oid, size, slow); err != nil {
		return err
	}
	if err := s.store.AddLFSObject(r.Context(), p.ID, oid, size); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// storeLFS writes an object whose content must have the size and the digest.
func (s *Service) storeLFS(oid string, size int64, r io.Reader) error {
	final := s.lfsPath(oid)
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return fmt.Errorf("forge: store LFS object: %w", err)
	}
	tmp := filepath.Join(s.o.LFSRoot, "tmp-"+randomName())
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("forge: store LFS object: %w", err)
	}
	defer os.Remove(tmp) //nolint:errcheck // renamed when all went well
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), r)
	if err != nil {
		f.Close()
		return delivery.Errorf(delivery.Invalid, "The upload was cut short: %w", err)
	}
	if n != size || hex.EncodeToString(sum.Sum(nil)) != oid {
		f.Close()
		return delivery.Errorf(delivery.Invalid, "The content does not have the size or the SHA-256 that was announced.")
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("forge: store LFS object: %w", err)
	}
	if err := os.Rename(tmp, final); err != nil {
		return fmt.Errorf("forge: store LFS object: %w", err)
	}
	return nil
}

func (s *Service) lfsDownload(w http.ResponseWriter, r *http.Request, p delivery.Project, oid string) error {
	f, size, err := s.OpenLFS(r.Context(), p.ID, oid)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	slow := &slowGuard{rc: http.NewResponseController(w), w: w}
	defer slow.rc.SetWriteDeadline(time.Time{}) //nolint:errcheck // unsupported by some writers, which have no deadline
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = io.Copy(slow, f)
	return clientGone(err)
}

// OpenLFS opens an LFS object of a project. The caller closes it.
func (s *Service) OpenLFS(ctx context.Context, projectID int64, oid string) (io.ReadCloser, int64, error) {
	if !oidPattern.MatchString(oid) {
		return nil, 0, delivery.Errorf(delivery.NotFound, "There is no such object.")
	}
	size, err := s.store.LFSObjectSize(ctx, projectID, oid)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(s.lfsPath(oid))
	if err != nil {
		return nil, 0, fmt.Errorf("forge: open LFS object: %w", err)
	}
	return f, size, nil
}

// LFSPointer reads a pointer file (git-lfs docs/spec.md); ok is false for any
// other content.
func LFSPointer(content []byte) (oid string, size int64, ok bool) {
	if len(content) > 1024 || !strings.HasPrefix(string(content), "version https://git-lfs.github.com/spec/v1\n") {
		return "", 0, false
	}
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "oid":
			oid = strings.TrimPrefix(value, "sha256:")
		case "size":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return "", 0, false
			}
			size = n
		}
	}
	return oid, size, oidPattern.MatchString(oid)
}

type lfsLockJSON struct {
	ID       string            `json:"id"`
	Path     string            `json:"path"`
	LockedAt string            `json:"locked_at"`
	Owner    map[string]string `json:"owner"`
}

func (s *Service) lfsLockJSON(ctx context.Context, l LFSLock) lfsLockJSON {
	name := "unknown"
	if u, err := s.access.User(ctx, l.UserID); err == nil {
		name = u.Username
	}
	return lfsLockJSON{ID: strconv.FormatInt(l.ID, 10), Path: l.Path, LockedAt: l.CreatedAt.Format(time.RFC3339), Owner: map[string]string{"name": name}}
}

func (s *Service) lfsListLocks(w http.ResponseWriter, r *http.Request, p delivery.Project) error {
	locks, err := s.store.LFSLocks(r.Context(), p.ID)
	if err != nil {
		return err
	}
	out := []lfsLockJSON{}
	for _, l := range locks {
		if q := r.URL.Query().Get("path"); q == "" || q == l.Path {
			out = append(out, s.lfsLockJSON(r.Context(), l))
		}
	}
	return writeLFS(w, http.StatusOK, map[string]any{"locks": out})
}

func (s *Service) lfsVerifyLocks(w http.ResponseWriter, r *http.Request, who delivery.Identity, p delivery.Project) error {
	if _, err := s.authorizePush(r.Context(), who, p); err != nil {
		return err
	}
	locks, err := s.store.LFSLocks(r.Context(), p.ID)
	if err != nil {
		return err
	}
	ours, theirs := []lfsLockJSON{}, []lfsLockJSON{}
	for _, l := range locks {
		if who.User != nil && l.UserID == who.User.ID {
			ours = append(ours, s.lfsLockJSON(r.Context(), l))
		} else {
			theirs = append(theirs, s.lfsLockJSON(r.Context(), l))
		}
	}
	return writeLFS(w, http.StatusOK, map[string]any{"ours": ours, "theirs": theirs})
}

func (s *Service) lfsLock(w http.ResponseWriter, r *http.Request, who delivery.Identity, p delivery.Project) error {
	if who.User == nil {
		return &delivery.Error{Kind: delivery.Unauthenticated, Message: "Sign in to lock a file."}
	}
	if _, err := s.authorizePush(r.Context(), who, p); err != nil {
		return err
	}
	var in struct {
		Path string `json:"path"`
	}
	if err := readLFS(r, &in); err != nil {
		return err
	}
	file, err := cleanFile(in.Path)
	if err != nil {
		return err
	}
	l, err := s.store.CreateLFSLock(r.Context(), LFSLock{ProjectID: p.ID, UserID: who.User.ID, Path: file, CreatedAt: s.now()})
	if delivery.KindOf(err) == delivery.Conflict {
		return writeLFS(w, http.StatusConflict, map[string]string{"message": "already created lock"})
	}
	if err != nil {
		return err
	}
	return writeLFS(w, http.StatusCreated, map[string]any{"lock": s.lfsLockJSON(r.Context(), l)})
}

func (s *Service) lfsUnlock(w http.ResponseWriter, r *http.Request, who delivery.Identity, p delivery.Project, role delivery.Role, idText string) error {
	id, err := parseID(idText)
	if err != nil {
		return err
	}
	var in struct {
		Force bool `json:"force"`
	}
	if err := readLFS(r, &in); err != nil {
		return err
	}
	locks, err := s.store.LFSLocks(r.Context(), p.ID)
	if err != nil {
		return err
	}
	for _, l := range locks {
		if l.ID != id {
			continue
		}
		mine := who.User != nil && who.User.ID == l.UserID
		if !mine && !(in.Force && role >= delivery.Maintainer) {
			return delivery.Errorf(delivery.Forbidden, "The lock belongs to someone else.")
		}
		if err := s.store.DeleteLFSLock(r.Context(), p.ID, id); err != nil {
			return err
		}
		return writeLFS(w, http.StatusOK, map[string]any{"lock": s.lfsLockJSON(r.Context(), l)})
	}
	return delivery.Errorf(delivery.NotFound, "There is no such lock.")
}

package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const (
	lfsAsked    = 100         // objects of one batch request
	lfsAnswer   = 8 << 20     // bytes of the answer to one
	lfsDial     = time.Minute // to connect, and until an answer begins
	lfsMostSaid = 300         // bytes of another server's words that are shown
)

// lfsRemote is the LFS server that belongs to a repository elsewhere.
type lfsRemote struct {
	s                  *Service
	repository         *url.URL // without credentials
	username, password string
	client             *http.Client
}

// lfsRemote makes a client; close it. It connects to public addresses only,
// judged after names were resolved, unless the host is allowed: that also holds
// for where a server says the objects are.
func (s *Service) lfsRemote(clean, username, password string) (*lfsRemote, error) {
	u, err := url.Parse(clean)
	if err != nil {
		return nil, delivery.Errorf(delivery.Invalid, "The address cannot be read.")
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return s.guardedDialer(s.hostAllowed(&url.URL{Host: address})).DialContext(ctx, network, address)
	}
	t := &http.Transport{DialContext: dial, TLSHandshakeTimeout: lfsDial, ResponseHeaderTimeout: lfsDial, MaxIdleConnsPerHost: 1}
	secure := func(r *http.Request, via []*http.Request) error {
		if len(via) > 5 || via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return &lfsRemote{s: s, repository: u, username: username, password: password, client: &http.Client{Transport: t, CheckRedirect: secure}}, nil
}

func (l *lfsRemote) close() { l.client.CloseIdleConnections() }

// errNoLFS tells that the other server knows nothing of LFS.
var errNoLFS = errors.New("no LFS there")

// send asks the other server; credentials go to its own host only, and where
// the action has none of its own.
func (l *lfsRemote) send(ctx context.Context, method, address string, header map[string]string, body io.Reader, size int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, delivery.Errorf(delivery.Invalid, "The other server names an LFS address that cannot be read.")
	}
	req.ContentLength = size
	for k, v := range header {
		req.Header.Set(k, v)
	}
	same := req.URL.Host == l.repository.Host && req.URL.Scheme == l.repository.Scheme
	if req.Header.Get("Authorization") == "" && same && (l.username != "" || l.password != "") {
		req.SetBasicAuth(l.username, l.password)
	}
	res, err := l.client.Do(req)
	if err != nil {
		var blocked errBlocked
		if errors.As(err, &blocked) {
			return nil, &delivery.Error{Kind: delivery.Forbidden, Message: "The LFS objects are in the local network, to which requests are not allowed.", Next: "An administrator can allow the host in the configuration."}
		}
		return nil, &delivery.Error{Kind: delivery.Unavailable, Message: "The LFS server at " + req.URL.Host + " cannot be reached.", Err: err}
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		said, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		if err != nil {
			said = nil
		}
		var answer lfsError
		if json.Unmarshal(said, &answer) != nil {
			answer.Message = ""
		}
		if res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusNotImplemented {
			return nil, errNoLFS
		}
		return nil, &delivery.Error{Kind: delivery.Invalid, Message: strings.TrimSpace(fmt.Sprintf("The LFS server at %s answers %d. %s", req.URL.Host, res.StatusCode, clip(answer.Message, lfsMostSaid)))}
	}
	return res, nil
}

// batch asks where some objects can be read or written (git-lfs
// docs/api/batch.md).
func (l *lfsRemote) batch(ctx context.Context, operation string, objects []lfsObj) ([]lfsObj, error) {
	body, err := json.Marshal(lfsBatch{Operation: operation, Transfers: []string{"basic"}, Objects: objects, HashAlgo: "sha256"})
	if err != nil {
		return nil, err
	}
	// The server's address as git-lfs finds it (docs/api/server-discovery.md).
	address := strings.TrimSuffix(l.repository.String(), "/")
	if !strings.HasSuffix(address, ".git") {
		address += ".git"
	}
	res, err := l.send(ctx, http.MethodPost, address+"/info/lfs/objects/batch", map[string]string{"Accept": lfsMedia, "Content-Type": lfsMedia}, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer lfsBatch
	if err := json.NewDecoder(io.LimitReader(res.Body, lfsAnswer)).Decode(&answer); err != nil {
		return nil, &delivery.Error{Kind: delivery.Invalid, Message: "The LFS server's answer cannot be read.", Err: err}
	}
	return answer.Objects, nil
}

// lfsPointers lists the LFS objects that commits name and others, which are
// known, do not. Without commits it is those of all refs.
func (s *Service) lfsPointers(ctx context.Context, projectID int64, commits, known []string) ([]lfsObj, error) {
	dir := s.RepositoryPath(projectID)
	args := []string{"rev-list", "--objects", "--no-object-names", "--filter=combine:object:type=blob+blob:limit=1025", "--filter-provided-objects"}
	var ask bytes.Buffer
	if len(commits) == 0 {
		args = append(args, "--all")
	} else {
		args = append(args, "--stdin")
		ask.WriteString(strings.Join(commits, "\n") + "\n")
		for _, sha := range known {
			ask.WriteString("^" + sha + "\n")
		}
	}
	out, err := s.git.run(ctx, dir, &ask, args...)
	if err != nil {
		return nil, err
	}
	var list []lfsObj
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		_, raw, err := s.readers.read(ctx, dir, strings.TrimSpace(line), 1025)
		if err != nil {
			return nil, err
		}
		if oid, size, ok := LFSPointer(raw); ok && size >= 0 && !seen[oid] {
			seen[oid] = true
			list = append(list, lfsObj{OID: oid, Size: size})
		}
	}
	return list, nil
}

func (s *Service) lfsOff(ctx context.Context, projectID int64) (bool, error) {
	settings, err := s.store.ProjectSettings(ctx, projectID)
	return settings.LFSDisabled, err
}

// fetchLFS fetches the objects that new commits name, so that what refers to
// them finds them. Objects that the other server has not are left out.
func (s *Service) fetchLFS(ctx context.Context, projectID int64, l *lfsRemote, commits, known []string) error {
	if off, err := s.lfsOff(ctx, projectID); err != nil || off {
		return err
	}
	list, err := s.lfsPointers(ctx, projectID, commits, known)
	if err != nil {
		return err
	}
	have, err := s.store.LFSObjects(ctx, projectID)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(o lfsObj) bool { _, ok := have[o.OID]; return ok })
	missing := 0
	for some := range slices.Chunk(list, lfsAsked) {
		answer, err := l.batch(ctx, "download", some)
		if errors.Is(err, errNoLFS) {
			missing = len(list)
			break
		}
		if err != nil {
			return err
		}
		for _, o := range answer {
			if !slices.ContainsFunc(some, func(a lfsObj) bool { return a.OID == o.OID }) {
				continue // not asked for
			}
			if err := s.fetchLFSObject(ctx, projectID, l, o); errors.Is(err, errNoLFS) {
				missing++
			} else if err != nil {
				return err
			}
		}
	}
	if missing > 0 {
		s.log.Warn("LFS objects are missing at the other server", "project", projectID, "missing", missing)
	}
	return nil
}

func (s *Service) fetchLFSObject(ctx context.Context, projectID int64, l *lfsRemote, o lfsObj) error {
	if o.Error != nil {
		if o.Error.Code == http.StatusNotFound || o.Error.Code == http.StatusGone {
			return errNoLFS
		}
		return delivery.Errorf(delivery.Invalid, "The LFS object %s cannot be fetched: %s", o.OID, clip(o.Error.Message, lfsMostSaid))
	}
	action, ok := o.Actions["download"]
	if !ok {
		return errNoLFS
	}
	if o.Size > s.o.MaxLFSBytes {
		return delivery.Errorf(delivery.TooLarge, "The LFS object %s is larger than the limit of %d bytes.", o.OID, s.o.MaxLFSBytes)
	}
	res, err := l.send(ctx, http.MethodGet, action.Href, action.Header, nil, 0)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := s.storeLFS(o.OID, o.Size, io.LimitReader(res.Body, o.Size+1)); err != nil {
		return fmt.Errorf("forge: LFS object %s: %w", o.OID, err)
	}
	return s.store.AddLFSObject(ctx, projectID, o.OID, o.Size)
}

// pushLFS writes the project's objects that the other server has not; with
// commits only those that these name.
func (s *Service) pushLFS(ctx context.Context, projectID int64, l *lfsRemote, commits []string) error {
	if off, err := s.lfsOff(ctx, projectID); err != nil || off {
		return err
	}
	have, err := s.store.LFSObjects(ctx, projectID)
	if err != nil || len(have) == 0 {
		return err
	}
	var list []lfsObj
	if len(commits) > 0 {
		if list, err = s.lfsPointers(ctx, projectID, commits, nil); err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(o lfsObj) bool { _, ok := have[o.OID]; return !ok })
	} else {
		for oid, size := range have {
			list = append(list, lfsObj{OID: oid, Size: size})
		}
	}
	slices.SortFunc(list, func(a, b lfsObj) int { return strings.Compare(a.OID, b.OID) })
	for some := range slices.Chunk(list, lfsAsked) {
		answer, err := l.batch(ctx, "upload", some)
		if errors.Is(err, errNoLFS) {
			s.log.Warn("the other server takes no LFS objects", "project", projectID, "host", l.repository.Host)
			return nil
		}
		if err != nil {
			return err
		}
		for _, o := range answer {
			if err := s.pushLFSObject(ctx, projectID, l, o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) pushLFSObject(ctx context.Context, projectID int64, l *lfsRemote, o lfsObj) error {
	if o.Error != nil {
		return delivery.Errorf(delivery.Invalid, "The other server does not take the LFS object %s: %s", o.OID, clip(o.Error.Message, lfsMostSaid))
	}
	action, ok := o.Actions["upload"]
	if !ok {
		return nil // it is there
	}
	body, size, err := s.OpenLFS(ctx, projectID, o.OID)
	if errors.Is(err, os.ErrNotExist) {
		s.log.Error("an LFS object is lost", "project", projectID, "oid", o.OID)
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	header := map[string]string{"Content-Type": "application/octet-stream"}
	for k, v := range action.Header {
		header[k] = v
	}
	res, err := l.send(ctx, http.MethodPut, action.Href, header, body, size)
	if err != nil {
		return gone(err, o.OID)
	}
	res.Body.Close()
	verify, ok := o.Actions["verify"]
	if !ok {
		return nil
	}
	ask, err := json.Marshal(lfsObj{OID: o.OID, Size: size})
	if err != nil {
		return err
	}
	header = map[string]string{"Accept": lfsMedia, "Content-Type": lfsMedia}
	for k, v := range verify.Header {
		header[k] = v
	}
	if res, err = l.send(ctx, http.MethodPost, verify.Href, header, bytes.NewReader(ask), int64(len(ask))); err != nil {
		return gone(err, o.OID)
	}
	return res.Body.Close()
}

// gone words what is not there although the server named it.
func gone(err error, oid string) error {
	if errors.Is(err, errNoLFS) {
		return delivery.Errorf(delivery.Invalid, "The other server does not take the LFS object %s: the address that it named is not there.", oid)
	}
	return err
}

package gitops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// Server calls the Argo CD API for what only the engine knows: the resource
// tree, the differences, logs and commits. Safe for concurrent use. Errors are
// of kind NotFound, Invalid, Forbidden or Unavailable.
type Server struct {
	base      string
	tokenFile string
	http      *http.Client
}

// NewServer returns a Server at the API of the configuration. The token is read
// at every call, as the engine writes it when it starts.
func NewServer(api API) *Server {
	return &Server{base: "http://" + api.Address + api.RootPath, tokenFile: api.TokenFile, http: &http.Client{}}
}

// Node is a live resource below an Application.
type Node struct {
	Group, Version, Kind, Namespace, Name, UID string
	Parents                                    []string // UIDs; empty for what git declares
	Health, HealthMessage                      string
	Info                                       map[string]string // such as "Status Reason": "Running"
	Images                                     []string
	Created                                    time.Time
}

// Tree returns the live resources, owners before what they own.
func (s *Server) Tree(ctx context.Context, app string) ([]Node, error) {
	var doc struct {
		Nodes []struct {
			Group, Version, Kind, Namespace, Name, UID string
			ParentRefs                                 []struct{ UID string }
			Health                                     *struct{ Status, Message string }
			Info                                       []struct{ Name, Value string }
			Images                                     []string
			CreatedAt                                  string
		}
	}
	if err := s.get(ctx, "/api/v1/applications/"+url.PathEscape(app)+"/resource-tree", nil, &doc); err != nil {
		return nil, err
	}
	nodes := make([]Node, 0, len(doc.Nodes))
	for _, n := range doc.Nodes {
		node := Node{
			Group: n.Group, Version: n.Version, Kind: n.Kind, Namespace: n.Namespace, Name: n.Name, UID: n.UID,
			Images: n.Images, Created: parseTime(n.CreatedAt), Info: map[string]string{},
		}
		for _, p := range n.ParentRefs {
			node.Parents = append(node.Parents, p.UID)
		}
		for _, i := range n.Info {
			node.Info[i.Name] = i.Value
		}
		if n.Health != nil {
			node.Health, node.HealthMessage = n.Health.Status, n.Health.Message
		}
		nodes = append(nodes, node)
	}
	return ownersFirst(nodes), nil
}

// ownersFirst orders nodes so that each follows its parents, and siblings are
// by kind and name.
func ownersFirst(nodes []Node) []Node {
	children := map[string][]Node{}
	known := map[string]bool{}
	for _, n := range nodes {
		known[n.UID] = true
	}
	for _, n := range nodes {
		parent := ""
		if len(n.Parents) > 0 && known[n.Parents[0]] {
			parent = n.Parents[0]
		}
		children[parent] = append(children[parent], n)
	}
	sorted := make([]Node, 0, len(nodes))
	var walk func(parent string)
	walk = func(parent string) {
		list := children[parent]
		delete(children, parent)
		slices.SortStableFunc(list, func(a, b Node) int {
			return strings.Compare(a.Kind+"/"+a.Name, b.Kind+"/"+b.Name)
		})
		for _, n := range list {
			sorted = append(sorted, n)
			walk(n.UID)
		}
	}
	walk("")
	return sorted
}

// Difference is one resource as git wants it and as it is. Both are YAML-ready
// JSON, normalised by Argo CD; Desired is "" for what must be pruned, Live ""
// for what is missing.
type Difference struct {
	ResourceKey
	Desired  string
	Live     string
	Target   string // as git has it, not yet merged with what the cluster adds; "" for what must be pruned
	Modified bool
}

// Differences compares every managed resource; those without a difference are
// included, with Modified false.
func (s *Server) Differences(ctx context.Context, app string) ([]Difference, error) {
	var doc struct {
		Items []struct {
			Group, Kind, Namespace, Name            string
			TargetState, LiveState                  string
			NormalizedLiveState, PredictedLiveState string
			Hook, Modified                          bool
		}
	}
	if err := s.get(ctx, "/api/v1/applications/"+url.PathEscape(app)+"/managed-resources", nil, &doc); err != nil {
		return nil, err
	}
	var list []Difference
	for _, i := range doc.Items {
		if i.Hook {
			continue
		}
		d := Difference{ResourceKey: ResourceKey{i.Group, i.Kind, i.Namespace, i.Name}, Desired: state(i.TargetState), Live: state(i.LiveState), Target: state(i.TargetState)}
		d.Modified = i.Modified || d.Desired == "" || d.Live == ""
		if d.Desired != "" && d.Live != "" && i.PredictedLiveState != "" {
			d.Desired, d.Live = i.PredictedLiveState, i.NormalizedLiveState
			d.Modified = d.Desired != d.Live
		}
		list = append(list, d)
	}
	return list, nil
}

// state maps upstream's "null" for an absent object to "".
func state(s string) string {
	if s == "null" {
		return ""
	}
	return s
}

// Manifest returns the live object of a resource in the tree, as JSON.
func (s *Server) Manifest(ctx context.Context, app string, n Node) (json.RawMessage, error) {
	var doc struct{ Manifest string }
	if err := s.get(ctx, "/api/v1/applications/"+url.PathEscape(app)+"/resource", resourceQuery(n), &doc); err != nil {
		return nil, err
	}
	return json.RawMessage(doc.Manifest), nil
}

// Commit is what a repository says of a revision.
type Commit struct {
	Author  string // "Name <address>"
	Date    time.Time
	Message string
	Tags    []string
}

// Commit returns the commit of a revision that the Application was synced to.
func (s *Server) Commit(ctx context.Context, app, revision string) (Commit, error) {
	var doc struct {
		Author, Date, Message string
		Tags                  []string
	}
	path := "/api/v1/applications/" + url.PathEscape(app) + "/revisions/" + url.PathEscape(revision) + "/metadata"
	if err := s.get(ctx, path, nil, &doc); err != nil {
		return Commit{}, err
	}
	return Commit{Author: doc.Author, Date: parseTime(doc.Date), Message: doc.Message, Tags: doc.Tags}, nil
}

// LogLine is one line of a container's log.
type LogLine struct {
	Pod     string
	Time    time.Time
	Content string
}

// LogRequest names a container's log and the part of it that is wanted.
type LogRequest struct {
	Namespace, Pod, Container string
	Last                      int  // lines from its end; 0 for all
	Follow                    bool // and each new one
	Previous                  bool // of the container before its last restart
}

// Logs calls line for the lines asked for, with Follow until ctx ends or the
// container does.
func (s *Server) Logs(ctx context.Context, app string, of LogRequest, line func(LogLine)) error {
	q := url.Values{
		"namespace": {of.Namespace}, "podName": {of.Pod}, "container": {of.Container},
		"tailLines": {strconv.Itoa(of.Last)}, "follow": {strconv.FormatBool(of.Follow)}, "previous": {strconv.FormatBool(of.Previous)},
	}
	body, err := s.open(ctx, "/api/v1/applications/"+url.PathEscape(app)+"/logs", q)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var doc struct {
			Result struct {
				Content, TimeStampStr, PodName string
				Last                           bool
			}
			Error *struct{ Message string }
		}
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("gitops: read logs: %w", err)
		}
		if doc.Error != nil {
			return delivery.Errorf(delivery.Unavailable, "Argo CD cannot read the log: %s", doc.Error.Message)
		}
		if doc.Result.Last {
			return nil
		}
		line(LogLine{doc.Result.PodName, parseTime(doc.Result.TimeStampStr), doc.Result.Content})
	}
}

func (s *Server) get(ctx context.Context, path string, q url.Values, into any) error {
	body, err := s.open(ctx, path, q)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("gitops: read %s: %w", path, err)
	}
	return nil
}

// open asks in the platform's own name.
func (s *Server) open(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	token, err := os.ReadFile(s.tokenFile)
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Unavailable, Op: "gitops: API token", Message: "Argo CD has not started yet.", Next: "See `slipway status` for the cause.", Err: err}
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return s.call(ctx, http.MethodGet, path, string(bytes.TrimSpace(token)), nil)
}

// call asks in the name of the token's owner.
func (s *Server) call(ctx context.Context, method, path, token string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json") // Argo CD refuses others, also without a body
	}
	res, err := s.http.Do(req)
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.Unavailable, Op: "gitops: call Argo CD", Message: "Argo CD does not answer.", Next: "See `slipway status` for the cause.", Err: err}
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	return nil, refused(res)
}

// refused gives an answer other than 200 its kind and its own words.
func refused(res *http.Response) error {
	var doc struct{ Message string }
	// What is no JSON leaves the message empty; the status says enough.
	_ = json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&doc)
	kind := delivery.Unavailable
	switch res.StatusCode {
	case http.StatusNotFound:
		kind = delivery.NotFound
	case http.StatusForbidden, http.StatusUnauthorized:
		kind = delivery.Forbidden
	case http.StatusBadRequest:
		kind = delivery.Invalid
	case http.StatusConflict:
		kind = delivery.Conflict
	}
	if doc.Message == "" {
		doc.Message = res.Status
	}
	return delivery.Errorf(kind, "Argo CD answers: %s", doc.Message)
}

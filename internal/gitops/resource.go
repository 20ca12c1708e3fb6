package gitops

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ResourceAction is what Argo CD can do with a resource besides syncing it,
// such as restart. Which there are, its configuration says by kind
// (resource.customizations.actions).
type ResourceAction struct {
	Name     string
	Title    string // as people read it
	Disabled bool   // makes no sense now
}

// Actions returns the actions of a resource in the tree that need no parameter,
// in the name of the token's owner.
func (s *Server) Actions(ctx context.Context, token, app string, n Node) ([]ResourceAction, error) {
	path := collections[KindApplication] + "/" + url.PathEscape(app) + "/resource/actions?" + resourceQuery(n).Encode()
	body, err := s.call(ctx, http.MethodGet, path, token, nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var doc struct {
		Actions []struct {
			Name, DisplayName string
			Disabled          bool
			Params            []json.RawMessage
		}
	}
	if err := json.NewDecoder(body).Decode(&doc); err != nil {
		return nil, fmt.Errorf("gitops: read the actions of %s %s: %w", n.Kind, n.Name, err)
	}
	var list []ResourceAction
	for _, a := range doc.Actions {
		if len(a.Params) > 0 {
			continue
		}
		title := a.DisplayName
		if title == "" {
			title = a.Name
		}
		if first, size := utf8.DecodeRuneInString(title); size > 0 {
			title = string(unicode.ToUpper(first)) + title[size:]
		}
		list = append(list, ResourceAction{a.Name, title, a.Disabled})
	}
	// Argo CD answers in no order.
	slices.SortFunc(list, func(a, b ResourceAction) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Act runs an action of a resource in the name of the token's owner: Argo CD's
// policy decides. Errors are of kind Invalid, Forbidden, NotFound or Unavailable.
func (s *Server) Act(ctx context.Context, token, app string, n Node, action string) error {
	return s.send(ctx, http.MethodPost, collections[KindApplication]+"/"+url.PathEscape(app)+"/resource/actions/v2", token, map[string]string{
		"name": app, "namespace": n.Namespace, "resourceName": n.Name, "version": n.Version, "group": n.Group, "kind": n.Kind, "action": action,
	})
}

// DeleteResource deletes one live resource in the name of the token's owner:
// force without waiting for its end, orphan leaves what it owns.
func (s *Server) DeleteResource(ctx context.Context, token, app string, n Node, force, orphan bool) error {
	q := resourceQuery(n)
	q.Set("force", strconv.FormatBool(force))
	q.Set("orphan", strconv.FormatBool(orphan))
	return s.send(ctx, http.MethodDelete, collections[KindApplication]+"/"+url.PathEscape(app)+"/resource?"+q.Encode(), token, nil)
}

// resourceQuery names a resource as Argo CD's API does.
func resourceQuery(n Node) url.Values {
	return url.Values{"namespace": {n.Namespace}, "resourceName": {n.Name}, "version": {n.Version}, "group": {n.Group}, "kind": {n.Kind}}
}

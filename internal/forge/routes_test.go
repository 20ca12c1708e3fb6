package forge_test

import (
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

// caller is one kind of visitor of every route.
type caller struct {
	name  string
	token string
	role  delivery.Role // in the project; 0: none
}

// least is what each route of a private project asks for. Routes that are not
// named here ask for Guest to read and Maintainer to change.
var least = map[string]delivery.Role{
	// Code needs Reporter in a private project.
	"GET /repository/": delivery.Reporter, "HEAD /repository/": delivery.Reporter, "GET /merge_requests": delivery.Reporter, "GET /languages": delivery.Reporter, "GET /search": delivery.Reporter, "GET /-/search": delivery.Reporter,
	"POST /fork": delivery.Reporter, "POST /merge_requests/": delivery.Reporter, "PUT /merge_requests/": delivery.Reporter, "DELETE /merge_requests/": delivery.Reporter, "POST /repository/commits/{sha}/comments": delivery.Reporter,
	"POST /repository/commits/{sha}/discussions": delivery.Reporter, "PUT /repository/commits/{sha}/discussions": delivery.Reporter, "DELETE /repository/commits/{sha}/discussions": delivery.Reporter,
	"POST /repository/": delivery.Developer, "PUT /repository/": delivery.Developer, "DELETE /repository/": delivery.Developer, "POST /releases": delivery.Developer, "PUT /releases": delivery.Developer, "DELETE /releases": delivery.Developer,
	"POST /merge_requests": delivery.Developer,
	"GET /hooks":           delivery.Maintainer, "GET /access_tokens": delivery.Maintainer, "GET /deploy_": delivery.Maintainer, "GET /job_token_scope": delivery.Maintainer, "GET /remote_mirrors": delivery.Maintainer, "GET /mirror/": delivery.Maintainer,
	"DELETE {project}": delivery.Owner, "POST /archive": delivery.Owner, "POST /unarchive": delivery.Owner, "PUT /transfer": delivery.Owner, "DELETE /merge_requests/{iid}$": delivery.Owner,
}

// need looks up what a route asks for by its longest prefix in least.
func need(pattern string) delivery.Role {
	method, path, _ := strings.Cut(pattern, " ")
	rest := strings.TrimPrefix(path, "/projects/{project}")
	if rest == "" {
		rest = "{project}"
	}
	best, role := -1, delivery.Guest
	if method != "GET" && method != "HEAD" {
		role = delivery.Maintainer
	}
	for key, r := range least {
		m, prefix, _ := strings.Cut(key, " ")
		exact := strings.HasSuffix(prefix, "$")
		prefix = strings.TrimSuffix(prefix, "$")
		if m == method && (exact && rest == prefix || !exact && strings.HasPrefix(rest, prefix)) && len(prefix) > best {
			best, role = len(prefix), r
		}
	}
	return role
}

// fill puts values in the place of a pattern's names.
func fill(pattern string, p delivery.Project, group delivery.Group) string {
	for name, value := range map[string]string{"project": strconv.FormatInt(p.ID, 10), "group": strconv.FormatInt(group.ID, 10), "branch": "spare", "tag": "v1", "sha": "main", "path": "README.md", "archive": "archive.tar.gz", "iid": "1",
		"name": "main", "user": "1", "id": "999", "key": "999", "mirror": "999", "hook": "999", "event": "999", "trigger": "push_events", "note": "999", "discussion": "0", "link": "999", "target": "999", "namespace": "root"} {
		pattern = strings.ReplaceAll(pattern, "{"+name+"}", value)
	}
	return pattern
}

// TestEveryRouteWithEveryRole walks all routes as everyone. Who may not see
// the project always gets what a project that does not exist gives; who may,
// but has too low a role, gets 403; and nobody gets an internal error.
func TestEveryRouteWithEveryRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	group := w.group("root", "secret")
	p := w.project("root", "secret", "app", func(n *forge.NewProject) { n.Readme = true })
	if _, err := w.forge.CreateTag(t.Context(), w.root, p, "v1", "main", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := w.forge.CreateBranch(t.Context(), w.root, p, "spare", "main"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.forge.CommitFiles(t.Context(), w.root, p, delivery.NewCommit{Branch: "topic", StartBranch: "main", Message: "Topic", Actions: []delivery.CommitAction{{Action: "create", Path: "x", Content: []byte("x")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.forge.CreateMergeRequest(t.Context(), w.root, p, forge.NewMergeRequest{SourceProject: p, SourceBranch: "topic", Title: "T"}); err != nil {
		t.Fatal(err)
	}
	callers := []caller{{name: "anonymous"}}
	for _, c := range []struct {
		name string
		role delivery.Role
	}{{"stranger", 0}, {"guest", delivery.Guest}, {"reporter", delivery.Reporter}, {"developer", delivery.Developer}, {"maintainer", delivery.Maintainer}} {
		w.person(c.name)
		if c.role > 0 {
			w.member(p, c.name, c.role)
		}
		callers = append(callers, caller{c.name, w.tokens[c.name], c.role})
	}
	_, secret, err := w.access.CreateProjectToken(t.Context(), w.root, w.project("root", "", "other"), delivery.Owner, access.NewToken{Name: "other project's", Scopes: []string{"api"}})
	if err != nil {
		t.Fatal(err)
	}
	callers = append(callers, caller{"token of another project", secret, 0})
	w.jobs.claims["job"] = delivery.JobClaim{JobID: 1, ProjectID: 2, UserID: w.people["maintainer"].User.ID}

	patterns := w.router.Patterns()
	sort.Strings(patterns)
	if len(patterns) < 150 {
		t.Fatalf("only %d routes", len(patterns))
	}
	request := func(c caller, method, path string) (int, string) {
		req, err := http.NewRequest(method, w.server.URL+"/api/v4"+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if c.token != "" {
			req.Header.Set("PRIVATE-TOKEN", c.token)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		if err != nil && res.StatusCode < 300 {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	for _, pattern := range patterns {
		if !strings.Contains(pattern, "{project}") && !strings.Contains(pattern, "{group}") {
			continue
		}
		method, _, _ := strings.Cut(pattern, " ")
		path := strings.TrimPrefix(fill(pattern, p, group), method+" ")
		missing := strings.Replace(path, fmt.Sprintf("/projects/%d", p.ID), "/projects/424242", 1)
		missing = strings.Replace(missing, fmt.Sprintf("/groups/%d", group.ID), "/groups/424242", 1)
		for _, c := range callers {
			status, body := request(c, method, path)
			if status >= 500 {
				t.Errorf("%s as %s: %d %s", pattern, c.name, status, body)
			}
			if strings.Contains(pattern, "{group}") {
				if c.role == 0 {
					if again, same := request(c, method, missing); status != again || body != same || status == http.StatusOK {
						t.Errorf("%s as %s tells the group from none: %d %s, %d %s", pattern, c.name, status, body, again, same)
					}
				}
				continue
			}
			wanted := need(pattern)
			switch {
			case c.role == 0:
				again, same := request(c, method, missing)
				if status != again || body != same || status < 400 {
					t.Errorf("%s as %s tells the project from none: %d %s, %d %s", pattern, c.name, status, body, again, same)
				}
			case c.role < wanted:
				if status != http.StatusForbidden && !(status == http.StatusNotFound && strings.Contains(pattern, "{user}")) {
					t.Errorf("%s as %s: %d %s; %s is needed", pattern, c.name, status, body, wanted)
				}
			case status == http.StatusForbidden || status == http.StatusUnauthorized:
				// What the route itself goes on to refuse, such as one's own approval.
				if !strings.Contains(pattern, "/merge") && !strings.Contains(pattern, "/approve") && !strings.Contains(pattern, "unapprove") && !strings.Contains(pattern, "/merge_requests/{iid}") {
					t.Errorf("%s as %s: %d %s; %s is enough", pattern, c.name, status, body, wanted)
				}
			}
		}
	}
	// Administrators' routes.
	for _, pattern := range []string{"POST /users", "PUT /users/1", "DELETE /users/1", "GET /audit_events", "POST /users/1/personal_access_tokens", "POST /users/1/block", "POST /users/1/keys"} {
		method, path, _ := strings.Cut(pattern, " ")
		for _, c := range callers {
			if status, body := request(c, method, path); status != http.StatusForbidden && status != http.StatusUnauthorized {
				t.Errorf("%s as %s: %d %s", pattern, c.name, status, body)
			}
		}
	}
	// Git.
	for _, c := range callers {
		for _, repo := range []struct {
			path string
			role delivery.Role
		}{{"/secret/app.git/info/refs?service=git-upload-pack", delivery.Reporter}, {"/secret/app.git/info/refs?service=git-receive-pack", delivery.Developer}} {
			req, err := http.NewRequest("GET", w.server.URL+repo.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			wanted := http.StatusOK
			switch {
			case c.token == "":
				wanted = http.StatusUnauthorized
			case c.role == 0:
				wanted = http.StatusNotFound
			case c.role < repo.role:
				wanted = http.StatusForbidden
			}
			if c.token != "" {
				req.SetBasicAuth("x", c.token)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != wanted {
				t.Errorf("git %s as %s: %d, want %d", repo.path, c.name, res.StatusCode, wanted)
			}
		}
	}
}

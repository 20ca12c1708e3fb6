package forge_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/forge"
	gitlab "gitlab.com/gitlab-org/api/client-go"
)

// TestClientGroups drives what a group has of its own with GitLab's client:
// webhooks that hear of every project below, and tokens.
func TestClientGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.background()
	r := newReceiver(t)
	w.person("ann")
	w.person("eve")
	g := w.group("ann", "team")
	sub, err := w.access.CreateGroup(t.Context(), w.people["ann"], access.NewGroup{Path: "web", ParentID: g.ID})
	if err != nil {
		t.Fatal(err)
	}
	p := w.project("ann", sub.FullPath, "app")
	c := w.client("ann")
	hook := must[*gitlab.GroupHook](t)(c.Groups.AddGroupHook(g.ID, &gitlab.AddGroupHookOptions{URL: gitlab.Ptr(r.URL), Token: gitlab.Ptr("secret"), PushEvents: gitlab.Ptr(true)}))
	if hook.GroupID != g.ID || hook.URL != r.URL {
		t.Errorf("%+v", hook)
	}
	if list := must[[]*gitlab.GroupHook](t)(c.Groups.ListGroupHooks(g.ID, nil)); len(list) != 1 {
		t.Errorf("%d hooks", len(list))
	}
	if list := must[[]*gitlab.ProjectHook](t)(c.Projects.ListProjectHooks(p.ID, nil)); len(list) != 0 {
		t.Errorf("the project has %d hooks of its own", len(list))
	}
	if _, res, err := w.client("eve").Groups.ListGroupHooks(g.ID, nil); err == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("a stranger lists the hooks: %v", err)
	}
	w.git(w.workingCopy(p, "ann"), "push", "-q", "origin", "main")
	eventually(t, "push hook of a subgroup's project", func() bool { h, b := r.find("push"); return b != nil && h.Header.Get("X-Gitlab-Token") == "secret" })
	// Another address does not get the secret of the first.
	must[*gitlab.GroupHook](t)(c.Groups.EditGroupHook(g.ID, hook.ID, &gitlab.EditGroupHookOptions{URL: gitlab.Ptr(r.URL + "/other")}))
	stored, err := w.forge.Hook(t.Context(), forge.HookOwner{GroupID: g.ID}, hook.ID)
	if err != nil || stored.Token != "" {
		t.Errorf("the token went along to another address: %q %v", stored.Token, err)
	}
	ok(t)(c.Groups.DeleteGroupHook(g.ID, hook.ID))

	token := must[*gitlab.GroupAccessToken](t)(c.GroupAccessTokens.CreateGroupAccessToken(g.ID, &gitlab.CreateGroupAccessTokenOptions{Name: gitlab.Ptr("bot"), Scopes: gitlab.Ptr([]string{"api"}), AccessLevel: gitlab.Ptr(gitlab.DeveloperPermissions)}))
	w.tokens["bot"] = token.Token
	bot := w.client("bot")
	must[*gitlab.Project](t)(bot.Projects.GetProject(p.ID, nil))
	if list := must[[]*gitlab.Project](t)(bot.Groups.ListGroupProjects(sub.ID, nil)); len(list) != 1 {
		t.Errorf("the bot lists %d projects", len(list))
	}
	if _, res, err := bot.Groups.ListGroupHooks(g.ID, nil); err == nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("a developer's token lists the hooks: %v", err)
	}
	w.git(t.TempDir(), "clone", "-q", w.url(p, "bot"), "x")
	rotated := must[*gitlab.GroupAccessToken](t)(c.GroupAccessTokens.RotateGroupAccessToken(g.ID, token.ID, nil))
	if rotated.Token == "" || rotated.Token == token.Token {
		t.Errorf("%+v", rotated)
	}
	if _, res, err := bot.Projects.GetProject(p.ID, nil); err == nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("the old token: %v", err)
	}
	ok(t)(c.GroupAccessTokens.RevokeGroupAccessToken(g.ID, rotated.ID))
	deploy := must[*gitlab.DeployToken](t)(c.DeployTokens.CreateGroupDeployToken(g.ID, &gitlab.CreateGroupDeployTokenOptions{Name: gitlab.Ptr("d"), Scopes: gitlab.Ptr([]string{"read_repository"})}))
	address := strings.Replace(w.server.URL, "http://", "http://"+deploy.Username+":"+deploy.Token+"@", 1) + "/" + p.FullPath + ".git"
	w.git(t.TempDir(), "clone", "-q", address, "x")
	if out, err := w.tryGit(t.TempDir(), "clone", "-q", strings.Replace(address, p.FullPath, w.project("ann", "", "own").FullPath, 1), "x"); err == nil {
		t.Errorf("a group's deploy token reads another project: %s", out)
	}
}

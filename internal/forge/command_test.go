package forge_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/slipwayhq/slipway/internal/command/group"
	"github.com/slipwayhq/slipway/internal/command/project"
	commandrest "github.com/slipwayhq/slipway/internal/command/rest"
	"github.com/slipwayhq/slipway/internal/command/token"
	"github.com/slipwayhq/slipway/internal/command/user"
)

func TestCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	connect := func() (*commandrest.Client, error) {
		return &commandrest.Client{URL: w.server.URL, Token: w.tokens["root"]}, nil
	}
	try := func(stdin string, args ...string) (string, error) {
		root := &cobra.Command{Use: "slipway", SilenceUsage: true, SilenceErrors: true}
		root.AddCommand(user.New(connect), token.New(connect), group.New(connect), project.New(connect))
		var out bytes.Buffer
		root.SetArgs(args)
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetIn(strings.NewReader(stdin))
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	run := func(stdin string, args ...string) string {
		t.Helper()
		out, err := try(stdin, args...)
		if err != nil {
			t.Fatalf("slipway %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	if out := run("", "user", "create", "ann", "--email", "ann@example.com"); !strings.Contains(out, "Password: ") {
		t.Error(out)
	}
	run("correct horse\n", "user", "password", "ann")
	if _, _, err := w.access.SignIn(t.Context(), "ann", "correct horse", "", "192.0.2.1", ""); err != nil {
		t.Error(err)
	}
	run("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVDkVD/9YtVrtcJIbkXMCP0FmWDuh0GCy/Ul/nJMlLm laptop\n", "user", "add-key", "ann")
	w.tokens["ann"] = strings.TrimSpace(run("", "token", "create", "ann", "--name", "cli"))
	if out := run("", "token", "ls", "ann"); !strings.Contains(out, "cli") || strings.Contains(out, w.tokens["ann"]) {
		t.Error(out)
	}
	run("", "group", "create", "team")
	run("", "group", "create", "team/web", "--visibility", "private")
	run("", "group", "add-member", "team", "ann", "--role", "developer")
	run("", "group", "add-member", "team", "ann", "--role", "maintainer")
	run("", "project", "create", "team/web/app", "--readme")
	run("", "project", "create", "team/gitops")
	run("", "project", "allow-jobs", "team/gitops", "team/web/app", "--push")
	run("", "project", "import", w.server.URL[:7]+"root:"+w.tokens["root"]+"@"+w.server.URL[7:]+"/team/web/app.git", "team/copy")
	run("", "project", "mirror", "team/copy", "--pull", w.server.URL+"/team/web/app.git", "--every", "1h")
	if out := run("", "project", "mirrors", "team/copy"); !strings.Contains(out, "pull") {
		t.Error(out)
	}
	run("", "project", "sync", "team/copy")
	run("", "project", "archive", "team/copy")
	run("", "project", "unarchive", "team/copy")
	run("", "project", "unmirror", "team/copy", w.server.URL+"/team/web/app.git")
	if _, err := try("", "project", "sync", "team/copy"); err == nil || !strings.Contains(err.Error(), "no mirrors") {
		t.Error(err)
	}
	if out := run("", "project", "transfer", "team/copy", "team/web"); !strings.Contains(out, "team/web/copy") {
		t.Error(out)
	}
	run("", "project", "transfer", "team/web/copy", "team")
	run(w.tokens["root"]+"\n", "project", "import", w.server.URL+"/team/web/app.git", "team/again", "--username", "root", "--password-stdin")
	run("", "project", "rm", "team/again", "--yes")
	var list []map[string]any
	if err := json.Unmarshal([]byte(run("", "project", "ls", "--json")), &list); err != nil || len(list) != 3 {
		t.Errorf("%v %v", list, err)
	}
	if out, err := try("", "project", "rm", "team/copy"); err == nil {
		t.Error(out)
	}
	run("", "project", "rm", "team/copy", "--yes")
	run("", "user", "block", "ann")
	if out := run("", "user", "ls"); !strings.Contains(out, "blocked") {
		t.Error(out)
	}
	if _, err := try("", "user", "block", "nobody"); err == nil || !strings.Contains(err.Error(), "slipway user ls") && !strings.Contains(err.Error(), "There is no user nobody") {
		t.Errorf("%v", err)
	}
}

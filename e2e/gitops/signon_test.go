//go:build e2e

package gitops_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const personPassword = "correct horse battery"

// person makes an account with a role in acme/ops and returns a token of it.
func (l *lab) person(t *testing.T, name string, role int) string {
	t.Helper()
	u := l.api(t, "POST", "/users", map[string]any{"username": name, "name": name, "email": name + "@example.org", "password": personPassword})
	l.api(t, "POST", "/projects/acme%2Fops/members", map[string]any{"user_id": u["id"], "access_level": role})
	token := l.api(t, "POST", fmt.Sprintf("/users/%v/personal_access_tokens", u["id"]), map[string]any{"name": "e2e", "scopes": []string{"api"}})
	return token["token"].(string)
}

// browser is signed in as a person; it does not follow redirects.
func (l *lab) browser(t *testing.T, name string) *http.Client {
	t.Helper()
	return l.browserOf(t, name, personPassword)
}

// rootPassword is the administrator's.
func (l *lab) rootPassword(t *testing.T) string {
	t.Helper()
	password, err := os.ReadFile(filepath.Join(l.DataDir, "run", "root.password"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(password))
}

func (l *lab) browserOf(t *testing.T, name, password string) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.PostForm(l.URL+"/users/sign_in", url.Values{"login": {name}, "password": {password}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		t.Fatalf("sign in as %s: %s", name, res.Status)
	}
	return c
}

// page returns the text of a page, and its status.
func page(t *testing.T, c *http.Client, address string) (int, string) {
	t.Helper()
	res, err := c.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// argocd runs the stock program as it is: no platform around it. The
// configuration holds who signed in; token may stand in for that.
func (l *lab) argocd(t *testing.T, config, token string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args = append(args, "--config", config)
	if token != "" {
		args = append(args, "--server", strings.TrimPrefix(l.URL, "http://"), "--plaintext")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(l.Bin, "argocd"), args...)
	cmd.Env = append(os.Environ(), "ARGOCD_AUTH_TOKEN="+token)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var authorizeURL = regexp.MustCompile(`http://\S+/oauth/authorize\?\S+`)

// signIn runs `argocd login --sso` and does in the browser what a person does.
func (l *lab) signIn(t *testing.T, name, config string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(l.Bin, "argocd"), "login", strings.TrimPrefix(l.URL, "http://"), "--plaintext", "--sso", "--sso-launch-browser=false", "--sso-port", "18085", "--config", config)
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var address string
	l.With(t).Eventually("the program's address to sign in", 30*time.Second, func() bool {
		address = authorizeURL.FindString(out.String())
		return address != ""
	})
	c := l.browser(t, name)
	if status, body := page(t, c, address); status != http.StatusOK || !strings.Contains(body, "@"+name) {
		t.Fatalf("the consent page answers %d", status)
	}
	res, err := c.PostForm(address, url.Values{"answer": {"allow"}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	back := res.Header.Get("Location")
	l.With(t).Eventually("the program takes the answer", 20*time.Second, func() bool {
		answer, err := http.Get(back)
		if err != nil {
			return false // it opens its port a moment later
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	if err := cmd.Wait(); err != nil {
		t.Fatalf("argocd login: %v\n%s", err, out.String())
	}
}

// People use Argo CD with their accounts, by token and by signing in with the
// stock program, and may do what their roles in the source project allow.
func (l *lab) testSignOn(t *testing.T) {
	dir := t.TempDir()
	developer, guest := l.person(t, "dora", 30), l.person(t, "gus", 10)
	l.With(t).Eventually("the policy has the application", 20*time.Second, func() bool {
		out, err := l.argocd(t, filepath.Join(dir, "none"), developer, "app", "list", "-o", "name")
		return err == nil && strings.Contains(out, "argocd/sync")
	})
	if out, err := l.argocd(t, filepath.Join(dir, "none"), developer, "app", "sync", "sync"); err != nil {
		t.Errorf("a developer's sync: %v\n%s", err, out)
	}
	a, err := l.apps.Get(t.Context(), "sync")
	if err != nil || a.Operation == nil || a.Operation.By != "@dora" {
		t.Errorf("who synced: %+v %v", a.Operation, err)
	}
	if out, err := l.argocd(t, filepath.Join(dir, "none"), developer, "app", "delete", "sync", "--yes"); err == nil || !strings.Contains(out, "PermissionDenied") {
		t.Errorf("a developer deletes: %v\n%s", err, out)
	}
	if out, err := l.argocd(t, filepath.Join(dir, "none"), guest, "app", "get", "sync"); err == nil || !strings.Contains(out, "PermissionDenied") {
		t.Errorf("a guest looks: %v\n%s", err, out)
	}
	if out, err := l.argocd(t, filepath.Join(dir, "none"), "glpat-wrong", "app", "list"); err == nil || !strings.Contains(out, "Unauthenticated") {
		t.Errorf("a wrong token: %v\n%s", err, out)
	}
	config := filepath.Join(dir, "dora")
	l.signIn(t, "dora", config)
	out, err := l.argocd(t, config, "", "account", "get-user-info")
	if err != nil || !strings.Contains(out, "@dora") || !strings.Contains(out, "@acme/ops:developer") {
		t.Errorf("who is signed in: %v\n%s", err, out)
	}
	if out, err := l.argocd(t, config, "", "app", "sync", "sync"); err != nil {
		t.Errorf("sync after signing in: %v\n%s", err, out)
	}
	l.testPasswords(t, dir)
	// A blocked account is out at once, whatever its sign-in.
	users := l.list(t, "/users?username=dora")
	l.api(t, "POST", fmt.Sprintf("/users/%v/block", users[0]["id"]), nil)
	l.With(t).Eventually("the blocked account is refused", 30*time.Second, func() bool {
		out, err := l.argocd(t, config, "", "app", "list")
		return err != nil && strings.Contains(out, "Unauthenticated")
	})
	l.api(t, "POST", fmt.Sprintf("/users/%v/unblock", users[0]["id"]), nil)
}

// People sign in by password over HTTPS, trusting the platform's authority, and
// over gRPC-Web. A token is used as it is.
func (l *lab) testPasswords(t *testing.T, dir string) {
	secure := filepath.Join(dir, "secure")
	t.Setenv("SSL_CERT_FILE", filepath.Join(l.DataDir, "trust", "ca.crt"))
	for _, flags := range [][]string{nil, {"--grpc-web"}} {
		out, err := l.argocd(t, secure, "", append([]string{"login", l.Address, "--username", "dora", "--password", personPassword}, flags...)...)
		if err != nil || !strings.Contains(out, "logged in successfully") {
			t.Errorf("login by password %v: %v\n%s", flags, err, out)
			continue
		}
		if out, err := l.argocd(t, secure, "", "app", "get", "sync"); err != nil {
			t.Errorf("after login by password %v: %v\n%s", flags, err, out)
		}
		if out, err := l.argocd(t, secure, "", "app", "delete", "sync", "--yes"); err == nil || !strings.Contains(out, "permission denied") {
			t.Errorf("a developer deletes: %v\n%s", err, out)
		}
	}
	for name, password := range map[string]string{"dora": "wrong password", "nobody": "x"} {
		if out, err := l.argocd(t, secure, "", "login", l.Address, "--username", name, "--password", password); err == nil || !strings.Contains(out, "Unauthenticated") {
			t.Errorf("%s with a wrong password: %v\n%s", name, err, out)
		}
	}
	if out, err := l.argocd(t, secure, "", "login", l.Address, "--username", "root", "--password", l.token); err == nil || !strings.Contains(out, "ARGOCD_AUTH_TOKEN") {
		t.Errorf("login with a token: %v\n%s", err, strings.ReplaceAll(out, l.token, "***"))
	}
}

// The pages show what is, and act in the person's name: the way back under
// automated sync is a commit.
func (l *lab) testPages(t *testing.T) {
	i := l.With(t)
	before := l.push(t, "Make it green", map[string]string{"sync/a.yaml": fmt.Sprintf(configMap, "a", "green")})
	i.Eventually("green", 30*time.Second, func() bool { return l.value("configmap", "sync", "a", "{.data.value}") == "green" })
	l.push(t, "Make it grey", map[string]string{"sync/a.yaml": fmt.Sprintf(configMap, "a", "grey")})
	i.Eventually("grey in the history", 30*time.Second, func() bool {
		a, err := l.apps.Get(t.Context(), "sync")
		return err == nil && l.value("configmap", "sync", "a", "{.data.value}") == "grey" && len(a.History) > 1 && a.History[1].Revision == before
	})
	l.person(t, "mona", 40)
	dora, gus, mona := l.browser(t, "dora"), l.browser(t, "gus"), l.browser(t, "mona")
	if status, body := page(t, dora, l.URL+"/-/applications"); status != 200 || !strings.Contains(body, "/-/applications/sync") {
		t.Errorf("the list: %d", status)
	}
	if status, _ := page(t, gus, l.URL+"/-/applications/sync"); status != http.StatusNotFound {
		t.Errorf("a guest sees the application: %d", status)
	}
	status, body := page(t, mona, l.URL+"/-/applications/sync")
	for _, want := range []string{"Make it grey", "Revert to this", "resource?", "Synced"} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("the application's page (%d) lacks %q", status, want)
		}
	}
	for _, tab := range []string{"live", "desired"} {
		if status, body := page(t, dora, l.URL+"/-/applications/sync/resource?kind=ConfigMap&namespace=sync&resource=a&tab="+tab); status != 200 || !strings.Contains(body, "grey") {
			t.Errorf("the manifest %s: %d", tab, status)
		}
	}
	a, err := l.apps.Get(t.Context(), "sync")
	if err != nil {
		t.Fatal(err)
	}
	if res, err := dora.PostForm(l.URL+"/-/applications/sync/revert", url.Values{"id": {fmt.Sprint(a.History[1].ID)}}); err != nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("a developer commits to the protected branch: %v %v", res, err)
	}
	res, err := mona.PostForm(l.URL+"/-/applications/sync/revert", url.Values{"id": {fmt.Sprint(a.History[1].ID)}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		t.Fatalf("revert: %s", res.Status)
	}
	i.Eventually("green again", 30*time.Second, func() bool { return l.value("configmap", "sync", "a", "{.data.value}") == "green" })
	l.git(t, l.clone, "pull", "-q", "--ff-only", strings.Replace(l.repo, "://", "://root:"+l.token+"@", 1), "main")
	if who := l.git(t, l.clone, "log", "-1", "--format=%an"); who != "mona" {
		t.Errorf("the revert commit is by %s", who)
	}
}

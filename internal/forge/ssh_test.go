package forge_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"golang.org/x/crypto/ssh"
)

// sshKey makes a key pair for a person or as a deploy key and returns the
// private key's file.
func (w *world) sshKey(k access.Key) string {
	w.t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.t.TempDir(), "id")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		w.t.Fatal(err)
	}
	sp, err := ssh.NewPublicKey(pub)
	if err != nil {
		w.t.Fatal(err)
	}
	k.Title, k.PublicKey = "test", string(ssh.MarshalAuthorizedKey(sp))
	if _, err := w.access.AddKey(context.Background(), w.root, k); err != nil {
		w.t.Fatal(err)
	}
	return file
}

func TestSSH(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("ssh is not installed")
	}
	w := newWorld(t)
	w.person("ann")
	p := w.project("ann", "", "app")
	secret := w.project("root", "", "secret", func(n *forge.NewProject) { n.Readme = true })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hostKey, err := forge.LoadHostKey(filepath.Join(w.dir, "host_key"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.forge.ServeSSH(ctx, l, hostKey) }()
	t.Cleanup(func() { cancel(); <-done })
	port := l.Addr().(*net.TCPAddr).Port
	run := func(key string, dir string, args ...string) (string, error) {
		sub, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		cmd := exec.CommandContext(sub, "git", args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "GIT_SSH_COMMAND=" + fmt.Sprintf("ssh -i %s -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -F /dev/null", key)}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	url := func(p delivery.Project) string { return fmt.Sprintf("ssh://git@127.0.0.1:%d/%s.git", port, p.FullPath) }
	ann := w.sshKey(access.Key{UserID: w.people["ann"].User.ID})
	dir := w.workingCopy(p, "ann")
	begun := time.Now()
	if out, err := run(ann, dir, "push", "-o", "ci.skip", url(p), "main"); err != nil {
		t.Fatalf("push: %v %s", err, out)
	}
	if out, err := run(ann, t.TempDir(), "clone", url(p), "x"); err != nil {
		t.Fatalf("clone: %v %s", err, out)
	}
	if d := time.Since(begun); d > 20*time.Second {
		t.Errorf("push and clone took %s", d)
	}
	if e := w.events(p); len(e) != 1 || e[0].UserID != w.people["ann"].User.ID {
		t.Errorf("%+v", e)
	}
	if out, err := run(ann, t.TempDir(), "clone", url(secret), "x"); err == nil || !strings.Contains(out, "could not be found") {
		t.Errorf("ann cloned a private project of root: %s", out)
	}
	deploy := w.sshKey(access.Key{ProjectID: p.ID})
	if out, err := run(deploy, t.TempDir(), "clone", url(p), "x"); err != nil {
		t.Errorf("deploy key: %v %s", err, out)
	}
	if out, err := run(deploy, dir, "push", url(p), "main:other"); err == nil {
		t.Errorf("a reading deploy key pushed: %s", out)
	}
	stranger := filepath.Join(t.TempDir(), "id")
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stranger, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(stranger, t.TempDir(), "clone", url(p), "x"); err == nil {
		t.Errorf("a stranger cloned: %s", out)
	}
}

func FuzzSSHCommand(f *testing.F) {
	for _, s := range []string{"git-upload-pack '/a/b.git'", "git receive-pack a/b", "git-lfs-authenticate a/b upload", "sh", "git-upload-pack ''", "git-upload-pack '--upload-pack=x'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		verb, project, _, err := forge.ParseSSHCommand(s)
		if err == nil && (project == "" || strings.HasPrefix(project, "-") || strings.ContainsAny(project, "'\x00\n") || !strings.HasPrefix(verb, "git-")) {
			t.Errorf("%q gave %q %q", s, verb, project)
		}
	})
}

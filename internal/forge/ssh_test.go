package forge_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
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

// serveSSH serves git over SSH and returns how git reaches it.
func (w *world) serveSSH() (port int) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	hostKey, err := forge.LoadHostKey(filepath.Join(w.dir, "host_key"))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.forge.ServeSSH(ctx, l, hostKey) }()
	w.t.Cleanup(func() { cancel(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

// TestLFSOverSSH pushes and clones large files over SSH: git-lfs asks for its
// credentials with git-lfs-authenticate and then uses HTTP.
func TestLFSOverSSH(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"ssh", "git-lfs"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	w := newWorld(t)
	w.person("ann")
	w.person("bob")
	p := w.project("ann", "", "app")
	w.member(p, "bob", delivery.Reporter)
	port := w.serveSSH()
	address := fmt.Sprintf("ssh://git@127.0.0.1:%d/%s.git", port, p.FullPath)
	run := func(key, dir string, args ...string) (string, error) {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_TERMINAL_PROMPT=0", "GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.com", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.com",
			"GIT_SSH_COMMAND=" + fmt.Sprintf("ssh -i %s -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes -F /dev/null", key)}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	ann, bob := w.sshKey(access.Key{UserID: w.people["ann"].User.ID}), w.sshKey(access.Key{UserID: w.people["bob"].User.ID})
	dir, content := t.TempDir(), strings.Repeat("large ", 20000)
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"lfs", "install", "--local"}, {"lfs", "track", "*.bin"}, {"remote", "add", "origin", address}} {
		if out, err := run(ann, dir, args...); err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a.bin"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "-m", "Large"}, {"push", "origin", "main"}} {
		if out, err := run(ann, dir, args...); err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
	}
	pointer, err := w.forge.ReadFile(t.Context(), p.ID, "main", "a.bin", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, size, ok := forge.LFSPointer(pointer); !ok || size != int64(len(content)) {
		t.Fatalf("the repository holds %q", pointer)
	}
	clone := t.TempDir()
	if out, err := run(bob, clone, "-c", "filter.lfs.smudge=git-lfs smudge -- %f", "-c", "filter.lfs.process=git-lfs filter-process", "-c", "filter.lfs.required=true", "clone", "-q", address, "x"); err != nil {
		t.Fatalf("clone: %v %s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(clone, "x", "a.bin"))
	if err != nil || string(got) != content {
		t.Errorf("%d bytes came back (%v)", len(got), err)
	}
	// Who may only read gets no credentials to upload with.
	if err := os.WriteFile(filepath.Join(clone, "x", "b.bin"), []byte(content+"more"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"lfs", "install", "--local"}, {"add", "-A"}, {"commit", "-q", "-m", "More"}} {
		if out, err := run(bob, filepath.Join(clone, "x"), args...); err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
	}
	if out, err := run(bob, filepath.Join(clone, "x"), "push", "origin", "main:mine"); err == nil || !strings.Contains(out, "not allowed to push") {
		t.Errorf("a reporter pushed a large file: %v %s", err, out)
	}
}

// TestManySSHConnections opens more connections than one host may have: the
// surplus is closed, and who is in is served.
func TestManySSHConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port := w.serveSSH()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	const many = 400
	greeted := make(chan bool, many)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range many {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		go func() {
			_ = c.SetReadDeadline(time.Now().Add(15 * time.Second)) // the test's own deadline
			line := make([]byte, 8)
			_, err := io.ReadFull(c, line)
			greeted <- err == nil && string(line) == "SSH-2.0-"
		}()
	}
	in := 0
	for range many {
		if <-greeted {
			in++
		}
	}
	if in < 50 || in > 120 {
		t.Errorf("%d of %d connections of one host were let in", in, many)
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

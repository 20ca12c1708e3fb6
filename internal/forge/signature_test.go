package forge_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	gitlab "gitlab.com/gitlab-org/api/client-go"
)

// signed pushes a commit that git signed with the options, and verifies it.
func (w *world) signed(dir, who string, options ...string) *forge.Verification {
	w.t.Helper()
	p, err := w.access.Project(w.t.Context(), who+"/app")
	if err != nil {
		w.t.Fatal(err)
	}
	w.git(dir, append(append([]string{"-c", "user.name=Ann"}, options...), "commit", "-q", "--allow-empty", "-S", "-m", "Signed")...)
	w.git(dir, "push", "-q", "origin", "HEAD:main")
	v, err := w.forge.VerifyCommit(w.t.Context(), p.ID, strings.TrimSpace(w.git(dir, "rev-parse", "HEAD")))
	if err != nil || v == nil {
		w.t.Fatalf("%+v %v", v, err)
	}
	return v
}

// signedTag pushes a tag that git signed with the options, and verifies it.
func (w *world) signedTag(dir string, p delivery.Project, name string, options ...string) *forge.Verification {
	w.t.Helper()
	w.git(dir, append(append([]string{"-c", "user.name=Ann"}, options...), "tag", "-s", "-m", "Release "+name, name)...)
	return w.pushedTag(dir, p, name)
}

func (w *world) pushedTag(dir string, p delivery.Project, name string) *forge.Verification {
	w.t.Helper()
	w.git(dir, "push", "-q", "-f", "origin", "refs/tags/"+name)
	tag, err := w.forge.Tag(w.t.Context(), p, name)
	if err != nil || strings.Contains(tag.Message, "SIGNATURE") {
		w.t.Fatalf("%q %v", tag.Message, err)
	}
	v, err := w.forge.VerifyTag(w.t.Context(), p.ID, tag)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func TestSSHSignatures(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	w := newWorld(t)
	w.person("ann")
	w.person("eve")
	p := w.project("ann", "", "app")
	dir := w.workingCopy(p, "ann")
	w.git(dir, "push", "-q", "origin", "main")
	if v, err := w.forge.VerifyCommit(t.Context(), p.ID, strings.TrimSpace(w.git(dir, "rev-parse", "HEAD"))); v != nil || err != nil {
		t.Errorf("an unsigned commit: %+v %v", v, err)
	}
	for _, kind := range [][]string{{"ed25519"}, {"ecdsa", "-b", "384"}, {"rsa", "-b", "2048"}} {
		key := filepath.Join(t.TempDir(), "key")
		if out, err := exec.Command("ssh-keygen", append([]string{"-q", "-N", "", "-C", "ann", "-f", key, "-t"}, kind...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		public, err := os.ReadFile(key + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		sign := []string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + key}
		if v := w.signed(dir, "ann", sign...); v.Status != forge.SignatureUnknownKey {
			t.Errorf("%s: a key that nobody has: %+v", kind[0], v)
		}
		owner, usage := w.people["ann"], access.KeyForBoth
		k, err := w.access.AddKey(t.Context(), owner, access.Key{UserID: owner.User.ID, PublicKey: string(public), Usage: access.KeyForAuth})
		if err != nil {
			t.Fatal(err)
		}
		if v := w.signed(dir, "ann", sign...); v.Status != forge.SignatureUnknownKey {
			t.Errorf("%s: a key for signing in only: %+v", kind[0], v)
		}
		for _, c := range []struct {
			who  string
			want forge.SignatureStatus
		}{{"eve", forge.SignatureOtherUser}, {"ann", forge.SignatureVerified}} {
			if err := w.access.DeleteKey(t.Context(), w.root, k); err != nil {
				t.Fatal(err)
			}
			owner = w.people[c.who]
			if k, err = w.access.AddKey(t.Context(), owner, access.Key{UserID: owner.User.ID, PublicKey: string(public), Usage: usage}); err != nil {
				t.Fatal(err)
			}
			if v := w.signed(dir, "ann", sign...); v.Status != c.want || v.Fingerprint != k.Fingerprint {
				t.Errorf("%s: a key of %s: %+v", kind[0], c.who, v)
			}
			if v := w.signedTag(dir, p, kind[0]+"-"+c.who, sign...); v == nil || v.Status != c.want || !strings.Contains(v.Reason, "tagged") {
				t.Errorf("%s: a tag with a key of %s: %+v", kind[0], c.who, v)
			}
		}
	}
	c := w.client("ann")
	sha := strings.TrimSpace(w.git(dir, "rev-parse", "HEAD"))
	if sig := must[*gitlab.GPGSignature](t)(c.Commits.GetGPGSignature(p.ID, sha)); sig.VerificationStatus != "verified" {
		t.Errorf("%+v", sig)
	}
	if tag := must[*gitlab.X509Signature](t)(c.Tags.GetTagSignature(p.ID, "rsa-ann")); tag.SignatureType != "SSH" || tag.VerificationStatus != "verified" {
		t.Errorf("%+v", tag)
	}
	w.git(dir, "tag", "-a", "-m", "Not signed", "plain")
	if v := w.pushedTag(dir, p, "plain"); v != nil {
		t.Errorf("a tag that is not signed: %+v", v)
	}
	if _, res, err := c.Tags.GetTagSignature(p.ID, "plain"); err == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("a tag that is not signed: %v", err)
	}
	forged := filepath.Join(t.TempDir(), "tag")
	if err := os.WriteFile(forged, []byte(strings.Replace(w.git(dir, "cat-file", "tag", "rsa-ann"), "Release rsa-ann", "Release forged", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.git(dir, "update-ref", "refs/tags/forged", strings.TrimSpace(w.git(dir, "hash-object", "-t", "tag", "-w", forged)))
	if v := w.pushedTag(dir, p, "forged"); v == nil || v.Status != forge.SignatureUnverified {
		t.Errorf("a forged tag: %+v", v)
	}
	// The signature of one commit under another's content.
	raw := w.git(dir, "cat-file", "commit", sha)
	w.forged(dir, strings.Replace(raw, "\n\nSigned", "\n\nForged", 1))
	v, err := w.forge.VerifyCommit(t.Context(), p.ID, strings.TrimSpace(w.git(dir, "rev-parse", "HEAD")))
	if err != nil || v.Status != forge.SignatureUnverified {
		t.Errorf("a forged commit: %+v %v", v, err)
	}
	at := strings.Index(raw, "gpgsig ")
	end := strings.Index(raw, "\n\n")
	w.forged(dir, raw[:end]+"\n"+raw[at:])
	if v, err = w.forge.VerifyCommit(t.Context(), p.ID, strings.TrimSpace(w.git(dir, "rev-parse", "HEAD"))); err != nil || v.Status != forge.SignatureMultiple {
		t.Errorf("two signatures: %+v %v", v, err)
	}
}

// forged makes a commit of a raw text and pushes it.
func (w *world) forged(dir, raw string) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "commit")
	if err := os.WriteFile(file, []byte(raw), 0o600); err != nil {
		w.t.Fatal(err)
	}
	sha := strings.TrimSpace(w.git(dir, "hash-object", "-t", "commit", "-w", file))
	w.git(dir, "reset", "-q", "--soft", sha)
	w.git(dir, "push", "-q", "-f", "origin", "HEAD:refs/heads/forged")
}

func TestGPGSignatures(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("gpg is not installed")
	}
	w := newWorld(t)
	w.person("ann")
	w.person("eve")
	p := w.project("ann", "", "app")
	dir := w.workingCopy(p, "ann")
	home, err := os.MkdirTemp("", "gpg") // the agent's socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	gpg := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "gpg", append([]string{"--homedir", home, "--batch", "--quiet"}, args...)...)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %v: %v %s", args, err, errs.String())
		}
		return string(out)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run() // it ends with the folder anyway
		os.RemoveAll(home)
	})
	gpg("--passphrase", "", "--quick-generate-key", "Ann <ann@example.com>", "ed25519", "sign", "never")
	wrapper := filepath.Join(home, "gpg")
	if err := os.WriteFile(wrapper, []byte("#!/bin/sh\nexec gpg --homedir "+home+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	sign := []string{"-c", "gpg.program=" + wrapper, "-c", "user.signingkey=ann@example.com"}
	if v := w.signed(dir, "ann", sign...); v.Status != forge.SignatureUnknownKey {
		t.Errorf("a key that nobody has: %+v", v)
	}
	public := gpg("--armor", "--export", "ann@example.com")
	if _, res, err := w.client("ann").Users.AddGPGKey(&gitlab.AddGPGKeyOptions{Key: gitlab.Ptr("nonsense")}); err == nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := w.access.AddGPGKey(t.Context(), w.people["ann"], w.people["ann"].User.ID, gpg("--armor", "--export-secret-keys", "ann@example.com")); err == nil || !strings.Contains(err.Error(), "private") {
		t.Errorf("a private key: %v", err)
	}
	eves := must[*gitlab.GPGKey](t)(w.client("eve").Users.AddGPGKey(&gitlab.AddGPGKeyOptions{Key: gitlab.Ptr(public)}))
	if v := w.signed(dir, "ann", sign...); v.Status != forge.SignatureKeyUnproven {
		t.Errorf("a key of another account that names ann: %+v", v)
	}
	if res, err := w.client("ann").Users.DeleteGPGKey(eves.ID); err == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("another deletes the key: %v", err)
	}
	ok(t)(w.client("eve").Users.DeleteGPGKey(eves.ID))
	must[*gitlab.GPGKey](t)(w.client("ann").Users.AddGPGKey(&gitlab.AddGPGKeyOptions{Key: gitlab.Ptr(public)}))
	v := w.signed(dir, "ann", sign...)
	if v.Status != forge.SignatureVerified || v.Type != "PGP" {
		t.Errorf("%+v", v)
	}
	if v := w.signedTag(dir, p, "v1", sign...); v == nil || v.Status != forge.SignatureVerified || v.Type != "PGP" {
		t.Errorf("a tag: %+v", v)
	}
	sha := strings.TrimSpace(w.git(dir, "rev-parse", "HEAD"))
	if sig := must[*gitlab.GPGSignature](t)(w.client("ann").Commits.GetGPGSignature(p.ID, sha)); sig.VerificationStatus != "verified" || sig.KeyUserName != "ann" {
		t.Errorf("%+v", sig)
	}
}

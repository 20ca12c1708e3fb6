package forge_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/forge"
)

func FuzzCommit(f *testing.F) {
	f.Add([]byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nparent x\nauthor A <a@b> 1600000000 +0100\ncommitter A <a@b> 1 -0000\ngpgsig -----BEGIN\n more\n\nmessage\n"))
	f.Add([]byte("tree \nauthor <> 99999999999999999999 +9999\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, _, err := forge.ParseCommit("x", raw)
		if err == nil && c.Tree == "" {
			t.Error("a commit without a tree")
		}
	})
}

func FuzzTree(f *testing.F) {
	f.Add([]byte("100644 a\x00aaaaaaaaaaaaaaaaaaaa40000 b\x00bbbbbbbbbbbbbbbbbbbb"))
	f.Add([]byte("100644 a"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := forge.ParseTree(raw, "dir")
		for _, e := range entries {
			if err == nil && len(e.SHA) != 40 {
				t.Errorf("%+v", e)
			}
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("release/*", "release/1")
	f.Add("*-stable*", "x-stable")
	f.Add("a*a", "a")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if forge.MatchPattern(pattern, name) && !strings.Contains(pattern, "*") && pattern != name {
			t.Errorf("%q matches %q", pattern, name)
		}
		if !forge.MatchPattern("*", name) {
			t.Errorf("* does not match %q", name)
		}
	})
}

func FuzzGitAddress(f *testing.F) {
	for _, s := range []string{"/a/b.git/info/refs", "/a/b/info/refs", "/.git/info/refs", "/a/b.git/../info/refs", "/a.git/b.git/git-upload-pack"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		project, rest, ok := forge.SplitGit(s)
		if ok && (!strings.Contains(project, "/") || !strings.HasPrefix(rest, "/")) {
			t.Errorf("%q gave %q %q", s, project, rest)
		}
	})
}

func FuzzFilePath(f *testing.F) {
	for _, s := range []string{"a/b", ".git/x", "a/.GIT ./x", "../x", "a\\b", "\x7f", "git~1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := forge.CleanFile(s)
		if err != nil {
			return
		}
		for part := range strings.SplitSeq(p, "/") {
			if part == "" || part == "." || part == ".." || strings.EqualFold(part, ".git") {
				t.Errorf("%q was let through as %q", s, p)
			}
		}
		if q := forge.QuotePath(p); strings.Contains(q, "\n") {
			t.Errorf("%q breaks a line", q)
		}
	})
}

func FuzzDiffOutput(f *testing.F) {
	f.Add([]byte(":100644 100644 aaaa bbbb M\x00path\x00:100644 100644 a b R100\x00old\x00new\x00"))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_, _ = forge.ParseRaw(raw)
		_, _, _ = forge.ParseBlame(raw)
	})
}

func FuzzLFSPointer(f *testing.F) {
	f.Add([]byte("version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("a", 64) + "\nsize 12\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		oid, _, ok := forge.LFSPointer(raw)
		if ok && len(oid) != 64 {
			t.Errorf("%q", oid)
		}
	})
}

func FuzzRefName(f *testing.F) {
	for _, s := range []string{"main", "feature/x", "a..b", "-x", "refs/heads/x", "x.lock", "a/.b", "@{u}", "a\x00b", "\xff", strings.Repeat("a", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if forge.CheckRefName(s) != nil {
			return
		}
		// What git's check-ref-format forbids, and what looks like an option.
		for _, bad := range []string{"..", "@{", "//", " ", "~", "^", ":", "?", "*", "[", "\\", "\x7f", "\n", "\x00"} {
			if strings.Contains(s, bad) {
				t.Errorf("%q was let through", s)
			}
		}
		for part := range strings.SplitSeq(s, "/") {
			if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
				t.Errorf("%q was let through", s)
			}
		}
		if s == "" || s[0] == '-' || strings.HasSuffix(s, ".") {
			t.Errorf("%q was let through", s)
		}
	})
}

func FuzzSignedCommit(f *testing.F) {
	f.Add([]byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\ngpgsig -----BEGIN SSH SIGNATURE-----\n U1NIU0lH\n -----END SSH SIGNATURE-----\n\nmessage\n"))
	f.Add([]byte("tree x\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n iHUEABYIAB0WIQ==\n -----END PGP SIGNATURE-----\n\n"))
	f.Add([]byte("tree x\n gpgsig y\ngpgsig\ngpgsig z\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		payload, signatures := forge.SplitSigned(raw)
		if len(signatures) == 0 && !bytes.Equal(payload, raw) {
			t.Errorf("%q without a signature became %q", raw, payload)
		}
		for _, sig := range signatures {
			if key, err := forge.CheckSSH(payload, sig); err == nil && key == nil {
				t.Error("a signature without a key is valid")
			}
			_, ids, err := forge.ReadPGP(sig)
			if err == nil && len(ids) == 0 {
				t.Error("a signature of no key was read")
			}
		}
	})
}

func FuzzHookTalk(f *testing.F) {
	f.Add([]byte("hook pre-receive\nobjects /x\nalternates \noption ci.skip\n" + strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/x\nend\n"))
	f.Add([]byte("end\n"))
	f.Add([]byte("option\nhook\n\nend\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := forge.ReadQuestion(raw); err == nil && !bytes.Contains(raw, []byte(" refs/")) && !bytes.Contains(raw, []byte(" ")) {
			t.Errorf("%q asks about a ref", raw)
		}
	})
}

func FuzzLFSRequest(f *testing.F) {
	f.Add([]byte(`{"operation":"download","transfers":["basic"],"objects":[{"oid":"` + strings.Repeat("a", 64) + `","size":5}]}`))
	f.Add([]byte(`{"objects":[{"size":-1}]}`))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		var b forge.LFSBatch
		_ = forge.ReadLFS(httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(raw)), &b)
	})
}

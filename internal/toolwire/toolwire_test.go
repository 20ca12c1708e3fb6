package toolwire_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipwayhq/slipway/internal/toolwire"
)

// call runs one command against a handler over a real socket.
func call(t *testing.T, stdin string, handle func(context.Context, *toolwire.Session) int) (code int, stdout, stderr string, err error) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		connection, err := listener.Accept()
		if err == nil {
			err = toolwire.Serve(ctx, connection, handle)
		}
		served <- err
	}()
	var out, errs bytes.Buffer
	code, err = toolwire.Run(socket, toolwire.Call{Tool: "docker", Args: []string{"a", "b"}, Dir: "/"}, strings.NewReader(stdin), &out, &errs, nil)
	if serveErr := <-served; serveErr != nil && err == nil {
		t.Error(serveErr)
	}
	return code, out.String(), errs.String(), err
}

func TestCallPrintsReadsAndExits(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 3<<20)
	code, stdout, stderr, err := call(t, large, func(_ context.Context, s *toolwire.Session) int {
		n, err := io.Copy(s.Stdout(), s.Stdin())
		if err != nil || n != int64(len(large)) {
			t.Errorf("read %d bytes: %v", n, err)
		}
		_, _ = io.WriteString(s.Stderr(), strings.Join(s.Args, ","))
		return 42
	})
	if err != nil || code != 42 || stdout != large || stderr != "a,b" {
		t.Errorf("code %d, %d bytes, %q, %v", code, len(stdout), stderr, err)
	}
}

func TestUnreadInputDoesNotHang(t *testing.T) {
	t.Parallel()
	code, _, _, err := call(t, strings.Repeat("x", 3<<20), func(_ context.Context, s *toolwire.Session) int {
		_, _ = s.Stdin().Read(make([]byte, 1))
		return 0
	})
	if err != nil || code != 0 {
		t.Errorf("code %d, %v", code, err)
	}
}

func TestTransfers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "tree/sub"), 0o755), os.WriteFile(filepath.Join(dir, "tree/sub/f"), []byte("content"), 0o640),
		os.Symlink("sub/f", filepath.Join(dir, "tree/link"))); err != nil {
		t.Fatal(err)
	}
	code, _, _, err := call(t, "", func(ctx context.Context, s *toolwire.Session) int {
		var file, tree bytes.Buffer
		if err := s.CopyFile(ctx, &file, filepath.Join(dir, "tree/sub/f")); err != nil || file.String() != "content" {
			t.Errorf("read %q: %v", file.String(), err)
		}
		if err := s.CopyFile(ctx, &file, filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("a missing file was read: %v", err)
		}
		if err := s.CopyTree(ctx, &tree, filepath.Join(dir, "tree")); err != nil {
			t.Error(err)
		}
		var names []string
		for archive := tar.NewReader(&tree); ; {
			header, err := archive.Next()
			if err != nil {
				break
			}
			names = append(names, header.Name)
		}
		if got := strings.Join(names, " "); got != "link sub sub/f" {
			t.Errorf("the tree is %q", got)
		}
		if err := s.WriteFile(ctx, filepath.Join(dir, "out"), 0o600, strings.NewReader("written")); err != nil {
			t.Error(err)
		}
		if err := s.WriteFile(ctx, filepath.Join(dir, "no/out"), 0o600, strings.NewReader("written")); err == nil {
			t.Error("a file was written into a folder that does not exist")
		}
		if isDir, err := s.IsDir(ctx, dir); err != nil || !isDir {
			t.Errorf("the folder is none: %v", err)
		}
		return 0
	})
	if err != nil || code != 0 {
		t.Errorf("code %d, %v", code, err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(raw) != "written" {
		t.Errorf("wrote %q: %v", raw, err)
	}
}

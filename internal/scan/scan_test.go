package scan_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	container "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"io"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/scan/report"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/store/scandb"
)

// trivy returns the program that the tests of real scans need.
func trivy(t *testing.T) string {
	t.Helper()
	program := os.Getenv("SLIPWAY_TRIVY")
	if program == "" {
		t.Skip("SLIPWAY_TRIVY does not name the trivy program")
	}
	return program
}

// files makes a tar stream.
func files(t *testing.T, content map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, body := range content {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// madeUp looks like a token and is none.
var madeUp = "ghp_" + "0123456789abcdefghijklmnopqrstuvwxyz"

// debian is an image of Debian 12 as far as a scanner can tell: with an old
// glibc, a fixed util-linux and a zlib that has no fix.
func debian(t *testing.T) container.Image {
	t.Helper()
	pkg := func(name, source, version string) string {
		return "Package: " + name + "\nStatus: install ok installed\nMaintainer: Debian <debian@example.org>\nArchitecture: amd64\nSource: " + source + "\nVersion: " + version + "\nDescription: x\n\n"
	}
	body := files(t, map[string]string{
		"etc/debian_version": "12.4\n",
		"etc/os-release":     "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
		"var/lib/dpkg/status": pkg("libc6", "glibc", "2.36-9+deb12u1") + pkg("libc-bin", "glibc", "2.36-9+deb12u1") +
			pkg("mount", "util-linux", "2.38.1-5+deb12u3") + pkg("zlib1g", "zlib", "1:1.2.13.dfsg-1"),
		"app/settings.env": "TOKEN=" + madeUp + "\n",
	})
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// shelf is an Images of one image.
type shelf struct{ image container.Image }

// Needed says that the image under dgst has a tag.
func (s shelf) Needed(context.Context) (map[string]bool, error) {
	return map[string]bool{"g/app@" + dgst: true}, nil
}

func (s shelf) Export(_ context.Context, _, _, dir string) error {
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return p.AppendImage(s.image)
}

func start(t *testing.T, program string, images scan.Images, change func(*scan.Config)) (*scan.Service, *store.DB) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "slipway.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	cfg := scan.Config{Program: program, Dir: t.TempDir(), Store: scandb.New(db), Images: images, OnPush: true, UpdateEvery: -1, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	s, err := scan.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s, db
}

const dgst = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

func TestRealMatching(t *testing.T) {
	t.Parallel()
	s, _ := start(t, trivy(t), shelf{debian(t)}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	got, err := s.Scan(ctx, 1, "g/app", dgst)
	if err != nil || got.Status != scan.Failed || !strings.Contains(got.Error, "There is no vulnerability database") {
		t.Fatalf("without a database: %+v, %v", got, err)
	}
	if _, err := s.ImportDemonstration(ctx); err != nil {
		t.Fatal(err)
	}
	got, err = s.Scan(ctx, 1, "g/app", dgst)
	if err != nil || got.Status != scan.Success {
		t.Fatalf("%+v, %v", got, err)
	}
	found := map[string]report.Finding{}
	for _, f := range got.Report.Findings {
		found[f.ID+" "+f.Package] = f
	}
	for key, want := range map[string]struct {
		severity report.Severity
		fixed    string
	}{
		"CVE-2023-4911 libc6":    {report.High, "2.36-9+deb12u3"},
		"CVE-2023-4911 libc-bin": {report.High, "2.36-9+deb12u3"},
		"CVE-2024-2961 libc6":    {report.High, "2.36-9+deb12u6"},
		"CVE-2010-4756 libc6":    {report.Low, ""},
		"CVE-2023-45853 zlib1g":  {report.Critical, ""},
		"github-pat ":            {report.Critical, ""},
	} {
		f, ok := found[key]
		if !ok || f.Severity != want.severity || f.Fixed != want.fixed || f.Title == "" {
			t.Errorf("%s: %+v", key, f)
		}
	}
	if f, ok := found["CVE-2024-28085 mount"]; ok {
		t.Errorf("a fixed package was reported: %+v", f)
	}
	if got.Report.OS != "debian 12.4" || !got.Report.Database.Demonstration || got.Counts["CRITICAL"] != 2 || got.Report.Scanner != "Trivy 0.65.0" {
		t.Errorf("%+v", got.Report)
	}
	again, err := s.Scan(ctx, 1, "g/app", dgst)
	if err != nil || again.ID != got.ID {
		t.Errorf("an image was scanned twice with one database: %d, %d, %v", got.ID, again.ID, err)
	}
	sarif, err := got.Report.SARIF()
	if err != nil || !json.Valid(sarif) || !bytes.Contains(sarif, []byte("CVE-2023-45853")) {
		t.Errorf("SARIF: %s, %v", sarif, err)
	}
}

// A new database has stored images scanned again, and only those that are still
// needed; the former results go but for one.
func TestNewDatabaseRenewsScans(t *testing.T) {
	t.Parallel()
	s, db := start(t, trivy(t), shelf{debian(t)}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const gone = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	for _, d := range []string{dgst, gone} {
		if got, err := s.Scan(ctx, 1, "g/app", d); err != nil || got.Status != scan.Failed {
			t.Fatalf("without a database: %+v, %v", got, err)
		}
	}
	advisory := func(day, id string) {
		t.Helper()
		var file bytes.Buffer
		source := "date: " + day + "\nplatforms:\n- {name: debian 12, source: debian, title: Debian, url: 'https://example.org', packages: {glibc: [{id: " + id +
			", fixed: 2.36-9+deb12u9}]}}\nvulnerabilities: {" + id + ": {title: A test, severity: HIGH}}\n"
		if err := scan.BuildDatabase([]byte(source), &file); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ImportDatabase(ctx, &file, "test"); err != nil {
			t.Fatal(err)
		}
	}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	found := func(id string) {
		t.Helper()
		for ctx.Err() == nil {
			got, err := s.Result(ctx, dgst)
			if err != nil {
				t.Fatal(err)
			}
			if got.Report != nil && slices.ContainsFunc(got.Report.Findings, func(f report.Finding) bool { return f.ID == id }) {
				return
			}
			<-poll.C
		}
		t.Fatalf("%s does not show on the stored image", id)
	}
	for i := range 4 {
		id := fmt.Sprintf("CVE-2099-000%d", i)
		advisory(fmt.Sprintf("2026-11-0%d", i+1), id)
		found(id)
	}
	if got, err := s.Result(ctx, gone); err != nil || got.Status != scan.Failed {
		t.Errorf("an image that nothing needs was scanned: %+v, %v", got, err)
	}
	for ctx.Err() == nil { // the former scans go just after the result is there
		_, total, err := scandb.New(db).OfProject(ctx, 1, 10, 0)
		if err != nil {
			t.Fatal(err)
		}
		if total == 3 {
			return
		}
		<-poll.C
	}
	t.Error("former scans pile up")
}

func TestJavaArchives(t *testing.T) {
	t.Parallel()
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	f, err := z.Create("META-INF/MANIFEST.MF")
	if err == nil {
		_, err = f.Write([]byte("Manifest-Version: 1.0\nImplementation-Title: x\n"))
	}
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	body := files(t, map[string]string{"app/x.jar": jar.String()})
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(debian(t), layer)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := start(t, trivy(t), shelf{img}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := s.ImportDemonstration(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := s.Scan(ctx, 1, "g/app", dgst)
	if err != nil || got.Status != scan.Success || len(got.Report.Notes) != 1 || !strings.Contains(got.Report.Notes[0], "not examined") || got.Counts["CRITICAL"] != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestScanOfATree(t *testing.T) {
	t.Parallel()
	s, _ := start(t, trivy(t), shelf{}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tree := files(t, map[string]string{
		"Dockerfile":     "FROM debian:latest\nUSER root\nRUN apt-get update\n",
		"src/config.env": "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE1\nGITHUB=" + madeUp + "\n",
	})
	for kind, want := range map[scan.Type]string{scan.TypeConfig: "AVD-DS-0002", scan.TypeSecret: "github-pat"} {
		got, err := s.ScanTree(ctx, scan.Scan{ProjectID: 1, JobID: 5, Type: kind, Name: "."}, bytes.NewReader(tree))
		if err != nil || got.Status != scan.Success {
			t.Fatalf("%s: %+v, %v", kind, got, err)
		}
		ids := ""
		for _, f := range got.Report.Findings {
			ids += f.ID + "@" + f.Target + " "
		}
		if !strings.Contains(ids, want+"@") || strings.Contains(ids, "/tmp/") {
			t.Errorf("%s found %s", kind, ids)
		}
	}
	got, err := s.ScanTree(ctx, scan.Scan{ProjectID: 1, Type: scan.TypeFS, Name: "."}, bytes.NewReader(tree))
	if err != nil || got.Status != scan.Failed || !strings.Contains(got.Error, "vulnerability database") {
		t.Errorf("a scan for vulnerabilities without a database: %+v, %v", got, err)
	}
	if list, err := s.OfJob(ctx, 5); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	s, _ := start(t, trivy(t), shelf{debian(t)}, func(c *scan.Config) { c.MemoryLimit = 8 << 20 })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := s.ImportDemonstration(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := s.Scan(ctx, 1, "g/app", dgst)
	if err != nil || got.Status != scan.Failed || !strings.Contains(got.Error, "needed more than 8 MB") {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEvilTree(t *testing.T) {
	t.Parallel()
	s, _ := start(t, "/nonexistent", shelf{}, func(c *scan.Config) { c.MaxTree = 100 })
	for name, tree := range map[string][]byte{
		"outside":  files(t, map[string]string{"../../etc/evil": "x"}),
		"absolute": files(t, map[string]string{"/etc/evil": "x"}),
		"no tar":   []byte(strings.Repeat("x", 1024)),
		"large":    files(t, map[string]string{"a": strings.Repeat("x", 101)}),
	} {
		_, err := s.ScanTree(t.Context(), scan.Scan{Type: scan.TypeFS}, bytes.NewReader(tree))
		if k := delivery.KindOf(err); k != delivery.Invalid && k != delivery.TooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := s.ScanTree(t.Context(), scan.Scan{Type: scan.TypeSecret, Name: "x"}, bytes.NewReader(files(t, map[string]string{"a": "b"})))
	if err != nil || got.Status != scan.Failed || !strings.Contains(got.Error, "Trivy cannot be started") {
		t.Errorf("without the program: %+v, %v", got, err)
	}
}

func TestDatabaseImport(t *testing.T) {
	t.Parallel()
	s, _ := start(t, "/nonexistent", shelf{}, nil)
	if _, err := s.Database(); delivery.KindOf(err) != delivery.Stalled {
		t.Errorf("no database: %v", err)
	}
	for name, content := range map[string][]byte{
		"nothing":      {},
		"no gzip":      {0x1f, 0x8b, 1, 2, 3},
		"other files":  files(t, map[string]string{"readme": "x"}),
		"no bolt file": files(t, map[string]string{"trivy.db": "x", "metadata.json": `{"Version":2}`}),
		"other schema": files(t, map[string]string{"trivy.db": "x", "metadata.json": `{"Version":1}`}),
	} {
		if _, err := s.ImportDatabase(t.Context(), bytes.NewReader(content), name); delivery.KindOf(err) != delivery.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.ImportDemonstration(t.Context()); err != nil {
		t.Fatal(err)
	}
	var real bytes.Buffer
	source := "date: \"2026-10-30\"\nplatforms:\n  - name: debian 12\n    source: debian\n    packages:\n      zlib: [{id: CVE-1, fixed: \"2\"}]\nvulnerabilities:\n  CVE-1: {title: t, severity: HIGH}\n"
	if err := scan.BuildDatabase([]byte(source), &real); err != nil {
		t.Fatal(err)
	}
	db, err := s.ImportDatabase(t.Context(), &real, "db.tar.gz")
	if err != nil || db.Demonstration || db.Origin != "db.tar.gz" || db.UpdatedAt.Format(time.DateOnly) != "2026-10-30" {
		t.Errorf("%+v, %v", db, err)
	}
	if db, err := s.ImportDemonstration(t.Context()); err != nil || db.Demonstration {
		t.Errorf("the demonstration set replaced a real database: %+v, %v", db, err)
	}
	for _, bad := range []string{"", "date: x", "date: \"2026-01-01\"\nother: 1", strings.Replace(source, "HIGH", "AWFUL", 1), strings.Replace(source, "  CVE-1:", "  CVE-2:", 1)} {
		if err := scan.BuildDatabase([]byte(bad), io.Discard); delivery.KindOf(err) != delivery.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

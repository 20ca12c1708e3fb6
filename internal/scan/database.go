package scan

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan/report"
	bolt "go.etcd.io/bbolt"
)

// Trivy's database: two files in <cache>/db, of schema 2 (trivy-db,
// pkg/db.SchemaVersion). Beside them lies originFile, ours.
const (
	databaseFile  = "trivy.db"
	metadataFile  = "metadata.json"
	originFile    = "slipway.json"
	schemaVersion = 2
)

// maxDatabase bounds the unpacked size of an imported file in bytes; the
// public database is about 900 MB.
const maxDatabase = 8 << 30

// metadata is trivy-db's metadata.json.
type metadata struct {
	Version      int
	NextUpdate   time.Time
	UpdatedAt    time.Time
	DownloadedAt time.Time
}

// Database returns the vulnerability database that scans use. Without one the
// error is of kind Stalled and says how to get one.
func (s *Service) Database() (report.Database, error) {
	meta, err := readMetadata(s.databaseDir())
	if errors.Is(err, fs.ErrNotExist) {
		return report.Database{}, &delivery.Error{Kind: delivery.Stalled,
			Message: "There is no vulnerability database, so nothing can be scanned.",
			Next:    "Run \"slipway scan db update\", or \"slipway scan db import FILE\" where the network does not reach it."}
	}
	if err != nil {
		return report.Database{}, err
	}
	db := report.Database{UpdatedAt: meta.UpdatedAt, Origin: "unknown"}
	raw, err := os.ReadFile(filepath.Join(s.databaseDir(), originFile))
	if err == nil {
		err = json.Unmarshal(raw, &db)
		db.UpdatedAt = meta.UpdatedAt
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return db, fmt.Errorf("scan: read %s: %w", originFile, err)
	}
	return db, nil
}

func (s *Service) databaseDir() string { return filepath.Join(s.cacheDir(), "db") }
func (s *Service) cacheDir() string    { return filepath.Join(s.cfg.Dir, "cache") }

func readMetadata(dir string) (metadata, error) {
	var meta metadata
	raw, err := os.ReadFile(filepath.Join(dir, metadataFile))
	if err != nil {
		return meta, fmt.Errorf("scan: read database: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, databaseFile)); err != nil {
		return meta, fmt.Errorf("scan: read database: %w", err)
	}
	if err := json.Unmarshal(raw, &meta); err != nil {
		return meta, fmt.Errorf("scan: read %s: %w", metadataFile, err)
	}
	return meta, nil
}

// ImportDatabase replaces the vulnerability database by the one in a tar file,
// compressed by gzip or not, that holds trivy.db and metadata.json: what
// Trivy's own db.tar.gz is. The origin is shown with every scan. A file that is
// not such a database is refused with an error of kind Invalid, and the present
// one stays.
func (s *Service) ImportDatabase(ctx context.Context, file io.Reader, origin string) (report.Database, error) {
	dir, err := os.MkdirTemp(s.cfg.Dir, "import-")
	if err != nil {
		return report.Database{}, fmt.Errorf("scan: import: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := unpackDatabase(ctx, file, dir); err != nil {
		return report.Database{}, err
	}
	if err := checkDatabase(dir); err != nil {
		return report.Database{}, err
	}
	// The origin inside the file says what kind of set it is; where it came
	// from is known only here.
	db := report.Database{Origin: origin}
	raw, err := os.ReadFile(filepath.Join(dir, originFile))
	if err == nil {
		err = json.Unmarshal(raw, &db)
		db.Origin = origin
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return db, delivery.Errorf(delivery.Invalid, "%s in the file cannot be read: %v", originFile, err)
	}
	if err := writeJSON(filepath.Join(dir, originFile), db); err != nil {
		return db, err
	}
	if err := s.replaceDatabase(dir); err != nil {
		return db, err
	}
	return s.Database()
}

// replaceDatabase puts a checked folder in the place of the database while no
// scan runs.
func (s *Service) replaceDatabase(dir string) error {
	s.running.Lock()
	defer s.running.Unlock()
	target, old := s.databaseDir(), s.databaseDir()+".old"
	if err := os.MkdirAll(s.cacheDir(), 0o700); err != nil {
		return fmt.Errorf("scan: install database: %w", err)
	}
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("scan: install database: %w", err)
	}
	if err := os.Rename(target, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("scan: install database: %w", err)
	}
	if err := os.Rename(dir, target); err != nil {
		return errors.Join(fmt.Errorf("scan: install database: %w", err), os.Rename(old, target))
	}
	// Scans that began before this moment used another one.
	now := s.cfg.Now()
	err := os.Chtimes(filepath.Join(target, originFile), now, now)
	s.renewLater()
	if err = errors.Join(err, os.RemoveAll(old)); err != nil {
		return fmt.Errorf("scan: remove the old database: %w", err)
	}
	return nil
}

func unpackDatabase(ctx context.Context, file io.Reader, dir string) error {
	buffered := bufio.NewReader(file)
	var in io.Reader = buffered
	if magic, err := buffered.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		gz, err := gzip.NewReader(buffered)
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "The file is not a gzip file: %v", err)
		}
		defer gz.Close()
		in = gz
	}
	archive := tar.NewReader(io.LimitReader(in, maxDatabase))
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "The file is not a tar file: %v", err)
		}
		base := path.Base(header.Name)
		if header.Typeflag != tar.TypeReg || base != databaseFile && base != metadataFile && base != originFile {
			continue
		}
		if err := writeFrom(filepath.Join(dir, base), archive); err != nil {
			return err
		}
	}
}

func writeFrom(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("scan: unpack: %w", err)
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("scan: unpack %s: %w", filepath.Base(path), err)
	}
	return nil
}

// checkDatabase refuses what Trivy would trip over in the middle of a scan.
func checkDatabase(dir string) error {
	meta, err := readMetadata(dir)
	if err != nil {
		return delivery.Errorf(delivery.Invalid, "The file does not hold %s and %s, so it is not a vulnerability database of Trivy.", databaseFile, metadataFile)
	}
	if meta.Version != schemaVersion {
		return delivery.Errorf(delivery.Invalid, "The database has schema %d; this Trivy reads schema %d.", meta.Version, schemaVersion)
	}
	db, err := bolt.Open(filepath.Join(dir, databaseFile), 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return delivery.Errorf(delivery.Invalid, "%s cannot be read: %v", databaseFile, err)
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket([]byte("vulnerability")); b == nil {
			return delivery.Errorf(delivery.Invalid, "%s holds no vulnerabilities.", databaseFile)
		}
		return nil
	})
}

func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("scan: encode %s: %w", filepath.Base(path), err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return fmt.Errorf("scan: write %s: %w", filepath.Base(path), err)
	}
	return nil
}

// UpdateDatabase fetches the vulnerability database from Config.Source.
func (s *Service) UpdateDatabase(ctx context.Context) (report.Database, error) {
	fail := func(err error) error {
		return &delivery.Error{Kind: delivery.Unavailable, Op: "scan: update database",
			Message: fmt.Sprintf("The vulnerability database cannot be fetched from %s.", s.cfg.Source),
			Next:    "The present one stays in use. Without a network use \"slipway scan db import FILE\".", Err: err}
	}
	opts := []name.Option{}
	if s.cfg.SourceInsecure {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(s.cfg.Source, opts...)
	if err != nil {
		return report.Database{}, delivery.Errorf(delivery.Invalid, "%q is not an image reference: %v", s.cfg.Source, err)
	}
	image, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return report.Database{}, fail(err)
	}
	layers, err := image.Layers()
	if err != nil {
		return report.Database{}, fail(err)
	}
	if len(layers) != 1 {
		return report.Database{}, fail(fmt.Errorf("the artifact has %d layers, a database has 1", len(layers)))
	}
	body, err := layers[0].Compressed()
	if err != nil {
		return report.Database{}, fail(err)
	}
	defer body.Close()
	return s.ImportDatabase(ctx, body, s.cfg.Source)
}

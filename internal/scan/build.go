package scan

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/scan/report"
	bolt "go.etcd.io/bbolt"
	"go.yaml.in/yaml/v3"
)

// demonstration is a small set of advisories written from public knowledge.
//
//go:embed demonstration.yaml
var demonstration []byte

// advisories is the source form of a vulnerability database.
type advisories struct {
	Date          string `yaml:"date"` // the day on which the set was put together
	Demonstration bool   `yaml:"demonstration"`
	Note          string `yaml:"note"`
	Platforms     []struct {
		Name     string `yaml:"name"` // Trivy's bucket, such as "debian 12"
		Source   string `yaml:"source"`
		Title    string `yaml:"title"`
		URL      string `yaml:"url"`
		Packages map[string][]struct {
			ID     string `yaml:"id"`
			Fixed  string `yaml:"fixed"`
			Status string `yaml:"status"`
			// Severity is the platform's own for this package, where it has one.
			Severity string `yaml:"severity"`
		} `yaml:"packages"` // by source package
	} `yaml:"platforms"`
	Vulnerabilities map[string]struct {
		Title       string   `yaml:"title"`
		Description string   `yaml:"description"`
		Severity    string   `yaml:"severity"` // the National Vulnerability Database's
		References  []string `yaml:"references"`
		CWEs        []string `yaml:"cwes"`
		Published   string   `yaml:"published"`
	} `yaml:"vulnerabilities"`
}

// BuildDatabase writes a database in Trivy's format, as Trivy's db.tar.gz is,
// from a YAML list of advisories. Unknown keys, severities and statuses, and an
// advisory without its vulnerability, are errors of kind Invalid.
func BuildDatabase(source []byte, w io.Writer) error {
	var list advisories
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	decoder.KnownFields(true)
	if err := decoder.Decode(&list); err != nil {
		return delivery.Errorf(delivery.Invalid, "The list of advisories cannot be read: %v", err)
	}
	date, err := time.Parse(time.DateOnly, list.Date)
	if err != nil {
		return delivery.Errorf(delivery.Invalid, "The list of advisories has no date such as 2026-11-01.")
	}
	dir, err := os.MkdirTemp("", "slipway-database-")
	if err != nil {
		return fmt.Errorf("scan: build database: %w", err)
	}
	defer os.RemoveAll(dir)
	db, err := bolt.Open(filepath.Join(dir, databaseFile), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		return fmt.Errorf("scan: build database: %w", err)
	}
	err = db.Update(func(tx *bolt.Tx) error { return list.put(tx) })
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	meta := metadata{Version: schemaVersion, UpdatedAt: date.UTC(), NextUpdate: date.UTC().AddDate(100, 0, 0)}
	origin := report.Database{Demonstration: list.Demonstration, Note: list.Note}
	if err := errors.Join(writeJSON(filepath.Join(dir, metadataFile), meta), writeJSON(filepath.Join(dir, originFile), origin)); err != nil {
		return err
	}
	return archiveDatabase(dir, date, w)
}

func (a advisories) put(tx *bolt.Tx) error {
	for id, v := range a.Vulnerabilities {
		severity, err := types.NewSeverity(v.Severity)
		if err != nil {
			return delivery.Errorf(delivery.Invalid, "%s: %v", id, err)
		}
		out := types.Vulnerability{Title: v.Title, Description: v.Description, References: v.References, CweIDs: v.CWEs,
			VendorSeverity: types.VendorSeverity{"nvd": severity}}
		if v.Published != "" {
			day, err := time.Parse(time.DateOnly, v.Published)
			if err != nil {
				return delivery.Errorf(delivery.Invalid, "%s: published %q is not a date", id, v.Published)
			}
			out.PublishedDate = &day
		}
		if err := putJSON(tx, out, "vulnerability", id); err != nil {
			return err
		}
	}
	for _, p := range a.Platforms {
		if err := putJSON(tx, types.DataSource{ID: types.SourceID(p.Source), Name: p.Title, URL: p.URL}, "data-source", p.Name); err != nil {
			return err
		}
		for pkg, entries := range p.Packages {
			for _, e := range entries {
				if _, ok := a.Vulnerabilities[e.ID]; !ok {
					return delivery.Errorf(delivery.Invalid, "%s of %s is not described under vulnerabilities.", e.ID, pkg)
				}
				advisory := types.Advisory{FixedVersion: e.Fixed}
				if e.Status != "" {
					if advisory.Status = types.NewStatus(e.Status); advisory.Status == types.StatusUnknown {
						return delivery.Errorf(delivery.Invalid, "%s of %s: the status %q is not known.", e.ID, pkg, e.Status)
					}
				}
				if e.Severity != "" {
					severity, err := types.NewSeverity(e.Severity)
					if err != nil {
						return delivery.Errorf(delivery.Invalid, "%s of %s: %v", e.ID, pkg, err)
					}
					advisory.Severity = severity
				}
				if err := putJSON(tx, &advisory, p.Name, pkg, e.ID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// putJSON stores a value under nested buckets; the last name is the key.
func putJSON(tx *bolt.Tx, v any, names ...string) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("scan: encode %v: %w", names, err)
	}
	bucket, err := tx.CreateBucketIfNotExists([]byte(names[0]))
	for _, name := range names[1 : len(names)-1] {
		if err == nil {
			bucket, err = bucket.CreateBucketIfNotExists([]byte(name))
		}
	}
	if err == nil {
		err = bucket.Put([]byte(names[len(names)-1]), raw)
	}
	if err != nil {
		return fmt.Errorf("scan: store %v: %w", names, err)
	}
	return nil
}

func archiveDatabase(dir string, date time.Time, w io.Writer) error {
	gz := gzip.NewWriter(w)
	archive := tar.NewWriter(gz)
	for _, name := range []string{databaseFile, metadataFile, originFile} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(raw)), ModTime: date})
		}
		if err == nil {
			_, err = archive.Write(raw)
		}
		if err != nil {
			return fmt.Errorf("scan: pack database: %w", err)
		}
	}
	if err := errors.Join(archive.Close(), gz.Close()); err != nil {
		return fmt.Errorf("scan: pack database: %w", err)
	}
	return nil
}

// BuildDemonstration writes the demonstration database: a few real advisories
// for Debian, put together by hand. It is for trying the platform out without a
// network, and every scan that uses it says so.
func BuildDemonstration(w io.Writer) error { return BuildDatabase(demonstration, w) }

// ImportDemonstration installs the demonstration database where there is none
// yet, and returns the database that scans use then: a real one is never
// replaced.
func (s *Service) ImportDemonstration(ctx context.Context) (report.Database, error) {
	if db, err := s.Database(); err == nil && !db.Demonstration {
		return db, nil
	}
	var file bytes.Buffer
	if err := BuildDemonstration(&file); err != nil {
		return report.Database{}, err
	}
	return s.ImportDatabase(ctx, &file, "built-in demonstration set")
}

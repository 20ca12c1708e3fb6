// Package trust makes clients in jobs and pods trust the platform's own
// certificate authority.
//
// It owns the folder of certificates that jobs and pods see, the admission
// policy by which programs in pods look there, and the ConfigMap slipway-ca in
// every namespace. It receives the authority's root certificate and a client of
// the cluster, and emits files and ConfigMaps. It imports no stage.
package trust

import (
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

// ConfigMap is the name of the ConfigMap in every namespace.
const ConfigMap = "slipway-ca"

// Names of the files. Beside them is one whose name is the hash by which OpenSSL
// finds a certificate in a folder. The ConfigMap has all but the bundle.
const (
	CertificateFile = "ca.crt"        // the root alone
	BundleFile      = "ca-bundle.crt" // the host's public roots and ours, 220 KB
)

// systemBundles are where distributions keep the public roots.
var systemBundles = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}

// Files returns the certificates by file name. root is PEM. A host without
// public roots gives a bundle of ours alone.
func Files(root []byte) (map[string]string, error) {
	block, _ := pem.Decode(root)
	if block == nil {
		return nil, errors.New("trust: the authority's certificate is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("trust: the authority's certificate: %w", err)
	}
	hash, err := subjectHash(cert)
	if err != nil {
		return nil, fmt.Errorf("trust: the authority's name: %w", err)
	}
	bundle := bytes.TrimSpace(root)
	for _, name := range systemBundles {
		if public, err := os.ReadFile(name); err == nil {
			bundle = append(append(bytes.TrimSpace(public), '\n'), bundle...)
			break
		}
	}
	return map[string]string{CertificateFile: string(root), hash + ".0": string(root), BundleFile: string(bundle) + "\n"}, nil
}

// hashed matches the names by which OpenSSL finds certificates.
const hashed = "[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f].0"

// Write puts the files into a folder that everybody may read. An authority that
// was there under another name is no longer found.
func Write(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	earlier, err := filepath.Glob(filepath.Join(dir, hashed))
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	for _, path := range earlier {
		if _, stays := files[filepath.Base(path)]; !stays {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("trust: %w", err)
			}
		}
	}
	for name, text := range files {
		if err := wholefile.Write(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("trust: %w", err)
		}
	}
	return nil
}

// subjectHash is OpenSSL's X509_NAME_hash of the subject: the first four bytes,
// little-endian, of the SHA-1 of the name with each text in lower case, its
// spaces collapsed, as UTF8String, and without the outer SEQUENCE's header
// (crypto/x509/x_name.c, x509_name_canon).
func subjectHash(cert *x509.Certificate) (string, error) {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(cert.RawSubject, &name); err != nil {
		return "", err
	}
	var canonical []byte
	for _, rdn := range name {
		var members []byte
		for _, part := range rdn {
			text, ok := part.Value.(string)
			if !ok {
				return "", errors.New("a part of it is no text")
			}
			text = strings.ToLower(strings.Join(strings.Fields(text), " "))
			member, err := asn1.Marshal(struct {
				Type  asn1.ObjectIdentifier
				Value string `asn1:"utf8"`
			}{part.Type, text})
			if err != nil {
				return "", err
			}
			members = append(members, member...)
		}
		set, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSet, IsCompound: true, Bytes: members})
		if err != nil {
			return "", err
		}
		canonical = append(canonical, set...)
	}
	sum := sha1.Sum(canonical)
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:4])), nil
}

// Pool is the system's authorities and those of a PEM file.
func Pool(file string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("trust: read authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any
	}
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("trust: %s holds no certificate in PEM form", file)
	}
	return pool, nil
}

// Transport is Go's default one, which trusts the authorities of a PEM file too.
func Transport(file string) (*http.Transport, error) {
	roots, err := Pool(file)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return transport, nil
}

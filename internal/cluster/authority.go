package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

const (
	// leafLifetime is how long a certificate is valid, authorityLifetime how
	// long an authority is. Either is renewed in the last third of its life.
	leafLifetime      = 365 * 24 * time.Hour
	authorityLifetime = 10 * 365 * 24 * time.Hour
	// clockSkew is how far a certificate's validity starts in the past.
	clockSkew = 5 * time.Minute
)

// authority is a certificate authority on disk: <name>.crt and <name>.key.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	// CertFile is the authority's certificate in PEM.
	CertFile string
}

// certificate asks for one leaf certificate.
type certificate struct {
	// Name is the file name without .crt and .key.
	Name string
	// User and Groups are the subject's common name and organisations:
	// Kubernetes takes them as the user and its groups.
	User   string
	Groups []string
	// Hosts are the DNS names and addresses of a serving certificate. Without
	// any it is a client certificate.
	Hosts []string
	// Client makes a serving certificate a client certificate too.
	Client bool
}

// openAuthority loads the authority called name in dir or makes it. One that
// nears its end gets a new certificate for the same key and subject, so that
// what it has signed remains valid.
func openAuthority(dir, name, subject string, now time.Time) (*authority, error) {
	a := &authority{CertFile: filepath.Join(dir, name+".crt")}
	key, err := openKey(filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, err
	}
	a.key = key
	present, err := readCertificate(a.CertFile)
	if err != nil {
		return nil, err
	}
	if present != nil && present.IsCA && samePublicKey(present.PublicKey, key.Public()) && !nearEnd(present, now) {
		a.certificate = present
		return a, nil
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: subject},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(authorityLifetime),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	a.certificate, err = sign(template, template, key.Public(), key, a.CertFile)
	return a, err
}

// issue makes sure that the certificate is on disk and fit for use: signed by
// this authority, for this subject and these hosts, and not in the last third
// of its life. It reports whether it wrote a new one.
func (a *authority) issue(dir string, want certificate, now time.Time) (renewed bool, err error) {
	certFile := filepath.Join(dir, want.Name+".crt")
	key, err := openKey(filepath.Join(dir, want.Name+".key"))
	if err != nil {
		return false, err
	}
	present, err := readCertificate(certFile)
	if err != nil {
		return false, err
	}
	template := want.template(now)
	if present != nil && a.fits(present, template, key.Public(), now) {
		return false, nil
	}
	_, err = sign(template, a.certificate, key.Public(), a.key, certFile)
	return err == nil, err
}

func (a *authority) fits(present, wanted *x509.Certificate, key crypto.PublicKey, now time.Time) bool {
	addresses := func(ips []net.IP) (texts []string) {
		for _, ip := range ips {
			texts = append(texts, ip.String())
		}
		return texts
	}
	return !nearEnd(present, now) &&
		present.CheckSignatureFrom(a.certificate) == nil &&
		samePublicKey(present.PublicKey, key) &&
		present.Subject.CommonName == wanted.Subject.CommonName &&
		slices.Equal(present.Subject.Organization, wanted.Subject.Organization) &&
		slices.Equal(present.DNSNames, wanted.DNSNames) &&
		slices.Equal(addresses(present.IPAddresses), addresses(wanted.IPAddresses)) &&
		slices.Equal(present.ExtKeyUsage, wanted.ExtKeyUsage)
}

func (c certificate) template(now time.Time) *x509.Certificate {
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: c.User, Organization: c.Groups},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(leafLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, host := range c.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if len(c.Hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if len(c.Hosts) == 0 || c.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	return template
}

// nearEnd reports whether less than a third of the lifetime is left.
func nearEnd(c *x509.Certificate, now time.Time) bool {
	return now.After(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore)/3)) || now.Before(c.NotBefore)
}

func samePublicKey(a, b crypto.PublicKey) bool {
	key, ok := a.(*ecdsa.PublicKey)
	return ok && key.Equal(b)
}

// sign signs template by parent and writes it to path.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer, path string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", path, err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", path, err)
	}
	if err := wholefile.Write(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// openKey loads a private key or makes an ECDSA P-256 one.
func openKey(path string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make key %s: %w", path, err)
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode key %s: %w", path, err)
		}
		return key, wholefile.Write(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("key %s is not PEM; restore it from a backup, or remove it together with its certificate", path)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse key %s: %w", path, err)
	}
	return key, nil
}

// readCertificate returns nil when there is none, or none that can be read:
// certificates are made anew from their keys.
func readCertificate(path string) (*x509.Certificate, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, nil
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil
	}
	return parsed, nil
}

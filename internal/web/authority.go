package web

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// authorityView tells how to trust the platform's certificate authority.
type authorityView struct {
	Name        string
	Fingerprint string // SHA-256, in pairs
	Until       time.Time
	Addresses   []string // of the platform, with TLS
	Download    string
	Host        string // with its port, as docker names the folder of a registry's authority
}

// authorityPage is open to everybody: who does not trust the platform yet may
// not be able to sign in.
func (s *Server) authorityPage(w http.ResponseWriter, r *Request) error {
	block, _ := pem.Decode(s.Authority())
	if block == nil {
		return &delivery.Error{Kind: delivery.Unavailable, Message: "The certificate authority is not ready yet.", Next: "Try again in a moment."}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("web: certificate authority: %w", err)
	}
	sum := sha256.Sum256(cert.Raw)
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = fmt.Sprintf("%02X", b)
	}
	v := authorityView{Name: cert.Subject.CommonName, Fingerprint: strings.Join(pairs, ":"), Until: cert.NotAfter, Addresses: s.SecureURLs, Download: s.ExternalURL + "/-/ca.crt"}
	if u, err := url.Parse(s.ExternalURL); err == nil {
		v.Host = u.Host
	}
	return s.render(w, r, http.StatusOK, "authority", Page{Title: "Certificate authority", Data: v})
}

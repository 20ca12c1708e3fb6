// Package route holds the words in which the ingress tells people where their
// applications are.
//
// It receives nothing and emits nothing, and must import only the standard
// library, so that a page about addresses does not link Caddy.
package route

// Route is what one path of one host leads to now, for people.
type Route struct {
	Namespace string
	Ingress   string
	Host      string // empty: any host
	Path      string
	PathType  string
	Service   string
	Endpoints int
	// URL is where a browser finds it; empty for wildcards and for any host.
	URL string
	// TLS is how the host is secured: "secret", "acme" or "internal" when an
	// Ingress lists it under tls, and empty otherwise. Every host answers on
	// HTTPS; without an entry under tls it is not redirected there.
	TLS      string
	Canary   *Canary
	Problems []string // with the Ingress, or the canary's
}

// Canary is the other version behind a route.
type Canary struct {
	Ingress   string
	Service   string
	Endpoints int
	Weight    float64 // percent
	Header    string  // the header that chooses it; empty without
	Cookie    string
}

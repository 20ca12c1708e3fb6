package gitops

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

// Services are the gRPC services of Argo CD's API, each below its own path.
var Services = []string{
	"account.AccountService", "application.ApplicationService", "applicationset.ApplicationSetService", "certificate.CertificateService",
	"cluster.ClusterService", "cluster.SettingsService", "gpgkey.GPGKeyService", "notification.NotificationService", "project.ProjectService",
	"repocreds.RepoCredsService", "repository.RepositoryService", "session.SessionService", "version.VersionService",
}

// NewProxy forwards to Argo CD's API at address (host:port): over HTTP/2 for
// gRPC, else REST and gRPC-Web.
func NewProxy(address string, grpc bool) http.Handler {
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: address})
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		FlushInterval: -1, // event streams
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "Argo CD does not answer; see: slipway status", http.StatusBadGateway)
		},
	}
	if grpc {
		http2 := new(http.Protocols)
		http2.SetUnencryptedHTTP2(true)
		p.Transport = &http.Transport{Protocols: http2, MaxIdleConns: 2}
		p.ModifyResponse = statusToTrailer
	}
	return p
}

// statusToTrailer moves the status of a call that failed at once into the
// trailer. gRPC sends it in headers that end the stream ("Trailers-Only" in
// its HTTP/2 protocol); a proxy that flushes may end it with an empty frame
// instead, and the status would be in the wrong place.
func statusToTrailer(res *http.Response) error {
	if res.Header.Get("Grpc-Status") == "" {
		return nil
	}
	if res.Trailer == nil {
		res.Trailer = http.Header{}
	}
	for name, values := range res.Header {
		if strings.HasPrefix(name, "Grpc-") {
			res.Trailer[name] = values
			delete(res.Header, name)
		}
	}
	return nil
}

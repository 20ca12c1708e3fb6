package containerd

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TrustDir is where a job finds the platform's certificate authority.
const TrustDir = "/etc/slipway/certs"

// Trust is the platform's certificate authority as jobs see it. Whatever the
// image and the job trust stays: everything here adds to it.
type Trust struct {
	Dir  string   // folder on the host with ca.crt and OpenSSL's hash name; may appear later
	URLs []string // https://host[:port] of the platform, for git
}

// certDirs are the folders of certificates that OpenSSL and Go look into by
// themselves on the common distributions.
const certDirs = "/etc/ssl/certs:/etc/pki/tls/certs"

// apply adds the folder and what clients know it by: SSL_CERT_DIR (OpenSSL,
// Go, curl, Python's ssl, Ruby), NODE_EXTRA_CA_CERTS, and git's configuration
// for the platform's addresses. A variable that the job or its image sets is
// left as it is.
func (t Trust) apply(env, image []string, mounts []specs.Mount) ([]string, []specs.Mount) {
	file := path.Join(TrustDir, "ca.crt")
	if t.Dir == "" {
		return env, mounts
	}
	if _, err := os.Stat(path.Join(t.Dir, "ca.crt")); err != nil {
		return env, mounts // the authority is not there yet
	}
	env = slices.Clone(env)
	add := func(pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			is := func(have string) bool { return strings.HasPrefix(have, pairs[i]+"=") }
			if slices.ContainsFunc(env, is) || slices.ContainsFunc(image, is) {
				return
			}
		}
		for i := 0; i < len(pairs); i += 2 {
			env = append(env, pairs[i]+"="+pairs[i+1])
		}
	}
	add("SSL_CERT_DIR", certDirs+":"+TrustDir)
	add("NODE_EXTRA_CA_CERTS", file)
	git := []string{"GIT_CONFIG_COUNT", fmt.Sprint(len(t.URLs))}
	for i, url := range t.URLs {
		git = append(git, fmt.Sprintf("GIT_CONFIG_KEY_%d", i), "http."+url+"/.sslCAInfo", fmt.Sprintf("GIT_CONFIG_VALUE_%d", i), file)
	}
	if len(t.URLs) > 0 {
		add(git...)
	}
	return env, append(slices.Clone(mounts), bind(t.Dir, TrustDir, true))
}

package runner

import (
	"strings"
	"testing"
)

// FuzzDockerConfig: a DOCKER_AUTH_CONFIG is read or refused, and no secret of it
// is in the reason.
func FuzzDockerConfig(f *testing.F) {
	f.Add(`{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYXNz"},"r.example.com:5000":{"username":"u","password":"p"}}}`)
	f.Add(`{"auths":{"x":{"auth":"***"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseDockerConfig(text)
		if err != nil && len(list) > 0 {
			t.Error("a list with an error")
		}
		if err != nil && len(text) > 12 && strings.Contains(err.Error(), text) {
			t.Error("the reason holds the configuration")
		}
		for _, one := range list {
			if strings.Contains(one.Host, "/") {
				t.Errorf("the host %q", one.Host)
			}
		}
	})
}

// FuzzQuantity: what a job may ask for is a positive number or an error.
func FuzzQuantity(f *testing.F) {
	f.Add("512Mi")
	f.Add("1e30G")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := ParseQuantity(text); err == nil && n < 0 {
			t.Errorf("%q is %d", text, n)
		}
	})
}

package ingress

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddypki/acmeserver" // the handler "acme_server"
	"github.com/smallstep/certificates/acme"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The tests' public certificate authority is an ACME server of Caddy's in a
// process of its own: this program again, told so by its environment.
const (
	caEnv     = "INGRESS_TEST_CA"      // listen address
	caDirEnv  = "INGRESS_TEST_CA_DIR"  // storage
	caPortEnv = "INGRESS_TEST_CA_PORT" // where challenges are answered
)

// serveCA runs the authority until it is killed.
func serveCA() error {
	port, err := strconv.Atoi(os.Getenv(caPortEnv))
	if err != nil {
		return err
	}
	acme.InsecurePortHTTP01 = port
	cfg := object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"storage": object{"module": "file_system", "root": os.Getenv(caDirEnv)},
		"apps": object{
			"pki": object{"certificate_authorities": object{"local": object{"install_trust": false}}},
			"tls": object{
				"certificates": object{"automate": []string{"localhost"}},
				"automation":   object{"policies": []object{{"subjects": []string{"localhost"}, "issuers": []object{{"module": "internal"}}}}},
			},
			"http": object{"servers": object{"ca": object{
				"listen":                  []string{os.Getenv(caEnv)},
				"protocols":               []string{"h1"},
				"automatic_https":         object{"disable": true},
				"tls_connection_policies": []object{{}},
				"routes":                  []object{{"handle": []object{{"handler": "acme_server", "ca": "local"}}}},
			}}},
		},
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	if err := caddy.Load(raw, true); err != nil {
		return err
	}
	select {}
}

// startCA starts the authority and returns how to use it.
func startCA(dir, challengeAddr string) (ACME, func(), error) {
	self, err := os.Executable()
	if err != nil {
		return ACME{}, nil, err
	}
	_, challengePort, err := net.SplitHostPort(challengeAddr)
	if err != nil {
		return ACME{}, nil, err
	}
	addr := freeAddr()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(self)
	// Its database too is below dir: several runs may go on at a time.
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, caEnv+"="+addr, caDirEnv+"="+dir, caPortEnv+"="+challengePort)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return ACME{}, nil, err
	}
	stop := func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
	ca := ACME{Directory: "https://localhost:" + port + "/acme/local/directory", TrustedRoots: filepath.Join(dir, "pki", "authorities", "local", "root.crt")}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := client.Get(ca.Directory)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return ca, stop, nil
			}
			err = errors.New(resp.Status)
		}
		if time.Now().After(deadline) {
			stop()
			return ACME{}, nil, fmt.Errorf("the ACME server does not answer: %w", err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestPublicCertificateByACME(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.host = "localhost" // the one name that the authority can resolve
	addr := a.backend(say("x"))
	a.service("web", nil, addr)
	ing := a.ingress("web", nil, pathOption{path: "/", service: "web"})
	issuer := func() string {
		conn, err := tls.Dial("tcp", shared.https, &tls.Config{ServerName: a.host, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Issuer.CommonName
	}
	if got := issuer(); !strings.HasPrefix(got, "Slipway") {
		t.Errorf("before it asks for a public certificate: %s", got)
	}
	ing = ing.DeepCopy()
	ing.Annotations["kubernetes.io/tls-acme"] = "true"
	ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{a.host}}}
	a.put(ing)
	eventually(t, "the public certificate is served", func() bool { return strings.HasPrefix(issuer(), "Caddy Local Authority") })
	if got := get(t, client(t, false), "http://"+a.host+"/"); got.status != 308 {
		t.Errorf("not redirected: %d", got.status)
	}
	if err := shared.client.NetworkingV1().Ingresses(a.ns).Delete(context.Background(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host is forgotten", func() bool { return strings.HasPrefix(issuer(), "Slipway") })
}

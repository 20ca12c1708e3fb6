package build

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

func login(ctx context.Context, c *command) error {
	user := c.flags.StringP("username", "u", "", "")
	password := c.flags.StringP("password", "p", "", "")
	fromStdin := c.flags.Bool("password-stdin", false, "")
	if err := c.parse(0, 1); err != nil {
		return err
	}
	host := "docker.io"
	if c.flags.NArg() > 0 {
		host = serverHost(c.flags.Arg(0))
	}
	if *fromStdin {
		line, err := bufio.NewReader(io.LimitReader(c.Stdin(), 64<<10)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read password: %w", err)
		}
		*password = strings.TrimRight(line, "\r\n")
	} else if *password != "" {
		fmt.Fprintln(c.Stderr(), "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	credential := Credential{Host: host, Username: *user, Password: *password}
	if present := c.login(host); *user == "" && *password == "" && present.Username != "" {
		fmt.Fprintln(c.Stdout(), "Authenticating with existing credentials...")
		credential = present
		credential.Host = host
	}
	if credential.Username == "" || credential.Password == "" {
		return errors.New("username and password are needed: docker login -u USER --password-stdin [SERVER] (is the variable with the password empty, or protected and this branch is not?)")
	}
	if err := c.verify(ctx, credential); err != nil {
		return err
	}
	c.mu.Lock()
	c.logins[host] = credential
	c.mu.Unlock()
	if err := c.saveLogin(ctx, credential); err != nil {
		fmt.Fprintf(c.Stderr(), "WARNING: the login works for docker in this job, but could not be stored for other tools: %v\n", err)
	}
	fmt.Fprintln(c.Stdout(), "Login Succeeded")
	return nil
}

// verify signs in to the registry once.
func (c *command) verify(ctx context.Context, credential Credential) error {
	options := []ggcr.Option{}
	if c.plainHTTP(credential.Host) {
		options = append(options, ggcr.Insecure)
	}
	host := credential.Host
	if host == "docker.io" {
		host = ggcr.DefaultRegistry
	}
	if near := c.engine.daemon.config.near(host); near != "" {
		host, options = near, []ggcr.Option{ggcr.Insecure}
	}
	registry, err := ggcr.NewRegistry(host, options...)
	if err != nil {
		return fmt.Errorf("invalid registry %q: %w", host, err)
	}
	basic := &authn.Basic{Username: credential.Username, Password: credential.Password}
	signed, err := transport.NewWithContext(ctx, registry, basic, c.engine.config.Transport, nil)
	if err != nil {
		return fmt.Errorf("login to %s: %w", credential.Host, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, registry.Scheme()+"://"+registry.RegistryStr()+"/v2/", nil)
	if err != nil {
		return fmt.Errorf("login to %s: %w", credential.Host, err)
	}
	response, err := signed.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("login to %s: %w", credential.Host, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("login to %s: unauthorized: incorrect username or password (%s)", credential.Host, response.Status)
	}
	return nil
}

// configFile is where the job's other tools look for logins.
func (c *command) configFile() string {
	if dir := c.Env["DOCKER_CONFIG"]; dir != "" {
		return path.Join(dir, "config.json")
	}
	return path.Join(c.Env["HOME"], ".docker", "config.json")
}

// saveLogin adds the login to docker's configuration file inside the job, as
// docker does: crane, helm, skopeo and others read it.
func (c *command) saveLogin(ctx context.Context, credential Credential) error {
	auth := base64.StdEncoding.EncodeToString([]byte(credential.Username + ":" + credential.Password))
	_, err := c.changeLogins(ctx, func(auths map[string]any) bool {
		auths[configName(credential.Host)] = map[string]string{"auth": auth}
		return true
	})
	return err
}

// configName is how docker's configuration names a registry.
func configName(host string) string {
	if host == "docker.io" {
		return "https://index.docker.io/v1/"
	}
	return host
}

// changeLogins rewrites the logins of the configuration file, if change says
// that it changed any.
func (c *command) changeLogins(ctx context.Context, change func(auths map[string]any) bool) (changed bool, err error) {
	document := map[string]any{}
	var present bytes.Buffer
	if err := c.CopyFile(ctx, &present, c.configFile()); err == nil {
		if err := json.Unmarshal(present.Bytes(), &document); err != nil {
			return false, fmt.Errorf("%s is not JSON: %w", c.configFile(), err)
		}
	}
	auths, _ := document["auths"].(map[string]any)
	if auths == nil {
		auths = map[string]any{}
	}
	if !change(auths) {
		return false, nil
	}
	document["auths"] = auths
	raw, err := json.MarshalIndent(document, "", "\t")
	if err != nil {
		return false, err
	}
	return true, c.WriteFileWithFolder(ctx, c.configFile(), 0o600, bytes.NewReader(raw))
}

// serverHost is the host of a registry as given to login.
func serverHost(server string) string {
	server = strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	host, _, _ := strings.Cut(server, "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		return "docker.io"
	}
	return host
}

func logout(ctx context.Context, c *command) error {
	if err := c.parse(0, 1); err != nil {
		return err
	}
	host := "docker.io"
	if c.flags.NArg() > 0 {
		host = serverHost(c.flags.Arg(0))
	}
	c.mu.Lock()
	_, known := c.logins[host]
	delete(c.logins, host)
	c.mu.Unlock()
	stored, err := c.changeLogins(ctx, func(auths map[string]any) bool {
		_, found := auths[configName(host)]
		delete(auths, configName(host))
		return found
	})
	if !known && !stored && err == nil {
		// docker itself says it in any case.
		fmt.Fprintf(c.Stderr(), "Not logged in to %s\n", configName(host))
	}
	fmt.Fprintf(c.Stdout(), "Removing login credentials for %s\n", configName(host))
	return err
}

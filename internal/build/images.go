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
	"text/tabwriter"
	"text/template"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	ggcr "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// resolver reaches registries with the job's logins.
func (e *endpoint) resolver(ctx context.Context) remotes.Resolver {
	options := config.HostOptions{Credentials: func(host string) (string, string, error) {
		login := e.login(host)
		return login.Username, login.Password, nil
	}}
	if dir := e.engine.config.RegistryHosts; dir != "" {
		options.HostDir = config.HostDirFromRoot(dir)
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: config.ConfigureHosts(ctx, options)})
}

func (e *endpoint) login(host string) Credential {
	if host == "registry-1.docker.io" || host == "index.docker.io" {
		host = "docker.io"
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if login, found := e.logins[host]; found {
		return login
	}
	return e.logins[e.engine.daemon.config.registryBehind(host)]
}

// plainHTTP reports whether a registry host is configured without TLS.
func (e *endpoint) plainHTTP(host string) bool {
	return e.engine.daemon.config.Registries[host].PlainHTTP
}

func tagImage(ctx context.Context, c *command) error {
	if err := c.flags.Parse(c.Args); err != nil {
		return err
	}
	if c.flags.NArg() != 2 {
		return errors.New("docker tag needs 2 arguments: docker tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]")
	}
	source, err := c.find(c.flags.Arg(0))
	if err != nil {
		return err
	}
	target, err := canonical(c.flags.Arg(1))
	if err != nil {
		return err
	}
	return c.keep(ctx, target, source.target)
}

func pushImages(ctx context.Context, c *command) error {
	all := c.flags.BoolP("all-tags", "a", false, "push all tags of the repository")
	quiet := c.flags.BoolP("quiet", "q", false, "")
	c.flags.Bool("disable-content-trust", true, "")
	c.flags.String("platform", "", "")
	if err := c.flags.Parse(c.Args); err != nil {
		return err
	}
	if c.flags.NArg() != 1 {
		return errors.New("docker push needs 1 argument: docker push NAME[:TAG]")
	}
	named, err := canonical(c.flags.Arg(0))
	if err != nil {
		return err
	}
	var list []*jobImage
	if *all {
		for _, image := range c.all() {
			if one, err := canonical(image.name); err == nil && one.Name() == named.Name() {
				list = append(list, image)
			}
		}
	} else if image, err := c.find(named.String()); err == nil {
		list = append(list, image)
	}
	if len(list) == 0 {
		return fmt.Errorf("An image does not exist locally with the tag: %s", reference.FamiliarName(named)) //nolint:staticcheck // docker's own words
	}
	fmt.Fprintf(c.Stdout(), "The push refers to repository [%s]\n", named.Name())
	for _, image := range list {
		if err := c.push(ctx, image); err != nil {
			return err
		}
		one, err := canonical(image.name)
		if err != nil {
			return err
		}
		if tagged, ok := one.(reference.Tagged); ok && !*quiet {
			fmt.Fprintf(c.Stdout(), "%s: digest: %s size: %d\n", tagged.Tag(), image.target.Digest, image.target.Size)
		}
	}
	return nil
}

// push sends an image to the registry its name says.
func (c *command) push(ctx context.Context, image *jobImage) error {
	err := c.engine.containerd.Push(ctx, image.name, image.target, containerd.WithResolver(c.resolver(ctx)))
	if err != nil {
		return fmt.Errorf("push %s: %w", image.name, registryError(err))
	}
	return nil
}

// registryError makes a refusal readable.
func registryError(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "401"), strings.Contains(text, "403"), strings.Contains(text, "insufficient_scope"), strings.Contains(text, "authorization failed"):
		return fmt.Errorf("the registry refused: sign in with docker login, and see that this job may do it (%w)", err)
	}
	return err
}

func pullImage(ctx context.Context, c *command) error {
	quiet := c.flags.BoolP("quiet", "q", false, "")
	platform := c.flags.String("platform", "", "")
	c.flags.BoolP("all-tags", "a", false, "")
	c.flags.Bool("disable-content-trust", true, "")
	if err := c.flags.Parse(c.Args); err != nil {
		return err
	}
	if c.flags.NArg() != 1 {
		return errors.New("docker pull needs 1 argument: docker pull NAME[:TAG|@DIGEST]")
	}
	named, err := canonical(c.flags.Arg(0))
	if err != nil {
		return err
	}
	image, err := c.pull(ctx, named, *platform)
	if err != nil {
		return err
	}
	if *quiet {
		fmt.Fprintln(c.Stdout(), named.String())
		return nil
	}
	fmt.Fprintf(c.Stdout(), "Digest: %s\nStatus: Image is up to date for %s\n%s\n", image.target.Digest, reference.FamiliarString(named), named.String())
	return nil
}

// pull fetches an image with the job's logins and records it.
func (c *command) pull(ctx context.Context, named reference.Named, platform string) (*jobImage, error) {
	options := []containerd.RemoteOpt{containerd.WithResolver(c.resolver(ctx))}
	if platform == "" {
		platform = platforms.DefaultString()
	}
	options = append(options, containerd.WithPlatform(platform))
	fetched, err := c.engine.containerd.Fetch(ctx, named.String(), options...)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", named, registryError(err))
	}
	target, err := c.forPlatform(ctx, fetched.Target, platform)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", named, err)
	}
	if err := c.keep(ctx, named, target); err != nil {
		return nil, err
	}
	// The shared name that Fetch made would let other jobs find the image.
	if err := c.engine.containerd.ImageService().Delete(ctx, fetched.Name); err != nil {
		return nil, fmt.Errorf("record image: %w", err)
	}
	return c.find(named.String())
}

// forPlatform picks the manifest of one platform from an index: what is pulled
// is that platform's image, and a push sends what was pulled.
func (c *command) forPlatform(ctx context.Context, target ocispec.Descriptor, platform string) (ocispec.Descriptor, error) {
	if !images.IsIndexType(target.MediaType) {
		return target, nil
	}
	wanted, err := platforms.Parse(platform)
	if err != nil {
		return target, fmt.Errorf("platform %q: %w", platform, err)
	}
	raw, err := content.ReadBlob(ctx, c.engine.containerd.ContentStore(), target)
	if err != nil {
		return target, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return target, fmt.Errorf("malformed index: %w", err)
	}
	matcher := platforms.Only(wanted)
	for _, one := range index.Manifests {
		if one.Platform == nil || matcher.Match(*one.Platform) {
			return one, nil
		}
	}
	return target, fmt.Errorf("no image for platform %s", platform)
}

func login(ctx context.Context, c *command) error {
	user := c.flags.StringP("username", "u", "", "")
	password := c.flags.StringP("password", "p", "", "")
	fromStdin := c.flags.Bool("password-stdin", false, "")
	if err := c.flags.Parse(c.Args); err != nil {
		return err
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
	if *user == "" || *password == "" {
		return errors.New("username and password are needed: docker login -u USER --password-stdin [SERVER]")
	}
	host := "docker.io"
	if c.flags.NArg() > 0 {
		host = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(c.flags.Arg(0), "https://"), "http://"), "/")
		host, _, _ = strings.Cut(host, "/")
	}
	credential := Credential{Host: host, Username: *user, Password: *password}
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
	document := map[string]any{}
	var present bytes.Buffer
	if err := c.CopyFile(ctx, &present, c.configFile()); err == nil {
		if err := json.Unmarshal(present.Bytes(), &document); err != nil {
			return fmt.Errorf("%s is not JSON: %w", c.configFile(), err)
		}
	}
	auths, _ := document["auths"].(map[string]any)
	if auths == nil {
		auths = map[string]any{}
	}
	host := credential.Host
	if host == "docker.io" {
		host = "https://index.docker.io/v1/"
	}
	auths[host] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(credential.Username + ":" + credential.Password))}
	document["auths"] = auths
	raw, err := json.MarshalIndent(document, "", "\t")
	if err != nil {
		return err
	}
	return c.WriteFile(ctx, c.configFile(), 0o600, bytes.NewReader(raw))
}

func logout(_ context.Context, c *command) error {
	host := "docker.io"
	if len(c.Args) > 0 {
		host = c.Args[0]
	}
	c.mu.Lock()
	delete(c.logins, host)
	c.mu.Unlock()
	fmt.Fprintf(c.Stdout(), "Removing login credentials for %s\n", host)
	return nil
}

func listImages(ctx context.Context, c *command) error {
	quiet := c.flags.BoolP("quiet", "q", false, "")
	format := c.flags.String("format", "", "")
	c.flags.BoolP("all", "a", false, "")
	c.flags.StringP("filter", "f", "", "")
	noTrunc := c.flags.Bool("no-trunc", false, "")
	if err := c.flags.Parse(c.Args); err != nil {
		return err
	}
	table := tabwriter.NewWriter(c.Stdout(), 0, 4, 3, ' ', 0)
	if !*quiet && *format == "" {
		fmt.Fprintln(table, "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE")
	}
	for _, image := range c.all() {
		named, err := canonical(image.name)
		if err != nil {
			return err
		}
		if c.flags.NArg() > 0 && reference.FamiliarName(named) != c.flags.Arg(0) && reference.FamiliarString(named) != c.flags.Arg(0) {
			continue
		}
		row, err := c.row(ctx, image, named)
		if err != nil {
			return err
		}
		if !*noTrunc {
			row.ID = row.ID[7:19]
		}
		switch {
		case *quiet:
			fmt.Fprintln(table, row.ID)
		case *format != "":
			if err := printFormat(table, *format, row); err != nil {
				return err
			}
		default:
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", row.Repository, row.Tag, row.ID, row.CreatedSince, row.Size)
		}
	}
	return table.Flush()
}

// imageRow is what `docker images --format` may name.
type imageRow struct {
	Repository, Tag, ID, Digest, CreatedSince, CreatedAt, Size string
}

func (c *command) row(ctx context.Context, image *jobImage, named reference.Named) (imageRow, error) {
	size, err := (&images.Image{Target: image.target}).Size(ctx, c.engine.containerd.ContentStore(), platforms.Default())
	if err != nil {
		return imageRow{}, err
	}
	tag := "<none>"
	if tagged, ok := named.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	return imageRow{
		Repository: reference.FamiliarName(named), Tag: tag, ID: image.target.Digest.String(), Digest: image.target.Digest.String(),
		CreatedSince: time.Since(image.created).Round(time.Second).String() + " ago", CreatedAt: image.created.UTC().Format(time.RFC3339), Size: fmt.Sprintf("%.1fMB", float64(size)/1e6),
	}, nil
}

func printFormat(w io.Writer, format string, value any) error {
	if format == "json" || format == "{{json .}}" {
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", raw)
		return err
	}
	parsed, err := template.New("format").Funcs(template.FuncMap{
		"json": func(v any) (string, error) { raw, err := json.Marshal(v); return string(raw), err },
		"join": strings.Join,
	}).Parse(format)
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	if err := parsed.Execute(w, value); err != nil {
		return fmt.Errorf("template: %w", err)
	}
	_, err = fmt.Fprintln(w)
	return err
}

// inspection is what `docker inspect` tells of an image; the names are
// docker's.
type inspection struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Created      *time.Time
	Size         int64
	Architecture string
	Os           string
	Config       ocispec.ImageConfig
	RootFS       ocispec.RootFS
}

func inspectImages(ctx context.Context, c *command) error {
	format := c.flags.StringP("format", "f", "", "")
	c.flags.String("type", "", "")
	c.flags.BoolP("size", "s", false, "")
	if err := c.flags.Parse(c.Args); err != nil {
		return err
	}
	if c.flags.NArg() == 0 {
		return errors.New("docker inspect needs at least 1 argument: docker inspect IMAGE")
	}
	var list []inspection
	for _, name := range c.flags.Args() {
		image, err := c.find(name)
		if err != nil {
			return err
		}
		one, err := c.inspect(ctx, image)
		if err != nil {
			return err
		}
		if *format != "" {
			if err := printFormat(c.Stdout(), *format, one); err != nil {
				return err
			}
			continue
		}
		list = append(list, one)
	}
	if *format != "" {
		return nil
	}
	raw, err := json.MarshalIndent(list, "", "    ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.Stdout(), "%s\n", raw)
	return err
}

func (c *command) inspect(ctx context.Context, image *jobImage) (inspection, error) {
	store := c.engine.containerd.ContentStore()
	descriptor, err := images.Config(ctx, store, image.target, platforms.Default())
	if err != nil {
		return inspection{}, fmt.Errorf("read image: %w", err)
	}
	raw, err := content.ReadBlob(ctx, store, descriptor)
	if err != nil {
		return inspection{}, fmt.Errorf("read image: %w", err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return inspection{}, fmt.Errorf("read image: %w", err)
	}
	size, err := (&images.Image{Target: image.target}).Size(ctx, store, platforms.Default())
	if err != nil {
		return inspection{}, fmt.Errorf("read image: %w", err)
	}
	one := inspection{ID: descriptor.Digest.String(), Created: config.Created, Size: size, Architecture: config.Architecture, Os: config.OS, Config: config.Config, RootFS: config.RootFS}
	for _, other := range c.all() {
		if named, err := canonical(other.name); err == nil && other.target.Digest == image.target.Digest {
			one.RepoTags = append(one.RepoTags, reference.FamiliarString(named))
			one.RepoDigests = append(one.RepoDigests, reference.FamiliarName(named)+"@"+image.target.Digest.String())
		}
	}
	return one, nil
}

func removeImages(ctx context.Context, c *command) error {
	c.flags.BoolP("force", "f", false, "")
	c.flags.Bool("no-prune", false, "")
	if err := c.flags.Parse(c.Args); err != nil {
		return err
	}
	for _, name := range c.flags.Args() {
		image, err := c.find(name)
		if err != nil {
			return err
		}
		if err := c.engine.containerd.ImageService().Delete(ctx, c.internalName(image.name)); err != nil {
			return fmt.Errorf("remove image: %w", err)
		}
		c.mu.Lock()
		delete(c.images, image.name)
		c.mu.Unlock()
		fmt.Fprintf(c.Stdout(), "Untagged: %s\n", image.name)
	}
	return nil
}

func saveImages(ctx context.Context, c *command) error {
	output := c.flags.StringP("output", "o", "", "")
	if err := c.flags.Parse(c.Args); err != nil {
		return err
	}
	options := []archive.ExportOpt{archive.WithPlatform(platforms.Default()), archive.WithSkipMissing(c.engine.containerd.ContentStore())}
	for _, name := range c.flags.Args() {
		image, err := c.find(name)
		if err != nil {
			return err
		}
		options = append(options, archive.WithManifest(image.target, image.name))
	}
	if *output == "" {
		return c.engine.containerd.Export(ctx, c.Stdout(), options...)
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(c.engine.containerd.Export(ctx, writer, options...)) }()
	err := c.WriteFile(ctx, c.path(*output), 0o644, reader)
	reader.CloseWithError(err) // ends the export when the writing failed
	return err
}

func loadImages(ctx context.Context, c *command) error {
	input := c.flags.StringP("input", "i", "", "")
	c.flags.BoolP("quiet", "q", false, "")
	if err := c.flags.Parse(c.Args); err != nil {
		return err
	}
	reader, writer := io.Pipe()
	go func() {
		if *input == "" {
			_, err := io.Copy(writer, c.Stdin())
			writer.CloseWithError(err)
			return
		}
		writer.CloseWithError(c.CopyFile(ctx, writer, c.path(*input)))
	}()
	loaded, err := c.engine.containerd.Import(ctx, reader, containerd.WithImageRefTranslator(func(name string) string {
		if named, err := canonical(name); err == nil {
			return c.internalName(named.String()) + "|" + named.String()
		}
		return ""
	}))
	reader.CloseWithError(err)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	for _, image := range loaded {
		_, name, _ := strings.Cut(image.Name, "|")
		named, err := canonical(name)
		if err != nil {
			return err
		}
		if err := c.keep(ctx, named, image.Target); err != nil {
			return err
		}
		if err := c.engine.containerd.ImageService().Delete(ctx, image.Name); err != nil {
			return fmt.Errorf("record image: %w", err)
		}
		fmt.Fprintf(c.Stdout(), "Loaded image: %s\n", reference.FamiliarString(named))
	}
	return nil
}

// path makes a path of the command line absolute, as the job sees it.
func (c *command) path(given string) string {
	if path.IsAbs(given) {
		return path.Clean(given)
	}
	return path.Join(c.Dir, given)
}

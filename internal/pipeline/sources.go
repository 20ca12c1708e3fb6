package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sort"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// maxRemoteConfig bounds the bytes of a file that include:remote fetches.
const maxRemoteConfig = 1 << 20

// sources reads what a configuration includes, as the user of the pipeline.
type sources struct {
	e      *Engine
	home   delivery.Project
	sha    string
	userID int64
	extra  map[string][]byte // files that exist for this pipeline only
}

var _ gitlabci.Sources = (*sources)(nil)

// place resolves a location to a project and a revision that the user may read.
func (s *sources) place(ctx context.Context, at gitlabci.Location) (int64, string, error) {
	if at.Project == "" || strings.EqualFold(at.Project, s.home.FullPath) {
		if at.Ref == "" {
			return s.home.ID, s.sha, nil
		}
		return s.home.ID, at.Ref, nil
	}
	p, err := s.readable(ctx, at.Project)
	if err != nil {
		return 0, "", err
	}
	if at.Ref == "" {
		return p.ID, p.DefaultBranch, nil
	}
	return p.ID, at.Ref, nil
}

func (s *sources) readable(ctx context.Context, path string) (delivery.Project, error) {
	p, err := s.e.cfg.Projects.ProjectByPath(ctx, path)
	if delivery.IsNotFound(err) {
		return p, fmt.Errorf("project %s: %w", path, gitlabci.ErrNotFound)
	}
	if err != nil {
		return p, err
	}
	if p.Visibility == delivery.Public || p.Visibility == delivery.Internal && s.userID != 0 {
		return p, nil
	}
	role, err := s.e.cfg.Projects.RoleIn(ctx, s.userID, p.ID)
	if err != nil {
		return p, err
	}
	if role < delivery.Reporter {
		return p, fmt.Errorf("project %s: %w", path, gitlabci.ErrNotFound)
	}
	return p, nil
}

func notFound(err error) error {
	if delivery.IsNotFound(err) {
		return fmt.Errorf("%w", gitlabci.ErrNotFound)
	}
	return err
}

// ReadFile implements gitlabci.Sources.
func (s *sources) ReadFile(ctx context.Context, at gitlabci.Location, path string) ([]byte, error) {
	path = cleanPath(path)
	if at == (gitlabci.Location{}) {
		if text, ok := s.extra[path]; ok {
			return text, nil
		}
	}
	project, revision, err := s.place(ctx, at)
	if err != nil {
		return nil, err
	}
	text, err := s.e.cfg.Repositories.ReadFile(ctx, project, revision, path)
	return text, notFound(err)
}

// Paths implements gitlabci.Sources.
func (s *sources) Paths(ctx context.Context, at gitlabci.Location) ([]string, error) {
	project, revision, err := s.place(ctx, at)
	if err != nil {
		return nil, err
	}
	paths, err := s.e.cfg.Repositories.Paths(ctx, project, revision)
	return paths, notFound(err)
}

// Remote implements gitlabci.Sources.
func (s *sources) Remote(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%q is not an http or https address", url)
	}
	resp, err := s.e.cfg.HTTPClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot be fetched: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, gitlabci.ErrNotFound
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRemoteConfig+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if len(body) > maxRemoteConfig {
		return nil, fmt.Errorf("is larger than %d bytes", maxRemoteConfig)
	}
	return body, nil
}

// Template implements gitlabci.Sources.
func (s *sources) Template(_ context.Context, name string) ([]byte, error) {
	if s.e.cfg.Templates == nil {
		return nil, gitlabci.ErrNotFound
	}
	text, err := s.e.cfg.Templates(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gitlabci.ErrNotFound
	}
	return text, err
}

// Component implements gitlabci.Sources. The version is a commit, a tag, a
// branch, ~latest or the beginning of a semantic version.
func (s *sources) Component(ctx context.Context, c gitlabci.Component) (gitlabci.ComponentFile, error) {
	p, err := s.readable(ctx, c.Project)
	if err != nil {
		return gitlabci.ComponentFile{}, err
	}
	version := c.Version
	if tags, err := s.e.cfg.Repositories.Tags(ctx, p.ID); err == nil {
		if tag := chooseVersion(tags, c.Version); tag != "" {
			version = tag
		}
	} else {
		return gitlabci.ComponentFile{}, err
	}
	commit, err := s.e.cfg.Repositories.Commit(ctx, p.ID, version)
	if err != nil {
		return gitlabci.ComponentFile{}, notFound(err)
	}
	for _, path := range []string{"templates/" + c.Name + ".yml", "templates/" + c.Name + "/template.yml"} {
		text, err := s.e.cfg.Repositories.ReadFile(ctx, p.ID, commit.SHA, path)
		if delivery.IsNotFound(err) {
			continue
		}
		if err != nil {
			return gitlabci.ComponentFile{}, err
		}
		return gitlabci.ComponentFile{Content: text, Location: gitlabci.Location{Project: p.FullPath, Ref: commit.SHA}, Path: path, SHA: commit.SHA, Version: version}, nil
	}
	return gitlabci.ComponentFile{}, gitlabci.ErrNotFound
}

// chooseVersion picks the tag that ~latest or a partial version means; "" when
// the version is to be taken as it is.
func chooseVersion(tags []delivery.Ref, version string) string {
	var prefix []string
	if version != "~latest" {
		prefix = strings.Split(version, ".")
		if len(prefix) > 3 {
			return ""
		}
		for _, s := range prefix {
			if _, err := strconv.Atoi(s); err != nil {
				return ""
			}
		}
	}
	type candidate struct {
		name string
		v    [3]int
	}
	var found []candidate
	for _, t := range tags {
		parts := strings.Split(strings.TrimPrefix(t.Name, "v"), ".")
		if len(parts) != 3 {
			continue
		}
		c := candidate{name: t.Name}
		ok := true
		for i, s := range parts {
			n, err := strconv.Atoi(s)
			ok = ok && err == nil && (i >= len(prefix) || prefix[i] == s)
			c.v[i] = n
		}
		if ok {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return ""
	}
	sort.Slice(found, func(a, b int) bool {
		x, y := found[a].v, found[b].v
		for i := range x {
			if x[i] != y[i] {
				return x[i] > y[i]
			}
		}
		return false
	})
	return found[0].name
}

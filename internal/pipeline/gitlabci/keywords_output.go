package gitlabci

import (
	"regexp"
	"strings"
	"time"
)

var artifactKeys = []string{"name", "paths", "exclude", "untracked", "when", "expire_in", "expose_as", "access", "public", "reports"}

var exposeAs = regexp.MustCompile(`^[\w\-. ]{1,100}$`)

func readArtifacts(d *decoder, n *node) *Artifacts {
	if !d.mapping(n, artifactKeys...) {
		return nil
	}
	a := &Artifacts{When: "on_success"}
	d.optional(n, "name", func(v *node) { a.Name = d.str(v) })
	d.optional(n, "paths", func(v *node) { a.Paths = d.filledList(v) })
	d.optional(n, "exclude", func(v *node) { a.Exclude = d.filledList(v) })
	d.optional(n, "untracked", func(v *node) { a.Untracked = d.boolean(v) })
	d.optional(n, "when", func(v *node) { a.When = d.enum(v, "on_success", "on_failure", "always") })
	d.optional(n, "expire_in", func(v *node) { a.ExpireIn = d.duration(v, false) })
	d.optional(n, "access", func(v *node) {
		a.Access = d.enum(v, "all", "developer", "maintainer", "none")
		if n.has("public") {
			d.errorf(v, "cannot be used together with public")
		}
	})
	d.optional(n, "public", func(v *node) {
		if !d.boolean(v) && a.Access == "" {
			a.Access = "developer"
		}
	})
	d.optional(n, "expose_as", func(v *node) {
		if a.ExposeAs = d.str(v); !exposeAs.MatchString(a.ExposeAs) && v.kind == stringKind {
			d.errorf(v, "must be at most 100 letters, digits, -, _, . and spaces")
		}
		if !n.has("paths") {
			d.clash(v, "needs paths")
		}
		for _, p := range a.Paths {
			if strings.Contains(p, "*") {
				d.clash(v, "cannot be used with the wildcard path %s", p)
			}
		}
	})
	d.optional(n, "reports", func(v *node) { a.Reports = readReports(d, v) })
	return a
}

// filledList is flat for lists that must hold something.
func (d *decoder) filledList(n *node) []string {
	out := d.flat(n)
	if n.kind == listKind && len(n.items) == 0 {
		d.errorf(n, "must not be empty")
	}
	return out
}

// Report types that take one path, and those that take one or more.
var (
	singleReports = []string{"accessibility", "annotations", "browser_performance"}
	listReports   = []string{
		"junit", "codequality", "dotenv", "terraform", "sarif", "cyclonedx", "container_scanning", "lsif",
		"sast", "dependency_scanning", "dast", "license_management", "license_scanning", "requirements",
		"secret_detection", "metrics", "load_performance", "repository_xray", "coverage_fuzzing",
		"api_fuzzing", "cluster_image_scanning", "cluster_applications",
	}
	reportTypes = append(append([]string{"coverage_report"}, singleReports...), listReports...)
)

func readReports(d *decoder, n *node) []Report {
	if !d.mapping(n, reportTypes...) {
		return nil
	}
	out := make([]Report, 0, len(n.fields))
	for _, f := range n.fields {
		d.in(f.key, func() {
			switch {
			case f.key == "coverage_report":
				if f.value.kind != nullKind {
					out = append(out, readCoverageReport(d, f.value))
				}
			case contains(singleReports, f.key):
				out = append(out, Report{Type: f.key, Paths: []string{d.filled(f.value)}})
			case contains(listReports, f.key):
				paths := d.oneOrMore(f.value)
				if f.value.kind == listKind && len(f.value.items) == 0 {
					d.errorf(f.value, "must not be empty")
				}
				out = append(out, Report{Type: f.key, Paths: paths})
			}
		})
	}
	return out
}

func readCoverageReport(d *decoder, n *node) Report {
	var r Report
	if !d.mapping(n, "coverage_format", "path") {
		return r
	}
	for _, key := range []string{"coverage_format", "path"} {
		if n.get(key) == nil {
			d.errorf(n, "needs %s", key)
		}
	}
	d.field(n, "coverage_format", func(v *node) { r.Type = d.enum(v, "cobertura", "jacoco") })
	d.field(n, "path", func(v *node) { r.Paths = []string{d.filled(v)} })
	return r
}

// readCoverage returns the source of the expression, with its flags, without slashes.
func readCoverage(d *decoder, n *node) string {
	s := d.str(n)
	if n.kind != stringKind {
		return ""
	}
	re, err := ParsePattern(s)
	if err != nil {
		d.errorf(n, "is wrong: %s", err)
		return ""
	}
	return re.String()
}

var (
	environmentName = regexp.MustCompile(`^[a-zA-Z0-9_$.{}\- ]([a-zA-Z0-9_/$.{}\- ]*[a-zA-Z0-9_$.{}\- ])?$`)
	environmentURL  = regexp.MustCompile(`^(https?://.+|\$\{?[A-Za-z_])`)
	tiers           = []string{"production", "staging", "testing", "development", "other"}
)

func readEnvironment(d *decoder, n *node) *Environment {
	e := &Environment{Action: "start"}
	name := n
	if n.kind == mapKind {
		d.known(n, []string{"name", "url", "on_stop", "action", "auto_stop_in", "deployment_tier", "kubernetes"})
		if name = n.get("name"); name == nil {
			d.errorf(n, "needs a name")
		}
	} else if n.kind != stringKind {
		d.errorf(n, "must be the name of an environment or a mapping with name, not %s", n.describe())
		return nil
	}
	if name != nil {
		if e.Name = d.filled(name); e.Name != "" && (len(e.Name) > 255 || !environmentName.MatchString(e.Name)) {
			d.errorf(name, "has the name %s; use at most 255 letters, digits, -, _, /, $, {, }, . and spaces, and no / at either end", name.describe())
		}
	}
	if n.kind != mapKind {
		return e
	}
	d.optional(n, "url", func(v *node) {
		if e.URL = d.filled(v); e.URL != "" && !environmentURL.MatchString(e.URL) {
			d.errorf(v, "must start with http://, https:// or a variable, not %s", v.describe())
		}
		d.limit(v, len(e.URL), 255, "characters")
	})
	d.optional(n, "on_stop", func(v *node) { e.OnStop = d.filled(v) })
	d.optional(n, "action", func(v *node) { e.Action = d.enum(v, "start", "prepare", "stop", "verify", "access") })
	d.optional(n, "auto_stop_in", func(v *node) { e.AutoStopIn = d.duration(v, true) })
	d.optional(n, "deployment_tier", func(v *node) {
		if e.DeploymentTier = d.str(v); !strings.Contains(e.DeploymentTier, "$") {
			e.DeploymentTier = d.enum(v, tiers...)
		}
	})
	d.optional(n, "kubernetes", func(v *node) { readEnvironmentKubernetes(d, v, e) })
	return e
}

func readEnvironmentKubernetes(d *decoder, n *node, e *Environment) {
	if !d.mapping(n, "agent", "namespace", "flux_resource_path", "managed_resources", "dashboard") {
		return
	}
	e.Kubernetes = true
	d.optional(n, "agent", func(v *node) { d.filled(v) })
	d.optional(n, "namespace", func(v *node) { e.Namespace = d.filled(v) })
	d.optional(n, "flux_resource_path", func(v *node) { d.filled(v) })
	d.optional(n, "managed_resources", func(v *node) {
		if d.mapping(v, "enabled") {
			d.optional(v, "enabled", func(c *node) { d.boolean(c) })
		}
	})
	d.optional(n, "dashboard", func(v *node) {
		if d.mapping(v, "namespace", "flux_resource_path") {
			d.optional(v, "namespace", func(c *node) { e.Namespace = d.filled(c) })
			d.optional(v, "flux_resource_path", func(c *node) { d.filled(c) })
		}
	})
}

func readRelease(d *decoder, n *node) *Release {
	if !d.mapping(n, "tag_name", "tag_message", "name", "description", "ref", "milestones", "released_at", "assets") {
		return nil
	}
	r := &Release{}
	for _, key := range []string{"tag_name", "description"} {
		if n.get(key) == nil {
			d.errorf(n, "needs %s", key)
		}
	}
	d.field(n, "tag_name", func(v *node) { r.TagName = d.filled(v) })
	d.field(n, "description", func(v *node) { r.Description = d.filled(v) })
	d.optional(n, "tag_message", func(v *node) { r.TagMessage = d.str(v) })
	d.optional(n, "name", func(v *node) { r.Name = d.str(v) })
	d.optional(n, "ref", func(v *node) { r.Ref = d.str(v) })
	d.optional(n, "milestones", func(v *node) { r.Milestones = d.oneOrMore(v) })
	d.optional(n, "released_at", func(v *node) {
		r.ReleasedAt = d.str(v)
		if _, err := time.Parse(time.RFC3339, r.ReleasedAt); err != nil && v.kind == stringKind && !strings.Contains(r.ReleasedAt, "$") {
			d.errorf(v, "must be a time such as 2026-03-15T08:00:00Z, not %s", v.describe())
		}
	})
	d.optional(n, "assets", func(v *node) {
		if !d.mapping(v, "links") {
			return
		}
		if v.get("links") == nil {
			d.errorf(v, "needs links")
		}
		d.field(v, "links", func(list *node) { r.Links = readLinks(d, list) })
	})
	return r
}

func readLinks(d *decoder, n *node) []ReleaseLink {
	if n.kind != listKind {
		d.errorf(n, "must be a list of links, not %s", n.describe())
		return nil
	}
	if len(n.items) == 0 {
		d.errorf(n, "must not be empty")
	}
	out := make([]ReleaseLink, 0, len(n.items))
	for _, c := range n.items {
		if !d.mapping(c, "name", "url", "filepath", "link_type") {
			continue
		}
		var l ReleaseLink
		for _, key := range []string{"name", "url"} {
			if c.get(key) == nil {
				d.errorf(c, "needs %s", key)
			}
		}
		d.field(c, "name", func(v *node) { l.Name = d.filled(v) })
		d.field(c, "url", func(v *node) { l.URL = d.filled(v) })
		d.optional(c, "filepath", func(v *node) { l.FilePath = d.str(v) })
		d.optional(c, "link_type", func(v *node) { l.LinkType = d.enum(v, "runbook", "package", "image", "other") })
		out = append(out, l)
	}
	return out
}

// readPages reads pages: of a job; nil means the job is none. publish is the older keyword.
func readPages(d *decoder, job *node, name string) *Pages {
	p := &Pages{Publish: "public"}
	n := job.get("pages")
	switch {
	case n == nil || n.kind == nullKind:
		if name != "pages" {
			p = nil
		}
	case n.kind == boolKind:
		if n.text == "false" {
			p = nil
		}
	default:
		d.in("pages", func() {
			if !d.mapping(n, "publish", "path_prefix", "expire_in") {
				return
			}
			d.optional(n, "publish", func(v *node) { p.Publish = d.filled(v) })
			d.optional(n, "path_prefix", func(v *node) { p.PathPrefix = d.str(v) })
			d.optional(n, "expire_in", func(v *node) { p.ExpireIn = d.duration(v, false) })
		})
	}
	d.optional(job, "publish", func(v *node) {
		s := d.filled(v)
		if p == nil {
			d.clash(v, "belongs into a job with pages")
		} else if !n.has("publish") {
			p.Publish = s
		}
	})
	return p
}

var secretProviders = []string{
	"vault", "gcp_secret_manager", "azure_key_vault", "akeyless", "aws_secrets_manager", "gitlab_secrets_manager",
}

func readSecrets(d *decoder, n *node) []Secret {
	if !d.anyMapping(n) {
		return nil
	}
	out := make([]Secret, 0, len(n.fields))
	for _, f := range n.fields {
		d.in(f.key, func() { out = append(out, readSecret(d, f.key, f.value)) })
	}
	return out
}

func readSecret(d *decoder, name string, n *node) Secret {
	s := Secret{Name: name, File: true}
	if !d.mapping(n, append([]string{"file", "token"}, secretProviders...)...) {
		return s
	}
	for _, provider := range secretProviders {
		v := n.get(provider)
		if v == nil {
			continue
		}
		if s.Provider != "" {
			d.errorf(v, "has both %s and %s; use one", s.Provider, provider)
		}
		s.Provider = provider
		d.in(provider, func() { s.Settings = readSecretSettings(d, provider, v) })
	}
	if s.Provider == "" {
		d.errorf(n, "needs one of %s", strings.Join(secretProviders, ", "))
	}
	d.optional(n, "file", func(v *node) { s.File = d.boolean(v) })
	d.optional(n, "token", func(v *node) { s.Token = d.filled(v) })
	if s.Provider == "gcp_secret_manager" && !n.has("token") {
		d.errorf(n, "needs token, the id_tokens variable to authenticate with")
	}
	return s
}

// secretSettings lists the required and the further keys of each provider.
var secretSettings = map[string][2][]string{
	"vault":                  {{"engine", "path", "field"}, nil},
	"gcp_secret_manager":     {{"name"}, {"version"}},
	"azure_key_vault":        {{"name"}, {"version"}},
	"aws_secrets_manager":    {{"secret_id"}, {"version_id", "version_stage", "region", "role_arn", "role_session_name", "field"}},
	"akeyless":               {nil, {"name", "data_key", "cert_user_name", "public_key_data", "csr_data", "akeyless_api_url", "akeyless_access_type", "akeyless_token", "uid_token", "gcp_audience", "azure_object_id", "k8s_service_account_token", "k8s_auth_config_name", "access_id", "gateway_ca_certificate"}},
	"gitlab_secrets_manager": {{"name"}, {"source"}},
}

func readSecretSettings(d *decoder, provider string, n *node) map[string]any {
	if n.kind == stringKind {
		switch provider {
		case "vault":
			return vaultShort(d, n)
		case "aws_secrets_manager":
			return map[string]any{"secret_id": d.filled(n)}
		}
	}
	keys := secretSettings[provider]
	if !d.mapping(n, append(append([]string(nil), keys[0]...), keys[1]...)...) {
		return nil
	}
	for _, key := range keys[0] {
		if n.get(key) == nil {
			d.errorf(n, "needs %s", key)
		}
	}
	for _, f := range n.fields {
		d.in(f.key, func() {
			switch {
			case f.key == "engine" && provider == "vault":
				if d.mapping(f.value, "name", "path") {
					for _, key := range []string{"name", "path"} {
						if f.value.get(key) == nil {
							d.errorf(f.value, "needs %s", key)
						}
						d.field(f.value, key, func(v *node) { d.filled(v) })
					}
				}
			case f.key == "version" && f.value.kind == intKind && provider == "gcp_secret_manager":
			default:
				d.filled(f.value)
			}
		})
	}
	settings, _ := n.value().(map[string]any)
	return settings
}

// vaultShort expands "production/db/password@ops" to field password of production/db in the engine ops.
func vaultShort(d *decoder, n *node) map[string]any {
	path, engine, ok := strings.Cut(d.filled(n), "@")
	if !ok {
		engine = "kv-v2"
	}
	at := strings.LastIndex(path, "/")
	if at <= 0 || at == len(path)-1 {
		d.errorf(n, "must be written path/field@engine, not %s", n.describe())
		return nil
	}
	return map[string]any{
		"engine": map[string]any{"name": "kv-v2", "path": engine},
		"path":   path[:at], "field": path[at+1:],
	}
}

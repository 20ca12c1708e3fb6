package pipeline

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline/gitlabci"
)

// factAncestors keeps, beside the variables, the groups above the project at
// creation, the nearest first.
const factAncestors = "slipway:ancestors"

// origin is what a new pipeline is made from.
type origin struct {
	project   delivery.Project
	ancestors []delivery.Group
	user      delivery.User
	commit    delivery.Commit
	ref       string
	tag       bool
	tagRef    delivery.Ref
	sha       string
	before    string
	source    string
	protected bool
	merge     *delivery.MergeRequest
	mergeFrom delivery.Project // source project of merge
	openMerge []delivery.MergeRequest
	settings  ProjectSettings
	now       time.Time

	sourceProtected, targetProtected bool // of merge
}

// facts builds the predefined variables that are persisted with the pipeline
// (../spec/gitlab-ci.md, "Predefined variables").
func (e *Engine) facts(o *origin) map[string]string {
	p := o.project
	root, _, _ := strings.Cut(p.Namespace.FullPath, "/")
	title, body := splitMessage(o.commit.Message)
	url := e.cfg.ExternalURL + "/" + p.FullPath
	major, minor, patch := versionParts(e.cfg.Version)
	f := map[string]string{
		"CI": "true", "GITLAB_CI": "true", "GITLAB_FEATURES": "", "CI_SERVER": "yes",
		"CI_API_V4_URL": e.cfg.ExternalURL + "/api/v4", "CI_API_GRAPHQL_URL": e.cfg.ExternalURL + "/api/graphql",
		"CI_COMMIT_AUTHOR":     fmt.Sprintf("%s <%s>", o.commit.Author.Name, o.commit.Author.Email),
		"CI_COMMIT_BEFORE_SHA": o.before, "CI_COMMIT_SHA": o.sha, "CI_COMMIT_SHORT_SHA": short(o.sha),
		"CI_COMMIT_MESSAGE": o.commit.Message, "CI_COMMIT_TITLE": title, "CI_COMMIT_DESCRIPTION": body,
		"CI_COMMIT_REF_NAME": o.ref, "CI_COMMIT_REF_SLUG": gitlabci.Slug(o.ref), "CI_COMMIT_REF_PROTECTED": strconv.FormatBool(o.protected),
		"CI_CONFIG_PATH":    configPath(p),
		"CI_DEFAULT_BRANCH": p.DefaultBranch, "CI_DEFAULT_BRANCH_SLUG": gitlabci.Slug(p.DefaultBranch),
		"CI_DEPENDENCY_PROXY_SERVER": e.cfg.RegistryHost, "CI_DEPENDENCY_PROXY_GROUP_IMAGE_PREFIX": e.cfg.RegistryHost + "/" + root + "/dependency_proxy/containers",
		"CI_DEPENDENCY_PROXY_DIRECT_GROUP_IMAGE_PREFIX": e.cfg.RegistryHost + "/" + p.Namespace.FullPath + "/dependency_proxy/containers",
		"CI_PAGES_DOMAIN": e.server.fqdn, "CI_PAGES_HOSTNAME": e.server.host, "CI_PAGES_URL": e.cfg.ExternalURL + "/pages/" + p.FullPath,
		"CI_PIPELINE_SOURCE": o.source, "CI_PIPELINE_CREATED_AT": o.now.UTC().Format(time.RFC3339),
		"CI_REGISTRY": e.cfg.RegistryHost, "CI_REGISTRY_IMAGE": e.cfg.RegistryHost + "/" + strings.ToLower(p.FullPath),
		"CI_PROJECT_ID": id(p.ID), "CI_PROJECT_NAME": p.Path, "CI_PROJECT_TITLE": p.Name, "CI_PROJECT_PATH": p.FullPath,
		"CI_PROJECT_PATH_SLUG": gitlabci.Slug(p.FullPath), "CI_PROJECT_NAMESPACE": p.Namespace.FullPath,
		"CI_PROJECT_NAMESPACE_SLUG": gitlabci.Slug(p.Namespace.FullPath), "CI_PROJECT_NAMESPACE_ID": id(p.Namespace.ID),
		"CI_PROJECT_ROOT_NAMESPACE": root, "CI_PROJECT_URL": url, "CI_PROJECT_VISIBILITY": string(p.Visibility),
		"CI_PROJECT_REPOSITORY_LANGUAGES": "", "CI_PROJECT_DESCRIPTION": p.Description, "CI_PROJECT_CLASSIFICATION_LABEL": "",
		"CI_SERVER_URL": e.cfg.ExternalURL, "CI_SERVER_HOST": e.server.host, "CI_SERVER_FQDN": e.server.fqdn, "CI_SERVER_PORT": e.server.port,
		"CI_SERVER_PROTOCOL": e.server.protocol, "CI_SERVER_NAME": "Slipway", "CI_SERVER_SHELL_SSH_HOST": e.cfg.SSHHost,
		"CI_SERVER_SHELL_SSH_PORT": strconv.Itoa(e.cfg.SSHPort), "CI_SERVER_VERSION": e.cfg.Version, "CI_SERVER_VERSION_MAJOR": major,
		"CI_SERVER_VERSION_MINOR": minor, "CI_SERVER_VERSION_PATCH": patch, "CI_SERVER_REVISION": "",
		"GITLAB_USER_ID": id(o.user.ID), "GITLAB_USER_LOGIN": o.user.Username, "GITLAB_USER_NAME": o.user.Name, "GITLAB_USER_EMAIL": o.user.Email,
	}
	if !o.commit.Author.When.IsZero() {
		f["CI_COMMIT_TIMESTAMP"] = o.commit.Committer.When.Format(time.RFC3339)
	}
	switch {
	case o.tag:
		f["CI_COMMIT_TAG"], f["CI_COMMIT_TAG_MESSAGE"] = o.ref, o.tagRef.Message
	case o.merge == nil:
		f["CI_COMMIT_BRANCH"] = o.ref
	}
	if o.source == SourceTrigger {
		f["CI_PIPELINE_TRIGGERED"] = "true"
	}
	if o.source == SourceSchedule {
		f["CI_PIPELINE_SCHEDULE_DESCRIPTION"] = ""
	}
	var open []string
	for i, m := range o.openMerge {
		if i < 4 {
			open = append(open, fmt.Sprintf("%s!%d", p.FullPath, m.IID))
		}
	}
	if len(open) > 0 {
		f["CI_OPEN_MERGE_REQUESTS"] = strings.Join(open, ",")
	}
	if o.merge != nil {
		e.mergeFacts(f, o)
	}
	var ids []string
	for _, g := range o.ancestors {
		ids = append(ids, id(g.ID))
	}
	f[factAncestors] = strings.Join(ids, ",")
	return f
}

func (e *Engine) mergeFacts(f map[string]string, o *origin) {
	m, from := o.merge, o.mergeFrom
	for k, v := range map[string]string{
		"ID": id(m.ID), "IID": id(m.IID), "TITLE": m.Title, "DESCRIPTION": m.Description, "LABELS": strings.Join(m.Labels, ","),
		"ASSIGNEES": "", "DIFF_BASE_SHA": m.BaseSHA, "EVENT_TYPE": "detached", "DIFF_ID": "",
		"PROJECT_ID": id(o.project.ID), "PROJECT_PATH": o.project.FullPath, "PROJECT_URL": e.cfg.ExternalURL + "/" + o.project.FullPath,
		"REF_PATH":           fmt.Sprintf("refs/merge-requests/%d/head", m.IID),
		"SOURCE_BRANCH_NAME": m.SourceBranch, "SOURCE_BRANCH_SHA": "", "SOURCE_BRANCH_PROTECTED": strconv.FormatBool(o.sourceProtected),
		"SOURCE_PROJECT_ID": id(from.ID), "SOURCE_PROJECT_PATH": from.FullPath, "SOURCE_PROJECT_URL": e.cfg.ExternalURL + "/" + from.FullPath,
		"TARGET_BRANCH_NAME": m.TargetBranch, "TARGET_BRANCH_SHA": "", "TARGET_BRANCH_PROTECTED": strconv.FormatBool(o.targetProtected),
		"APPROVED": "false", "SQUASH_ON_MERGE": strconv.FormatBool(m.Squash), "DRAFT": strconv.FormatBool(m.Draft),
	} {
		f["CI_MERGE_REQUEST_"+k] = v
	}
}

func id(n int64) string { return strconv.FormatInt(n, 10) }

func short(sha string) string {
	if len(sha) > 8 {
		return sha[:8]
	}
	return sha
}

func splitMessage(m string) (title, description string) {
	title, rest, _ := strings.Cut(m, "\n")
	return title, strings.TrimPrefix(rest, "\n")
}

func versionParts(v string) (major, minor, patch string) {
	v, _, _ = strings.Cut(strings.TrimPrefix(v, "v"), "-")
	parts := append(strings.SplitN(v, ".", 3), "0", "0", "0")
	return parts[0], parts[1], parts[2]
}

func configPath(p delivery.Project) string {
	if p.CIConfigPath != "" {
		return p.CIConfigPath
	}
	return ".gitlab-ci.yml"
}

// describe fills in what the ports know about the origin: project, user,
// commit, protection and merge requests must be set by number before.
func (e *Engine) describe(ctx context.Context, projectID, userID int64, o *origin) error {
	var err error
	if o.project, err = e.cfg.Projects.Project(ctx, projectID); err != nil {
		return fmt.Errorf("pipeline: project: %w", err)
	}
	if o.settings, err = e.ProjectSettings(ctx, projectID); err != nil {
		return err
	}
	if o.ancestors, err = e.cfg.Projects.Ancestors(ctx, projectID); err != nil {
		return fmt.Errorf("pipeline: groups of project: %w", err)
	}
	if userID != 0 {
		if o.user, err = e.cfg.Users.User(ctx, userID); err != nil {
			return fmt.Errorf("pipeline: user: %w", err)
		}
	}
	if o.commit, err = e.cfg.Repositories.Commit(ctx, projectID, o.sha); err != nil {
		return fmt.Errorf("pipeline: commit: %w", err)
	}
	o.sha = o.commit.SHA
	if o.before == "" {
		o.before = delivery.ZeroSHA
	}
	if o.merge == nil {
		if o.protected, err = e.cfg.Repositories.Protected(ctx, projectID, o.ref, o.tag); err != nil {
			return fmt.Errorf("pipeline: protection of %s: %w", o.ref, err)
		}
		if !o.tag && e.cfg.MergeRequests != nil {
			if o.openMerge, err = e.cfg.MergeRequests.OpenMergeRequests(ctx, projectID, o.ref); err != nil {
				return fmt.Errorf("pipeline: merge requests of %s: %w", o.ref, err)
			}
		}
	} else if err := e.describeMerge(ctx, projectID, userID, o); err != nil {
		return err
	}
	o.now = e.clock.Now()
	return nil
}

// describeMerge fills in the source of a merge request and whether its pipeline
// counts as protected (ProjectSettings.ProtectMergeRequests).
func (e *Engine) describeMerge(ctx context.Context, projectID, userID int64, o *origin) error {
	m, repos := o.merge, e.cfg.Repositories
	var err error
	if m.SourceProjectID == 0 {
		return nil
	}
	if o.mergeFrom, err = e.cfg.Projects.Project(ctx, m.SourceProjectID); err != nil {
		return fmt.Errorf("pipeline: source project: %w", err)
	}
	if o.sourceProtected, err = repos.Protected(ctx, m.SourceProjectID, m.SourceBranch, false); err != nil {
		return fmt.Errorf("pipeline: protection of %s: %w", m.SourceBranch, err)
	}
	if o.targetProtected, err = repos.Protected(ctx, projectID, m.TargetBranch, false); err != nil {
		return fmt.Errorf("pipeline: protection of %s: %w", m.TargetBranch, err)
	}
	if userID == 0 || m.SourceProjectID != projectID || !o.settings.ProtectMergeRequests || !o.sourceProtected || !o.targetProtected {
		return nil
	}
	if o.protected, err = repos.MayUpdate(ctx, userID, projectID, m.TargetBranch, false); err != nil {
		return fmt.Errorf("pipeline: rights on %s: %w", m.TargetBranch, err)
	}
	return nil
}

package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// ProjectSettings is what a project says about its pipelines. The JSON names
// are those of GitLab's project API (doc/api/projects).
type ProjectSettings struct {
	// ForwardDeployment fails deployment jobs that are older than the newest
	// successful deployment of their environment.
	ForwardDeployment bool `json:"ci_forward_deployment_enabled"`
	// RollbackAllowed lets people run a job of an older deployment again
	// although ForwardDeployment is set.
	RollbackAllowed bool `json:"ci_forward_deployment_rollback_allowed"`
	// AutoCancel is enabled or disabled: whether a newer pipeline of a ref
	// cancels the older ones, as far as workflow:auto_cancel lets it.
	AutoCancel string `json:"auto_cancel_pending_pipelines"`
	// BuildTimeout is that of jobs which name none, in seconds.
	BuildTimeout int `json:"build_timeout"`
	// GitDepth is how many commits jobs fetch; 0 is all of them.
	GitDepth int `json:"ci_default_git_depth"`
	// GitStrategy is fetch or clone.
	GitStrategy string `json:"build_git_strategy"`
	// ProtectMergeRequests gives merge request pipelines protected variables and
	// runners where source and target branch are protected, in one project, and
	// their user may update the target.
	ProtectMergeRequests bool `json:"protect_merge_request_pipelines"`
	// JobsEnabled lets pipelines be made at all.
	JobsEnabled bool `json:"jobs_enabled"`
	// RestrictVariables keeps people below maintainer from giving pipelines
	// variables.
	RestrictVariables bool `json:"restrict_user_defined_variables"`
	// SeparateCaches keeps the caches of protected refs apart.
	SeparateCaches bool `json:"ci_separated_caches"`
	// Namespaces are those of the cluster that deployment jobs get beside their
	// own. Administrators of the instance grant them.
	Namespaces []NamespaceGrant `json:"kubernetes_namespaces"`
}

// NamespaceGrant lets jobs of the environments that match deploy to a namespace.
type NamespaceGrant struct {
	Environment string `json:"environment_scope"` // a name, or a pattern with *
	Namespace   string `json:"namespace"`
	Protected   bool   `json:"protected"` // only for pipelines of protected branches and tags
}

// DefaultProjectSettings are GitLab's.
func DefaultProjectSettings() ProjectSettings {
	return ProjectSettings{ForwardDeployment: true, RollbackAllowed: true, AutoCancel: "enabled", BuildTimeout: 3600, GitDepth: defaultDepth,
		GitStrategy: "fetch", ProtectMergeRequests: true, JobsEnabled: true, SeparateCaches: true}
}

var namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// reservedNamespace are those of the platform's own programs.
var reservedNamespace = regexp.MustCompile(`^(kube-.*|argocd|argo-rollouts|default)$`)

// check refuses values that mean nothing.
func (s *ProjectSettings) check() error {
	bad := func(field, message string) error {
		return &delivery.Error{Kind: delivery.Invalid, Message: field + " " + message, Fields: map[string][]string{field: {message}}}
	}
	switch {
	case s.AutoCancel != "enabled" && s.AutoCancel != "disabled":
		return bad("auto_cancel_pending_pipelines", "is enabled or disabled")
	case s.BuildTimeout < 600 || s.BuildTimeout > int(30*24*time.Hour/time.Second):
		return bad("build_timeout", "is between 600 seconds and 30 days")
	case s.GitDepth < 0 || s.GitDepth > 1000:
		return bad("ci_default_git_depth", "is between 0 and 1000")
	case s.GitStrategy != "fetch" && s.GitStrategy != "clone":
		return bad("build_git_strategy", "is fetch or clone")
	}
	for _, n := range s.Namespaces {
		switch {
		case n.Environment == "":
			return bad("kubernetes_namespaces", "needs an environment, or *")
		case !namespaceName.MatchString(n.Namespace):
			return bad("kubernetes_namespaces", fmt.Sprintf("has %q, which is not the name of a namespace", n.Namespace))
		case reservedNamespace.MatchString(n.Namespace):
			return bad("kubernetes_namespaces", fmt.Sprintf("has %q, which belongs to the platform", n.Namespace))
		}
	}
	return nil
}

// ProjectSettings returns a project's settings.
func (e *Engine) ProjectSettings(ctx context.Context, projectID int64) (ProjectSettings, error) {
	var s ProjectSettings
	err := e.store.View(ctx, func(tx Tx) error {
		var err error
		s, err = projectSettings(tx, projectID)
		return err
	})
	return s, err
}

func projectSettings(tx Tx, projectID int64) (ProjectSettings, error) {
	s := DefaultProjectSettings()
	raw, err := tx.ProjectSettings(projectID)
	if err != nil || raw == nil {
		return s, err
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("pipeline: settings of project %d: %w", projectID, err)
	}
	return s, nil
}

// ChangeProjectSettings lets fn change a project's settings and stores them
// when they are valid.
func (e *Engine) ChangeProjectSettings(ctx context.Context, projectID int64, fn func(*ProjectSettings) error) (ProjectSettings, error) {
	var s ProjectSettings
	err := e.store.Update(ctx, func(tx Tx) error {
		var err error
		if s, err = projectSettings(tx, projectID); err != nil {
			return err
		}
		if err := fn(&s); err != nil {
			return err
		}
		if err := s.check(); err != nil {
			return err
		}
		raw, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("pipeline: settings of project %d: %w", projectID, err)
		}
		return tx.PutProjectSettings(projectID, raw)
	})
	return s, err
}

// ProjectFields returns the settings as fields of GitLab's project API.
func (e *Engine) ProjectFields(ctx context.Context, projectID int64) (map[string]any, error) {
	s, err := e.ProjectSettings(ctx, projectID)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("pipeline: settings of project %d: %w", projectID, err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("pipeline: settings of project %d: %w", projectID, err)
	}
	fields["builds_access_level"] = "enabled"
	if !s.JobsEnabled {
		fields["builds_access_level"] = "disabled"
	}
	return fields, nil
}

// ChangeProjectFields changes the settings that a request to GitLab's project
// API names: decode fills what it is given. Namespaces are changed for
// administrators only.
func (e *Engine) ChangeProjectFields(ctx context.Context, projectID int64, admin bool, decode func(any) error) error {
	_, err := e.ChangeProjectSettings(ctx, projectID, func(s *ProjectSettings) error {
		in := struct {
			*ProjectSettings
			Access *string `json:"builds_access_level"`
		}{ProjectSettings: s}
		before := s.Namespaces
		s.Namespaces = nil
		if err := decode(&in); err != nil {
			return err
		}
		if in.Access != nil {
			s.JobsEnabled = *in.Access != "disabled"
		}
		switch {
		case s.Namespaces == nil:
			s.Namespaces = before
		case !admin:
			return delivery.Errorf(delivery.Forbidden, "Namespaces of the cluster are granted by administrators.")
		}
		return nil
	})
	return err
}

// mayCreate applies the settings to a request for a pipeline.
func (e *Engine) mayCreate(ctx context.Context, req *Request, s *ProjectSettings) error {
	if !s.JobsEnabled {
		return &delivery.Error{Kind: delivery.Invalid, Message: "Pipelines are turned off for this project.", Err: ErrNoPipeline}
	}
	if !s.RestrictVariables || len(req.Variables) == 0 || req.parentJob != 0 || req.Source == SourceSchedule {
		return nil
	}
	role, err := e.cfg.Projects.RoleIn(ctx, req.UserID, req.ProjectID)
	if err == nil && role < delivery.Maintainer {
		err = delivery.Errorf(delivery.Forbidden, "Insufficient permissions to set pipeline variables")
	}
	return err
}

package rest

import (
	"net/http"
	"strconv"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func (s *server) lint(rt *api.Router) {
	rt.Handle("POST /ci/lint", api.Need{}, s.lintAlone)
	rt.Handle("GET /projects/{project}/ci/lint", guest, s.lintProject)
	rt.Handle("POST /projects/{project}/ci/lint", developer, s.lintProject)
}

type lintInput struct {
	Content    string `json:"content"`
	ContentRef string `json:"content_ref"`
	SHA        string `json:"sha"`
	DryRun     bool   `json:"dry_run"`
	DryRunRef  string `json:"dry_run_ref"`
	Ref        string `json:"ref"`
	Jobs       bool   `json:"include_jobs"`
}

// lintAlone checks a configuration that belongs to no project.
func (s *server) lintAlone(w http.ResponseWriter, r *api.Request) error {
	var in lintInput
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	if in.Content == "" {
		return delivery.Errorf(delivery.Invalid, "content is missing")
	}
	result, err := s.Lint(r.Context(), pipeline.LintRequest{UserID: userID(r), Content: in.Content})
	if err != nil {
		return err
	}
	status := "valid"
	if !result.Valid {
		status = "invalid"
	}
	return api.WriteJSON(w, http.StatusOK, object{"status": status, "valid": result.Valid, "errors": result.Errors, "warnings": result.Warnings,
		"merged_yaml": result.MergedYAML, "details": result.Details})
}

// lintProject checks a given configuration, or the project's own at a commit,
// with the project's includes and variables.
func (s *server) lintProject(w http.ResponseWriter, r *api.Request) error {
	if r.Role < delivery.Reporter && r.Project.Visibility == delivery.Private { // the answer shows files of the repository
		return &delivery.Error{Kind: delivery.Forbidden, Message: "403 Forbidden"}
	}
	var in lintInput
	if err := api.Decode(r, &in); err != nil {
		return err
	}
	req := pipeline.LintRequest{UserID: userID(r), ProjectID: r.Project.ID, Content: in.Content, Ref: in.DryRunRef, DryRun: in.DryRun}
	if req.Ref == "" {
		req.Ref = in.Ref
	}
	if req.Content == "" {
		req.ContentRef = in.ContentRef
		if req.ContentRef == "" {
			req.ContentRef = in.SHA
		}
	}
	if r.Method == http.MethodPost && in.Content == "" {
		return delivery.Errorf(delivery.Invalid, "content is missing")
	}
	result, err := s.Lint(r.Context(), req)
	if err != nil {
		return err
	}
	o := object{"valid": result.Valid, "errors": result.Errors, "warnings": result.Warnings, "merged_yaml": result.MergedYAML, "includes": []object{}, "details": result.Details}
	if in.Jobs {
		o["jobs"] = result.Jobs
	}
	return api.WriteJSON(w, http.StatusOK, o)
}

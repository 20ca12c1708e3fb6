package web

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/pipeline"
)

// updateCIGeneral stores the form of a project's general pipeline settings.
func (s *Server) updateCIGeneral(w http.ResponseWriter, r *Request) error {
	set, err := s.Pipelines.ChangeProjectSettings(r.Context(), r.Project.ID, func(v *pipeline.ProjectSettings) error {
		return readCIGeneral(r, v)
	})
	if err != nil {
		return s.refuse(w, r, ciOwner{show: s.showCISettings}, err, ciSettingsView{Open: "general"})
	}
	s.Access.Audit(r.Context(), r.Who, "ci_settings.updated", "project", r.Project.ID, r.Project.FullPath, "timeout "+strconv.Itoa(set.BuildTimeout)+" s")
	return redirect(w, r, projectPath(r.Project.FullPath, "settings", "ci_cd")+"?section=general", "The settings are saved.")
}

func readCIGeneral(r *Request, v *pipeline.ProjectSettings) error {
	on := func(name string) bool { return r.FormValue(name) != "" }
	var err error
	if v.BuildTimeout, err = strconv.Atoi(strings.TrimSpace(r.FormValue("build_timeout"))); err != nil {
		return delivery.Errorf(delivery.Invalid, "The timeout is a number of seconds.")
	}
	if v.GitDepth, err = strconv.Atoi(strings.TrimSpace(r.FormValue("git_depth"))); err != nil {
		return delivery.Errorf(delivery.Invalid, "The number of commits to fetch is a number; 0 is all.")
	}
	v.GitStrategy = r.FormValue("git_strategy")
	v.AutoCancel = "disabled"
	if on("auto_cancel") {
		v.AutoCancel = "enabled"
	}
	v.JobsEnabled, v.ForwardDeployment, v.RollbackAllowed = on("jobs_enabled"), on("forward_deployment"), on("rollback_allowed")
	v.ProtectMergeRequests, v.RestrictVariables, v.SeparateCaches = on("protect_merge_requests"), on("restrict_variables"), on("separate_caches")
	if r.Who.User == nil || !r.Who.User.Admin {
		return nil
	}
	v.Namespaces = nil
	for _, line := range strings.Split(r.FormValue("namespaces"), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		fields := strings.Fields(line)
		protected := len(fields) == 3 && fields[2] == "protected"
		if len(fields) != 2 && !protected {
			return delivery.Errorf(delivery.Invalid, "A namespace is granted by a line such as \"production shop protected\" or \"review/* shop-review\"; %q is none.", line)
		}
		v.Namespaces = append(v.Namespaces, pipeline.NamespaceGrant{Environment: fields[0], Namespace: fields[1], Protected: protected})
	}
	return nil
}

// resourceRow is a resource group with what waits for it.
type resourceRow struct {
	Key, Mode string
	Waiting   int
}

// updateResourceGroup changes in which order jobs get a resource group.
func (s *Server) updateResourceGroup(w http.ResponseWriter, r *Request) error {
	key, mode := r.FormValue("key"), r.FormValue("mode")
	if err := s.Pipelines.SetResourceMode(r.Context(), r.Project.ID, key, mode); err != nil {
		return s.refuse(w, r, ciOwner{show: s.showCISettings}, err, ciSettingsView{Open: "resources"})
	}
	return redirect(w, r, projectPath(r.Project.FullPath, "settings", "ci_cd")+"?section=resources", "The order of "+key+" is changed.")
}

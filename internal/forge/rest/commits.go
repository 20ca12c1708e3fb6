package rest

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func copyAll(w io.Writer, r io.Reader) (int64, error) { return io.Copy(w, r) }

func (h *handlers) commits(rt *api.Router) {
	dev := api.Need{Role: delivery.Developer}
	rt.Handle("GET /projects/{project}/repository/commits", reader, code(h.listCommits))
	rt.Handle("POST /projects/{project}/repository/commits", dev, h.createCommit)
	rt.Handle("GET /projects/{project}/repository/commits/{sha}", reader, code(h.getCommit))
	rt.Handle("GET /projects/{project}/repository/commits/{sha}/diff", reader, code(h.commitDiff))
	rt.Handle("GET /projects/{project}/repository/commits/{sha}/refs", reader, code(h.commitRefs))
	rt.Handle("GET /projects/{project}/repository/commits/{sha}/merge_requests", reader, code(h.commitMergeRequests))
	rt.Handle("GET /projects/{project}/repository/commits/{sha}/signature", reader, code(h.commitSignature))
	rt.Handle("GET /projects/{project}/repository/commits/{sha}/sequence", reader, code(h.commitSequence))
	rt.Handle("POST /projects/{project}/repository/commits/{sha}/revert", dev, h.pick(true))
	rt.Handle("POST /projects/{project}/repository/commits/{sha}/cherry_pick", dev, h.pick(false))
}

func (h *handlers) listCommits(w http.ResponseWriter, r *api.Request) error {
	q := r.URL.Query()
	p := api.PageOf(r.Request)
	o := forge.LogOptions{Rev: q.Get("ref_name"), Path: q.Get("path"), Author: q.Get("author"), Since: parseTime(q.Get("since")), Until: parseTime(q.Get("until")), All: isTrue(q.Get("all")), First: isTrue(q.Get("first_parent")),
		TopoSort: q.Get("order") == "topo", Limit: p.PerPage + 1, Offset: p.Offset()}
	if from, to, ok := strings.Cut(o.Rev, ".."); ok {
		o.Rev, o.Not = strings.TrimPrefix(to, "."), from
	}
	if r.Project.Empty && o.Rev == "" {
		return api.List(w, r, p, 0, []map[string]any{})
	}
	list, err := h.f.Commits(r.Context(), r.Project.ID, o)
	if err != nil {
		return err
	}
	more := len(list) > p.PerPage
	list = list[:min(len(list), p.PerPage)]
	out := make([]map[string]any, 0, len(list))
	for _, c := range list {
		shape := h.commitShape(r.Project, c)
		if isTrue(q.Get("with_stats")) {
			if shape["stats"], err = h.commitStats(r.Context(), r.Project, c); err != nil {
				return err
			}
		}
		out = append(out, shape)
	}
	// As in GitLab the total is not counted for commits; what is known is
	// whether there is a next page.
	total := p.Offset() + len(list)
	if more {
		total++
	}
	p.WriteHeaders(w, r.Request, total)
	w.Header().Del("X-Total")
	w.Header().Del("X-Total-Pages")
	return api.WriteJSON(w, http.StatusOK, out)
}

func (h *handlers) getCommit(w http.ResponseWriter, r *api.Request) error {
	c, err := h.f.Commit(r.Context(), r.Project.ID, r.PathValue("sha"))
	if err != nil {
		return err
	}
	out := h.commitShape(r.Project, c)
	if r.URL.Query().Get("stats") != "false" {
		if out["stats"], err = h.commitStats(r.Context(), r.Project, c); err != nil {
			return err
		}
	}
	id, status, err := h.f.HeadPipeline(r.Context(), r.Project.ID, c.SHA)
	if err != nil {
		return err
	}
	out["status"], out["last_pipeline"], out["project_id"] = nil, nil, r.Project.ID
	if id != 0 {
		out["status"] = status
		out["last_pipeline"] = map[string]any{"id": id, "sha": c.SHA, "status": status, "project_id": r.Project.ID, "web_url": h.f.WebURL(r.Project) + "/-/pipelines/" + itoa(id)}
	}
	return api.WriteJSON(w, http.StatusOK, out)
}

func (h *handlers) commitDiff(w http.ResponseWriter, r *api.Request) error {
	c, err := h.f.Commit(r.Context(), r.Project.ID, r.PathValue("sha"))
	if err != nil {
		return err
	}
	from := ""
	if len(c.Parents) > 0 {
		from = c.Parents[0]
	}
	list, err := h.f.Diff(r.Context(), r.Project.ID, from, c.SHA, nil, forge.DiffLimits{})
	if err != nil {
		return err
	}
	return paged(w, r, diffShapes(list))
}

func (h *handlers) commitRefs(w http.ResponseWriter, r *api.Request) error {
	sha, err := h.f.ResolveRef(r.Context(), r.Project.ID, r.PathValue("sha"))
	if err != nil {
		return err
	}
	refs, err := h.f.RefsContaining(r.Context(), r.Project.ID, sha)
	if err != nil {
		return err
	}
	out := []map[string]string{}
	for _, ref := range refs {
		kind := "branch"
		if strings.HasPrefix(ref.FullName, "refs/tags/") {
			kind = "tag"
		}
		if want := r.URL.Query().Get("type"); want == "" || want == "all" || want == kind {
			out = append(out, map[string]string{"type": kind, "name": ref.Name})
		}
	}
	return paged(w, r, out)
}

func (h *handlers) commitSignature(w http.ResponseWriter, r *api.Request) error {
	sha, err := h.f.ResolveRef(r.Context(), r.Project.ID, r.PathValue("sha"))
	if err != nil {
		return err
	}
	v, err := h.f.VerifyCommit(r.Context(), r.Project.ID, sha)
	if err != nil {
		return err
	}
	if v == nil {
		return notFound("Signature")
	}
	out := signatureShape(v)
	out["commit_source"] = "git"
	return api.WriteJSON(w, http.StatusOK, out)
}

// signatureShape is the signature of a commit or a tag.
func signatureShape(v *forge.Verification) map[string]any {
	out := map[string]any{"signature_type": v.Type, "verification_status": v.Status}
	switch {
	case v.Type == "SSH":
		out["key"], out["key_fingerprint_sha256"] = nil, v.Fingerprint
		if k := v.Key; k != nil {
			out["key"] = map[string]any{"id": k.ID, "title": k.Title, "key": k.Text, "created_at": optional(k.CreatedAt), "expires_at": optional(k.ExpiresAt), "usage_type": k.Usage}
		}
	case v.Type == "PGP":
		out["gpg_key_id"], out["gpg_key_primary_keyid"], out["gpg_key_subkey_id"] = nil, strings.ToUpper(v.Fingerprint), nil
		if k := v.Key; k != nil {
			out["gpg_key_id"], out["gpg_key_user_name"], out["gpg_key_user_email"] = k.ID, k.User.Name, k.Emails[0]
		}
	}
	return out
}

func (h *handlers) commitSequence(w http.ResponseWriter, r *api.Request) error {
	n, err := h.f.CountCommits(r.Context(), r.Project.ID, r.PathValue("sha"), "")
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, map[string]int{"count": n})
}

type commitParams struct {
	Branch      string `json:"branch"`
	Message     string `json:"commit_message"`
	StartBranch string `json:"start_branch"`
	StartSHA    string `json:"start_sha"`
	AuthorEmail string `json:"author_email"`
	AuthorName  string `json:"author_name"`
	Force       bool   `json:"force"`
	Actions     []struct {
		Action     string  `json:"action"`
		Path       string  `json:"file_path"`
		Previous   string  `json:"previous_path"`
		Content    *string `json:"content"`
		Encoding   string  `json:"encoding"`
		LastCommit string  `json:"last_commit_id"`
		Executable *bool   `json:"execute_filemode"`
	} `json:"actions"`
}

func (h *handlers) createCommit(w http.ResponseWriter, r *api.Request) error {
	var p commitParams
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.Branch == "" || p.Message == "" {
		return delivery.Errorf(delivery.Invalid, "branch and commit_message are needed")
	}
	n := delivery.NewCommit{Branch: p.Branch, StartBranch: p.StartBranch, StartSHA: p.StartSHA, Message: p.Message, Author: delivery.Signature{Name: p.AuthorName, Email: p.AuthorEmail}, Force: p.Force}
	for _, a := range p.Actions {
		var content []byte
		if a.Content != nil {
			var err error
			if content, err = decodeContent(*a.Content, a.Encoding); err != nil {
				return err
			}
		}
		n.Actions = append(n.Actions, delivery.CommitAction{Action: a.Action, Path: a.Path, PreviousPath: a.Previous, Content: content, Executable: a.Executable, LastCommit: a.LastCommit})
	}
	c, err := h.f.CommitFiles(r.Context(), r.Who, r.Project, n)
	if err != nil {
		return err
	}
	out := h.commitShape(r.Project, c)
	if out["stats"], err = h.commitStats(r.Context(), r.Project, c); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, out)
}

func (h *handlers) pick(revert bool) api.Handler {
	return func(w http.ResponseWriter, r *api.Request) error {
		var p struct {
			Branch  string `json:"branch"`
			DryRun  bool   `json:"dry_run"`
			Message string `json:"message"`
		}
		if err := api.Decode(r, &p); err != nil {
			return err
		}
		if p.Branch == "" {
			return delivery.Errorf(delivery.Invalid, "branch is missing")
		}
		c, err := h.f.Pick(r.Context(), r.Who, r.Project, forge.PickOptions{Commit: r.PathValue("sha"), Branch: p.Branch, Message: p.Message, Revert: revert, DryRun: p.DryRun})
		if err != nil {
			return err
		}
		if p.DryRun {
			return api.WriteJSON(w, http.StatusOK, map[string]string{"dry_run": "success"})
		}
		return api.WriteJSON(w, http.StatusCreated, h.commitShape(r.Project, c))
	}
}

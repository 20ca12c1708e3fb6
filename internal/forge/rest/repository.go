package rest

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
)

func (h *handlers) refs(rt *api.Router) {
	dev := api.Need{Role: delivery.Developer}
	rt.Handle("GET /projects/{project}/repository/branches", reader, code(h.listBranches))
	rt.Handle("POST /projects/{project}/repository/branches", dev, h.createBranch)
	rt.Handle("GET /projects/{project}/repository/branches/{branch}", reader, code(h.getBranch))
	rt.Handle("HEAD /projects/{project}/repository/branches/{branch}", reader, code(h.getBranch))
	rt.Handle("DELETE /projects/{project}/repository/branches/{branch}", dev, h.deleteBranch)
	rt.Handle("DELETE /projects/{project}/repository/merged_branches", dev, h.deleteMerged)
	rt.Handle("GET /projects/{project}/repository/tags", reader, code(h.listTags))
	rt.Handle("POST /projects/{project}/repository/tags", dev, h.createTag)
	rt.Handle("GET /projects/{project}/repository/tags/{tag}", reader, code(h.getTag))
	rt.Handle("GET /projects/{project}/repository/tags/{tag}/signature", reader, code(h.tagSignature))
	rt.Handle("DELETE /projects/{project}/repository/tags/{tag}", dev, h.deleteTag)
}

func (h *handlers) repository(rt *api.Router) {
	rt.Handle("GET /projects/{project}/repository/tree", reader, code(h.tree))
	rt.Handle("GET /projects/{project}/repository/blobs/{sha}", reader, code(h.blob))
	rt.Handle("GET /projects/{project}/repository/blobs/{sha}/raw", reader, code(h.rawBlob))
	rt.Handle("GET /projects/{project}/repository/archive", reader, code(h.archive))
	rt.Handle("GET /projects/{project}/repository/{archive}", reader, code(h.archive))
	rt.Handle("GET /projects/{project}/repository/compare", reader, code(h.compare))
	rt.Handle("GET /projects/{project}/repository/contributors", reader, code(h.contributors))
	rt.Handle("GET /projects/{project}/repository/merge_base", reader, code(h.mergeBase))
}

func (h *handlers) commitShape(p delivery.Project, c delivery.Commit) map[string]any {
	parents := c.Parents
	if parents == nil {
		parents = []string{}
	}
	return map[string]any{"id": c.SHA, "short_id": c.SHA[:min(8, len(c.SHA))], "title": c.Title(), "message": c.Message + "\n", "parent_ids": parents, "created_at": c.Committer.When,
		"author_name": c.Author.Name, "author_email": c.Author.Email, "authored_date": c.Author.When, "committer_name": c.Committer.Name, "committer_email": c.Committer.Email, "committed_date": c.Committer.When,
		"trailers": map[string]any{}, "extended_trailers": map[string]any{}, "web_url": h.f.WebURL(p) + "/-/commit/" + c.SHA}
}

func (h *handlers) branchShape(r *api.Request, b delivery.Ref) map[string]any {
	return map[string]any{"name": b.Name, "commit": h.commitShape(r.Project, b.Commit), "merged": b.Merged, "protected": b.Protected, "developers_can_push": !b.Protected, "developers_can_merge": !b.Protected,
		"can_push": r.Role >= delivery.Maintainer || r.Role >= delivery.Developer && !b.Protected, "default": b.Default, "web_url": h.f.WebURL(r.Project) + "/-/tree/" + b.Name}
}

func (h *handlers) listBranches(w http.ResponseWriter, r *api.Request) error {
	q := r.URL.Query()
	list, err := h.f.Branches(r.Context(), r.Project, forge.RefOptions{Search: q.Get("search"), Sort: q.Get("sort"), Merged: true})
	if err != nil {
		return err
	}
	out := make([]map[string]any, 0, len(list))
	for _, b := range list {
		out = append(out, h.branchShape(r, b))
	}
	return paged(w, r, out)
}

func (h *handlers) getBranch(w http.ResponseWriter, r *api.Request) error {
	b, err := h.f.Branch(r.Context(), r.Project, r.PathValue("branch"))
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.branchShape(r, b))
}

func (h *handlers) createBranch(w http.ResponseWriter, r *api.Request) error {
	var p struct {
		Branch string `json:"branch"`
		Ref    string `json:"ref"`
	}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.Branch == "" || p.Ref == "" {
		return delivery.Errorf(delivery.Invalid, "branch and ref are needed")
	}
	b, err := h.f.CreateBranch(r.Context(), r.Who, r.Project, p.Branch, p.Ref)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, h.branchShape(r, b))
}

func (h *handlers) deleteBranch(w http.ResponseWriter, r *api.Request) error {
	if err := h.f.DeleteBranch(r.Context(), r.Who, r.Project, r.PathValue("branch")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) deleteMerged(w http.ResponseWriter, r *api.Request) error {
	list, err := h.f.Branches(r.Context(), r.Project, forge.RefOptions{Merged: true})
	if err != nil {
		return err
	}
	for _, b := range list {
		if b.Merged && !b.Protected && !b.Default {
			if err := h.f.DeleteBranch(r.Context(), r.Who, r.Project, b.Name); err != nil {
				return err
			}
		}
	}
	return api.WriteJSON(w, http.StatusAccepted, map[string]string{"message": "202 Accepted"})
}

func (h *handlers) tagShape(r *api.Request, t delivery.Ref) (map[string]any, error) {
	target := t.SHA
	var message any = ""
	if t.TagSHA != "" {
		target, message = t.TagSHA, t.Message
	}
	out := map[string]any{"name": t.Name, "message": message, "target": target, "commit": h.commitShape(r.Project, t.Commit), "release": nil, "protected": t.Protected, "created_at": optional(t.Tagger.When)}
	rel, err := h.f.Release(r.Context(), r.Project.ID, t.Name)
	if err == nil {
		out["release"] = map[string]any{"tag_name": rel.Tag, "description": rel.Description}
	} else if !delivery.IsNotFound(err) {
		return nil, err
	}
	return out, nil
}

func (h *handlers) tagSignature(w http.ResponseWriter, r *api.Request) error {
	t, err := h.f.Tag(r.Context(), r.Project, r.PathValue("tag"))
	if err != nil {
		return err
	}
	v, err := h.f.VerifyTag(r.Context(), r.Project.ID, t)
	if err != nil {
		return err
	}
	if v == nil {
		return notFound("Signature")
	}
	return api.WriteJSON(w, http.StatusOK, signatureShape(v))
}

func (h *handlers) listTags(w http.ResponseWriter, r *api.Request) error {
	q := r.URL.Query()
	sort := q.Get("order_by")
	list, err := h.f.Tags(r.Context(), r.Project, forge.RefOptions{Search: q.Get("search"), Sort: sort})
	if err != nil {
		return err
	}
	p := api.PageOf(r.Request)
	total := len(list)
	out := []map[string]any{}
	for _, t := range list[min(p.Offset(), total):min(p.Offset()+p.PerPage, total)] {
		shape, err := h.tagShape(r, t)
		if err != nil {
			return err
		}
		out = append(out, shape)
	}
	return api.List(w, r, p, total, out)
}

func (h *handlers) getTag(w http.ResponseWriter, r *api.Request) error {
	t, err := h.f.Tag(r.Context(), r.Project, r.PathValue("tag"))
	if err != nil {
		return err
	}
	out, err := h.tagShape(r, t)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, out)
}

func (h *handlers) createTag(w http.ResponseWriter, r *api.Request) error {
	var p struct {
		Name    string `json:"tag_name"`
		Ref     string `json:"ref"`
		Message string `json:"message"`
	}
	if err := api.Decode(r, &p); err != nil {
		return err
	}
	if p.Name == "" || p.Ref == "" {
		return delivery.Errorf(delivery.Invalid, "tag_name and ref are needed")
	}
	t, err := h.f.CreateTag(r.Context(), r.Who, r.Project, p.Name, p.Ref, p.Message)
	if err != nil {
		return err
	}
	out, err := h.tagShape(r, t)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusCreated, out)
}

func (h *handlers) deleteTag(w http.ResponseWriter, r *api.Request) error {
	if err := h.f.DeleteTag(r.Context(), r.Who, r.Project, r.PathValue("tag")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handlers) tree(w http.ResponseWriter, r *api.Request) error {
	q := r.URL.Query()
	var entries []delivery.TreeEntry
	var err error
	if isTrue(q.Get("recursive")) {
		entries, err = h.f.ListTree(r.Context(), r.Project.ID, q.Get("ref"), q.Get("path"), 200000)
	} else {
		entries, err = h.f.Tree(r.Context(), r.Project.ID, q.Get("ref"), q.Get("path"))
	}
	if err != nil {
		if delivery.IsNotFound(err) {
			return notFound("Tree")
		}
		return err
	}
	out := make([]map[string]any, 0, min(len(entries), 1000))
	p := api.PageOf(r.Request)
	total := len(entries)
	for _, e := range entries[min(p.Offset(), total):min(p.Offset()+p.PerPage, total)] {
		out = append(out, map[string]any{"id": e.SHA, "name": e.Name, "type": e.Type, "path": e.Path, "mode": e.Mode})
	}
	return api.List(w, r, p, total, out)
}

const maxBlobJSON = 50 << 20 // bytes of a file that is answered inside JSON

func (h *handlers) blob(w http.ResponseWriter, r *api.Request) error {
	sha := r.PathValue("sha")
	size, err := h.f.StatBlob(r.Context(), r.Project.ID, sha)
	if err != nil {
		return err
	}
	if size > maxBlobJSON {
		return delivery.Errorf(delivery.TooLarge, "The blob is too large for this form; ask for it raw.")
	}
	var b strings.Builder
	enc := base64.NewEncoder(base64.StdEncoding, &b)
	if err := h.f.WriteBlob(r.Context(), r.Project.ID, sha, enc); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, map[string]any{"size": size, "encoding": "base64", "content": b.String(), "sha": sha})
}

func (h *handlers) rawBlob(w http.ResponseWriter, r *api.Request) error {
	return h.writeRaw(w, r, r.PathValue("sha"), "")
}

// writeRaw streams a blob as something that no browser runs.
func (h *handlers) writeRaw(w http.ResponseWriter, r *api.Request, sha, name string) error {
	size, err := h.f.StatBlob(r.Context(), r.Project.ID, sha)
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Length", strconv.FormatInt(size, 10))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	if name != "" {
		header.Set("Content-Disposition", contentDisposition(name))
	}
	if r.Method == http.MethodHead {
		return nil
	}
	if err := h.f.WriteBlob(r.Context(), r.Project.ID, sha, w); err != nil {
		// The status is sent: all that is left is to cut the connection.
		panic(http.ErrAbortHandler)
	}
	return nil
}

func contentDisposition(name string) string {
	plain := strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' || r == '/' {
			return '_'
		}
		return r
	}, name)
	return fmt.Sprintf(`attachment; filename="%s"`, plain)
}

func (h *handlers) archive(w http.ResponseWriter, r *api.Request) error {
	format := "tar.gz"
	if name := r.PathValue("archive"); name != "" {
		ext, ok := strings.CutPrefix(name, "archive.")
		if !ok {
			return notFound("")
		}
		format = ext
	}
	q := r.URL.Query()
	a, err := h.f.OpenArchive(r.Context(), r.Project, q.Get("sha"), q.Get("path"), format)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", a.MediaType)
	w.Header().Set("Content-Disposition", contentDisposition(a.Name))
	if err := a.WriteTo(r.Context(), w); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

func diffShape(d forge.FileDiff) map[string]any {
	return map[string]any{"diff": d.Patch, "collapsed": d.Collapsed, "too_large": d.TooLarge, "new_path": d.NewPath, "old_path": d.OldPath, "a_mode": zeroMode(d.OldMode), "b_mode": zeroMode(d.NewMode),
		"new_file": d.Status == "added", "renamed_file": d.Status == "renamed", "deleted_file": d.Status == "deleted", "generated_file": false}
}

func zeroMode(m string) string {
	if m == "000000" {
		return "0"
	}
	return m
}

func diffShapes(list []forge.FileDiff) []map[string]any {
	out := make([]map[string]any, 0, len(list))
	for _, d := range list {
		out = append(out, diffShape(d))
	}
	return out
}

func (h *handlers) compare(w http.ResponseWriter, r *api.Request) error {
	q := r.URL.Query()
	ctx, id := r.Context(), r.Project.ID
	if q.Get("from") == "" || q.Get("to") == "" {
		return delivery.Errorf(delivery.Invalid, "from and to are needed")
	}
	from, err := h.f.ResolveRef(ctx, id, q.Get("from"))
	if err != nil {
		return notFound("Ref")
	}
	to, err := h.f.ResolveRef(ctx, id, q.Get("to"))
	if err != nil {
		return notFound("Ref")
	}
	base := from
	if !isTrue(q.Get("straight")) {
		if base, err = h.f.MergeBase(ctx, id, from, to); err != nil {
			return err
		}
	}
	commits, err := h.f.CommitsBetween(ctx, id, from, to, 1000)
	if err != nil {
		return err
	}
	diffs, err := h.f.Diff(ctx, id, base, to, nil, forge.DiffLimits{})
	if err != nil {
		return err
	}
	// GitLab lists the commits of a comparison oldest first.
	list := make([]map[string]any, len(commits))
	for i, c := range commits {
		list[len(commits)-1-i] = h.commitShape(r.Project, c)
	}
	var last any
	if len(commits) > 0 {
		last = h.commitShape(r.Project, commits[0])
	}
	return api.WriteJSON(w, http.StatusOK, map[string]any{"commit": last, "commits": list, "diffs": diffShapes(diffs), "compare_timeout": false, "compare_same_ref": from == to,
		"web_url": h.f.WebURL(r.Project) + "/-/compare/" + from + "..." + to})
}

func (h *handlers) contributors(w http.ResponseWriter, r *api.Request) error {
	list, err := h.f.Contributors(r.Context(), r.Project.ID, r.URL.Query().Get("ref"))
	if err != nil {
		return err
	}
	out := make([]map[string]any, 0, len(list))
	for _, c := range list {
		out = append(out, map[string]any{"name": c.Name, "email": c.Email, "commits": c.Commits, "additions": 0, "deletions": 0})
	}
	return paged(w, r, out)
}

func (h *handlers) mergeBase(w http.ResponseWriter, r *api.Request) error {
	refs := r.URL.Query()["refs[]"]
	if len(refs) < 2 {
		return delivery.Errorf(delivery.Invalid, "Provide at least 2 refs")
	}
	var shas []string
	for _, ref := range refs[:2] {
		sha, err := h.f.ResolveRef(r.Context(), r.Project.ID, ref)
		if err != nil {
			return err
		}
		shas = append(shas, sha)
	}
	base, err := h.f.MergeBase(r.Context(), r.Project.ID, shas[0], shas[1])
	if err != nil {
		return err
	}
	if base == "" {
		return notFound("Merge Base")
	}
	c, err := h.f.Commit(r.Context(), r.Project.ID, base)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, http.StatusOK, h.commitShape(r.Project, c))
}

func (h *handlers) files(rt *api.Router) {
	dev := api.Need{Role: delivery.Developer}
	rt.Handle("GET /projects/{project}/repository/files/{path}", reader, code(h.getFile))
	rt.Handle("HEAD /projects/{project}/repository/files/{path}", reader, code(h.getFile))
	rt.Handle("GET /projects/{project}/repository/files/{path}/raw", reader, code(h.rawFile))
	rt.Handle("GET /projects/{project}/repository/files/{path}/blame", reader, code(h.blame))
	rt.Handle("POST /projects/{project}/repository/files/{path}", dev, h.writeFile("create"))
	rt.Handle("PUT /projects/{project}/repository/files/{path}", dev, h.writeFile("update"))
	rt.Handle("DELETE /projects/{project}/repository/files/{path}", dev, h.writeFile("delete"))
}

func (h *handlers) getFile(w http.ResponseWriter, r *api.Request) error {
	ctx, id := r.Context(), r.Project.ID
	ref, path := r.URL.Query().Get("ref"), r.PathValue("path")
	if ref == "" {
		ref = "HEAD"
	}
	commit, err := h.f.ResolveRef(ctx, id, ref)
	if err != nil {
		return notFound("Commit")
	}
	sha, body, err := h.f.ReadEntry(ctx, id, commit, path, maxBlobJSON)
	if err != nil {
		return err
	}
	entry, err := h.f.Entry(ctx, id, commit, path)
	if err != nil {
		return err
	}
	last, err := h.f.Commits(ctx, id, forge.LogOptions{Rev: commit, Path: path, Limit: 1})
	if err != nil {
		return err
	}
	lastID := commit
	if len(last) > 0 {
		lastID = last[0].SHA
	}
	sum := sha256Hex(body)
	name := path[strings.LastIndexByte(path, '/')+1:]
	header := w.Header()
	for k, v := range map[string]string{"Blob-Id": sha, "Commit-Id": commit, "Content-Sha256": sum, "Encoding": "base64", "File-Name": name, "File-Path": path, "Last-Commit-Id": lastID, "Ref": ref, "Size": strconv.Itoa(len(body)),
		"Execute-Filemode": strconv.FormatBool(entry.Mode == "100755")} {
		header.Set("X-Gitlab-"+k, headerSafe(v))
	}
	return api.WriteJSON(w, http.StatusOK, map[string]any{"file_name": name, "file_path": path, "size": len(body), "encoding": "base64", "content_sha256": sum, "ref": ref, "blob_id": sha, "commit_id": commit,
		"last_commit_id": lastID, "execute_filemode": entry.Mode == "100755", "content": base64.StdEncoding.EncodeToString(body)})
}

// headerSafe keeps file names from breaking a header.
func headerSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '_'
		}
		return r
	}, s)
}

func (h *handlers) rawFile(w http.ResponseWriter, r *api.Request) error {
	e, err := h.f.Entry(r.Context(), r.Project.ID, r.URL.Query().Get("ref"), r.PathValue("path"))
	if err != nil {
		return err
	}
	if e.Type != "blob" {
		return notFound("File")
	}
	if isTrue(r.URL.Query().Get("lfs")) && e.Size < 1024 {
		content, err := h.f.ReadFile(r.Context(), r.Project.ID, r.URL.Query().Get("ref"), r.PathValue("path"), 1024)
		if err != nil {
			return err
		}
		if oid, _, ok := forge.LFSPointer(content); ok {
			return h.writeLFS(w, r, oid, e.Name)
		}
	}
	return h.writeRaw(w, r, e.SHA, e.Name)
}

func (h *handlers) blame(w http.ResponseWriter, r *api.Request) error {
	ref := r.URL.Query().Get("ref")
	if ref == "" {
		return delivery.Errorf(delivery.Invalid, "ref is missing")
	}
	lines, commits, err := h.f.Blame(r.Context(), r.Project.ID, ref, r.PathValue("path"))
	if err != nil {
		return err
	}
	type span struct {
		Commit map[string]any `json:"commit"`
		Lines  []string       `json:"lines"`
	}
	out := []span{}
	last := ""
	for _, l := range lines {
		if l.SHA != last {
			c := commits[l.SHA]
			out = append(out, span{Commit: map[string]any{"id": c.SHA, "parent_ids": []string{}, "message": c.Message, "authored_date": c.Author.When, "author_name": c.Author.Name, "author_email": c.Author.Email,
				"committed_date": c.Committer.When, "committer_name": c.Committer.Name, "committer_email": c.Committer.Email}})
			last = l.SHA
		}
		out[len(out)-1].Lines = append(out[len(out)-1].Lines, l.Text)
	}
	return api.WriteJSON(w, http.StatusOK, out)
}

type fileParams struct {
	Branch      string  `json:"branch"`
	StartBranch string  `json:"start_branch"`
	Encoding    string  `json:"encoding"`
	AuthorEmail string  `json:"author_email"`
	AuthorName  string  `json:"author_name"`
	Content     *string `json:"content"`
	Message     string  `json:"commit_message"`
	LastCommit  string  `json:"last_commit_id"`
	Executable  *bool   `json:"execute_filemode"`
}

func (h *handlers) writeFile(action string) api.Handler {
	status := map[string]int{"create": http.StatusCreated, "update": http.StatusOK}[action]
	return func(w http.ResponseWriter, r *api.Request) error {
		var p fileParams
		if err := api.Decode(r, &p); err != nil {
			return err
		}
		path := r.PathValue("path")
		if p.Branch == "" || p.Message == "" || action != "delete" && p.Content == nil {
			return delivery.Errorf(delivery.Invalid, "branch, commit_message and content are needed")
		}
		content, err := decodeContent(deref(p.Content), p.Encoding)
		if err != nil {
			return err
		}
		_, err = h.f.CommitFiles(r.Context(), r.Who, r.Project, delivery.NewCommit{Branch: p.Branch, StartBranch: p.StartBranch, Message: p.Message, Author: delivery.Signature{Name: p.AuthorName, Email: p.AuthorEmail},
			Actions: []delivery.CommitAction{{Action: action, Path: path, Content: content, Executable: p.Executable, LastCommit: p.LastCommit}}})
		if delivery.KindOf(err) == delivery.Conflict {
			return &delivery.Error{Kind: delivery.Invalid, Message: delivery.UserMessage(err), Err: err}
		}
		if err != nil {
			return err
		}
		if action == "delete" {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return api.WriteJSON(w, status, map[string]any{"file_path": path, "branch": p.Branch})
	}
}

func decodeContent(s, encoding string) ([]byte, error) {
	switch encoding {
	case "", "text":
		return []byte(s), nil
	case "base64":
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, delivery.Errorf(delivery.Invalid, "content is not base64")
		}
		return b, nil
	}
	return nil, delivery.Errorf(delivery.Invalid, "encoding does not have a valid value")
}

func (h *handlers) writeLFS(w http.ResponseWriter, r *api.Request, oid, name string) error {
	f, size, err := h.f.OpenLFS(r.Context(), r.Project.ID, oid)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.Header().Set("Content-Disposition", contentDisposition(name))
	if _, err := copyAll(w, f); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// commitStats counts lines for one commit.
func (h *handlers) commitStats(ctx context.Context, p delivery.Project, c delivery.Commit) (map[string]int, error) {
	add, del, err := h.f.CommitStats(ctx, p.ID, c)
	return map[string]int{"additions": add, "deletions": del, "total": add + del}, err
}

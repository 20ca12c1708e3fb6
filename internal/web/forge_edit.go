package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

const (
	maxEdited   = 8 << 20   // bytes of a form with a file's text
	maxUploaded = 100 << 20 // bytes of a form with a file
)

func (s *Server) editRoutes() {
	developer := delivery.Developer
	s.handleProject("GET /edit/{path...}", developer, s.editPage)
	s.handleProject("POST /edit/{path...}", developer, s.editFile)
	s.handleProject("GET /new/{path...}", developer, s.newFilePage)
	s.handleProject("POST /new/{path...}", developer, s.newFile)
	s.handleProject("POST /upload/{path...}", developer, s.uploadFile)
	s.handleProject("POST /delete/{path...}", developer, s.deleteFile)
	s.handleProject("POST /move/{path...}", developer, s.moveFile)
}

// editView is the form for a file's text. Base is the commit that the person
// saw: a file that changed since is not overwritten.
type editView struct {
	Rev, File, Folder string
	To                string // where the file is to be; its path at first
	Base              string
	Text              string
	CRLF, Binary      bool
	Branch, Message   string
	StartRequest      bool
	New               bool
	Crumbs            []crumb
	Error             string
	Conflict          bool
	Protected         string // why the caller may not push to Rev
}

// editPlace finds what the address names. In an empty repository the default
// branch counts as there, with no commit.
func (s *Server) editPlace(r *Request) (editView, error) {
	if r.Who.User == nil {
		return editView{}, &delivery.Error{Kind: delivery.Forbidden, Message: "Sign in as a person to change files here."}
	}
	p := r.Project
	if p.Empty {
		rest := strings.TrimPrefix(strings.TrimPrefix(r.PathValue("path"), p.DefaultBranch), "/")
		return editView{Rev: p.DefaultBranch, File: rest, Branch: p.DefaultBranch}, nil
	}
	rev, file, sha, err := s.splitRev(r.Context(), p, r.PathValue("path"))
	if err != nil {
		return editView{}, err
	}
	v := editView{Rev: rev, File: file, Base: sha, Branch: rev, Crumbs: crumbs(p, "blob", rev, file)}
	may, reason, err := s.Forge.CanPush(r.Context(), r.Who, *p, rev)
	if err != nil {
		return v, err
	}
	_, isBranch, err := s.Forge.RefExists(r.Context(), p.ID, "refs/heads/"+rev)
	if err != nil {
		return v, err
	}
	if !isBranch {
		may, reason = false, rev+" is not a branch"
	}
	if !may {
		v.Protected, v.StartRequest = reason, true
		v.Branch, err = s.freeBranch(r)
	}
	return v, err
}

// freeBranch proposes a branch for a change: ada-patch-1.
func (s *Server) freeBranch(r *Request) (string, error) {
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s-patch-%d", r.Who.User.Username, n)
		_, taken, err := s.Forge.RefExists(r.Context(), r.Project.ID, "refs/heads/"+name)
		if err != nil || !taken {
			return name, err
		}
	}
}

func (s *Server) editPage(w http.ResponseWriter, r *Request) error {
	v, err := s.editPlace(r)
	if err != nil {
		return err
	}
	e, err := s.Forge.Entry(r.Context(), r.Project.ID, v.Base, v.File)
	if err != nil {
		return err
	}
	if e.Type != "blob" {
		return notFound()
	}
	body, err := s.Forge.ReadFile(r.Context(), r.Project.ID, v.Base, v.File, maxShown)
	switch {
	case delivery.KindOf(err) == delivery.TooLarge, err == nil && (isBinary(body) || e.Mode == "120000"):
		v.Binary = true
	case err != nil:
		return err
	default:
		v.Text, v.CRLF = string(body), strings.Contains(string(body), "\r\n")
	}
	v.Message, v.To = "Update "+path.Base(v.File), v.File
	return s.showEdit(w, r, http.StatusOK, v)
}

func (s *Server) showEdit(w http.ResponseWriter, r *Request, status int, v editView) error {
	title := "Edit " + v.File
	if v.New {
		title = "New file"
	} else if v.Folder = path.Dir(v.File); v.Folder == "." {
		v.Folder = ""
	}
	if v.To == "" {
		v.To = v.File
	}
	return s.render(w, r, status, "forge_edit", Page{Title: title, Active: "tree", Data: v})
}

func (s *Server) newFilePage(w http.ResponseWriter, r *Request) error {
	v, err := s.editPlace(r)
	if err != nil {
		return err
	}
	v.New, v.Folder, v.File = true, v.File, r.FormValue("file_name")
	v.Message = "Add a file"
	return s.showEdit(w, r, http.StatusOK, v)
}

// typed reads what all forms of a change have.
func (v *editView) typed(r *Request) {
	v.Branch, v.Message, v.StartRequest = strings.TrimSpace(r.FormValue("branch")), strings.ReplaceAll(r.FormValue("commit_message"), "\r\n", "\n"), r.FormValue("start_request") != ""
	if base := r.FormValue("base"); base != "" {
		v.Base = base
	}
	if strings.TrimSpace(v.Message) == "" {
		v.Message = "Change " + path.Base(v.File)
	}
}

// text is the text of the form with the line ends of the file.
func (v *editView) text(r *Request) []byte {
	v.CRLF = r.FormValue("crlf") != ""
	v.Text = strings.ReplaceAll(r.FormValue("content"), "\r\n", "\n")
	if v.CRLF {
		return []byte(strings.ReplaceAll(v.Text, "\n", "\r\n"))
	}
	return []byte(v.Text)
}

// commitChange commits one action. Another branch than the one seen is made
// from the commit that was seen; one that exists already is refused.
func (s *Server) commitChange(r *Request, v editView, a delivery.CommitAction) error {
	n := delivery.NewCommit{Branch: v.Branch, Message: v.Message, Actions: []delivery.CommitAction{a}}
	if v.Branch != v.Rev {
		_, taken, err := s.Forge.RefExists(r.Context(), r.Project.ID, "refs/heads/"+v.Branch)
		if err != nil {
			return err
		}
		if taken {
			return &delivery.Error{Kind: delivery.Conflict, Message: fmt.Sprintf("The branch %s exists already. Name a new one.", v.Branch)}
		}
		n.StartSHA = v.Base
	}
	_, err := s.Forge.CommitFiles(r.Context(), r.Who, *r.Project, n)
	return err
}

// changed leads on after a commit: to the file, or to a new merge request.
func (s *Server) changed(w http.ResponseWriter, r *Request, v editView, file string) error {
	p := r.Project.FullPath
	if v.StartRequest && v.Branch != v.Rev && s.pages["merge_requests/new"] {
		return redirect(w, r, projectPath(p, "merge_requests", "new")+"?source_branch="+url.QueryEscape(v.Branch), "The change is committed to "+v.Branch+".")
	}
	kind := "blob"
	if file == "" {
		kind = "tree"
	}
	return redirect(w, r, projectPath(p, kind, escapePath(strings.TrimSuffix(v.Branch+"/"+file, "/"))), "The change is committed.")
}

// changeFailed shows the form again with everything that was typed, or fails.
func (s *Server) changeFailed(w http.ResponseWriter, r *Request, v editView, err error) error {
	kind := delivery.KindOf(err)
	message, status, rest := correctable(err)
	if rest != nil {
		if kind != delivery.Forbidden {
			return rest
		}
		message, status = delivery.UserMessage(err), http.StatusForbidden
	}
	v.Error = message
	if v.Conflict, rest = s.fileChanged(r, v); rest != nil {
		return rest
	}
	if v.Conflict {
		status = http.StatusConflict
	}
	return s.showEdit(w, r, status, v)
}

// fileChanged reports whether the branch's file is no longer the one seen.
func (s *Server) fileChanged(r *Request, v editView) (bool, error) {
	if v.New || v.Base == "" {
		return false, nil
	}
	seen, err := s.Forge.Entry(r.Context(), r.Project.ID, v.Base, v.File)
	if err != nil {
		return false, skipMissing(err)
	}
	now, err := s.Forge.Entry(r.Context(), r.Project.ID, v.Rev, v.File)
	if delivery.IsNotFound(err) {
		return true, nil
	}
	return now.SHA != seen.SHA, err
}

func skipMissing(err error) error {
	if delivery.IsNotFound(err) {
		return nil
	}
	return err
}

// editSent reads a form that holds a whole file.
func (s *Server) editSent(w http.ResponseWriter, r *Request) (editView, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxEdited)
	if err := parsed(r.ParseForm()); err != nil {
		return editView{}, err
	}
	return s.editPlace(r)
}

func (s *Server) editFile(w http.ResponseWriter, r *Request) error {
	v, err := s.editSent(w, r)
	if err != nil {
		return err
	}
	v.typed(r)
	v.To = movedTo(r, v.File)
	a := delivery.CommitAction{Action: "update", Path: v.File, Content: v.text(r), LastCommit: v.Base}
	if v.To != v.File {
		a.Action, a.Path, a.PreviousPath = "move", v.To, v.File
	}
	if err := s.commitChange(r, v, a); err != nil {
		return s.changeFailed(w, r, v, err)
	}
	return s.changed(w, r, v, v.To)
}

// movedTo is the path that a form gives a file; empty keeps the present one.
func movedTo(r *Request, file string) string {
	if to := strings.Trim(path.Clean("/"+strings.TrimSpace(r.FormValue("file_path"))), "/"); to != "" {
		return to
	}
	return file
}

// moveFile renames a file, or moves it to another folder, as it is: for those
// whose text cannot be edited.
func (s *Server) moveFile(w http.ResponseWriter, r *Request) error {
	v, err := s.editPlace(r)
	if err != nil {
		return err
	}
	v.typed(r)
	if v.To = movedTo(r, v.File); v.To == v.File {
		err = &delivery.Error{Kind: delivery.Invalid, Message: "Give the file another path."}
	} else {
		err = s.commitChange(r, v, delivery.CommitAction{Action: "move", Path: v.To, PreviousPath: v.File, LastCommit: v.Base})
	}
	if err != nil {
		v.Binary = true
		return s.changeFailed(w, r, v, err)
	}
	return s.changed(w, r, v, v.To)
}

func (s *Server) newFile(w http.ResponseWriter, r *Request) error {
	v, err := s.editSent(w, r)
	if err != nil {
		return err
	}
	v.New, v.Folder, v.File = true, v.File, strings.TrimSpace(r.FormValue("file_name"))
	v.typed(r)
	body, file := v.text(r), path.Join(v.Folder, v.File)
	if v.File == "" {
		err = &delivery.Error{Kind: delivery.Invalid, Message: "The file needs a name."}
	} else {
		err = s.commitChange(r, v, delivery.CommitAction{Action: "create", Path: file, Content: body})
	}
	if err != nil {
		return s.changeFailed(w, r, v, err)
	}
	return s.changed(w, r, v, file)
}

// uploadFile adds a file to the folder that the address names, or replaces the
// file that it names.
func (s *Server) uploadFile(w http.ResponseWriter, r *Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxUploaded)
	if err := parsed(r.ParseMultipartForm(maxEdited)); err != nil {
		return err
	}
	defer func() { _ = r.MultipartForm.RemoveAll() }()
	v, err := s.editPlace(r)
	if err != nil {
		return err
	}
	sent, head, err := r.FormFile("file")
	if err != nil {
		return &delivery.Error{Kind: delivery.Invalid, Message: "Choose a file to upload.", Err: err}
	}
	defer sent.Close()
	body, err := io.ReadAll(sent)
	if err != nil {
		return fmt.Errorf("web: read an upload: %w", err)
	}
	a := delivery.CommitAction{Action: "create", Path: path.Join(v.File, path.Base(head.Filename)), Content: body}
	if v.Base != "" && v.File != "" {
		e, err := s.Forge.Entry(r.Context(), r.Project.ID, v.Base, v.File)
		if skipMissing(err) != nil {
			return err
		}
		if err == nil && e.Type == "blob" {
			a.Action, a.Path = "update", v.File
		}
	}
	v.typed(r)
	if a.Action == "update" {
		a.LastCommit = v.Base
	}
	if err := s.commitChange(r, v, a); err != nil {
		if a.Action == "create" {
			v.New, v.Folder, v.File = true, v.File, path.Base(head.Filename)
		} else {
			v.Binary = true
		}
		return s.changeFailed(w, r, v, err)
	}
	return s.changed(w, r, v, a.Path)
}

func (s *Server) deleteFile(w http.ResponseWriter, r *Request) error {
	v, err := s.editPlace(r)
	if err != nil {
		return err
	}
	v.typed(r)
	if err := s.commitChange(r, v, delivery.CommitAction{Action: "delete", Path: v.File, LastCommit: v.Base}); err != nil {
		v.Binary = true
		return s.changeFailed(w, r, v, err)
	}
	return s.changed(w, r, v, "")
}

// parsed words the errors of reading a form.
func parsed(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return &delivery.Error{Kind: delivery.TooLarge, Message: fmt.Sprintf("The form is larger than %s. Push the file with git.", delivery.BytesText(large.Limit)), Err: err}
	}
	if err != nil {
		return &delivery.Error{Kind: delivery.Invalid, Message: "The form could not be read.", Err: err}
	}
	return nil
}

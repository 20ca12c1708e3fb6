package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/gitops"
)

const (
	eventsShown = 15 // of an Application or a resource
	diffsShown  = 50 // resources whose difference is shown at once
)

// applicationView is one Application as it is now.
type applicationView struct {
	*gitops.Application
	Project     *delivery.Project // the source on this platform, where the caller may see it
	Act, Manage bool
	MayRevert   bool // may push to the branch that is followed
	Source      []sourceView
	Now         revisionView // the commit compared with
	Started     revisionView // the commit of the operation
	Nodes       []appNode
	Files       []fileDiff // what differs between cluster and git
	MoreDiffs   int        // further resources that differ
	Deployments []deployView
	Events      []gitops.Event
	Problem     string // why tree and differences are missing
	Running     bool
	Errors      []gitops.Condition
	Notices     []gitops.Condition
	Troubles    []gitops.ResourceResult // of the operation: what did not go well
	Done        []gitops.ResourceResult // and what did
	At          string
}

// sourceView is a source with the way to it.
type sourceView struct {
	gitops.Source
	Link string
}

// revisionView is a revision and, where its repository is here, who made it.
type revisionView struct {
	Revision string
	Commit   *delivery.Commit
	Link     string
}

// deployView is an entry of the history.
type deployView struct {
	gitops.Deployment
	Made    revisionView
	Current bool
}

// appNode is a row of the resource tree.
type appNode struct {
	gitops.Node
	Depth   int
	Sync    string // of what git declares
	Pruned  bool   // git does not declare it any more
	Link    string
	LogLink string // pods
}

func (s *Server) applicationPage(w http.ResponseWriter, r *Request) error {
	a, rights, err := s.application(r, toLook)
	if err != nil {
		return err
	}
	v := applicationView{Application: a, Project: rights.Project, Act: rights.Act, Manage: rights.Manage, At: applicationPath(a.Name)}
	v.conditions()
	s.applicationCommits(r.Context(), &v)
	if v.MayRevert, err = s.mayRevert(r, &v); err != nil {
		return err
	}
	nodes, err := s.Operations.Server.Tree(r.Context(), a.Name)
	if err != nil {
		v.Problem = delivery.UserMessage(err)
	}
	v.Nodes = appTree(a, nodes)
	if a.Sync.Status == "OutOfSync" && v.Problem == "" {
		if err := s.applicationDiffs(r.Context(), &v); err != nil {
			v.Problem = delivery.UserMessage(err)
		}
	}
	if client, err := s.Operations.Apps(); err == nil {
		if v.Events, err = client.Events(r.Context(), a.Name); err != nil {
			v.Problem = delivery.UserMessage(err)
		}
		v.Events = v.Events[:min(len(v.Events), eventsShown)]
	}
	if r.Header.Get("X-Fragment") != "" {
		return s.fragment(w, "application", "application", v)
	}
	return s.render(w, r, http.StatusOK, "application", Page{Title: a.Name, Data: v})
}

func applicationPath(name string) string { return "/-/applications/" + url.PathEscape(name) }

// conditions sorts problems from notices, and what a sync did from what it
// could not.
func (v *applicationView) conditions() {
	for _, c := range v.Conditions {
		if strings.HasSuffix(c.Type, "Error") {
			v.Errors = append(v.Errors, c)
		} else {
			v.Notices = append(v.Notices, c)
		}
	}
	if v.Operation == nil {
		return
	}
	v.Running = v.Operation.Phase == "Running" || v.Operation.Phase == "Terminating"
	for _, one := range v.Operation.Results {
		if one.Status == "SyncFailed" || one.HookPhase == "Failed" || one.HookPhase == "Error" {
			v.Troubles = append(v.Troubles, one)
		} else {
			v.Done = append(v.Done, one)
		}
	}
}

// applicationCommits adds who made the revisions that the page names.
func (s *Server) applicationCommits(ctx context.Context, v *applicationView) {
	for _, one := range v.Sources {
		v.Source = append(v.Source, sourceView{one, s.sourceLink(v, one)})
	}
	v.Now = s.revision(ctx, v, v.Sync.Revision)
	if v.Operation != nil {
		v.Started = s.revision(ctx, v, v.Operation.Revision)
	}
	for i, h := range v.History {
		v.Deployments = append(v.Deployments, deployView{h, s.revision(ctx, v, h.Revision), i == 0})
	}
}

// sourceLink leads to a source's folder where that is the project that the
// caller may see.
func (s *Server) sourceLink(v *applicationView, one gitops.Source) string {
	path, ok := gitops.ProjectPath(s.ExternalURL, one.RepoURL)
	if !ok || v.Project == nil || v.Project.FullPath != path {
		return ""
	}
	ref := one.TargetRevision
	if ref == "" || ref == "HEAD" {
		ref = v.Project.DefaultBranch
	}
	return projectPath(path, "tree", escapePath(strings.TrimPrefix(ref, "refs/heads/")), escapePath(one.Path))
}

// revision describes a commit. One that is not there, or of a repository that
// the caller may not see, keeps its number only.
func (s *Server) revision(ctx context.Context, v *applicationView, sha string) revisionView {
	out := revisionView{Revision: sha}
	if len(sha) != 40 {
		return out
	}
	key, ask := v.Name+" "+sha, func() (delivery.Commit, error) { return s.foreignCommit(ctx, v.Application, sha) }
	if v.Project != nil {
		id := v.Project.ID
		key, ask = strconv.FormatInt(id, 10)+" "+sha, func() (delivery.Commit, error) { return s.Forge.Commit(ctx, id, sha) }
	}
	c, err := s.Operations.commits.get(time.Now(), key, ask)
	if err != nil {
		if !delivery.IsNotFound(err) && ctx.Err() == nil {
			s.Log.Warn("a commit of an application was not read", "application", v.Name, "commit", sha, "err", err)
		}
		return out
	}
	if c.SHA == "" {
		return out
	}
	out.Commit = &c
	if v.Project != nil {
		out.Link = projectPath(v.Project.FullPath, "commit", sha)
	}
	return out
}

// foreignCommit asks Argo CD for a commit of another server's repository. What
// it cannot tell is remembered too, for a while, as a page asks again every two
// seconds.
func (s *Server) foreignCommit(ctx context.Context, a *gitops.Application, sha string) (delivery.Commit, error) {
	if _, here := gitops.SourceProject(s.ExternalURL, a); here {
		return delivery.Commit{}, nil // and the caller may not see it
	}
	c, err := s.Operations.Server.Commit(ctx, a.Name, sha)
	if err != nil {
		s.Log.Info("Argo CD does not know a commit of an application", "application", a.Name, "commit", sha, "err", err)
		return delivery.Commit{}, ctx.Err()
	}
	name, address, _ := strings.Cut(c.Author, " <")
	by := delivery.Signature{Name: name, Email: strings.TrimSuffix(address, ">"), When: c.Date}
	return delivery.Commit{SHA: sha, Author: by, Committer: by, Message: c.Message}, nil
}

// mayRevert asks the forge whether the caller may push where a revert goes.
func (s *Server) mayRevert(r *Request, v *applicationView) (bool, error) {
	if v.Project == nil || !v.Act || !v.Automated.Enabled || len(v.Sources) != 1 {
		return false, nil
	}
	ok, _, err := s.Forge.CanPush(r.Context(), r.Who, *v.Project, v.branch())
	return ok, err
}

// branch is the one that the Application follows.
func (v *applicationView) branch() string {
	if ref := v.Sources[0].TargetRevision; ref != "" && ref != "HEAD" {
		return strings.TrimPrefix(ref, "refs/heads/")
	}
	return v.Project.DefaultBranch
}

// applicationDiffs compares cluster and git as Argo CD does.
func (s *Server) applicationDiffs(ctx context.Context, v *applicationView) error {
	list, err := s.Operations.Server.Differences(ctx, v.Name)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(d gitops.Difference) bool { return !d.Modified })
	if len(list) > diffsShown {
		v.MoreDiffs, list = len(list)-diffsShown, list[:diffsShown]
	}
	v.Files, err = differenceFiles(list)
	return err
}

// differenceFiles shows differences as the diffs of files are shown.
func differenceFiles(list []gitops.Difference) ([]fileDiff, error) {
	var files []forge.FileDiff
	for _, d := range list {
		patch, err := d.Patch()
		if err != nil {
			return nil, err
		}
		if patch == "" {
			continue
		}
		name := d.Kind + " " + d.Name
		if d.Namespace != "" {
			name = d.Kind + " " + d.Namespace + "/" + d.Name
		}
		f := forge.FileDiff{FileChange: delivery.FileChange{OldPath: name, NewPath: name, Status: "differs"}, Patch: patch}
		switch {
		case d.Live == "":
			f.Status = "is missing in the cluster"
		case d.Desired == "":
			f.Status = "is not in git any more"
		}
		for _, line := range strings.Split(patch, "\n") {
			switch {
			case strings.HasPrefix(line, "+"):
				f.Additions++
			case strings.HasPrefix(line, "-"):
				f.Deletions++
			}
		}
		files = append(files, f)
	}
	return diffFiles(files), nil
}

// appTree joins what lives with what git declares: each row has its depth, and
// what is declared but not there is among the rows too.
func appTree(a *gitops.Application, nodes []gitops.Node) []appNode {
	declared := map[gitops.ResourceKey]gitops.Managed{}
	for _, m := range a.Resources {
		declared[gitops.ResourceKey{Group: m.Group, Kind: m.Kind, Namespace: m.Namespace, Name: m.Name}] = m
	}
	depth := map[string]int{}
	var rows []appNode
	for _, n := range nodes {
		row := appNode{Node: n}
		if len(n.Parents) > 0 {
			if d, ok := depth[n.Parents[0]]; ok {
				row.Depth = d + 1
			}
		}
		depth[n.UID] = row.Depth
		key := gitops.ResourceKey{Group: n.Group, Kind: n.Kind, Namespace: n.Namespace, Name: n.Name}
		if m, ok := declared[key]; ok {
			row.Sync, row.Pruned = m.Status, m.RequiresPruning
			if row.Health == "" {
				row.Health, row.HealthMessage = m.Health, m.HealthMessage
			}
			delete(declared, key)
		}
		rows = append(rows, row)
	}
	for _, m := range a.Resources { // in Argo CD's order
		key := gitops.ResourceKey{Group: m.Group, Kind: m.Kind, Namespace: m.Namespace, Name: m.Name}
		if _, missing := declared[key]; missing {
			n := gitops.Node{Group: m.Group, Version: m.Version, Kind: m.Kind, Namespace: m.Namespace, Name: m.Name, Health: m.Health, HealthMessage: m.HealthMessage}
			rows = append(rows, appNode{Node: n, Sync: m.Status, Pruned: m.RequiresPruning})
		}
	}
	for i := range rows {
		n := rows[i].Node
		q := url.Values{"group": {n.Group}, "kind": {n.Kind}, "namespace": {n.Namespace}, "resource": {n.Name}}.Encode()
		rows[i].Link = applicationPath(a.Name) + "/resource?" + q
		if n.Kind == "Pod" && n.Group == "" {
			rows[i].LogLink = applicationPath(a.Name) + "/logs?" + url.Values{"namespace": {n.Namespace}, "pod": {n.Name}}.Encode()
		}
	}
	return rows
}

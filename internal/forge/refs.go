package forge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// CheckRefName refuses names that cannot be a branch or tag (git's
// check-ref-format) or that would be mistaken for something else.
func CheckRefName(name string) error {
	bad := name == "" || len(name) > 255 || name == "@" || name == "HEAD" ||
		strings.HasPrefix(name, "-") || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "refs/") || strings.HasSuffix(name, "/") || strings.HasSuffix(name, ".") ||
		strings.Contains(name, "..") || strings.Contains(name, "//") || strings.Contains(name, "@{") || strings.ContainsAny(name, " ~^:?*[\\\x7f") ||
		fullSHA.MatchString(name)
	for _, r := range name {
		if r < 0x20 {
			bad = true
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			bad = true
		}
	}
	if bad {
		return delivery.Errorf(delivery.Invalid, "The name %q is not valid for a branch or tag.", clip(name, 80))
	}
	return nil
}

func clip(s string, n int) string {
	if len(s) <= n {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

const refFormat = "%(refname)%00%(objectname)%00%(objecttype)%00%(*objectname)%00%(contents)%00%(taggername)%00%(taggeremail)%00%(taggerdate:iso-strict)%00%(tree)%(*tree)%00%(parent)%(*parent)%00" +
	"%(authorname)%(*authorname)%00%(authoremail)%(*authoremail)%00%(authordate:iso-strict)%(*authordate:iso-strict)%00" +
	"%(committername)%(*committername)%00%(committeremail)%(*committeremail)%00%(committerdate:iso-strict)%(*committerdate:iso-strict)%00%(*contents)%00%1e"

// refs lists the refs below a prefix with their commits.
func (s *Service) refs(ctx context.Context, projectID int64, prefix, sort string, extra ...string) ([]delivery.Ref, error) {
	args := append([]string{"for-each-ref", "--format=" + refFormat, "--sort=" + sort}, extra...)
	out, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, append(args, "--", prefix)...)
	if err != nil {
		return nil, fmt.Errorf("forge: list refs: %w", err)
	}
	var list []delivery.Ref
	for rec := range strings.SplitSeq(string(out), "\x1e") {
		f := strings.Split(strings.TrimLeft(rec, "\n"), "\x00")
		if len(f) < 17 {
			continue
		}
		for i := range f {
			f[i] = strings.ToValidUTF8(f[i], "\uFFFD")
		}
		r := delivery.Ref{FullName: f[0], SHA: f[1]}
		r.Name = shortRef(r.FullName)
		message := f[4]
		if f[2] == "tag" {
			r.TagSHA, r.SHA = f[1], f[3]
			text, _ := splitSignedTag(f[4])
			r.Message = strings.TrimRight(text, "\n")
			r.Tagger = delivery.Signature{Name: f[5], Email: strings.Trim(f[6], "<>"), When: parseDate(f[7])}
			message = f[16]
		} else if f[2] != "commit" {
			continue
		}
		c := delivery.Commit{SHA: r.SHA, Tree: f[8], Parents: strings.Fields(f[9]), Message: strings.TrimRight(message, "\n")}
		c.Author = delivery.Signature{Name: f[10], Email: strings.Trim(f[11], "<>"), When: parseDate(f[12])}
		c.Committer = delivery.Signature{Name: f[13], Email: strings.Trim(f[14], "<>"), When: parseDate(f[15])}
		r.Commit = c
		list = append(list, r)
	}
	return list, nil
}

func shortRef(full string) string {
	for _, p := range []string{"refs/heads/", "refs/tags/", "refs/"} {
		if s, ok := strings.CutPrefix(full, p); ok {
			return s
		}
	}
	return full
}

// RefOptions select branches or tags.
type RefOptions struct {
	Search string // part of the name; ^start and end$ anchor
	Sort   string // name, updated (newest first), version
	Merged bool   // find out which branches the default branch contains
}

// Branches lists branches with default and protection marks.
func (s *Service) Branches(ctx context.Context, p delivery.Project, o RefOptions) ([]delivery.Ref, error) {
	sort := "refname"
	if strings.HasPrefix(o.Sort, "updated") {
		sort = "-committerdate"
	}
	list, err := s.refs(ctx, p.ID, "refs/heads/", sort)
	if err != nil {
		return nil, err
	}
	rules, err := s.store.Protections(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	merged := map[string]bool{}
	if o.Merged && len(list) > 0 {
		out, err := s.git.run(ctx, s.RepositoryPath(p.ID), nil, "for-each-ref", "--format=%(refname)", "--merged=refs/heads/"+p.DefaultBranch, "refs/heads/")
		if err == nil {
			for name := range strings.FieldsSeq(string(out)) {
				merged[name] = true
			}
		} else if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	kept := list[:0]
	for _, r := range list {
		if !matchSearch(o.Search, r.Name) {
			continue
		}
		r.Default = r.Name == p.DefaultBranch
		r.Merged = merged[r.FullName] && !r.Default
		r.Protected = protects(rules, false, r.Name)
		kept = append(kept, r)
	}
	return kept, nil
}

// Tags lists tags.
func (s *Service) Tags(ctx context.Context, p delivery.Project, o RefOptions) ([]delivery.Ref, error) {
	sort := "-creatordate"
	switch {
	case strings.HasPrefix(o.Sort, "name"):
		sort = "refname"
	case strings.HasPrefix(o.Sort, "version"):
		sort = "-version:refname"
	}
	list, err := s.refs(ctx, p.ID, "refs/tags/", sort)
	if err != nil {
		return nil, err
	}
	rules, err := s.store.Protections(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	kept := list[:0]
	for _, r := range list {
		if matchSearch(o.Search, r.Name) {
			r.Protected = protects(rules, true, r.Name)
			kept = append(kept, r)
		}
	}
	return kept, nil
}

func matchSearch(search, name string) bool {
	if search == "" {
		return true
	}
	low, name := strings.ToLower(search), strings.ToLower(name)
	start, anchoredStart := strings.CutPrefix(low, "^")
	if anchoredStart {
		return strings.HasPrefix(name, start)
	}
	end, anchoredEnd := strings.CutSuffix(low, "$")
	if anchoredEnd {
		return strings.HasSuffix(name, end)
	}
	return strings.Contains(name, low)
}

// Branch returns one branch.
func (s *Service) Branch(ctx context.Context, p delivery.Project, name string) (delivery.Ref, error) {
	return s.oneRef(ctx, p, "refs/heads/"+name, "404 Branch Not Found")
}

// Tag returns one tag.
func (s *Service) Tag(ctx context.Context, p delivery.Project, name string) (delivery.Ref, error) {
	return s.oneRef(ctx, p, "refs/tags/"+name, "404 Tag Not Found")
}

func (s *Service) oneRef(ctx context.Context, p delivery.Project, full, missing string) (delivery.Ref, error) {
	none := &delivery.Error{Kind: delivery.NotFound, Message: missing}
	if CheckRefName(shortRef(full)) != nil {
		return delivery.Ref{}, none
	}
	list, err := s.refs(ctx, p.ID, full, "refname")
	if err != nil {
		return delivery.Ref{}, err
	}
	for _, r := range list {
		if r.FullName != full {
			continue
		}
		rules, err := s.store.Protections(ctx, p.ID)
		if err != nil {
			return r, err
		}
		r.Protected = protects(rules, strings.HasPrefix(full, "refs/tags/"), r.Name)
		r.Default = full == "refs/heads/"+p.DefaultBranch
		if strings.HasPrefix(full, "refs/heads/") && !r.Default {
			if head, ok, err := s.revision(ctx, p.ID, "refs/heads/"+p.DefaultBranch); err == nil && ok {
				r.Merged, err = s.IsAncestor(ctx, p.ID, r.SHA, head)
				if err != nil {
					return r, err
				}
			}
		}
		return r, nil
	}
	return delivery.Ref{}, none
}

// RefExists reports whether a full ref name exists and what it points to.
func (s *Service) RefExists(ctx context.Context, projectID int64, full string) (sha string, ok bool, err error) {
	o, err := s.readers.stat(ctx, s.RepositoryPath(projectID), full)
	if delivery.IsNotFound(err) {
		return "", false, nil
	}
	return o.sha, err == nil, err
}

// CreateRef makes or moves a ref of the platform itself, such as
// refs/pipelines/7, without any event. Branches and tags are refused.
func (s *Service) CreateRef(ctx context.Context, projectID int64, ref, sha string) error {
	if strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/") || !strings.HasPrefix(ref, "refs/") || !fullSHA.MatchString(sha) {
		return delivery.Errorf(delivery.Invalid, "The ref %q is not one of the platform's.", ref)
	}
	if _, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "update-ref", ref, sha); err != nil {
		return fmt.Errorf("forge: create ref: %w", err)
	}
	return nil
}

// DeleteRef deletes a ref made by CreateRef; a missing one is no error.
func (s *Service) DeleteRef(ctx context.Context, projectID int64, ref string) error {
	if strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/") || !strings.HasPrefix(ref, "refs/") {
		return delivery.Errorf(delivery.Invalid, "The ref %q is not one of the platform's.", ref)
	}
	if _, err := s.git.run(ctx, s.RepositoryPath(projectID), nil, "update-ref", "-d", ref); err != nil {
		return fmt.Errorf("forge: delete ref: %w", err)
	}
	return nil
}

// updateRefs moves branches and tags on behalf of a caller, all or none, with
// the same durability and events as a push. An update's Old must hold.
func (s *Service) updateRefs(ctx context.Context, projectID int64, who delivery.Identity, updates []RefUpdate, options map[string]string) error {
	push := Push{ProjectID: projectID, JobID: who.JobID, At: s.now(), Updates: updates, Options: options}
	if who.User != nil {
		push.UserID = who.User.ID
	}
	var err error
	if push.ID, err = s.store.BeginPush(ctx, push); err != nil {
		return err
	}
	s.pushes.add(push.ID)
	defer s.pushes.remove(push.ID)
	var in bytes.Buffer
	in.WriteString("start\n")
	for _, u := range updates {
		switch {
		case u.New == delivery.ZeroSHA:
			fmt.Fprintf(&in, "delete %s %s\n", u.Ref, u.Old)
		case u.Old == delivery.ZeroSHA:
			fmt.Fprintf(&in, "create %s %s\n", u.Ref, u.New)
		default:
			fmt.Fprintf(&in, "update %s %s %s\n", u.Ref, u.New, u.Old)
		}
	}
	in.WriteString("commit\n")
	// Once refs may have moved the push must be finished whatever ctx says.
	after := context.WithoutCancel(ctx)
	_, gitErr := s.git.run(ctx, s.RepositoryPath(projectID), &in, "update-ref", "--stdin")
	done := updates
	if gitErr != nil {
		if done, err = s.tookPlace(after, projectID, updates); err != nil {
			return err
		}
		if len(done) < len(updates) {
			done = nil
		}
	}
	if err := s.store.FinishPush(after, push, done); err != nil {
		return err
	}
	if gitErr != nil && done == nil {
		return refConflict(gitErr)
	}
	return nil
}

func refConflict(err error) error {
	var g *gitError
	if errors.As(err, &g) {
		switch {
		case strings.Contains(g.stderr, "but expected") || strings.Contains(g.stderr, "reference already exists") || strings.Contains(g.stderr, "unable to resolve reference") || strings.Contains(g.stderr, ".lock"):
			return &delivery.Error{Kind: delivery.Conflict, Op: "forge: update refs", Message: "The branch or tag changed in the meantime.", Next: "Try again.", Err: err}
		case strings.Contains(g.stderr, "cannot lock ref") && strings.Contains(g.stderr, "exists; cannot create"):
			return &delivery.Error{Kind: delivery.Conflict, Op: "forge: update refs", Message: "The name clashes with an existing branch or tag (one is a folder of the other).", Err: err}
		}
	}
	return fmt.Errorf("forge: update refs: %w", err)
}

// tookPlace returns those updates whose new value the ref has.
func (s *Service) tookPlace(ctx context.Context, projectID int64, updates []RefUpdate) ([]RefUpdate, error) {
	var done []RefUpdate
	for _, u := range updates {
		sha, ok, err := s.RefExists(ctx, projectID, u.Ref)
		if err != nil {
			return nil, err
		}
		if !ok {
			sha = delivery.ZeroSHA
		}
		if sha == u.New {
			done = append(done, u)
		}
	}
	return done, nil
}

// newRefErrors is what GitLab answers where a new ref's revision is unknown (%s)
// and where the ref exists.
type newRefErrors struct{ unknown, exists string }

// newRef is the update that makes a ref at a revision, once it is checked that
// the caller may.
func (s *Service) newRef(ctx context.Context, who delivery.Identity, p delivery.Project, prefix, name, rev string, say newRefErrors) (RefUpdate, error) {
	u := RefUpdate{Ref: prefix + name, Old: delivery.ZeroSHA}
	if err := CheckRefName(name); err != nil {
		return u, err
	}
	sha, ok, err := s.revision(ctx, p.ID, rev)
	if err != nil {
		return u, err
	}
	if !ok {
		return u, delivery.Errorf(delivery.Invalid, say.unknown, clip(rev, 100))
	}
	_, exists, err := s.RefExists(ctx, p.ID, u.Ref)
	if err != nil {
		return u, err
	}
	if exists {
		return u, &delivery.Error{Kind: delivery.Invalid, Message: say.exists}
	}
	u.New = sha
	return u, s.authorizeUpdates(ctx, who, p, []RefUpdate{u}, nil, true)
}

// CreateBranch makes a branch at a revision.
func (s *Service) CreateBranch(ctx context.Context, who delivery.Identity, p delivery.Project, name, rev string) (delivery.Ref, error) {
	u, err := s.newRef(ctx, who, p, "refs/heads/", name, rev, newRefErrors{"Invalid reference name: %s", "Branch already exists"})
	if err != nil {
		return delivery.Ref{}, err
	}
	if err := s.updateRefs(ctx, p.ID, who, []RefUpdate{u}, nil); err != nil {
		return delivery.Ref{}, err
	}
	return s.Branch(ctx, p, name)
}

// DeleteBranch deletes a branch.
func (s *Service) DeleteBranch(ctx context.Context, who delivery.Identity, p delivery.Project, name string) error {
	return s.deleteRef(ctx, who, p, "refs/heads/"+name, "404 Branch Not Found")
}

// DeleteTag deletes a tag.
func (s *Service) DeleteTag(ctx context.Context, who delivery.Identity, p delivery.Project, name string) error {
	return s.deleteRef(ctx, who, p, "refs/tags/"+name, "404 Tag Not Found")
}

func (s *Service) deleteRef(ctx context.Context, who delivery.Identity, p delivery.Project, full, missing string) error {
	if CheckRefName(shortRef(full)) != nil {
		return &delivery.Error{Kind: delivery.NotFound, Message: missing}
	}
	sha, ok, err := s.RefExists(ctx, p.ID, full)
	if err != nil {
		return err
	}
	if !ok {
		return &delivery.Error{Kind: delivery.NotFound, Message: missing}
	}
	u := RefUpdate{Ref: full, Old: sha, New: delivery.ZeroSHA}
	if err := s.authorizeUpdates(ctx, who, p, []RefUpdate{u}, nil, true); err != nil {
		return err
	}
	return s.updateRefs(ctx, p.ID, who, []RefUpdate{u}, nil)
}

// CreateTag makes a tag at a revision; a message makes it an annotated one.
func (s *Service) CreateTag(ctx context.Context, who delivery.Identity, p delivery.Project, name, rev, message string) (delivery.Ref, error) {
	u, err := s.newRef(ctx, who, p, "refs/tags/", name, rev, newRefErrors{"Target %s is invalid", "Tag " + name + " already exists"})
	if err != nil {
		return delivery.Ref{}, err
	}
	if message != "" {
		sig := s.signatureOf(who)
		body := fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger %s\n\n%s\n", u.New, name, formatSignature(sig), strings.TrimRight(message, "\n"))
		out, err := s.git.run(ctx, s.RepositoryPath(p.ID), strings.NewReader(body), "mktag")
		if err != nil {
			return delivery.Ref{}, fmt.Errorf("forge: create tag: %w", err)
		}
		u.New = strings.TrimSpace(string(out))
	}
	if err := s.updateRefs(ctx, p.ID, who, []RefUpdate{u}, nil); err != nil {
		return delivery.Ref{}, err
	}
	return s.Tag(ctx, p, name)
}

// signatureOf is who commits made on behalf of the caller come from.
func (s *Service) signatureOf(who delivery.Identity) delivery.Signature {
	sig := delivery.Signature{Name: "Slipway", Email: "noreply@localhost", When: s.now()}
	if who.User != nil {
		sig.Name, sig.Email = who.User.Name, who.User.Email
	} else if who.Name != "" {
		sig.Name = who.Name
	}
	return sig
}

// formatSignature writes a signature as git stores it.
func formatSignature(sig delivery.Signature) string {
	clean := func(s string) string {
		return strings.Trim(strings.Map(func(r rune) rune {
			if r == '<' || r == '>' || r < 0x20 {
				return -1
			}
			return r
		}, s), " .,:;\"'")
	}
	name := clean(sig.Name)
	if name == "" {
		name = "unknown"
	}
	return fmt.Sprintf("%s <%s> %d %s", name, clean(sig.Email), sig.When.Unix(), sig.When.Format("-0700"))
}

package web

import (
	"html/template"
	"regexp"
	"strconv"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

// references finds what notes refer to by GitLab's short forms.
type references struct {
	s *Server
	r *Request
}

// A reference begins a word: @user, !12 for a merge request, or seven and more
// digits of a commit's id.
var referencePattern = regexp.MustCompile(`(^|[^\w/@.&-])(@[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|![1-9][0-9]{0,9}\b|[0-9a-f]{7,40}\b)`)

const maxReferences = 200 // in one text; later ones stay plain

// noteHTML renders a description or a note: CommonMark with links to people,
// merge requests and commits.
func (s *Server) noteHTML(r *Request, source string) template.HTML {
	return markdown(source, linkBase{r.Project.FullPath, r.Project.DefaultBranch, ""}, references{s, r})
}

// Transform implements parser.ASTTransformer.
func (t references) Transform(doc *ast.Document, reader text.Reader, _ parser.Context) {
	source := reader.Source()
	var texts []*ast.Text
	_ = ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Link, *ast.AutoLink, *ast.CodeSpan, *ast.CodeBlock, *ast.FencedCodeBlock, *ast.HTMLBlock, *ast.RawHTML, *ast.Image:
			return ast.WalkSkipChildren, nil
		case *ast.Text:
			if entering {
				texts = append(texts, n)
			}
		}
		return ast.WalkContinue, nil
	})
	left := maxReferences
	for _, n := range texts {
		left = t.link(n, source, left)
	}
}

// link replaces the references of a text by links.
func (t references) link(n *ast.Text, source []byte, left int) int {
	parent, at := n.Parent(), n.Segment.Start
	found := false
	for _, m := range referencePattern.FindAllSubmatchIndex(n.Segment.Value(source), -1) {
		if left == 0 {
			break
		}
		from, to := n.Segment.Start+m[4], n.Segment.Start+m[5]
		left--
		address := t.address(string(source[from:to]))
		if address == "" {
			continue
		}
		found = true
		if from > at {
			parent.InsertBefore(parent, n, ast.NewTextSegment(text.NewSegment(at, from)))
		}
		link := ast.NewLink()
		link.Destination = []byte(address)
		end := to
		if to-from == 40 { // a whole id reads better short
			end = from + 8
		}
		link.AppendChild(link, ast.NewTextSegment(text.NewSegment(from, end)))
		parent.InsertBefore(parent, n, link)
		at = to
	}
	if found {
		n.Segment = text.NewSegment(at, n.Segment.Stop)
	}
	return left
}

// address is where a reference leads; empty where it names nothing.
func (t references) address(ref string) string {
	ctx, p := t.r.Context(), t.r.Project
	switch ref[0] {
	case '@':
		u, err := t.s.Access.UserByName(ctx, ref[1:])
		if err != nil {
			return ""
		}
		return "/" + u.Username
	case '!':
		iid, err := strconv.ParseInt(ref[1:], 10, 64)
		if err != nil {
			return ""
		}
		if _, err := t.s.Forge.MergeRequest(ctx, p.ID, iid); err != nil {
			return ""
		}
		return requestLink(p, iid)
	}
	if !forge.CanRead(*p, t.r.Role) {
		return ""
	}
	c, err := t.s.Forge.ResolveRef(ctx, p.ID, ref)
	if err != nil || len(c) < len(ref) || c[:len(ref)] != ref || c == delivery.ZeroSHA {
		return ""
	}
	return projectPath(p.FullPath, "commit", c)
}

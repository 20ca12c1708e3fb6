package web

import (
	"bytes"
	"html/template"
	"net/url"
	"path"
	"strings"

	"github.com/microcosm-cc/bluemonday"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// linkBase says where relative links and images of a text in a repository lead.
type linkBase struct {
	project string // full path
	rev     string
	folder  string // of the file within the repository
}

// sanitizer lets through what a document needs and nothing that runs.
var sanitizer = func() *bluemonday.Policy {
	p := bluemonday.UGCPolicy()
	p.AllowAttrs("class").Matching(bluemonday.SpaceSeparatedTokens).OnElements("code", "span", "pre", "div", "li", "ul", "input")
	p.AllowAttrs("type", "checked", "disabled").OnElements("input")
	p.AllowElements("input", "details", "summary")
	p.AllowAttrs("id").OnElements("h1", "h2", "h3", "h4", "h5", "h6")
	p.RequireNoFollowOnLinks(true)
	return p
}()

// markdown renders CommonMark with GitHub's extensions and sanitises it.
func markdown(source string, base linkBase, more ...parser.ASTTransformer) template.HTML {
	transformers := []util.PrioritizedValue{util.Prioritized(relativeLinks{base}, 500)}
	for _, t := range more {
		transformers = append(transformers, util.Prioritized(t, 600))
	}
	md := goldmark.New(
		goldmark.WithExtensions(extension.GFM, extension.Footnote),
		goldmark.WithParserOptions(parser.WithAutoHeadingID(), parser.WithASTTransformers(transformers...)),
		goldmark.WithRendererOptions(html.WithUnsafe()), // what it lets through is sanitised below
	)
	var b bytes.Buffer
	if err := md.Convert([]byte(source), &b); err != nil {
		return template.HTML("<pre>" + template.HTMLEscapeString(source) + "</pre>")
	}
	return template.HTML(sanitizer.SanitizeBytes(b.Bytes()))
}

// relativeLinks makes links lead to the file's page, and images to its bytes.
type relativeLinks struct{ base linkBase }

// Transform implements parser.ASTTransformer.
func (t relativeLinks) Transform(doc *ast.Document, _ text.Reader, _ parser.Context) {
	if t.base.project == "" {
		return
	}
	_ = ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Link:
			n.Destination = []byte(t.base.resolve(string(n.Destination), "blob"))
		case *ast.Image:
			n.Destination = []byte(t.base.resolve(string(n.Destination), "raw"))
		}
		return ast.WalkContinue, nil
	})
}

func (b linkBase) resolve(dest, page string) string {
	u, err := url.Parse(dest)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Path == "" || strings.HasPrefix(dest, "#") {
		return dest
	}
	target := path.Join("/", b.folder, u.Path)
	if strings.HasPrefix(u.Path, "/") {
		target = path.Clean(u.Path)
	}
	out := projectPath(b.project, page, escapePath(b.rev)+escapePath(target))
	if u.Fragment != "" {
		out += "#" + url.PathEscape(u.Fragment)
	}
	return out
}

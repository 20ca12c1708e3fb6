package web

import (
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// FuzzMarkdown renders what anybody may write: nothing in the result runs.
func FuzzMarkdown(f *testing.F) {
	for _, s := range []string{"# Title\n[a](javascript:alert(1))", "<script>alert(1)</script>", "![x](x.svg \"t\")", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "<a href='data:text/html,x'>x</a>",
		"<details open ontoggle=alert(1)>", "<math><mtext><table><mglyph><style><img src onerror=alert(1)>", "```go\nx\n```", "<form action=/x><input type=submit>", "[x]: vbscript:x\n[x]", "<iframe srcdoc=x>", "<style>@import 'x'</style>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		out := string(markdown(source, linkBase{"acme/shop", "main", "docs"}))
		z := html.NewTokenizer(strings.NewReader(out))
		for {
			kind := z.Next()
			if kind == html.ErrorToken {
				return
			}
			if kind != html.StartTagToken && kind != html.SelfClosingTagToken {
				continue
			}
			tag := z.Token()
			switch tag.Data {
			case "script", "iframe", "object", "embed", "style", "link", "meta", "base", "form", "svg", "math", "template", "button", "textarea":
				t.Fatalf("%q let <%s> through: %s", source, tag.Data, out)
			}
			for _, a := range tag.Attr {
				value := strings.ToLower(strings.Map(func(r rune) rune {
					if r <= ' ' {
						return -1
					}
					return r
				}, a.Val))
				if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "srcdoc" || strings.HasPrefix(value, "javascript:") && (a.Key == "href" || a.Key == "src") || strings.HasPrefix(value, "vbscript:") && a.Key == "href" || strings.HasPrefix(value, "data:") && a.Key == "href" {
					t.Fatalf("%q let %s=%q through: %s", source, a.Key, a.Val, out)
				}
			}
		}
	})
}

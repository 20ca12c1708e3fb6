package web

import (
	"bytes"
	"html/template"
	"strings"

	"github.com/alecthomas/chroma/v2"
	chromahtml "github.com/alecthomas/chroma/v2/formatters/html"
	"github.com/alecthomas/chroma/v2/lexers"
	"github.com/alecthomas/chroma/v2/styles"
)

const maxHighlight = 512 << 10 // bytes; larger texts are shown plainly

var formatter = chromahtml.New(chromahtml.WithClasses(true), chromahtml.PreventSurroundingPre(true))

// highlightLines returns the lines of a file as HTML, coloured by its language.
func highlightLines(name, source string) []template.HTML {
	plain := func() []template.HTML {
		lines := strings.Split(strings.TrimSuffix(source, "\n"), "\n")
		out := make([]template.HTML, len(lines))
		for i, l := range lines {
			out[i] = template.HTML(template.HTMLEscapeString(l))
		}
		return out
	}
	if len(source) > maxHighlight {
		return plain()
	}
	lexer := lexers.Match(name)
	if lexer == nil {
		return plain()
	}
	tokens, err := chroma.Coalesce(lexer).Tokenise(nil, source)
	if err != nil {
		return plain()
	}
	var out []template.HTML
	for _, line := range chroma.SplitTokensIntoLines(tokens.Tokens()) {
		var b bytes.Buffer
		if len(line) > 0 {
			last := len(line) - 1
			line[last].Value = strings.TrimSuffix(line[last].Value, "\n")
		}
		if err := formatter.Format(&b, styles.Fallback, chroma.Literator(line...)); err != nil {
			return plain()
		}
		out = append(out, template.HTML(b.String()))
	}
	return out
}

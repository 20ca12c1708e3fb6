package gitlabci

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Expression is a parsed rules:if condition. It is immutable and safe for concurrent use.
type Expression struct{ root term }

// ParseExpression parses a condition by the grammar of the specification. The error names the
// character, from 1, at which the text stops making sense.
func ParseExpression(text string) (*Expression, error) {
	p := &expressionParser{text: text}
	p.next()
	root := p.or()
	if p.err == nil && p.token.kind != endToken {
		p.fail("unexpected %s", p.token)
	}
	if p.err != nil {
		return nil, p.err
	}
	return &Expression{root}, nil
}

// Lookup gives the value of a variable; ok is false for one that is not defined.
type Lookup func(name string) (value string, ok bool)

// Value evaluates the condition. The result is nil (undefined or null), a bool or a string.
func (e *Expression) Value(lookup Lookup) any { return e.root.value(lookup) }

// True evaluates the condition to its truth: nil, false and the empty string are false.
func (e *Expression) True(lookup Lookup) bool { return truthful(e.root.value(lookup)) }

func truthful(v any) bool { return v != nil && v != false && v != "" }

// rubyTrue is the truth of && and ||, for which an empty string is true.
func rubyTrue(v any) bool { return v != nil && v != false }

type term interface{ value(Lookup) any }

type (
	literal    struct{ v any }
	variable   string
	pattern    struct{ re *regexp.Regexp }
	negation   struct{ of term }
	binaryTerm struct {
		op          tokenKind
		left, right term
	}
)

func (t literal) value(Lookup) any { return t.v }

func (t variable) value(lookup Lookup) any {
	if v, ok := lookup(string(t)); ok {
		return v
	}
	return nil
}

func (t pattern) value(Lookup) any { return t.re }

func (t negation) value(lookup Lookup) any { return !truthful(t.of.value(lookup)) }

func (t binaryTerm) value(lookup Lookup) any {
	left := t.left.value(lookup)
	switch t.op {
	case andToken:
		if !rubyTrue(left) {
			return left
		}
		return t.right.value(lookup)
	case orToken:
		if rubyTrue(left) {
			return left
		}
		return t.right.value(lookup)
	case equalToken:
		return equal(left, t.right.value(lookup))
	case notEqualToken:
		return !equal(left, t.right.value(lookup))
	case matchToken:
		m, ok := matches(left, t.right.value(lookup))
		return ok && m
	default: // notMatchToken
		m, ok := matches(left, t.right.value(lookup))
		return !ok || !m
	}
}

func equal(a, b any) bool {
	if s, ok := a.(string); ok {
		if flag, ok := b.(bool); ok {
			return s == fmt.Sprint(flag)
		}
	}
	if s, ok := b.(string); ok {
		if flag, ok := a.(bool); ok {
			return s == fmt.Sprint(flag)
		}
	}
	return a == b
}

// matches reports whether the text matches; ok is false when there is nothing to match against. A
// string that is not written /.../ is searched for the text, as GitLab does.
func matches(left, right any) (match, ok bool) {
	text := ""
	switch l := left.(type) {
	case string:
		text = l
	case bool:
		text = fmt.Sprint(l)
	}
	switch r := right.(type) {
	case *regexp.Regexp:
		return r.MatchString(text), true
	case string:
		if re, err := ParsePattern(r); err == nil {
			return re.MatchString(text), true
		}
		return strings.Contains(r, text), true
	}
	return false, false
}

var slashed = regexp.MustCompile(`(?s)^/(.*)/([ismU]*)$`)

// ParsePattern reads a regular expression written /.../ with optional flags i, m, s, U, by RE2 rules.
func ParsePattern(text string) (*regexp.Regexp, error) {
	m := slashed.FindStringSubmatch(text)
	if m == nil || m[1] == "" {
		return nil, fmt.Errorf("a regular expression is written between slashes, such as /^v[0-9]+/")
	}
	source := m[1]
	if m[2] != "" {
		source = "(?" + m[2] + ")" + source
	}
	re, err := regexp.Compile(source)
	if err != nil {
		return nil, fmt.Errorf("invalid regular expression %s: %s", text, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return re, nil
}

type tokenKind uint8

const (
	endToken tokenKind = iota
	variableToken
	stringToken
	patternToken
	nullToken
	trueToken
	falseToken
	equalToken
	notEqualToken
	matchToken
	notMatchToken
	andToken
	orToken
	notToken
	openToken
	closeToken
)

type expressionToken struct {
	kind tokenKind
	text string // the value
	raw  string // as written
}

func (t expressionToken) String() string {
	if t.kind == endToken {
		return "end of the expression"
	}
	return t.raw
}

// maxNesting bounds parentheses and negations, so that no text can exhaust the stack.
const maxNesting = 200

type expressionParser struct {
	text  string
	start int // offset of token
	pos   int // offset after token
	token expressionToken
	depth int
	err   error
}

func (p *expressionParser) fail(format string, args ...any) {
	if p.err == nil {
		at := utf8.RuneCountInString(p.text[:min(p.start, len(p.text))]) + 1
		p.err = fmt.Errorf("%s at character %d", fmt.Sprintf(format, args...), at)
	}
	p.token = expressionToken{}
	p.pos = len(p.text)
}

var (
	variableLexeme = regexp.MustCompile(`^\$(\w+)`)
	patternLexeme  = regexp.MustCompile(`^/(?:\\.|[^/\\])+/[ismU]*`)
	wordLexeme     = regexp.MustCompile(`^\w+`)
	operators      = []struct {
		text string
		kind tokenKind
	}{
		{"==", equalToken}, {"!=", notEqualToken}, {"=~", matchToken}, {"!~", notMatchToken},
		{"&&", andToken}, {"||", orToken}, {"!", notToken}, {"(", openToken}, {")", closeToken},
	}
)

func (p *expressionParser) next() {
	if p.err != nil {
		return
	}
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
	p.start = p.pos
	rest := p.text[p.pos:]
	take := func(kind tokenKind, raw, text string) {
		p.token = expressionToken{kind, text, raw}
		p.pos += len(raw)
	}
	if rest == "" {
		p.token = expressionToken{}
		return
	}
	for _, op := range operators {
		if strings.HasPrefix(rest, op.text) {
			take(op.kind, op.text, "")
			return
		}
	}
	switch rest[0] {
	case '$':
		if m := variableLexeme.FindStringSubmatch(rest); m != nil {
			take(variableToken, m[0], m[1])
			return
		}
		p.fail("a variable is written $NAME here, without braces,")
	case '"', '\'':
		if end := strings.IndexByte(rest[1:], rest[0]); end >= 0 {
			take(stringToken, rest[:end+2], rest[1:end+1])
			return
		}
		p.fail("a string without its closing quote")
	case '/':
		if m := patternLexeme.FindString(rest); m != "" {
			take(patternToken, m, m)
			return
		}
		p.fail("a regular expression without its closing slash")
	default:
		p.word(rest, take)
	}
}

func (p *expressionParser) word(rest string, take func(tokenKind, string, string)) {
	w := wordLexeme.FindString(rest)
	switch w {
	case "null":
		take(nullToken, w, "")
	case "true":
		take(trueToken, w, "")
	case "false":
		take(falseToken, w, "")
	case "":
		_, size := utf8.DecodeRuneInString(rest)
		p.fail("unexpected %s", rest[:size])
	default:
		p.fail("unexpected %s; a string needs quotes and a variable a $", w)
	}
}

func (p *expressionParser) or() term {
	left := p.and()
	for p.token.kind == orToken {
		p.next()
		left = binaryTerm{orToken, left, p.and()}
	}
	return left
}

func (p *expressionParser) and() term {
	left := p.comparison()
	for p.token.kind == andToken {
		p.next()
		left = binaryTerm{andToken, left, p.comparison()}
	}
	return left
}

func (p *expressionParser) comparison() term {
	left := p.unary()
	for {
		op := p.token.kind
		if op < equalToken || op > notMatchToken {
			return left
		}
		p.next()
		left = binaryTerm{op, left, p.unary()}
	}
}

func (p *expressionParser) unary() term {
	if p.depth++; p.depth > maxNesting {
		p.fail("more than %d levels", maxNesting)
	}
	defer func() { p.depth-- }()
	if p.token.kind == notToken && p.err == nil {
		p.next()
		// "!" binds weaker than a comparison: !$A == "x" negates the comparison.
		return negation{p.comparison()}
	}
	return p.atom()
}

func (p *expressionParser) atom() term {
	t := p.token
	switch t.kind {
	case variableToken:
		p.next()
		return variable(t.text)
	case stringToken:
		p.next()
		return literal{t.text}
	case nullToken:
		p.next()
		return literal{nil}
	case trueToken, falseToken:
		p.next()
		return literal{t.kind == trueToken}
	case patternToken:
		re, err := ParsePattern(t.text)
		if err != nil {
			p.fail("%s", err)
			return literal{}
		}
		p.next()
		return pattern{re}
	case openToken:
		p.next()
		inner := p.or()
		if p.token.kind != closeToken {
			p.fail("expected ) but found %s", p.token)
			return inner
		}
		p.next()
		return inner
	}
	p.fail("expected a value but found %s", t)
	return literal{}
}

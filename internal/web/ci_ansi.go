package web

import (
	"bytes"
	"html/template"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// logLine is a line of a job's log as HTML.
type logLine struct {
	HTML    template.HTML
	Section bool          // it opens a section
	Took    time.Duration // of the section, once it has ended
}

// sectionMark matches the marks with which runners and scripts fold logs:
// section_start:SECONDS:NAME[OPTIONS] and section_end:SECONDS:NAME, each
// followed by a carriage return and "erase line".
var sectionMark = regexp.MustCompile(`section_(start|end):(\d+):([\w.\-]+)(?:\[[^\]]*\])?\r?(?:\x1b\[0K)?`)

// renderLog turns a log into lines of HTML: ANSI colours become classes, text
// before a carriage return is overwritten, section marks become headings.
func renderLog(text []byte) []logLine {
	type open struct {
		line  int
		began int64
	}
	sections := map[string]open{}
	var out []logLine
	var style ansiStyle
	text = bytes.TrimSuffix(text, []byte("\n"))
	if len(text) == 0 {
		return nil
	}
	for _, raw := range bytes.Split(text, []byte("\n")) {
		line := string(raw)
		var l logLine
		marked := false
		for _, m := range sectionMark.FindAllStringSubmatch(line, -1) {
			marked = true
			at, err := strconv.ParseInt(m[2], 10, 64)
			if err != nil {
				continue
			}
			if m[1] == "start" {
				sections[m[3]] = open{len(out), at}
				l.Section = true
			} else if s, ok := sections[m[3]]; ok && s.line < len(out) {
				out[s.line].Took = time.Duration(max(0, at-s.began)) * time.Second
				delete(sections, m[3])
			}
		}
		if marked {
			line = sectionMark.ReplaceAllString(line, "")
			if strings.TrimSpace(line) == "" && !l.Section {
				continue
			}
		}
		line = strings.TrimRight(line, "\r")
		if i := strings.LastIndexByte(line, '\r'); i >= 0 {
			line = line[i+1:]
		}
		l.HTML = style.render(line)
		out = append(out, l)
	}
	return out
}

// ansiStyle is the state of a terminal's "select graphic rendition".
type ansiStyle struct {
	fg, bg                         string // class or colour; empty: the default
	bold, dim, italic, under, gone bool
}

var escape = regexp.MustCompile("\x1b(?:\\[([0-9;?]*)([A-Za-z])|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-Z\\\\^_])")

// render writes one line in the style that earlier lines left, and remembers
// the style for the next.
func (a *ansiStyle) render(line string) template.HTML {
	var b strings.Builder
	put := func(s string) {
		if s == "" {
			return
		}
		open := a.tag()
		if open != "" {
			b.WriteString(open)
		}
		b.WriteString(template.HTMLEscapeString(strings.Map(printable, s)))
		if open != "" {
			b.WriteString("</span>")
		}
	}
	last := 0
	for _, m := range escape.FindAllStringSubmatchIndex(line, -1) {
		put(line[last:m[0]])
		last = m[1]
		if m[4] >= 0 && line[m[4]:m[5]] == "m" {
			a.apply(line[m[2]:m[3]])
		}
	}
	put(line[last:])
	return template.HTML(b.String())
}

func printable(r rune) rune {
	if r < ' ' && r != '\t' || r == 0x7f {
		return -1
	}
	return r
}

func (a *ansiStyle) tag() string {
	var classes []string
	var css string
	for _, c := range []struct{ value, prefix, property string }{{a.fg, "f", "color"}, {a.bg, "b", "background"}} {
		switch {
		case strings.HasPrefix(c.value, "#"):
			css += c.property + ":" + c.value + ";"
		case c.value != "":
			classes = append(classes, "a-"+c.prefix+c.value)
		}
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{a.bold, "a-bold"}, {a.dim, "a-dim"}, {a.italic, "a-italic"}, {a.under, "a-under"}, {a.gone, "a-gone"}} {
		if f.on {
			classes = append(classes, f.name)
		}
	}
	if len(classes) == 0 && css == "" {
		return ""
	}
	s := "<span"
	if len(classes) > 0 {
		s += ` class="` + strings.Join(classes, " ") + `"`
	}
	if css != "" {
		s += ` style="` + css + `"`
	}
	return s + ">"
}

// apply changes the style by the numbers of one escape sequence.
func (a *ansiStyle) apply(params string) {
	var n []int
	for _, p := range strings.Split(params, ";") {
		v, err := strconv.Atoi(p)
		if err != nil {
			v = 0
		}
		n = append(n, v)
	}
	for i := 0; i < len(n); i++ {
		switch v := n[i]; {
		case v == 0:
			*a = ansiStyle{}
		case v == 1:
			a.bold = true
		case v == 2:
			a.dim = true
		case v == 3:
			a.italic = true
		case v == 4:
			a.under = true
		case v == 9:
			a.gone = true
		case v == 22:
			a.bold, a.dim = false, false
		case v == 23:
			a.italic = false
		case v == 24:
			a.under = false
		case v == 29:
			a.gone = false
		case v >= 30 && v <= 37:
			a.fg = strconv.Itoa(v - 30)
		case v == 39:
			a.fg = ""
		case v >= 40 && v <= 47:
			a.bg = strconv.Itoa(v - 40)
		case v == 49:
			a.bg = ""
		case v >= 90 && v <= 97:
			a.fg = strconv.Itoa(v - 90 + 8)
		case v >= 100 && v <= 107:
			a.bg = strconv.Itoa(v - 100 + 8)
		case v == 38 || v == 48:
			color, used := extended(n[i+1:])
			i += used
			if v == 38 {
				a.fg = color
			} else {
				a.bg = color
			}
		}
	}
}

// extended reads "5;N" (a colour of 256) or "2;R;G;B".
func extended(n []int) (string, int) {
	switch {
	case len(n) >= 2 && n[0] == 5:
		return indexed(n[1]), 2
	case len(n) >= 4 && n[0] == 2:
		return hexColor(n[1], n[2], n[3]), 4
	}
	return "", len(n)
}

// indexed is a colour of xterm's 256.
func indexed(n int) string {
	switch {
	case n < 0 || n > 255:
		return ""
	case n < 16:
		return strconv.Itoa(n)
	case n >= 232:
		g := 8 + (n-232)*10
		return hexColor(g, g, g)
	}
	n -= 16
	level := func(i int) int {
		if i == 0 {
			return 0
		}
		return 55 + i*40
	}
	return hexColor(level(n/36), level(n/6%6), level(n%6))
}

func hexColor(r, g, b int) string {
	const digits = "0123456789abcdef"
	out := []byte("#")
	for _, v := range []int{r, g, b} {
		v = min(255, max(0, v))
		out = append(out, digits[v>>4], digits[v&15])
	}
	return string(out)
}

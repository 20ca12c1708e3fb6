package gitlabci

import (
	"encoding/json"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxFunctions is how many functions one $[[ ]] block may chain.
const maxFunctions = 3

// interpolation replaces $[[ inputs.name | function ]] in the text of a file, before it is YAML.
type interpolation struct {
	inputs    map[string]*node
	names     []string
	component map[string]string
	variables Lookup
}

var block = regexp.MustCompile(`\$\[\[(.*?)\]\]`)

// textMap leads a position in an interpolated text back to the file.
type textMap struct {
	written, result   string
	writtenLines      []int // offset of each line
	resultLines       []int
	results, writtens []int // start of each unchanged piece, in both texts
	firstLine         int   // number of the first line of written in its file
}

// apply returns the text with all blocks replaced. Mistakes are reported through fail, with the
// offset of the block in text.
func (ip *interpolation) apply(text string, firstLine int, fail func(line, column int, message string)) (string, *textMap) {
	m := &textMap{written: text, firstLine: firstLine, results: []int{0}, writtens: []int{0}}
	m.writtenLines = lineStarts(text)
	var b strings.Builder
	from := 0
	for _, at := range block.FindAllStringSubmatchIndex(text, -1) {
		b.WriteString(text[from:at[0]])
		from = at[1]
		value, err := ip.evaluate(text[at[2]:at[3]])
		if err == errKeep {
			value = text[at[0]:at[1]]
		} else if err != nil {
			line, column := m.position(at[0])
			fail(line, column, err.Error())
		}
		b.WriteString(value)
		m.results, m.writtens = append(m.results, b.Len()), append(m.writtens, at[1])
		if b.Len() > maxInputText {
			line, column := m.position(at[0])
			fail(line, column, "the file grows larger than 1 MiB with its inputs filled in")
			break
		}
	}
	b.WriteString(text[from:])
	m.result = b.String()
	m.resultLines = lineStarts(m.result)
	return m.result, m
}

func lineStarts(text string) []int {
	out := []int{0}
	for i := 0; i < len(text); i++ {
		if text[i] == '\n' {
			out = append(out, i+1)
		}
	}
	return out
}

// position turns an offset in the written text into line and column of its file.
func (m *textMap) position(offset int) (line, column int) {
	i := sort.SearchInts(m.writtenLines, offset+1) - 1
	return m.firstLine + i, utf8.RuneCountInString(m.written[m.writtenLines[i]:offset]) + 1
}

// at turns line and column in the result into those of the file.
func (m *textMap) at(line, column int) (int, int) {
	if line < 1 || line > len(m.resultLines) {
		return m.firstLine, 1
	}
	offset := m.resultLines[line-1]
	for ; column > 1 && offset < len(m.result) && m.result[offset] != '\n'; column-- {
		_, size := utf8.DecodeRuneInString(m.result[offset:])
		offset += size
	}
	i := sort.SearchInts(m.results, offset+1) - 1
	written := m.writtens[i] + offset - m.results[i]
	if i+1 < len(m.writtens) {
		// Inside a replaced block: its own start is as near as it gets.
		written = min(written, m.writtens[i+1]-1)
		if start := strings.LastIndex(m.written[:m.writtens[i+1]], "$[["); start >= 0 {
			written = min(written, max(start, m.writtens[i]))
		}
	}
	return m.position(min(written, len(m.written)))
}

type keepError struct{}

func (keepError) Error() string { return "" }

// errKeep marks a block that is not for this stage, such as $[[ matrix.NAME ]].
var errKeep error = keepError{}

func (ip *interpolation) evaluate(text string) (string, error) {
	parts := strings.Split(text, "|")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	if strings.HasPrefix(parts[0], "matrix.") {
		return "", errKeep
	}
	value, err := ip.access(parts[0])
	if err != nil {
		return "", err
	}
	if len(parts)-1 > maxFunctions {
		return "", fmt.Errorf("$[[%s]] chains more than %d functions", text, maxFunctions)
	}
	for _, call := range parts[1:] {
		if value.kind != stringKind {
			return "", fmt.Errorf("the function %s works on a string, but %s is %s", call, parts[0], value.kind)
		}
		result, err := ip.call(call, value.text)
		if err != nil {
			return "", err
		}
		value = &node{kind: stringKind, text: result}
	}
	if value.kind == listKind || value.kind == mapKind {
		b, err := json.Marshal(value.value())
		return string(b), err
	}
	return value.text, nil
}

func (ip *interpolation) access(path string) (*node, error) {
	space, name, _ := strings.Cut(path, ".")
	switch space {
	case "inputs":
		if v, ok := ip.inputs[name]; ok {
			return v, nil
		}
		return nil, fmt.Errorf("unknown input %s%s", name, didYouMean(name, ip.names))
	case "component":
		if v, ok := ip.component[name]; ok {
			return &node{kind: stringKind, text: v}, nil
		}
		return nil, fmt.Errorf("unknown component fact %s; list it under spec:component first", name)
	}
	return nil, fmt.Errorf("unknown interpolation $[[ %s ]]; write $[[ inputs.NAME ]]", path)
}

var truncateCall = regexp.MustCompile(`^truncate\(\s*([0-9]+)\s*,\s*([0-9]+)\s*\)$`)

func (ip *interpolation) call(call, value string) (string, error) {
	switch {
	case call == "expand_vars":
		return ExpandExisting(value, ip.variables), nil
	case call == "posix_escape":
		return posixEscape(value), nil
	}
	if m := truncateCall.FindStringSubmatch(call); m != nil {
		offset, err1 := strconv.Atoi(m[1])
		length, err2 := strconv.Atoi(m[2])
		if err1 != nil || err2 != nil {
			return "", fmt.Errorf("the numbers of %s are too large", call)
		}
		runes := []rune(value)
		offset = min(offset, len(runes))
		return string(runes[offset : min(len(runes)-offset, length)+offset]), nil
	}
	return "", fmt.Errorf("unknown function %s; there are expand_vars, posix_escape and truncate(offset,length)", call)
}

// posixEscape quotes for a POSIX shell, as Ruby's Shellwords does.
func posixEscape(s string) string {
	if s == "" {
		return "''"
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteString("'\n'")
			continue
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("_-.,:+/@", r):
		default:
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// splitHeader cuts a file into its header document and the rest. The header is empty when there is
// none: a file has one when it starts with a document that is followed by "---" and holds spec: as
// a key.
func splitHeader(text string) (head, rest string, restLine int) {
	lines := strings.SplitAfter(text, "\n")
	offset, start, begun := 0, 0, false
	for i, line := range lines {
		marker := line == "---" || strings.HasPrefix(line, "---") && strings.ContainsAny(line[3:4], " \t\r\n")
		if marker && begun {
			head = text[start:offset]
			if !specKey.MatchString(head) {
				return "", text, 1
			}
			// What follows the marker on its own line belongs to the content.
			return text[:offset], text[offset:], i + 1
		}
		trimmed := strings.TrimSpace(line)
		if marker {
			start, begun = offset+len(line), true
			if strings.TrimSpace(line[3:]) != "" && !strings.HasPrefix(strings.TrimSpace(line[3:]), "#") {
				start = offset + 3
			}
		} else if trimmed != "" && trimmed[0] != '#' && trimmed[0] != '%' {
			begun = true
		}
		offset += len(line)
	}
	return "", text, 1
}

var specKey = regexp.MustCompile(`(?m)^(?:spec|"spec"|'spec')\s*:`)

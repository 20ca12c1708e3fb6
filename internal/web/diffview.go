package web

import (
	"crypto/sha256"
	"encoding/hex"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/forge"
)

const (
	fileLines  = 1500    // lines of a file's diff that are shown without being asked for
	pageLines  = 8000    // lines of all diffs of a page, likewise
	wholeDiff  = 8 << 20 // bytes of one file's diff that can be expanded
	wholeFile  = 1 << 20 // lines of context that mean all
	diffCookie = "diff_view"
)

// diffView is a diff on a page.
type diffView struct {
	Files                []fileDiff
	Parallel             bool // both sides beside each other
	Space                bool // changes of white space only are hidden
	Links                diffLinks
	Additions, Deletions int
	Notes                *notesOn // nil: lines cannot be commented on
	Shown                bool     // hidden where there is nothing to choose
}

// diffLinks lead to the same page with another choice.
type diffLinks struct{ Inline, Parallel, Space string }

// notesOn is what the form of a note on a line needs.
type notesOn struct {
	Action            string
	Tab               string // that the form comes back to
	Base, Start, Head string
	Review            string // what the button says that holds a note back; empty: there is none
	Held              bool   // notes are held back already
	Suggest           bool   // changes can be proposed
}

// fileDiff is one file of a diff, ready to be shown.
type fileDiff struct {
	forge.FileDiff
	Anchor  string
	Chunks  []diffChunk
	Columns int          // of the table
	Folded  bool         // too long to be shown without being asked for
	Expand  string       // where it is shown in whole
	Whole   string       // where the lines between its hunks are shown too
	Threads []threadView // on the file, or on lines that are not shown
	Open    int          // unresolved threads
	Quiet   bool         // shown folded at first: generated
}

// diffChunk is a run of rows and the threads on the last of them.
type diffChunk struct {
	Rows    template.HTML
	Threads []threadView
}

// diffLine is one line of a diff.
type diffLine struct {
	forge.PatchLine
	Parts []diffPart
}

// diffPart is a stretch of a line; Mark shows what changed within the line.
type diffPart struct {
	Text string
	Mark bool
}

// lineKey names a line of a file's diff by its numbers on both sides.
type lineKey struct{ old, new int }

// fileAnchor is the id of a file on a page of a diff.
func fileAnchor(path string) string {
	sum := sha256.Sum256([]byte(path))
	return "d" + hex.EncodeToString(sum[:5])
}

// newDiffView reads the choices of the page: ?view=, which is kept in a
// cookie, ?w=1 for no white space, and ?expand= for a file.
func newDiffView(w http.ResponseWriter, r *Request) *diffView {
	v := &diffView{Space: r.FormValue("w") == "1"}
	choice := r.FormValue("view")
	if choice == "inline" || choice == "parallel" {
		http.SetCookie(w, &http.Cookie{Name: diffCookie, Value: choice, Path: "/", MaxAge: int((365 * 24 * time.Hour).Seconds()), HttpOnly: true, SameSite: http.SameSiteLaxMode})
	} else if c, err := r.Cookie(diffCookie); err == nil {
		choice = c.Value
	}
	v.Parallel = choice == "parallel"
	with := func(key, value string) string {
		q := r.URL.Query()
		q.Del("expand")
		q.Del("expand_old")
		q.Del("context")
		q.Del(key)
		if value != "" {
			q.Set(key, value)
		}
		return "?" + q.Encode()
	}
	space := "1"
	if v.Space {
		space = ""
	}
	v.Links = diffLinks{with("view", "inline"), with("view", "parallel"), with("w", space)}
	return v
}

// limits are what the diff is read with.
func (v *diffView) limits() forge.DiffLimits { return forge.DiffLimits{Space: v.Space} }

// loadDiff reads the diff between two revisions of a project for a page. The file that the
// address asks to expand is read whole; a request for a fragment gets only it.
func (s *Server) loadDiff(w http.ResponseWriter, r *Request, id int64, from, to string, threads map[string][]threadView) (*diffView, error) {
	v := newDiffView(w, r)
	ctx := r.Context()
	expand := r.FormValue("expand")
	only := expand != "" && r.Header.Get("X-Fragment") != ""
	var files []forge.FileDiff
	var err error
	if !only {
		if files, err = s.Forge.Diff(ctx, id, from, to, nil, v.limits()); err != nil {
			return nil, err
		}
	}
	if expand != "" {
		paths := []string{expand}
		if old := r.FormValue("expand_old"); old != "" && old != expand {
			paths = append(paths, old)
		}
		l := v.limits()
		l.FileBytes, l.Bytes = wholeDiff, wholeDiff
		if r.FormValue("context") == "all" {
			l.Context = wholeFile
		}
		whole, err := s.Forge.Diff(ctx, id, from, to, paths, l)
		if err != nil {
			return nil, err
		}
		for _, f := range whole {
			if f.NewPath != expand {
				continue
			}
			if only {
				files = append(files, f)
			}
			for i := range files {
				if files[i].NewPath == expand {
					files[i] = f
				}
			}
		}
		if only && len(files) == 0 {
			return nil, notFound()
		}
	}
	v.fill(r, files, expand, threads)
	return v, nil
}

// alone reports whether only the file that is expanded was asked for.
func (v *diffView) alone(r *Request) bool {
	return r.FormValue("expand") != "" && r.Header.Get("X-Fragment") != "" && len(v.Files) == 1
}

// fill prepares the files; threads are those of each path.
func (v *diffView) fill(r *Request, files []forge.FileDiff, expand string, threads map[string][]threadView) {
	v.Shown = len(files) > 0
	v.Files = make([]fileDiff, len(files))
	left := pageLines
	for i, f := range files {
		v.Additions += f.Additions
		v.Deletions += f.Deletions
		out := fileDiff{FileDiff: f, Anchor: fileAnchor(f.NewPath), Columns: 3, Quiet: generated(f.NewPath) && f.NewPath != expand}
		if v.Parallel {
			out.Columns = 4
		}
		for _, t := range threads[f.NewPath] {
			if t.Resolvable && !t.Resolved {
				out.Open++
			}
		}
		lines := f.Additions + f.Deletions
		asked := expand != "" && f.NewPath == expand
		out.Folded = !asked && (f.Collapsed || f.TooLarge || lines > fileLines || lines > left || out.Quiet && lines > 40)
		if out.Folded || f.Collapsed || f.TooLarge {
			out.Threads = threads[f.NewPath]
		} else {
			left -= lines
			out.rows(parsePatch(f.Patch), v.Parallel, threads[f.NewPath])
		}
		q := r.URL.Query()
		q.Set("expand", f.NewPath)
		q.Set("expand_old", f.OldPath)
		q.Del("context")
		if out.Folded {
			out.Expand = "?" + q.Encode()
		} else if f.Status != "added" && f.Status != "deleted" && f.Patch != "" && !(asked && r.FormValue("context") == "all") {
			q.Set("context", "all")
			out.Whole = "?" + q.Encode()
		}
		v.Files[i] = out
	}
}

// diffFiles prepares a diff in one column for a page that only shows it:
// {{range .}}{{template "diff-file" .}}{{end}}. What is over its limits is left
// out.
func diffFiles(files []forge.FileDiff) []fileDiff {
	out := make([]fileDiff, len(files))
	for i, f := range files {
		out[i] = fileDiff{FileDiff: f, Anchor: fileAnchor(f.NewPath), Columns: 3}
		if !f.Collapsed && !f.TooLarge {
			out[i].rows(parsePatch(f.Patch), false, nil)
		}
	}
	return out
}

// generated tells files that nobody reads line by line.
func generated(path string) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	switch name {
	case "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "go.sum", "Cargo.lock", "Gemfile.lock", "composer.lock", "poetry.lock", "Pipfile.lock", "uv.lock", "npm-shrinkwrap.json":
		return true
	}
	return strings.HasSuffix(name, ".min.js") || strings.HasSuffix(name, ".min.css") || strings.HasSuffix(name, ".pb.go")
}

// diffRow is a line of a page: one line of the diff, or the two sides of one.
type diffRow struct{ left, right *diffLine }

// pairRows puts removed lines beside the added ones that replace them.
func pairRows(lines []diffLine) []diffRow {
	var rows []diffRow
	for i := 0; i < len(lines); {
		l := &lines[i]
		if l.Kind != '-' && l.Kind != '+' {
			rows = append(rows, diffRow{l, l})
			i++
			continue
		}
		var dels, adds []*diffLine
		for ; i < len(lines) && lines[i].Kind == '-'; i++ {
			dels = append(dels, &lines[i])
		}
		for ; i < len(lines) && lines[i].Kind == '\\'; i++ { // "No newline" of the old side
		}
		for ; i < len(lines) && lines[i].Kind == '+'; i++ {
			adds = append(adds, &lines[i])
		}
		for k := range max(len(dels), len(adds)) {
			var row diffRow
			if k < len(dels) {
				row.left = dels[k]
			}
			if k < len(adds) {
				row.right = adds[k]
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// rows writes the table's rows, cut where threads go. Threads on lines that
// the diff does not show come first.
func (f *fileDiff) rows(lines []diffLine, parallel bool, threads []threadView) {
	at := map[lineKey][]threadView{}
	for _, t := range threads {
		at[t.key] = append(at[t.key], t)
	}
	var b strings.Builder
	b.Grow(len(f.Patch) * 3)
	take := func(l *diffLine) (list []threadView) {
		if l != nil && (l.Old > 0 || l.New > 0) {
			key := lineKey{l.Old, l.New}
			list = at[key]
			delete(at, key)
		}
		return list
	}
	cut := func(list []threadView) {
		if len(list) > 0 {
			f.Chunks = append(f.Chunks, diffChunk{template.HTML(b.String()), list}) //nolint:gosec // written by writeCode, which escapes
			b.Reset()
		}
	}
	if parallel {
		for _, row := range pairRows(lines) {
			f.writePair(&b, row)
			list := take(row.left)
			if row.right != row.left {
				list = append(list, take(row.right)...)
			}
			cut(list)
		}
	} else {
		for i := range lines {
			f.writeLine(&b, &lines[i])
			cut(take(&lines[i]))
		}
	}
	if b.Len() > 0 {
		f.Chunks = append(f.Chunks, diffChunk{Rows: template.HTML(b.String())}) //nolint:gosec // as above
	}
	for _, t := range threads {
		if _, left := at[t.key]; left {
			f.Threads = append(f.Threads, t)
		}
	}
}

var lineClasses = map[byte]string{'+': "d-add", '-': "d-del", ' ': "d-same", '@': "d-hunk", '\\': "d-hunk"}

func (f *fileDiff) writeLine(b *strings.Builder, l *diffLine) {
	b.WriteString(`<tr class="`)
	b.WriteString(lineClasses[l.Kind])
	if l.Kind == '@' || l.Kind == '\\' {
		b.WriteString(`"><td class="n"></td><td class="n"></td><td class="s">`)
		writeCode(b, l)
		b.WriteString("</td></tr>")
		return
	}
	b.WriteString(`" id="`)
	f.writeID(b, l)
	b.WriteString(`">`)
	f.writeNumber(b, l, l.Old)
	f.writeNumber(b, l, l.New)
	b.WriteString(`<td class="s">`)
	b.WriteByte(l.Kind)
	writeCode(b, l)
	b.WriteString("</td></tr>")
}

func (f *fileDiff) writePair(b *strings.Builder, row diffRow) {
	if row.left != nil && (row.left.Kind == '@' || row.left.Kind == '\\') {
		b.WriteString(`<tr class="d-hunk"><td class="n"></td><td class="s" colspan="3">`)
		writeCode(b, row.left)
		b.WriteString("</td></tr>")
		return
	}
	b.WriteString(`<tr class="d-pair">`)
	for i, l := range []*diffLine{row.left, row.right} {
		if l == nil {
			b.WriteString(`<td class="n d-none"></td><td class="s d-none"></td>`)
			continue
		}
		number := l.Old
		if i == 1 {
			number = l.New
		}
		if l.Kind != ' ' || i == 1 { // an unchanged line has its id once
			b.WriteString(`<td class="n `)
			b.WriteString(lineClasses[l.Kind])
			b.WriteString(`" id="`)
			f.writeID(b, l)
			b.WriteString(`">`)
		} else {
			b.WriteString(`<td class="n">`)
		}
		f.writeAnchor(b, l, number)
		b.WriteString(`</td><td class="s `)
		b.WriteString(lineClasses[l.Kind])
		b.WriteString(`">`)
		writeCode(b, l)
		b.WriteString("</td>")
	}
	b.WriteString("</tr>")
}

func (f *fileDiff) writeID(b *strings.Builder, l *diffLine) {
	b.WriteString(f.Anchor)
	b.WriteByte('_')
	b.WriteString(strconv.Itoa(l.OldAt))
	b.WriteByte('_')
	b.WriteString(strconv.Itoa(l.NewAt))
}

func (f *fileDiff) writeNumber(b *strings.Builder, l *diffLine, number int) {
	b.WriteString(`<td class="n">`)
	f.writeAnchor(b, l, number)
	b.WriteString("</td>")
}

// writeAnchor writes a line's number as a link to it; data-l has its numbers
// on both sides for the form of a note.
func (f *fileDiff) writeAnchor(b *strings.Builder, l *diffLine, number int) {
	if number == 0 {
		return
	}
	b.WriteString(`<a href="#`)
	f.writeID(b, l)
	b.WriteString(`" data-l="`)
	b.WriteString(strconv.Itoa(l.Old))
	b.WriteByte(',')
	b.WriteString(strconv.Itoa(l.New))
	b.WriteString(`">`)
	b.WriteString(strconv.Itoa(number))
	b.WriteString("</a>")
}

func writeCode(b *strings.Builder, l *diffLine) {
	if l.Parts == nil {
		b.WriteString(template.HTMLEscapeString(l.Text))
		return
	}
	for _, p := range l.Parts {
		if p.Mark {
			b.WriteString("<mark>")
		}
		b.WriteString(template.HTMLEscapeString(p.Text))
		if p.Mark {
			b.WriteString("</mark>")
		}
	}
}

// excerptRows renders the few lines that a thread is about.
func excerptRows(patch string) template.HTML {
	var b strings.Builder
	lines := parsePatch(patch)
	for i := range lines {
		if l := &lines[i]; l.Kind != '@' {
			b.WriteString(`<tr class="` + lineClasses[l.Kind] + `"><td class="n">`)
			b.WriteString(numberOrNone(l.Old) + `</td><td class="n">` + numberOrNone(l.New) + `</td><td class="s">`)
			b.WriteByte(l.Kind)
			writeCode(&b, l)
			b.WriteString("</td></tr>")
		}
	}
	return template.HTML(b.String()) //nolint:gosec // written by writeCode, which escapes
}

func numberOrNone(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// parsePatch reads hunks and marks what changed within lines.
func parsePatch(patch string) []diffLine {
	raw := forge.ParsePatch(patch)
	lines := make([]diffLine, len(raw))
	for i, l := range raw {
		lines[i].PatchLine = l
	}
	markWords(lines)
	return lines
}

// withQuery adds a query to an address that has none.
func withQuery(address string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return address + "?" + q.Encode()
}

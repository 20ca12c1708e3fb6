package slipway_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headline = regexp.MustCompile(`(?m)^#+ (.*)$`)
	pathName = regexp.MustCompile("`((?:internal|cmd|docs|e2e|scripts|bench|gitlab-ci|applications)/[\\w./-]*\\w)/?`")
	titleADR = regexp.MustCompile(`\A# (\d+)\. (.+)\n\nStatus: (accepted|proposed|replaced|withdrawn)`)
)

// documents are the Markdown files, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	read := func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		raw, err := os.ReadFile(path)
		out[path] = string(raw)
		return err
	}
	for _, root := range []string{"README.md", "docs", "applications", "gitlab-ci"} {
		if err := filepath.WalkDir(root, read); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// anchors are the headings of a document as a link names them.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	for _, m := range headline.FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out[strings.ReplaceAll(plain, " ", "-")] = true
	}
	return out
}

// TestDocumentLinks: what a document links to or names as a path of this tree
// is there.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	docs := documents(t)
	for file, text := range docs {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], ":") {
				continue // another place than this tree
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", file, m[1], err)
			} else if anchor != "" && !anchors(docs[target])[anchor] {
				t.Errorf("%s links to %s, which has no such heading", file, m[1])
			}
		}
		for _, m := range pathName.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(m[1]); err != nil {
				t.Errorf("%s names %s: %v", file, m[1], err)
			}
		}
	}
}

// TestDecisions: each decision has a number of its own, a title and a status,
// and the index lists it.
func TestDecisions(t *testing.T) {
	t.Parallel()
	index := documents(t)["docs/adr/README.md"]
	files, err := filepath.Glob("docs/adr/[0-9]*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	seen := map[string]string{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		m := titleADR.FindStringSubmatch(string(raw))
		if m == nil {
			t.Errorf("%s does not begin with \"# N. Title\" and \"Status: ...\"", file)
			continue
		}
		if n, err := strconv.Atoi(name[:4]); err != nil || strconv.Itoa(n) != m[1] {
			t.Errorf("%s calls itself number %s", file, m[1])
		}
		if other := seen[m[1]]; other != "" {
			t.Errorf("%s has the number of %s", file, other)
		}
		seen[m[1]] = file
		if row := "| [" + m[1] + "](" + name + ") | " + m[2] + " |\n"; !strings.Contains(index, row) {
			t.Errorf("docs/adr/README.md lacks the row %s", strings.TrimSpace(row))
		}
	}
}

package imagebase

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"
)

// aptSource is one entry of the host's package sources, by sources.list(5).
type aptSource struct {
	uri, suite string
	signedBy   string // keyring file; empty: the distribution's own
}

// hostSources reads the package sources of a host, whose root folder is given:
// etc/apt/sources.list and what lies in sources.list.d, in both formats.
// Entries that are off, of another kind than binary packages, or fetched in
// another way than by HTTP are left out. A host without apt has none.
func hostSources(root fs.FS) ([]aptSource, error) {
	files := []string{"etc/apt/sources.list"}
	entries, err := fs.ReadDir(root, "etc/apt/sources.list.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read package sources: %w", err)
	}
	for _, entry := range entries {
		if ext := path.Ext(entry.Name()); !entry.IsDir() && (ext == ".list" || ext == ".sources") {
			files = append(files, "etc/apt/sources.list.d/"+entry.Name())
		}
	}
	var all []aptSource
	for _, name := range files {
		raw, err := fs.ReadFile(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read package sources: %w", err)
		}
		if path.Ext(name) == ".sources" {
			all = append(all, parseDeb822(raw)...)
		} else {
			all = append(all, parseOneLine(raw)...)
		}
	}
	return slices.DeleteFunc(all, func(s aptSource) bool {
		parsed, err := url.Parse(s.uri)
		return err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https"
	}), nil
}

// parseOneLine reads "deb [options] uri suite components".
func parseOneLine(raw []byte) []aptSource {
	var out []aptSource
	for line := range strings.Lines(string(raw)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		kind, rest, _ := strings.Cut(line, " ")
		if kind != "deb" {
			continue
		}
		rest = strings.TrimSpace(rest)
		signedBy := ""
		if options, after, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]"); ok && strings.HasPrefix(rest, "[") {
			rest = after
			for _, option := range strings.Fields(options) {
				if value, ok := strings.CutPrefix(option, "signed-by="); ok {
					signedBy = value
				}
			}
		}
		if fields := strings.Fields(rest); len(fields) >= 2 {
			out = append(out, aptSource{fields[0], fields[1], signedBy})
		}
	}
	return out
}

// parseDeb822 reads stanzas of "Key: value" lines with continuations.
func parseDeb822(raw []byte) []aptSource {
	var out []aptSource
	stanza := map[string]string{}
	last := ""
	end := func() {
		enabled := strings.ToLower(stanza["enabled"])
		if slices.Contains(strings.Fields(stanza["types"]), "deb") && enabled != "no" && enabled != "false" {
			for _, uri := range strings.Fields(stanza["uris"]) {
				for _, suite := range strings.Fields(stanza["suites"]) {
					out = append(out, aptSource{uri, suite, strings.TrimSpace(stanza["signed-by"])})
				}
			}
		}
		stanza, last = map[string]string{}, ""
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.TrimSpace(line) == "":
			end()
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			stanza[last] += " " + strings.TrimSpace(line)
		default:
			key, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(strings.TrimSpace(key))
			stanza[last] = strings.TrimSpace(value)
		}
	}
	end()
	return out
}

// fromHost puts the host's own mirrors in the place of the public ones: those
// that it has for this suite, else, as a mirror carries all suites of a
// distribution, those that it has for another one of the same distribution.
// What the host has no mirror for stays public.
func (r release) fromHost(sources []aptSource) release {
	suites := map[string]bool{}
	for _, other := range releases {
		if other.vendor == r.vendor {
			suites[other.suite] = true
		}
	}
	find := func(suffix string) (aptSource, bool) {
		for _, s := range sources {
			if s.suite == r.suite+suffix {
				return s, true
			}
		}
		for _, s := range sources {
			if base, ok := strings.CutSuffix(s.suite, suffix); ok && suites[base] {
				return s, true
			}
		}
		return aptSource{}, false
	}
	main, known := find("")
	if !known {
		return r
	}
	public := r.mirror
	r.mirror = main.uri
	if path.IsAbs(main.signedBy) {
		r.keyring = main.signedBy
	}
	extra := make([]string, 0, len(r.extra))
	for _, one := range r.extra {
		suite, address, _ := strings.Cut(one, " ")
		if own, known := find(strings.TrimPrefix(suite, r.suite)); known {
			address = own.uri
		} else if address == public {
			address = r.mirror
		}
		extra = append(extra, suite+" "+address)
	}
	r.extra = extra
	return r
}

package web

import (
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// funcs are what templates may call.
func (s *Server) funcs() template.FuncMap {
	return template.FuncMap{
		"asset":    s.asset,
		"hasAsset": func(name string) bool { return s.hashes[name] != "" },
		"ago":      ago,
		"stamp":    stamp,
		"short":    short,
		"digest":   shortDigest,
		"bytes":    delivery.BytesText,
		"seconds":  humanSeconds,
		"projectPath": func(p *delivery.Project, parts ...string) string {
			return projectPath(p.FullPath, parts...)
		},
		"escapePath": escapePath,
		"groupPath":  groupPath,
		"avatarPath": s.avatarPath,
		"pathEscape": url.PathEscape,
		"archiveAction": func(archived bool) string {
			if archived {
				return "unarchive"
			}
			return "archive"
		},
		"minutes":     func(d time.Duration) int { return int(d / time.Minute) },
		"lower":       strings.ToLower,
		"has":         func(page string) bool { return s.pages[page] },
		"shortImage":  shortImage,
		"addressesOf": func(namespace string) []string { return s.addressesOf(namespace, everyRoute) },
		"words":       strings.Fields,
		"isAt":        isAt,
		"lines":       func(s string) []string { return strings.Split(s, "\n") },
		"title":       func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] },
		"atLeast":     func(have delivery.Role, want string) bool { return have >= roleNamed(want) },
		"dict":        dict,
		"inc":         func(i int) int { return i + 1 },
		"initial": func(s string) string {
			for _, r := range s {
				return strings.ToUpper(string(r))
			}
			return "?"
		},
		"hue": func(s string) int {
			h := 0
			for _, r := range s {
				h = (h*31 + int(r)) % 360
			}
			return h
		},
	}
}

// dict makes a map for a partial that needs several values.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("dict needs pairs, got %d values", len(pairs))
	}
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		key, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: key %v is not a string", pairs[i])
		}
		m[key] = pairs[i+1]
	}
	return m, nil
}

func roleNamed(name string) delivery.Role {
	for _, r := range []delivery.Role{delivery.Guest, delivery.Reporter, delivery.Developer, delivery.Maintainer, delivery.Owner} {
		if r.String() == name {
			return r
		}
	}
	return delivery.Owner + 1
}

// asset returns the address of a static file, with its hash so that it can be
// cached for good.
func (s *Server) asset(name string) string {
	return "/-/static/" + name + "?v=" + s.hashes[name]
}

// projectPath builds the path of a page of a project; with no parts, of its
// front page.
func projectPath(full string, parts ...string) string {
	p := "/" + full
	if len(parts) > 0 {
		p += "/-/" + strings.Join(parts, "/")
	}
	return p
}

// escapePath escapes each segment of a repository path for use in a URL.
func escapePath(p string) string {
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

func short(sha string) string {
	if len(sha) > 8 {
		return sha[:8]
	}
	return sha
}

// stamp is a time for machines and for hovering over.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// ago says how long ago a time was, in words.
func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := time.Since(t)
	future := d < 0
	if future {
		d = -d
	}
	s := "just now"
	for _, u := range []struct {
		span time.Duration
		name string
	}{{365 * 24 * time.Hour, "year"}, {30 * 24 * time.Hour, "month"}, {24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int(d / u.span); n > 0 {
			s = fmt.Sprintf("%d %s", n, u.name)
			if n > 1 {
				s += "s"
			}
			if future {
				return "in " + s
			}
			return s + " ago"
		}
	}
	return s
}

// humanSeconds writes a length of time given in seconds.
func humanSeconds(f float64) string {
	switch {
	case f <= 0:
		return "–"
	case f < 10:
		return fmt.Sprintf("%.1f s", f)
	case f < 60:
		return fmt.Sprintf("%.0f s", f)
	case f < 3600:
		return fmt.Sprintf("%d min %02d s", int(f)/60, int(f)%60)
	}
	return fmt.Sprintf("%d h %02d min", int(f)/3600, int(f)/60%60)
}

// setNotice shows a sentence on the next page.
func setNotice(w http.ResponseWriter, text string) {
	http.SetCookie(w, &http.Cookie{Name: "slipway_notice", Value: base64.RawURLEncoding.EncodeToString([]byte(text)), Path: "/", MaxAge: 60, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

func decodeNotice(v string) string {
	b, err := base64.RawURLEncoding.DecodeString(v)
	if err != nil || len(b) > 2000 {
		return ""
	}
	return string(b)
}

// redirect sends the browser to a page after a form has been handled.
func redirect(w http.ResponseWriter, r *Request, to, notice string) error {
	if notice != "" {
		setNotice(w, notice)
	}
	http.Redirect(w, r.Request, to, http.StatusSeeOther)
	return nil
}

// localPath returns a return address only when it stays on this site.
func localPath(p string) string {
	u, err := url.Parse(p)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.Contains(p, `\`) {
		return "/"
	}
	return p
}

// isAt tells whether an address is a page or below it.
func isAt(address, page string) bool {
	path, _, _ := strings.Cut(address, "?")
	return path == page || strings.HasPrefix(path, page+"/")
}

package web

import (
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// badge answers /-/badges/REF/pipeline.svg and coverage.svg with the state of
// the ref's newest pipeline.
func (s *Server) badge(w http.ResponseWriter, r *Request) error {
	path := r.PathValue("path")
	cut := strings.LastIndexByte(path, '/')
	if cut < 0 {
		return notFound()
	}
	ref, kind := path[:cut], strings.TrimSuffix(path[cut+1:], ".svg")
	if kind != "pipeline" && kind != "coverage" || !strings.HasSuffix(path, ".svg") {
		return notFound()
	}
	value, color := "unknown", "#9f9f9f"
	p, err := s.Pipelines.RefPipeline(r.Context(), r.Project.ID, ref)
	if err != nil && !delivery.IsNotFound(err) {
		return err
	}
	if err == nil && kind == "pipeline" {
		value, color = strings.ToLower(ciWord(p.Status)), badgeColors[p.Status]
	}
	if err == nil && kind == "coverage" {
		coverage, err := s.Pipelines.Coverage(r.Context(), p.ID)
		if err != nil {
			return err
		}
		if coverage != nil {
			value, color = fmt.Sprintf("%.2f%%", *coverage), coverageColor(*coverage)
		}
	}
	if color == "" {
		color = "#9f9f9f"
	}
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	h.Set("Cache-Control", "private, no-cache, no-store, must-revalidate")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	if _, err := w.Write([]byte(badgeSVG(kind, value, color))); err != nil {
		return &delivery.Error{Kind: delivery.Canceled, Err: err}
	}
	return nil
}

var badgeColors = map[string]string{"success": "#2f9e5a", "failed": "#d0453b", "running": "#2f74c9", "pending": "#c98a12", "canceled": "#6b7780", "manual": "#6b7780", "skipped": "#9f9f9f"}

func coverageColor(percent float64) string {
	switch {
	case percent >= 95:
		return "#2f9e5a"
	case percent >= 90:
		return "#7fae2a"
	case percent >= 75:
		return "#c98a12"
	}
	return "#d0453b"
}

func badgeSVG(label, value, color string) string {
	left, right := 12+7*len(label), 12+7*len(value)
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="20" role="img" aria-label="%[4]s: %[5]s"><title>%[4]s: %[5]s</title>`+
		`<clipPath id="a"><rect width="%[1]d" height="20" rx="3"/></clipPath><g clip-path="url(#a)"><path fill="#555" d="M0 0h%[2]dv20H0z"/><path fill="%[6]s" d="M%[2]d 0h%[3]dv20H%[2]dz"/></g>`+
		`<g fill="#fff" text-anchor="middle" font-family="DejaVu Sans,Verdana,Geneva,sans-serif" font-size="11"><text x="%[7]d" y="14">%[4]s</text><text x="%[8]d" y="14">%[5]s</text></g></svg>`,
		left+right, left, right, template.HTMLEscapeString(label), template.HTMLEscapeString(value), color, left/2, left+right/2)
}

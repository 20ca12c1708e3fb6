package registry

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// policyJSON has the members of GitLab's container_expiration_policy.
type policyJSON struct {
	Enabled   bool       `json:"enabled"`
	Cadence   string     `json:"cadence"`
	KeepN     int        `json:"keep_n"`
	OlderThan string     `json:"older_than"`
	NameRegex string     `json:"name_regex"`
	KeepRegex string     `json:"name_regex_keep"`
	NextRunAt *time.Time `json:"next_run_at,omitempty"`
}

func (h *routes) policy(w http.ResponseWriter, r *api.Request) error {
	p, err := h.r.Policy(r.Context(), r.Project.ID)
	if err != nil {
		return err
	}
	out := policyJSON{Enabled: p.Enabled, Cadence: ageText(p.Cadence), KeepN: p.KeepN, OlderThan: ageText(p.OlderThan), NameRegex: p.NameRegex, KeepRegex: p.KeepRegex}
	if !p.NextRun.IsZero() {
		out.NextRunAt = &p.NextRun
	}
	return api.WriteJSON(w, http.StatusOK, out)
}

func ageText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return fmt.Sprintf("%dh", d/time.Hour)
}

// decodePolicy reads a policy; what the body leaves out is as the project has
// it.
func (h *routes) decodePolicy(r *api.Request) (Policy, error) {
	now, err := h.r.Policy(r.Context(), r.Project.ID)
	if err != nil {
		return Policy{}, err
	}
	in := policyJSON{Enabled: now.Enabled, Cadence: ageText(now.Cadence), KeepN: now.KeepN, OlderThan: ageText(now.OlderThan), NameRegex: now.NameRegex, KeepRegex: now.KeepRegex}
	if err := api.Decode(r, &in); err != nil {
		return Policy{}, err
	}
	cadence, err := parseAge(in.Cadence)
	if err != nil {
		return Policy{}, delivery.Errorf(delivery.Invalid, "cadence is invalid (use 1d, 7d, 14d, 1month)")
	}
	older, err := parseAge(in.OlderThan)
	if err != nil {
		return Policy{}, delivery.Errorf(delivery.Invalid, "older_than is invalid (use 7d, 14d, 30d, 60d, 90d)")
	}
	return Policy{ProjectID: r.Project.ID, Enabled: in.Enabled, Cadence: cadence, KeepN: in.KeepN,
		OlderThan: older, NameRegex: in.NameRegex, KeepRegex: in.KeepRegex}, nil
}

func (h *routes) setPolicy(w http.ResponseWriter, r *api.Request) error {
	p, err := h.decodePolicy(r)
	if err != nil {
		return err
	}
	if err := h.r.SetPolicy(r.Context(), p); err != nil {
		return err
	}
	return h.policy(w, r)
}

type expiringJSON struct {
	Repository string    `json:"repository"`
	Tag        string    `json:"tag"`
	Digest     string    `json:"digest"`
	Size       int64     `json:"size"`
	PushedAt   time.Time `json:"pushed_at"`
}

// previewPolicy lists what the policy in the body, or the project's own, would
// remove now.
func (h *routes) previewPolicy(w http.ResponseWriter, r *api.Request) error {
	p, err := h.decodePolicy(r)
	if err != nil {
		return err
	}
	expiring, err := h.r.Preview(r.Context(), p)
	if err != nil {
		return err
	}
	out := []expiringJSON{}
	for _, e := range expiring {
		out = append(out, expiringJSON{e.Repository, e.Name, e.Digest, e.Size, e.PushedAt.UTC()})
	}
	return api.WriteJSON(w, http.StatusOK, out)
}

// parseAge reads GitLab's ages: 1h, 7d, 2w, 1month; and 7d, 90d of its policies.
func parseAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	const day = 24 * time.Hour
	units := map[string]time.Duration{"min": time.Minute, "h": time.Hour, "d": day, "w": 7 * day, "month": 30 * day, "months": 30 * day, "y": 365 * day}
	i := strings.IndexFunc(s, func(c rune) bool { return c < '0' || c > '9' })
	if i <= 0 {
		return 0, fmt.Errorf("registry: age %q", s)
	}
	n, err := strconv.ParseInt(s[:i], 10, 32)
	unit, ok := units[strings.TrimSpace(s[i:])]
	if err != nil || !ok || n > 100_000 {
		return 0, fmt.Errorf("registry: age %q", s)
	}
	return time.Duration(n) * unit, nil
}

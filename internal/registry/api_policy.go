package registry

import (
	"context"
	"encoding/json"
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
	return api.WriteJSON(w, http.StatusOK, p.describe())
}

func (p Policy) describe() policyJSON {
	out := policyJSON{Enabled: p.Enabled, Cadence: cadenceText(p.Cadence), KeepN: p.KeepN, OlderThan: ageText(p.OlderThan), NameRegex: p.NameRegex, KeepRegex: p.KeepRegex}
	if !p.NextRun.IsZero() {
		out.NextRunAt = &p.NextRun
	}
	return out
}

// ProjectFields returns what GitLab's project API says of a project's images,
// by name: the container_expiration_policy.
func (r *Registry) ProjectFields(ctx context.Context, projectID int64) (map[string]any, error) {
	p, err := r.Policy(ctx, projectID)
	if err != nil {
		return nil, err
	}
	return map[string]any{"container_expiration_policy": p.describe()}, nil
}

// ChangeProjectFields changes the policy by the member
// container_expiration_policy_attributes of a request to GitLab's project API,
// where it has one: decode fills what it is given.
func (r *Registry) ChangeProjectFields(ctx context.Context, projectID int64, decode func(any) error) error {
	now, err := r.Policy(ctx, projectID)
	if err != nil {
		return err
	}
	var in struct {
		Attributes json.RawMessage `json:"container_expiration_policy_attributes"`
	}
	if err := decode(&in); err != nil || len(in.Attributes) == 0 || string(in.Attributes) == "null" {
		return err
	}
	wanted := now.describe()
	if err := json.Unmarshal(in.Attributes, &wanted); err != nil {
		return delivery.Errorf(delivery.Invalid, "container_expiration_policy_attributes is invalid: %v", err)
	}
	p, err := wanted.policy(projectID)
	if err != nil {
		return err
	}
	return r.SetPolicy(ctx, p)
}

// cadenceText writes a cadence as GitLab does: 1d, 7d, 14d, 1month, 3month.
func cadenceText(d time.Duration) string {
	const month = 30 * 24 * time.Hour
	if d == month || d == 3*month {
		return fmt.Sprintf("%dmonth", d/month)
	}
	return ageText(d)
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
	in := now.describe()
	if err := api.Decode(r, &in); err != nil {
		return Policy{}, err
	}
	return in.policy(r.Project.ID)
}

// policy reads the ages of a policy.
func (in policyJSON) policy(projectID int64) (Policy, error) {
	cadence, err := parseAge(in.Cadence)
	if err != nil {
		return Policy{}, delivery.Errorf(delivery.Invalid, "cadence is invalid (use 1d, 7d, 14d, 1month)")
	}
	older, err := parseAge(in.OlderThan)
	if err != nil {
		return Policy{}, delivery.Errorf(delivery.Invalid, "older_than is invalid (use 7d, 14d, 30d, 60d, 90d)")
	}
	return Policy{ProjectID: projectID, Enabled: in.Enabled, Cadence: cadence, KeepN: in.KeepN,
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

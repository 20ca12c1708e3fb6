package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/PuerkitoBio/goquery"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/scan/report"
)

// page renders a page of the project team/app and returns it for selectors.
func page(t *testing.T, name string, role delivery.Role, data any) *goquery.Document {
	t.Helper()
	s, err := New(Deps{})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	r := &Request{Request: httptest.NewRequest(http.MethodGet, "/", nil), Project: &delivery.Project{ID: 1, FullPath: "team/app", Name: "app", DefaultBranch: "main"}, Role: role}
	if err := s.render(rec, r, http.StatusOK, name, Page{Title: "x", Active: "registry", Data: data}); err != nil {
		t.Fatal(err)
	}
	doc, err := goquery.NewDocumentFromReader(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestImagePages(t *testing.T) {
	t.Parallel()
	digest := "sha256:1215f5f6af92c56bb394c770cb73ed2f8628e08ad4d7aa346952416af03710a5"
	now := time.Now()
	repo := registry.Repository{ID: 3, ProjectID: 1, Path: "team/app/worker", Tags: 1, Images: 2, Size: 2048, CreatedAt: now}
	findings := []report.Finding{
		{Kind: report.Vulnerability, ID: "CVE-1", Severity: report.Critical, Package: "a", Installed: "1", Fixed: "2", Title: "<b>first</b>", URL: "javascript:alert(1)"},
		{Kind: report.Vulnerability, ID: "CVE-1", Severity: report.Critical, Package: "b", Installed: "1"},
		{Kind: report.Secret, ID: "token", Severity: report.High, Target: "app/x.env", Line: 3, Title: "a token"},
	}
	scanned := &scan.Scan{Status: scan.Success, Counts: report.Counts(findings), Report: &report.Report{
		Scanner: "Trivy 0", Findings: findings, Notes: []string{"Java was not examined."}, Database: report.Database{UpdatedAt: now, Origin: "x", Demonstration: true, Note: "Not for real."},
	}}
	image := registry.Image{Digest: digest, Size: 2048, OS: "linux", Architecture: "amd64", Tags: []string{"v1"}, PushedAt: now, JobID: 7, Labels: map[string]string{"a": "b"},
		References: []registry.Descriptor{{Kind: registry.ConfigReference, Digest: digest}, {Kind: registry.LayerReference, Digest: digest, Size: 5, CreatedBy: "RUN x"}}}

	doc := page(t, "images", delivery.Maintainer, imagesView{Host: "h:1", Prefix: "h:1/team/app", Repositories: []registry.Repository{repo}, CadenceDays: 1})
	if got := doc.Find("td strong").Text(); got != "worker" {
		t.Errorf("repository %q", got)
	}
	if doc.Find("form[action$='container_registry/policy']").Length() != 1 {
		t.Error("a maintainer cannot set the policy")
	}
	if page(t, "images", delivery.Developer, imagesView{}).Find("form[action$='policy']").Length() != 0 {
		t.Error("a developer can set the policy")
	}

	going := []registry.Expiring{{Repository: "team/app/worker", Tag: registry.Tag{Name: "old", Digest: digest, PushedAt: now}}}
	doc = page(t, "images", delivery.Maintainer, imagesView{Host: "h:1", Prefix: "h:1/team/app", CadenceDays: 1, Previewed: true, Going: going})
	if doc.Find("#preview td strong").Text() != "old" || doc.Find("button[formaction$='policy/preview#preview']").Length() != 1 {
		t.Error("the preview of a policy lacks its tags or its button")
	}

	doc = page(t, "imagetags", delivery.Developer, imageTagsView{Host: "h:1", Repository: repo, MayDelete: true, Tags: []imageTag{{registry.Tag{Name: "v1", Digest: digest, JobID: 7, PushedAt: now}, "", scanned, ""}}, Untagged: []registry.Image{image}})
	if doc.Find("a[href='/team/app/-/jobs/7']").Length() != 1 || doc.Find(".s-critical").Text() != "2 critical" || doc.Find("form[action$='tags/v1/delete']").Length() != 1 {
		t.Error("the list of tags lacks the job, the scan or the removal")
	}

	doc = page(t, "imagetags", delivery.Developer, imageTagsView{Host: "h:1", Repository: repo, Search: "zz", Next: "?page=2"})
	if doc.Find("td.empty").Text() != "No tag has “zz” in its name." || doc.Find("a[rel=next][href='?page=2']").Length() != 1 || doc.Find("input[aria-label='Find a tag']").AttrOr("value", "") != "zz" {
		t.Error("the list of tags cannot be searched or paged")
	}

	doc = page(t, "image", delivery.Developer, imageView{Host: "h:1", Repository: repo, Image: image, Scan: scanned, Findings: groupFindings(findings), HasCluster: true, RunsKnown: true, Running: []string{"default/web"}, MayScan: true})
	if n := doc.Find("#findings tbody").Length(); n != 2 {
		t.Errorf("%d findings, want 2: one problem is told once", n)
	}
	for selector, want := range map[string]string{".notice": "This is a demonstration database. Not for real.", ".alert": "Java was not examined.", "h1": "team/app/worker:v1"} {
		if got := doc.Find(selector).First().Text(); got != want {
			t.Errorf("%s: %q", selector, got)
		}
	}
	if doc.Find("b:contains(first)").Length() != 0 || doc.Find("a[href^='javascript:']").Length() != 0 {
		t.Error("a finding's text became markup")
	}
	failed := &scan.Scan{Status: scan.Failed, Error: "There is no vulnerability database."}
	if got := page(t, "image", delivery.Reporter, imageView{Repository: repo, Image: image, Scan: failed}).Find(".alert").Text(); got != failed.Error {
		t.Errorf("a failed scan says %q", got)
	}
}

func TestImageProtectionsPage(t *testing.T) {
	t.Parallel()
	rules := imageProtectionsView{Base: "/team/app/-/settings/registry", Path: "team/app", Error: "has already been taken", Tag: "^v",
		Repositories: []registry.Protection{{ID: 1, Pattern: "/prod-*", Push: delivery.Maintainer}},
		Tags:         []registry.Protection{{ID: 2, Tags: true, Pattern: "^v", Push: delivery.Owner, Delete: registry.Administrator}, {ID: 3, Tags: true, Pattern: "x", Immutable: true}}}
	doc := page(t, "image_protections", delivery.Maintainer, rules)
	if got := doc.Find("#tags tbody tr").First().Find("td").Slice(1, 3).Text(); got != "ownersadministrators" {
		t.Errorf("levels of a tag rule: %s", got)
	}
	if got := doc.Find("#repositories tbody td").Text(); got != "team/app/prod-*maintainers and abovedevelopers and aboveDelete" {
		t.Errorf("the repository rule: %s", got)
	}
	if doc.Find("#tags .badge").Text() != "immutable" || doc.Find("#tags form[action$='unprotect']").Length() != 1 || doc.Find("option[value=immutable]").Length() != 0 {
		t.Error("a maintainer may make or delete a rule for immutable tags")
	}
	if doc.Find("#tags input[name=pattern]").AttrOr("value", "") != "^v" || !strings.Contains(doc.Text(), "has already been taken") {
		t.Error("what was typed, or why it was refused, is lost")
	}
	rules.MayImmutable = true
	if doc = page(t, "image_protections", delivery.Owner, rules); doc.Find("#tags form[action$='unprotect']").Length() != 2 || doc.Find("option[value=immutable]").Length() != 1 {
		t.Error("an owner cannot make or delete a rule for immutable tags")
	}
}

package registry_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/registry"
)

// refused checks that an error of a client says all of the words.
func refused(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s was let through", what)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v: lacks %q", what, err, word)
		}
	}
}

func TestProtectedTags(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	project := f.people.add("G/app", delivery.Private)
	by := registry.Caller{Project: project, Level: delivery.Owner}
	one, two := image(t, 1), image(t, 1)
	f.push("g/app/web:v1", one, as("dev"))
	rule, err := f.Protect(t.Context(), by, registry.Protection{Tags: true, Pattern: "^v.*", Push: delivery.Maintainer, Delete: delivery.Owner})
	if err != nil {
		t.Fatal(err)
	}

	refused(t, "a developer's push", remote.Write(f.ref("g/app/web:v1"), two, as("dev")), "DENIED", "The tag v1 of g/app/web", "maintainers and above", "you are developer")
	refused(t, "a job's push", remote.Write(f.ref("g/app/web:v2"), two, asJob(project.ID)), "DENIED", "you are developer")
	f.push("g/app/web:latest", two, as("dev"))
	f.push("g/app/web:v2", two, as("main"))
	refused(t, "a maintainer's deletion", remote.Delete(f.ref("g/app/web:v2"), as("main")), "DENIED", "may be deleted by owners and above")
	refused(t, "a deletion by digest", remote.Delete(f.ref("g/app/web@"+digestOf(t, two)), as("main")), "The tag v2")
	if err := remote.Delete(f.ref("g/app/web:v2"), as("own")); err != nil {
		t.Error(err)
	}

	// A clean-up policy leaves protected tags alone.
	policy := registry.Policy{ProjectID: project.ID, NameRegex: ".*"}
	f.push("g/app/web:old", one, as("dev"))
	going, err := f.Preview(t.Context(), policy)
	if err != nil || len(going) != 1 || going[0].Name != "old" {
		t.Errorf("would go: %+v, %v", going, err)
	}

	rule.Push, rule.Delete = registry.Administrator, registry.Administrator
	if err := f.ChangeProtection(t.Context(), by, rule); err != nil {
		t.Fatal(err)
	}
	refused(t, "an owner's push", remote.Write(f.ref("g/app/web:v3"), two, as("own")), "administrators only", "you are owner")
	f.push("g/app/web:v3", two, as("admin"))
	if err := f.Unprotect(t.Context(), by, rule.ID, true); err != nil {
		t.Fatal(err)
	}
	f.push("g/app/web:v3", one, as("dev"))
}

func TestImmutableTags(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	project := f.people.add("g/app", delivery.Private)
	by := registry.Caller{Project: project, Level: delivery.Maintainer}
	rule := registry.Protection{Tags: true, Pattern: `\d+\.\d+\.\d+`, Immutable: true}
	if _, err := f.Protect(t.Context(), by, rule); delivery.KindOf(err) != delivery.Forbidden {
		t.Errorf("a maintainer made a rule for immutable tags: %v", err)
	}
	by.Level = delivery.Owner
	rule, err := f.Protect(t.Context(), by, rule)
	if err != nil {
		t.Fatal(err)
	}
	one, two := image(t, 1), image(t, 1)
	f.push("g/app:1.0.0", one, as("dev"))
	f.push("g/app:1.0.0", one, as("dev")) // a job that is run again
	refused(t, "an administrator's push", remote.Write(f.ref("g/app:1.0.0"), two, as("admin")), "DENIED", "immutable", "pushed again")
	refused(t, "an administrator's deletion", remote.Delete(f.ref("g/app:1.0.0"), as("admin")), "immutable", "cannot be deleted")
	refused(t, "a deletion by digest", remote.Delete(f.ref("g/app@"+digestOf(t, one)), as("admin")), "immutable")
	f.push("g/app:next", two, as("dev"))

	// Of two that make the same tag at once, one succeeds.
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		img := image(t, 1)
		wg.Go(func() { errs[i] = remote.Write(f.ref("g/app:1.0.1"), img, as("dev")) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else {
			refused(t, "the second", err, "immutable")
		}
	}
	if made != 1 {
		t.Errorf("an immutable tag was made %d times: %v", made, errs)
	}
	if err := f.ChangeProtection(t.Context(), by, registry.Protection{ID: rule.ID, Tags: true, Pattern: "x", Push: delivery.Owner, Delete: delivery.Owner}); delivery.KindOf(err) != delivery.Conflict {
		t.Errorf("a rule for immutable tags changed: %v", err)
	}
}

func TestProtectedRepositories(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	project := f.people.add("g/app", delivery.Private)
	by := registry.Caller{Project: project, Level: delivery.Maintainer}
	img := image(t, 1)
	f.push("g/app/prod-web:a", img, as("dev"))
	if _, err := f.Protect(t.Context(), by, registry.Protection{Pattern: "/prod-*", Push: delivery.Maintainer}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Protect(t.Context(), by, registry.Protection{Pattern: "/prod-web", Delete: delivery.Owner}); err != nil {
		t.Fatal(err)
	}
	refused(t, "a developer's push", remote.Write(f.ref("g/app/prod-web:b"), image(t, 1), as("dev")), "DENIED", "The repository g/app/prod-web", "maintainers and above")
	refused(t, "a developer's tag of what is there", remote.Tag(f.ref("g/app/prod-web:c").Context().Tag("c"), img, as("dev")), "DENIED")
	f.push("g/app/prod-web:b", img, as("main"))
	f.push("g/app/web:b", img, as("dev"))
	refused(t, "a maintainer's deletion", remote.Delete(f.ref("g/app/prod-web:b"), as("main")), "may be deleted by owners")
	repos, err := f.Repositories(t.Context(), project.ID)
	if err != nil || len(repos) != 2 {
		t.Fatal(repos, err)
	}
	if err := f.RemoveRepository(t.Context(), by, repos[0]); delivery.KindOf(err) != delivery.Forbidden {
		t.Errorf("the repository was removed: %v", err)
	}
	by.Level = delivery.Owner
	if err := f.RemoveRepository(t.Context(), by, repos[0]); err != nil {
		t.Error(err)
	}
	if err := f.DeleteProject(t.Context(), project.ID); err != nil {
		t.Error(err)
	}
	if rules, err := f.Protections(t.Context(), project.ID); err != nil || len(rules) != 0 {
		t.Errorf("the rules outlive the project: %+v, %v", rules, err)
	}
}

// TestProtectionREST: GitLab's API of protection rules.
func TestProtectionREST(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.people.add("g/app", delivery.Private)
	f.push("g/app:v1", image(t, 1), as("dev"))
	rt := api.NewRouter(basic{f.people}, f.people, slog.New(slog.DiscardHandler))
	f.Routes(rt, "registry.example:8080")
	const tags, repositories = "/projects/g%2Fapp/registry/protection/tag/rules", "/projects/g%2Fapp/registry/protection/repository/rules"
	for i, c := range []struct {
		user, method, path, body string
		status                   int
		contains                 string
	}{
		{"dev", "GET", tags, "", 403, ""},
		{"main", "GET", tags, "", 200, "[]"},
		{"main", "POST", tags, `{"tag_name_pattern":"^v","minimum_access_level_for_push":"maintainer","minimum_access_level_for_delete":"owner"}`, 201,
			`{"id":1,"immutable":false,"minimum_access_level_for_delete":"owner","minimum_access_level_for_push":"maintainer","project_id":1,"tag_name_pattern":"^v"}`},
		{"main", "POST", tags, `{"tag_name_pattern":"^v","minimum_access_level_for_push":"owner","minimum_access_level_for_delete":"owner"}`, 422, "has already been taken"},
		{"main", "POST", tags, `{"tag_name_pattern":"(","minimum_access_level_for_push":"owner","minimum_access_level_for_delete":"owner"}`, 422, "not valid RE2 syntax"},
		{"main", "POST", tags, `{"tag_name_pattern":"x"}`, 400, "minimum_access_level_for_delete is missing, minimum_access_level_for_push is missing"},
		{"main", "POST", tags, `{"tag_name_pattern":"x","minimum_access_level_for_push":"developer","minimum_access_level_for_delete":"owner"}`, 400, "none of maintainer, owner and admin"},
		{"main", "POST", tags, `{"tag_name_pattern":"x","immutable":true}`, 403, "owners"},
		{"own", "POST", tags, `{"tag_name_pattern":"x","immutable":true}`, 201, `"immutable":true,"minimum_access_level_for_delete":null,"minimum_access_level_for_push":null`},
		{"own", "PATCH", tags + "/2", `{"minimum_access_level_for_push":"owner"}`, 422, "Operation not allowed"},
		{"main", "DELETE", tags + "/2", "", 403, "owners"},
		{"own", "DELETE", tags + "/2", "", 204, ""},
		{"main", "PATCH", tags + "/1", `{"tag_name_pattern":"^v1"}`, 200, `"minimum_access_level_for_push":"maintainer","project_id":1,"tag_name_pattern":"^v1"`},
		{"main", "PATCH", tags + "/1", `{"minimum_access_level_for_push":""}`, 422, "should either both be present or both be nil"},
		{"main", "PATCH", tags + "/1", `{"minimum_access_level_for_push":"","minimum_access_level_for_delete":""}`, 422, "Cannot create an immutable tag rule from a protection rule"},
		{"main", "PATCH", tags + "/9", `{"tag_name_pattern":"y"}`, 404, ""},
		{"main", "POST", repositories, `{"repository_path_pattern":"other/app","minimum_access_level_for_push":"owner"}`, 422, "should start with the project's full path g/app"},
		{"main", "POST", repositories, `{"repository_path_pattern":"g/appendix","minimum_access_level_for_push":"owner"}`, 422, "valid container repository path"},
		{"main", "POST", repositories, `{"repository_path_pattern":"g/app/x*"}`, 422, "at least a minimum access role"},
		{"main", "POST", repositories, `{"repository_path_pattern":"G/app/x*","minimum_access_level_for_push":"admin"}`, 201, `"minimum_access_level_for_delete":null,"minimum_access_level_for_push":"admin","project_id":1,"repository_path_pattern":"g/app/x*"`},
		{"main", "PATCH", repositories + "/1", `{}`, 404, ""},
		{"main", "PATCH", repositories + "/x", `{}`, 400, "protection_rule_id"},
		{"main", "GET", repositories, "", 200, `"repository_path_pattern":"g/app/x*"`},
		{"dev", "DELETE", "/projects/g%2Fapp/registry/repositories/1/tags/v1", "", 403, "may be deleted by owners and above"},
		{"own", "DELETE", "/projects/g%2Fapp/registry/repositories/1/tags/v1", "", 200, ""},
	} {
		status, body := f.call(rt, c.user, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(strings.ReplaceAll(body, `\u0026`, "&"), c.contains) {
			t.Errorf("%d: %s %s %s %s: %d %s", i, c.user, c.method, c.path, c.body, status, body)
		}
	}
	for i := range 4 {
		body, err := json.Marshal(map[string]any{"tag_name_pattern": fmt.Sprint("t", i), "minimum_access_level_for_push": "owner", "minimum_access_level_for_delete": "owner"})
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := f.call(rt, "main", "POST", tags, string(body)); status != 201 {
			t.Errorf("rule %d: %d %s", i, status, answer)
		}
	}
	if status, answer := f.call(rt, "main", "POST", tags, `{"tag_name_pattern":"z","minimum_access_level_for_push":"owner","minimum_access_level_for_delete":"owner"}`); status != 422 || !strings.Contains(answer, "A project may have 5 such rules") {
		t.Errorf("a sixth rule: %d %s", status, answer)
	}
}

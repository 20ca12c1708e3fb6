package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/delivery"
)

type fakeAuth struct{}

func (fakeAuth) Authenticate(r *http.Request) (delivery.Identity, error) {
	switch r.Header.Get("PRIVATE-TOKEN") {
	case "":
		return delivery.Identity{}, nil
	case "ann":
		return delivery.Identity{Kind: delivery.PersonalToken, User: &delivery.User{ID: 1}, Scopes: []string{"read_api"}}, nil
	case "bob":
		return delivery.Identity{Kind: delivery.SessionUser, User: &delivery.User{ID: 2}}, nil
	}
	return delivery.Identity{}, &delivery.Error{Kind: delivery.Unauthenticated, Message: "401 Unauthorized"}
}

func (fakeAuth) VisibleProject(_ context.Context, who delivery.Identity, ref string) (delivery.Project, delivery.Role, error) {
	if ref != "group/app" || !who.Signed() {
		return delivery.Project{}, 0, &delivery.Error{Kind: delivery.NotFound, Message: "Project Not Found"}
	}
	if who.User.ID == 1 {
		return delivery.Project{ID: 5}, delivery.Maintainer, nil
	}
	return delivery.Project{ID: 5}, delivery.Reporter, nil
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	rt := NewRouter(fakeAuth{}, fakeAuth{}, slog.New(slog.DiscardHandler))
	ok := func(w http.ResponseWriter, r *Request) error {
		return WriteJSON(w, 200, map[string]any{"id": r.Project.ID})
	}
	rt.Handle("GET /projects/{project}/jobs", Need{Role: delivery.Guest}, ok)
	rt.Handle("POST /projects/{project}/jobs", Need{Role: delivery.Developer}, ok)
	rt.Handle("GET /version", Need{}, ok)
	for _, c := range []struct {
		method, path, token string
		status              int
		body                string
	}{
		{"GET", "/projects/group%2Fapp/jobs", "ann", 200, `{"id":5}`},
		{"GET", "/projects/group%2Fapp/jobs", "", 404, `{"message":"404 Project Not Found"}`},
		{"GET", "/projects/other/jobs", "bob", 404, `{"message":"404 Project Not Found"}`},
		{"POST", "/projects/group%2Fapp/jobs", "bob", 403, `{"message":"403 Forbidden"}`},
		{"POST", "/projects/group%2Fapp/jobs", "ann", 403, `scopes`},
		{"POST", "/projects/group%2Fapp/jobs", "", 401, `{"message":"401 Unauthorized"}`},
		{"GET", "/version", "", 401, `401`},
		{"GET", "/version", "wrong", 401, `401`},
		{"GET", "/nothing", "bob", 404, `{"message":"404 Not Found"}`},
	} {
		req := httptest.NewRequest(c.method, "/api/v4"+c.path, nil)
		req.Header.Set("PRIVATE-TOKEN", c.token)
		w := httptest.NewRecorder()
		rt.ServeHTTP(w, req)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s as %q: %d %s; want %d %s", c.method, c.path, c.token, w.Code, w.Body, c.status, c.body)
		}
	}
}

func TestDecodeTakesFormsQueriesAndJSON(t *testing.T) {
	t.Parallel()
	type params struct {
		Name  string            `json:"name"`
		Count int               `json:"count"`
		On    *bool             `json:"on"`
		Tags  []string          `json:"tags"`
		IDs   []int64           `json:"ids"`
		Vars  map[string]string `json:"vars"`
	}
	for _, c := range []struct{ query, media, body string }{
		{"?name=12&count=3&on=true&tags=a,b&ids[]=1&ids[]=2&vars[x]=y", "", ""},
		{"", "application/x-www-form-urlencoded", "name=12&count=3&on=true&tags[]=a&tags[]=b&ids[]=1&ids[]=2&vars[x]=y"},
		{"?name=overridden", "application/json", `{"name":"12","count":3,"on":true,"tags":["a","b"],"ids":[1,2],"vars":{"x":"y"}}`},
	} {
		req := httptest.NewRequest("POST", "/"+c.query, strings.NewReader(c.body))
		req.Header.Set("Content-Type", c.media)
		var p params
		if err := Decode(&Request{Request: req}, &p); err != nil {
			t.Fatal(err)
		}
		if p.Name != "12" || p.Count != 3 || p.On == nil || !*p.On || len(p.Tags) != 2 || len(p.IDs) != 2 || p.Vars["x"] != "y" {
			t.Errorf("%+v from %+v", p, c)
		}
	}
}

func TestPaginationHeaders(t *testing.T) {
	t.Parallel()
	req := httptest.NewRequest("GET", "http://x/api/v4/projects?page=2&per_page=10&private_token=s", nil)
	w := httptest.NewRecorder()
	PageOf(req).WriteHeaders(w, req, 25)
	h := w.Header()
	if h.Get("X-Next-Page") != "3" || h.Get("X-Prev-Page") != "1" || h.Get("X-Total-Pages") != "3" {
		t.Errorf("%v", h)
	}
	if link := h.Get("Link"); !strings.Contains(link, `rel="next"`) || strings.Contains(link, "private_token") {
		t.Error(link)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("application/json", "a=1&list[]=x", []byte(`{"name":"x","count":3,"on":true,"tags":["a"],"more":{"k":"v"}}`))
	f.Add("application/x-www-form-urlencoded", "", []byte("name=x&count=x&tags[]=a&tags[]=b&more[k]=v"))
	f.Add("multipart/form-data; boundary=x", "", []byte("--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nv\r\n--x--\r\n"))
	f.Add("application/json", "count=99999999999999999999", []byte("null"))
	f.Fuzz(func(t *testing.T, media, query string, body []byte) {
		var v struct {
			Name  string            `json:"name"`
			Count int64             `json:"count"`
			On    *bool             `json:"on"`
			Tags  []string          `json:"tags"`
			IDs   []int64           `json:"ids"`
			More  map[string]string `json:"more"`
			Deep  struct {
				Value *string `json:"value"`
			} `json:"deep"`
		}
		req := httptest.NewRequest("POST", "/", strings.NewReader(string(body)))
		req.URL.RawQuery = query
		req.Header.Set("Content-Type", media)
		if err := Decode(&Request{Request: req}, &v); err != nil && delivery.KindOf(err) == delivery.InternalError {
			t.Errorf("%v", err)
		}
	})
}

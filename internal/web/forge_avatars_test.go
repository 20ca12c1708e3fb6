package web_test

import (
	"bytes"
	"image"
	"image/png"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/delivery"
)

// sendPicture sends a picture as a form does.
func (s *site) sendPicture(who, path string, body []byte) *http.Response {
	s.t.Helper()
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	f, err := m.CreateFormFile("avatar", "a.png")
	s.must(err)
	_, err = f.Write(body)
	s.must(err)
	s.must(m.Close())
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, s.server.URL+path, &form)
	s.must(err)
	req.Header.Set("Content-Type", m.FormDataContentType())
	req.AddCookie(&http.Cookie{Name: access.SessionCookie, Value: s.cookies[who]})
	resp, err := http.DefaultTransport.RoundTrip(req)
	s.must(err)
	s.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestAvatars(t *testing.T) {
	t.Parallel()
	s, p := plain(t)
	s.person("ned")
	var picture bytes.Buffer
	s.must(png.Encode(&picture, image.NewGray(image.Rect(0, 0, 40, 40))))
	const settings = "/acme/plain/-/settings"
	s.sendPicture("maya", settings+"/avatar", []byte("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"))
	if got := s.access.AvatarPath(access.ProjectAvatar, p.ID); got != "" {
		t.Fatalf("an SVG was stored: %s", got)
	}
	if resp := s.sendPicture("dev", settings+"/avatar", picture.Bytes()); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a developer: %s", resp.Status)
	}
	s.sendPicture("maya", settings+"/avatar", picture.Bytes())
	path := s.page("maya", "/acme/plain").Find(".side-title img.avatar").AttrOr("src", "")
	if !strings.HasPrefix(path, "/uploads/-/system/project/avatar/") {
		t.Fatalf("the picture is at %q", path)
	}
	for who, want := range map[string]int{"maya": http.StatusOK, "ned": http.StatusNotFound, "": http.StatusNotFound} {
		resp := s.do(who, http.MethodGet, path, nil)
		if resp.StatusCode != want {
			t.Errorf("%q gets %s", who, resp.Status)
		}
		if want == http.StatusOK && (resp.Header.Get("Content-Type") != "image/png" || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "sandbox")) {
			t.Errorf("sent with %v", resp.Header)
		}
	}
	s.sendPicture("ned", "/profile/avatar", picture.Bytes())
	own := s.page("ned", "/profile").Find("header img.avatar").AttrOr("src", "")
	if got := s.status("maya", http.MethodGet, own, nil); got != http.StatusOK {
		t.Errorf("a person's picture for others: %d", got)
	}
	s.must(s.access.SetAvatar(s.ctx, s.people["ned"], access.UserAvatar, s.people["ned"].User.ID, nil))
	if got := s.status("maya", http.MethodGet, own, nil); got != http.StatusNotFound {
		t.Errorf("a removed picture: %d", got)
	}
	big := bytes.Repeat([]byte{0}, 300<<10)
	if err := s.access.SetAvatar(s.ctx, s.root, access.UserAvatar, 1, bytes.NewReader(append(picture.Bytes(), big...))); delivery.KindOf(err) != delivery.Invalid {
		t.Errorf("a large picture: %v", err)
	}
}

package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/slipwayhq/slipway/internal/forge"
)

const deliveriesOnPage = 20

func (s *Server) hookRoutes() {
	s.handleBoth("GET", "/hooks", s.hooksPage)
	s.handleBoth("POST", "/hooks", s.createHook)
	s.handleBoth("GET", "/hooks/{id}/edit", s.hookPage)
	s.handleBoth("POST", "/hooks/{id}", s.updateHook)
	s.handleBoth("POST", "/hooks/{id}/test", s.testHook)
	s.handleBoth("POST", "/hooks/{id}/delete", s.deleteHook)
	s.handleBoth("POST", "/hooks/{id}/deliveries/{delivery}/resend", s.resendHook)
}

// hooksView lists the webhooks of a project or a group, or shows one with its deliveries.
type hooksView struct {
	Hooks      []forge.Hook
	Hook       forge.Hook
	Deliveries []deliveryRow
	Base       string
	Error      string
	Prev, Next string
}

type deliveryRow struct {
	forge.Delivery
	Body string // the request, indented
	Good bool
}

func hooksPath(r *Request, parts ...string) string {
	return placeOf(r).link(append([]string{"hooks"}, parts...)...)
}

func (s *Server) hooksPage(w http.ResponseWriter, r *Request) error {
	return s.showHooks(w, r, http.StatusOK, hooksView{Hook: forge.Hook{Push: true}})
}

func (s *Server) showHooks(w http.ResponseWriter, r *Request, status int, v hooksView) error {
	var err error
	if v.Hooks, err = s.Forge.Hooks(r.Context(), placeOf(r).hookOwner()); err != nil {
		return err
	}
	v.Base = hooksPath(r)
	return s.render(w, r, status, "forge_hooks", Page{Title: "Webhooks", Active: "hooks", Data: v})
}

// typedHook reads the form over a hook; an empty token keeps the present one.
func typedHook(r *Request, h forge.Hook) forge.Hook {
	on := func(name string) bool { return r.FormValue(name) != "" }
	h.HookOwner, h.URL, h.Name, h.PushFilter = placeOf(r).hookOwner(), strings.TrimSpace(r.FormValue("url")), strings.TrimSpace(r.FormValue("name")), strings.TrimSpace(r.FormValue("push_filter"))
	if token := r.FormValue("token"); token != "" {
		h.Token = token
	}
	if on("no_token") {
		h.Token = ""
	}
	h.Push, h.TagPush, h.MergeRequest, h.Note, h.Job = on("push"), on("tag_push"), on("merge_request"), on("note"), on("job")
	h.Pipeline, h.Deployment, h.Release, h.SkipVerify = on("pipeline"), on("deployment"), on("release"), on("skip_verify")
	return h
}

func (s *Server) createHook(w http.ResponseWriter, r *Request) error {
	v := hooksView{Hook: typedHook(r, forge.Hook{})}
	h, err := s.Forge.SetHook(r.Context(), r.Who, v.Hook)
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showHooks(w, r, status, v)
	}
	return redirect(w, r, hooksPath(r, strconv.FormatInt(h.ID, 10), "edit"), "The webhook is added.")
}

func (s *Server) hookOf(r *Request) (forge.Hook, error) {
	id, err := number(r, "id")
	if err != nil {
		return forge.Hook{}, err
	}
	return s.Forge.Hook(r.Context(), placeOf(r).hookOwner(), id)
}

func (s *Server) hookPage(w http.ResponseWriter, r *Request) error {
	h, err := s.hookOf(r)
	if err != nil {
		return err
	}
	return s.showHook(w, r, http.StatusOK, hooksView{Hook: h})
}

func (s *Server) showHook(w http.ResponseWriter, r *Request, status int, v hooksView) error {
	page := pageNumber(r)
	list, total, err := s.Forge.Deliveries(r.Context(), v.Hook.ID, deliveriesOnPage, (page-1)*deliveriesOnPage)
	if err != nil {
		return err
	}
	for _, d := range list {
		row := deliveryRow{Delivery: d, Body: string(d.Request), Good: d.Status >= 200 && d.Status < 300}
		var b bytes.Buffer
		if json.Indent(&b, d.Request, "", "  ") == nil {
			row.Body = b.String()
		}
		v.Deliveries = append(v.Deliveries, row)
	}
	v.Prev, v.Next = pagerLinks(r, page, page*deliveriesOnPage < total)
	v.Base = hooksPath(r, strconv.FormatInt(v.Hook.ID, 10))
	return s.render(w, r, status, "forge_hook", Page{Title: "Webhook", Active: "hooks", Data: v})
}

func (s *Server) updateHook(w http.ResponseWriter, r *Request) error {
	old, err := s.hookOf(r)
	if err != nil {
		return err
	}
	v := hooksView{Hook: typedHook(r, old)}
	_, err = s.Forge.SetHook(r.Context(), r.Who, v.Hook)
	message, status, err := correctable(err)
	if err != nil {
		return err
	}
	if message != "" {
		v.Error = message
		return s.showHook(w, r, status, v)
	}
	return s.toHook(w, r, old, "The webhook is stored.")
}

func (s *Server) toHook(w http.ResponseWriter, r *Request, h forge.Hook, notice string) error {
	return redirect(w, r, hooksPath(r, strconv.FormatInt(h.ID, 10), "edit"), notice)
}

func (s *Server) testHook(w http.ResponseWriter, r *Request) error {
	h, err := s.hookOf(r)
	if err != nil {
		return err
	}
	if r.Group != nil {
		err = s.Forge.TestGroupHook(r.Context(), r.Group.ID, h, r.Who)
	} else {
		err = s.Forge.TestHook(r.Context(), *r.Project, h, r.Who)
	}
	if err != nil {
		return err
	}
	return s.toHook(w, r, h, "A push event is on its way; reload to see the answer.")
}

func (s *Server) deleteHook(w http.ResponseWriter, r *Request) error {
	h, err := s.hookOf(r)
	if err != nil {
		return err
	}
	if err := s.Forge.DeleteHook(r.Context(), r.Who, h.HookOwner, h.ID); err != nil {
		return err
	}
	return redirect(w, r, hooksPath(r), "The webhook is deleted.")
}

func (s *Server) resendHook(w http.ResponseWriter, r *Request) error {
	h, err := s.hookOf(r)
	if err != nil {
		return err
	}
	id, err := number(r, "delivery")
	if err != nil {
		return err
	}
	if err := s.Forge.Resend(r.Context(), h, id); err != nil {
		return err
	}
	return s.toHook(w, r, h, "It is sent once more.")
}

package forge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
)

// retryAfter are the pauses before the further attempts of a delivery.
var retryAfter = []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour}

const (
	hookTimeout  = 10 * time.Second
	hookParallel = 8
	maxHookBody  = 8 << 10 // bytes of an answer that are kept
	keepHookLog  = 7 * 24 * time.Hour
)

// Hooks lists the webhooks of a project or a group.
func (s *Service) Hooks(ctx context.Context, o HookOwner) ([]Hook, error) {
	return s.store.Hooks(ctx, o, false)
}

// Hook returns a webhook of a project or a group.
func (s *Service) Hook(ctx context.Context, o HookOwner, id int64) (Hook, error) {
	h, err := s.store.HookByID(ctx, o, id)
	if err == nil && h.System {
		err = &delivery.Error{Kind: delivery.NotFound, Message: "404 Hook Not Found"}
	}
	return h, err
}

// audited names the owner for the audit log.
func (o HookOwner) audited() (kind string, id int64) {
	if o.GroupID != 0 {
		return "group", o.GroupID
	}
	return "project", o.ProjectID
}

// SetHook adds (ID 0) or changes a webhook. A new address does not get the
// secret token of the old one: the token must be given with it.
func (s *Service) SetHook(ctx context.Context, who delivery.Identity, h Hook) (Hook, error) {
	u, err := url.Parse(h.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || len(h.URL) > 2048 {
		return h, invalidField("url", "is not an http or https address")
	}
	if strings.ContainsAny(h.Token, "\r\n") {
		return h, invalidField("token", "must not contain line breaks")
	}
	if !h.System {
		if addr, err := netip.ParseAddr(u.Hostname()); err == nil && internalAddress(addr) && !s.hostAllowed(u) {
			return h, invalidField("url", "is blocked: Requests to the local network are not allowed")
		}
	}
	if h.ID == 0 {
		h.CreatedAt = s.now()
		h, err = s.store.CreateHook(ctx, h)
	} else {
		var old Hook
		if old, err = s.store.HookByID(ctx, h.HookOwner, h.ID); err != nil {
			return h, err
		}
		if old.URL != h.URL && old.Token == h.Token && !h.System {
			h.Token = ""
		}
		err = s.store.UpdateHook(ctx, h)
	}
	if err == nil {
		kind, id := h.audited()
		s.access.Audit(ctx, who, "hook.set", kind, id, u.Host, "")
	}
	return h, err
}

// EnsureSystemHook makes or updates the platform's own hook of that name,
// which hears of every project and may reach local addresses.
func (s *Service) EnsureSystemHook(ctx context.Context, h Hook) error {
	h.System, h.HookOwner = true, HookOwner{}
	list, err := s.store.Hooks(ctx, HookOwner{}, true)
	if err != nil {
		return err
	}
	for _, old := range list {
		if old.System && old.Name == h.Name {
			h.ID = old.ID
		}
	}
	_, err = s.SetHook(ctx, delivery.Identity{Kind: delivery.SystemActor, Name: "system"}, h)
	return err
}

// DeleteHook removes a webhook and its log.
func (s *Service) DeleteHook(ctx context.Context, who delivery.Identity, o HookOwner, id int64) error {
	h, err := s.Hook(ctx, o, id)
	if err != nil {
		return err
	}
	if err := s.store.DeleteHook(ctx, o, id); err != nil {
		return err
	}
	kind, target := o.audited()
	s.access.Audit(ctx, who, "hook.deleted", kind, target, fmt.Sprint(id), clip(h.Name, 100))
	return nil
}

// Deliveries lists what a webhook sent, newest first.
func (s *Service) Deliveries(ctx context.Context, hookID int64, limit, offset int) ([]Delivery, int, error) {
	return s.store.Deliveries(ctx, hookID, limit, offset)
}

// Resend sends a delivery once more, as a new one.
func (s *Service) Resend(ctx context.Context, h Hook, deliveryID int64) error {
	d, err := s.store.DeliveryByID(ctx, h.ID, deliveryID)
	if err != nil {
		return err
	}
	return s.enqueue(ctx, []Delivery{{HookID: h.ID, Event: d.Event, UUID: hookUUID(randomName()), URL: h.URL, Request: d.Request}})
}

// TestGroupHook sends a payload of one of the group's projects as if something
// had just happened there.
func (s *Service) TestGroupHook(ctx context.Context, groupID int64, h Hook, who delivery.Identity) error {
	list, _, err := s.store.Projects(ctx, ProjectFilter{All: true, GroupID: groupID, Subgroups: true, OrderBy: "last_activity_at"}, 20, 0)
	if err != nil {
		return err
	}
	for _, p := range list {
		if !p.Empty {
			return s.TestHook(ctx, p, h, who)
		}
	}
	return delivery.Errorf(delivery.Invalid, "Ensure the group has a project with at least one commit.")
}

// TestHook sends a payload as if something had just happened.
func (s *Service) TestHook(ctx context.Context, p delivery.Project, h Hook, who delivery.Identity) error {
	head, ok, err := s.revision(ctx, p.ID, "refs/heads/"+p.DefaultBranch)
	if err != nil {
		return err
	}
	if !ok {
		return delivery.Errorf(delivery.Invalid, "Ensure the project has at least one commit.")
	}
	body, name, err := s.pushPayload(ctx, p, delivery.Pushed{Ref: "refs/heads/" + p.DefaultBranch, Before: head, After: head, UserID: actorOf(who)})
	if err != nil {
		return err
	}
	return s.enqueue(ctx, []Delivery{{HookID: h.ID, Event: name, UUID: hookUUID(randomName()), URL: h.URL, Request: body}})
}

func (s *Service) enqueue(ctx context.Context, list []Delivery) error {
	now := s.now()
	for i := range list {
		list[i].CreatedAt, list[i].NextAt = now, now
	}
	if err := s.store.Enqueue(ctx, list); err != nil {
		return err
	}
	select {
	case s.hookWake <- struct{}{}:
	default:
	}
	return nil
}

// hookUUID derives a UUID (version 8, RFC 9562) from a text, so that the same
// event gives the same delivery however often it is looked at.
func hookUUID(seed string) string {
	b := sha256.Sum256([]byte(seed))
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// hookEvent queues the deliveries for an event of the outbox.
func (s *Service) hookEvent(ctx context.Context, e delivery.Event) error {
	hooks, err := s.store.HooksFor(ctx, e.ProjectID)
	if err != nil {
		return err
	}
	hooks = slices.DeleteFunc(hooks, func(h Hook) bool { return !wants(h, e) })
	if len(hooks) == 0 {
		return nil
	}
	body, name, err := s.payload(ctx, e)
	if delivery.IsNotFound(err) {
		return nil // what it is about is gone
	}
	if err != nil || body == nil {
		return err
	}
	var list []Delivery
	for _, h := range hooks {
		list = append(list, Delivery{HookID: h.ID, Event: name, UUID: hookUUID(fmt.Sprintf("hook %d event %d", h.ID, e.ID)), URL: h.URL, Request: body})
	}
	return s.enqueue(ctx, list)
}

// wants reports whether a hook asks for an event.
func wants(h Hook, e delivery.Event) bool {
	switch e.Kind {
	case delivery.EventPushed:
		var p delivery.Pushed
		if e.Decode(&p) != nil {
			return false
		}
		if strings.HasPrefix(p.Ref, "refs/tags/") {
			return h.TagPush
		}
		return h.Push && (h.PushFilter == "" || matchPattern(h.PushFilter, strings.TrimPrefix(p.Ref, "refs/heads/")))
	case delivery.EventMergeRequest:
		return h.MergeRequest
	case delivery.EventNote:
		return h.Note
	case delivery.EventPipelineChanged:
		return h.Pipeline
	case delivery.EventJobChanged:
		return h.Job
	case delivery.EventDeploymentChanged:
		return h.Deployment
	case delivery.EventReleaseCreated:
		return h.Release
	}
	return false
}

// sendHooks sends due deliveries until ctx ends.
func (s *Service) sendHooks(ctx context.Context) {
	slots := make(chan struct{}, hookParallel)
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	flying := map[int64]bool{}
	for {
		due, err := s.store.DueDeliveries(ctx, s.now(), 100)
		if err != nil && ctx.Err() == nil {
			s.log.Error("webhook queue not read", "err", err)
		}
		started := 0
		for _, d := range due {
			mu.Lock()
			busy := flying[d.ID]
			flying[d.ID] = true
			mu.Unlock()
			if busy {
				continue
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			started++
			wg.Go(func() {
				s.send(ctx, d)
				mu.Lock()
				delete(flying, d.ID)
				mu.Unlock()
				<-slots
				select {
				case s.hookWake <- struct{}{}:
				default:
				}
			})
		}
		if started > 0 {
			continue
		}
		wait := time.Minute
		if next, err := s.store.NextDelivery(ctx); err == nil && !next.IsZero() {
			wait = min(wait, max(next.Sub(s.now()), 50*time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.hookWake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// send makes one attempt of a delivery and records it.
func (s *Service) send(ctx context.Context, d Delivery) {
	h, err := s.hookOf(ctx, d)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("webhook not sent", "delivery", d.ID, "err", err)
		}
		return
	}
	begun := time.Now()
	retry := s.attempt(ctx, h, &d)
	if ctx.Err() != nil {
		return // tried again after the next start
	}
	d.Seconds = time.Since(begun).Seconds()
	d.NextAt = time.Time{}
	if retry && d.Attempts < len(retryAfter) {
		d.NextAt = s.now().Add(retryAfter[d.Attempts])
	}
	d.Attempts++
	if err := s.store.RecordDelivery(ctx, d); err != nil {
		s.log.Error("webhook delivery not recorded", "delivery", d.ID, "err", err)
	}
}

func (s *Service) hookOf(ctx context.Context, d Delivery) (Hook, error) {
	return s.store.HookOfDelivery(ctx, d.HookID)
}

// attempt sends a delivery and reports whether another attempt may help.
func (s *Service) attempt(ctx context.Context, h Hook, d *Delivery) (retry bool) {
	d.Status, d.Response, d.Error, d.ResponseHeaders = 0, "", "", nil
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(d.Request))
	if err != nil {
		d.Error = "The address cannot be read."
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Slipway")
	req.Header.Set("X-Gitlab-Event", d.Event)
	req.Header.Set("X-Gitlab-Event-UUID", d.UUID)
	req.Header.Set("X-Gitlab-Webhook-UUID", hookUUID(fmt.Sprintf("hook %d", h.ID)))
	req.Header.Set("X-Gitlab-Instance", s.o.ExternalURL)
	req.Header.Set("Idempotency-Key", d.UUID)
	d.RequestHeaders = flat(req.Header)
	if h.Token != "" {
		req.Header.Set("X-Gitlab-Token", h.Token)
		d.RequestHeaders["X-Gitlab-Token"] = "[REDACTED]"
	}
	client := &http.Client{Transport: s.hookTransport(h, req.URL), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		var blocked errBlocked
		if errors.As(err, &blocked) {
			d.Error = "Requests to the local network are not allowed."
			return false
		}
		d.Error = clip(err.Error(), 500)
		return true
	}
	defer res.Body.Close()
	d.Status, d.ResponseHeaders = res.StatusCode, flat(res.Header)
	body, err := io.ReadAll(io.LimitReader(res.Body, maxHookBody))
	d.Response = strings.ToValidUTF8(string(body), "\uFFFD")
	if err != nil {
		d.Error = clip(err.Error(), 500)
	}
	return res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout
}

func flat(h http.Header) map[string]string {
	out := map[string]string{}
	for k, v := range h {
		out[k] = clip(strings.Join(v, ", "), 1000)
	}
	return out
}

type errBlocked struct{}

func (errBlocked) Error() string { return "local address" }

func (s *Service) hostAllowed(u *url.URL) bool {
	return s.o.LocalRequests || slices.Contains(s.o.LocalHosts, u.Host) || slices.Contains(s.o.LocalHosts, u.Hostname())
}

// guardedDialer connects to public addresses only, judged after the name was
// resolved, unless the host is allowed.
func (s *Service) guardedDialer(allowed bool) *net.Dialer {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	if !allowed {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || internalAddress(ap.Addr()) {
				return errBlocked{}
			}
			return nil
		}
	}
	return dialer
}

func (s *Service) hookTransport(h Hook, u *url.URL) *http.Transport {
	dialer := s.guardedDialer(h.System || s.hostAllowed(u))
	t := &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	if h.SkipVerify {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the hook's owner asked for it
	}
	return t
}

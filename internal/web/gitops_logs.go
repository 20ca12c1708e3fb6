package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/gitops"
)

// logsView is the end of a container's log, which the script goes on with.
type logsView struct {
	App, AppLink   string
	Namespace, Pod string
	Container      string
	Containers     []containerLink
	Lines          []gitops.LogLine
	Problem        string
	Resource       string
	Last           int
	Follow         bool
	Previous       bool
	Restarted      bool // there is a container before the last restart
}

type containerLink struct {
	Name, Link string
	Init       bool
	Restarts   int
}

const (
	logLines    = 200   // of a container, at first
	logLinesMax = 10000 // that can be asked for
)

// podLogs finds the pod of the address in the Application's tree, and its
// containers.
func (s *Server) podLogs(r *Request) (*logsView, error) {
	a, _, err := s.application(r, toLook)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	q.Set("kind", "Pod")
	q.Set("resource", q.Get("pod"))
	r.Form = q
	n, err := s.resourceOf(r, a)
	if err != nil {
		return nil, err
	}
	v := &logsView{App: a.Name, AppLink: applicationPath(a.Name), Namespace: n.Namespace, Pod: n.Name, Container: q.Get("container"), Resource: n.Link, Last: logLines,
		Previous: q.Get("previous") == "yes"}
	v.Follow = q.Get("follow") != "no" && !v.Previous
	if last, err := strconv.Atoi(q.Get("last")); err == nil && last > 0 {
		v.Last = min(last, logLinesMax)
	}
	raw, err := s.Operations.Server.Manifest(r.Context(), a.Name, n.Node)
	if err != nil {
		return nil, err
	}
	return v, v.containers(raw)
}

// request is what Argo CD is asked for.
func (v *logsView) request() gitops.LogRequest {
	return gitops.LogRequest{Namespace: v.Namespace, Pod: v.Pod, Container: v.Container, Last: v.Last, Previous: v.Previous}
}

func (s *Server) podLogsPage(w http.ResponseWriter, r *Request) error {
	v, err := s.podLogs(r)
	if err != nil {
		return err
	}
	if r.FormValue("download") != "" {
		return s.downloadLog(w, r, v)
	}
	err = s.Operations.Server.Logs(r.Context(), v.App, v.request(), func(l gitops.LogLine) { v.Lines = append(v.Lines, l) })
	if err != nil {
		v.Problem = delivery.UserMessage(err)
	}
	return s.render(w, r, http.StatusOK, "application_logs", Page{Title: "Logs of " + v.Pod, Data: v, Wide: true})
}

// downloadLog sends all that is kept of a log, each line with its time.
func (s *Server) downloadLog(w http.ResponseWriter, r *Request, v *logsView) error {
	of := v.request()
	of.Last = 0
	began := false
	begin := func() {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", v.Pod+"-"+v.Container+".log"))
		began = true
	}
	err := s.Operations.Server.Logs(r.Context(), v.App, of, func(l gitops.LogLine) {
		if !began {
			begin()
		}
		// An error here means that the caller has gone, which ends the context.
		_, _ = fmt.Fprintf(w, "%s %s\n", l.Time.UTC().Format(time.RFC3339Nano), l.Content)
	})
	switch {
	case err == nil && !began:
		begin()
	case err != nil && began:
		// The answer has begun: cut it off, so that nobody takes it for whole.
		panic(http.ErrAbortHandler)
	}
	return err
}

// streamPing is how often a quiet stream says that it is there.
const streamPing = 15 * time.Second

// podLogsStream follows a log as server-sent events: its last lines, then each
// new one, and "end" where the container has ended. Each connection begins anew.
func (s *Server) podLogsStream(w http.ResponseWriter, r *Request) error {
	v, err := s.podLogs(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	if err := out.Flush(); err != nil {
		return err
	}
	of := v.request()
	of.Follow = !v.Previous
	lines, ended := make(chan gitops.LogLine, 64), make(chan error, 1)
	ctx := r.Context()
	go func() {
		ended <- s.Operations.Server.Logs(ctx, v.App, of, func(l gitops.LogLine) {
			select {
			case lines <- l:
			case <-ctx.Done():
			}
		})
		close(lines)
	}()
	ping := time.NewTicker(streamPing)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ping.C:
			_, err = fmt.Fprint(w, ":\n\n")
		case l, more := <-lines:
			if !more {
				return endStream(w, <-ended)
			}
			err = writeEvent(w, "line", map[string]string{"time": l.Time.UTC().Format(time.RFC3339Nano), "text": l.Content})
		}
		if err == nil && len(lines) == 0 {
			err = out.Flush()
		}
		if err != nil {
			return nil // the caller has gone
		}
	}
}

// endStream says why a stream is over, so that nobody asks again.
func endStream(w http.ResponseWriter, err error) error {
	why := ""
	if err != nil {
		why = delivery.UserMessage(err)
	}
	// An error here means that the caller has gone.
	_ = writeEvent(w, "end", map[string]string{"why": why})
	return nil
}

func writeEvent(w http.ResponseWriter, name string, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, body)
	return err
}

// Query is the log as it is chosen.
func (v *logsView) Query() string { return v.query(v.Container, v.Last, v.Follow, v.Previous) }

func (v *logsView) query(container string, last int, follow, previous bool) string {
	q := url.Values{"namespace": {v.Namespace}, "pod": {v.Pod}, "container": {container}}
	if last != logLines {
		q.Set("last", strconv.Itoa(last))
	}
	if previous {
		q.Set("previous", "yes")
	} else if !follow {
		q.Set("follow", "no")
	}
	return q.Encode()
}

func (v *logsView) at(query string) string { return v.AppLink + "/logs?" + query }

// Stream is where the script follows the log; "" where nobody follows.
func (v *logsView) Stream() string {
	if !v.Follow {
		return ""
	}
	return v.AppLink + "/logs/stream?" + v.Query()
}

// Switch follows, or stops following.
func (v *logsView) Switch() string {
	return v.at(v.query(v.Container, v.Last, !v.Follow, false))
}

// Other is the log before the last restart, or the one since.
func (v *logsView) Other() string { return v.at(v.query(v.Container, v.Last, true, !v.Previous)) }

// Download is the whole log as a file.
func (v *logsView) Download() string { return v.at(v.Query() + "&download=yes") }

// More shows more lines; "" where all are shown.
func (v *logsView) More() string {
	if len(v.Lines) < v.Last || v.Last >= logLinesMax {
		return ""
	}
	return v.at(v.query(v.Container, v.Last*5, false, v.Previous))
}

// containers lists the pod's and chooses the first where none was named.
func (v *logsView) containers(pod json.RawMessage) error {
	var doc struct {
		Spec struct {
			Containers, InitContainers []struct{ Name string }
		}
		Status struct {
			ContainerStatuses, InitContainerStatuses []struct {
				Name         string
				RestartCount int
			}
		}
	}
	if err := json.Unmarshal(pod, &doc); err != nil {
		return err
	}
	for _, c := range doc.Spec.Containers {
		v.Containers = append(v.Containers, containerLink{Name: c.Name})
	}
	for _, c := range doc.Spec.InitContainers {
		v.Containers = append(v.Containers, containerLink{Name: c.Name, Init: true})
	}
	if !slices.ContainsFunc(v.Containers, func(c containerLink) bool { return c.Name == v.Container }) && len(v.Containers) > 0 {
		v.Container = v.Containers[0].Name
	}
	restarts := map[string]int{}
	for _, c := range slices.Concat(doc.Status.ContainerStatuses, doc.Status.InitContainerStatuses) {
		restarts[c.Name] = c.RestartCount
	}
	v.Restarted = restarts[v.Container] > 0
	for i := range v.Containers {
		v.Containers[i].Restarts = restarts[v.Containers[i].Name]
		v.Containers[i].Link = v.at(v.query(v.Containers[i].Name, v.Last, v.Follow, false))
	}
	return nil
}

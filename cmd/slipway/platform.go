package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/slipwayhq/slipway/internal/access"
	"github.com/slipwayhq/slipway/internal/api"
	"github.com/slipwayhq/slipway/internal/footprint"
	"github.com/slipwayhq/slipway/internal/forge"
	"github.com/slipwayhq/slipway/internal/gitops"
	"github.com/slipwayhq/slipway/internal/ingress"
	"github.com/slipwayhq/slipway/internal/node"
	"github.com/slipwayhq/slipway/internal/observe/metrics"
	"github.com/slipwayhq/slipway/internal/openid"
	"github.com/slipwayhq/slipway/internal/pipeline"
	"github.com/slipwayhq/slipway/internal/registry"
	"github.com/slipwayhq/slipway/internal/release"
	"github.com/slipwayhq/slipway/internal/scan"
	"github.com/slipwayhq/slipway/internal/seal"
	"github.com/slipwayhq/slipway/internal/store"
	"github.com/slipwayhq/slipway/internal/supervise"
)

// platform is the running instance: it holds what the stages share while the
// wiring builds them.
type platform struct {
	*settings
	log     *slog.Logger
	cgroups *supervise.Cgroups
	manager *supervise.Manager
	began   time.Time
	stop    context.CancelFunc

	keepWorkloads atomic.Bool
	closers       []func() error

	db       *store.DB
	access   *access.Service
	sealKey  []byte // of what is encrypted at rest
	box      *seal.Box
	readUser string // the user name of the GitOps engine's token
	api      *api.Router
	mux      *http.ServeMux // the platform's listener
	cluster  clusterAccess

	containerd *node.ContainerdProbe // nil without a cluster

	registry  *registry.Registry
	scanner   *scan.Service
	ingress   *ingress.Ingress
	metrics   *metrics.Metrics
	figures   *figures
	forge     *forge.Service
	pipelines *pipeline.Engine
	releases  *release.Service

	signOn       *openid.Provider
	applications gitops.Mirror
}

// components builds every part of the platform. Git, web and the database come
// after nothing but themselves: whatever else is broken, they serve.
func (p *platform) components(ctx context.Context) ([]supervise.Component, error) {
	if err := p.linkTools(); err != nil {
		return nil, err
	}
	p.figures = newFigures(func() []supervise.Status { return p.manager.Status() })
	comps := []supervise.Component{{Name: "control", Unit: supervise.Func{RunFunc: p.serveControl}}}
	for _, open := range []func(context.Context) error{p.openCore, p.openForge, p.openPipelines, p.openSignOn} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	// The listener's routes are complete before it opens: coreComponents is last.
	for _, build := range []func(context.Context) ([]supervise.Component, error){
		p.registryComponents, p.clusterComponents, p.gitopsComponents, p.ingressComponents, p.trustComponents, p.metricsComponents,
		p.forgeComponents, p.pipelineComponents, p.runnerComponents, p.hookComponents, p.releaseComponents, p.coreComponents,
	} {
		more, err := build(ctx)
		if err != nil {
			return nil, err
		}
		comps = append(comps, more...)
	}
	comps = append(comps, supervise.Component{Name: "log-rotation", Unit: supervise.Func{RunFunc: func(ctx context.Context) error {
		return supervise.RotateLogs(ctx, p.dir.Logs(), 32<<20, time.Minute, p.log)
	}}})
	return comps, nil
}

// close releases what components() opened, last first.
func (p *platform) close() {
	for i := len(p.closers) - 1; i >= 0; i-- {
		if err := p.closers[i](); err != nil {
			p.log.Error("close", "err", err)
		}
	}
}

// serveControl answers the command line.
func (p *platform) serveControl(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(p.report(r.FormValue("memory") != "")); err != nil {
			p.log.Warn("status was not delivered", "err", err)
		}
	})
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, r *http.Request) {
		var req downRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			http.Error(w, `{"message":"the request cannot be read"}`, http.StatusBadRequest)
			return
		}
		p.keepWorkloads.Store(req.KeepWorkloads)
		w.WriteHeader(http.StatusAccepted)
		p.stop()
	})
	footprint.Profiles(mux)
	return p.dir.ServeControl(ctx, mux)
}

// report describes the instance. Memory is read only on demand: a process's
// PSS costs the kernel a walk over its pages.
func (p *platform) report(memory bool) report {
	r := report{Version: version, PID: os.Getpid(), DataDir: p.DataDir, URL: p.ExternalURL, Since: p.began, Components: p.manager.Status(), Ready: true}
	for _, c := range r.Components {
		r.Ready = r.Ready && c.State == supervise.Ready
	}
	if r.Ready {
		r.Announcement = p.announcement()
	}
	if p.ingress != nil {
		r.Addresses = addressesOf(p.ingress.Routes())
	}
	for _, b := range p.Budgets.Table() {
		row := budgetRow{Name: b.Component, Budget: b.Bytes}
		if memory {
			for _, folder := range cgroupFolders(b.Component) {
				pss, peak := p.cgroups.Use(folder)
				row.PSS, row.Peak = row.PSS+pss, max(row.Peak, peak)
			}
			for i := range r.Components {
				if r.Components[i].Name == b.Component {
					r.Components[i].PSS, r.Components[i].Peak = row.PSS, row.Peak
				}
			}
		}
		r.Budget = append(r.Budget, row)
		r.BudgetTotal += b.Bytes
		r.PSSTotal += row.PSS
	}
	return r
}

// cgroupFolders are the cgroups that a row of the budget table is spent in:
// pods with their shims, jobs with the steps of image builds.
func cgroupFolders(component string) []string {
	switch component {
	case "workloads":
		return []string{"kubepods", "shims"}
	case "headroom":
		return nil
	}
	return []string{component}
}

func (p *platform) announcement() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Ready after %.1f s.\n", time.Since(p.began).Seconds())
	fmt.Fprintf(&b, "  Web, API, git, registry  %s\n", p.ExternalURL)
	fmt.Fprintf(&b, "  Administrator            root, password in %s\n", p.rootPasswordFile())
	if p.Cluster.Enabled {
		fmt.Fprintf(&b, "  Kubernetes               slipway kubectl get nodes   (KUBECONFIG=%s)\n", p.dir.Kubeconfig())
	}
	return b.String()
}

func (p *platform) announce(w interface{ Write([]byte) (int, error) }) {
	fmt.Fprint(w, p.announcement())
}

// child describes a program of ours that answers on a health socket. Its
// configuration is written as JSON that only root can read.
func (p *platform) child(program string, cfg any, healthSocket string) (*supervise.Child, error) {
	body, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", program, err)
	}
	path := filepath.Join(p.dir.Run(), program+".json")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", program, err)
	}
	sum := sha256.Sum256(body)
	return &supervise.Child{
		Path: filepath.Join(p.binDir, program), Args: []string{"--config", path},
		PIDFile: p.pidFile(program), LogFile: filepath.Join(p.dir.Logs(), program+".log"),
		Fingerprint: hex.EncodeToString(sum[:8]), Socket: healthSocket, Log: p.log,
		Joined:     func(pid int) error { return p.cgroups.Join(program, pid, p.budget(program)) },
		KeepOnStop: func() bool { return false },
	}, nil
}

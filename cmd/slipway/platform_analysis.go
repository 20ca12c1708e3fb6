package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/internal/delivery"
	"github.com/slipwayhq/slipway/internal/rollout"
)

// errorLogs answers the analysis template error-logs. Only programs of this
// machine may ask, as Argo Rollouts does: it tells of any namespace.
func (p *platform) errorLogs(w http.ResponseWriter, r *http.Request) {
	if !fromLoopback(r) {
		http.NotFound(w, r)
		return
	}
	namespace, hash := r.FormValue("namespace"), r.FormValue("hash")
	seconds, err := strconv.Atoi(r.FormValue("seconds"))
	if err != nil || seconds < 1 || seconds > 3600 || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsValidLabelValue(hash)) > 0 || hash == "" {
		http.Error(w, "name a namespace, a pod template hash and 1 to 3600 seconds", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 8*time.Second)
	defer cancel()
	count, err := p.countErrorLogs(ctx, namespace, hash, time.Duration(seconds)*time.Second)
	if err != nil {
		p.log.Warn("error logs were not counted", "namespace", namespace, "err", err)
		http.Error(w, delivery.UserMessage(err), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(count); err != nil {
		p.log.Debug("the count of error logs was not sent", "err", err)
	}
}

func (p *platform) countErrorLogs(ctx context.Context, namespace, hash string, window time.Duration) (rollout.ErrorLogs, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", p.dir.Kubeconfig())
	if err != nil {
		return rollout.ErrorLogs{}, &delivery.Error{Kind: delivery.Unavailable, Message: "The cluster is not there yet.", Err: err}
	}
	// client-go shares the connections of equal configurations.
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return rollout.ErrorLogs{}, err
	}
	return rollout.CountErrorLogs(ctx, kube, namespace, hash, window)
}

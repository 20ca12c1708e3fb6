package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/argoproj/argo-cd/v3/common"
)

// params are the settings of argocd-cmd-params-cm and argocd-cm that upstream
// hands to its programs as flags. They are read once, as there: a change takes
// effect at the next start.
type params struct {
	resync           time.Duration
	resyncJitter     time.Duration
	statusProcessors int
	opProcessors     int
	selfHealTimeout  time.Duration
	selfHealBackoff  time.Duration
	selfHealFactor   int
	selfHealCap      time.Duration
	syncTimeout      time.Duration
	kubectlLimit     int
	serverSideDiff   bool
	renderLimit      int
	namespaces       []string
}

// defaultParams are upstream's defaults, but for fewer workers, as each holds
// memory, and for a self-heal backoff that ends at 3 s (upstream: 300 s): a
// hundredth drift within minutes must be healed within 10 s too, and a fight with
// another controller must not become a busy loop.
func defaultParams() params {
	return params{
		resync: 120 * time.Second, resyncJitter: 60 * time.Second,
		statusProcessors: 8, opProcessors: 5,
		selfHealBackoff: 2 * time.Second, selfHealFactor: 2, selfHealCap: 3 * time.Second,
		kubectlLimit: 10, renderLimit: 4,
	}
}

func readParams(ctx context.Context, kube kubernetes.Interface) (params, error) {
	cms := kube.CoreV1().ConfigMaps(Namespace)
	settings, err := cms.Get(ctx, common.ArgoCDConfigMapName, metav1.GetOptions{})
	if err != nil {
		return params{}, err
	}
	cmd, err := cms.Get(ctx, "argocd-cmd-params-cm", metav1.GetOptions{})
	if err != nil {
		return params{}, err
	}
	return parseParams(settings.Data, cmd.Data)
}

func parseParams(settings, cmd map[string]string) (params, error) {
	p := defaultParams()
	var errs []error
	number := func(key string, into *int) {
		if s, ok := cmd[key]; ok {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 {
				errs = append(errs, fmt.Errorf("argocd-cmd-params-cm: %s: %q is not a number of 0 or more", key, s))
				return
			}
			*into = n
		}
	}
	seconds := func(key string, into *time.Duration) {
		n := int(*into / time.Second)
		number(key, &n)
		*into = time.Duration(n) * time.Second
	}
	duration := func(key string, into *time.Duration) {
		if s, ok := settings[key]; ok {
			d, err := time.ParseDuration(s)
			if err != nil {
				errs = append(errs, fmt.Errorf("argocd-cm: %s: %w", key, err))
				return
			}
			*into = d
		}
	}
	duration("timeout.reconciliation", &p.resync)
	duration("timeout.reconciliation.jitter", &p.resyncJitter)
	number("controller.status.processors", &p.statusProcessors)
	number("controller.operation.processors", &p.opProcessors)
	number("controller.kubectl.parallelism.limit", &p.kubectlLimit)
	number("reposerver.parallelism.limit", &p.renderLimit)
	seconds("controller.self.heal.timeout.seconds", &p.selfHealTimeout)
	seconds("controller.self.heal.backoff.timeout.seconds", &p.selfHealBackoff)
	number("controller.self.heal.backoff.factor", &p.selfHealFactor)
	seconds("controller.self.heal.backoff.cap.seconds", &p.selfHealCap)
	seconds("controller.sync.timeout.seconds", &p.syncTimeout)
	p.serverSideDiff = cmd["controller.diff.server.side"] == "true"
	for _, ns := range strings.Split(cmd["application.namespaces"], ",") {
		if ns = strings.TrimSpace(ns); ns != "" {
			p.namespaces = append(p.namespaces, ns)
		}
	}
	return p, errors.Join(errs...)
}

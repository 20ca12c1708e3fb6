package rollout

import (
	"bufio"
	"context"
	"fmt"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
)

// ErrorLogs is how many lines the pods of one revision logged in a window, and
// how many of them tell of an error.
type ErrorLogs struct {
	Pods   int `json:"pods"`
	Lines  int `json:"lines"`
	Errors int `json:"errors"`
}

// logBytes is how much is read of one container's window; what is more counts
// as seen, for a container that logs so much is told by the part.
const logBytes = 4 << 20

// errorLine matches what the common loggers write of an error: a level as
// JSON, logfmt or YAML, a level in capitals near the line's begin, klog's
// header, and the first line of a Go panic or of a Python traceback.
var errorLine = regexp.MustCompile(`(?i:["']?\b(?:level|lvl|severity|levelname|loglevel|log\.level)["']?\s*[=:]\s*["']?(?:error|err|fatal|panic|critical|crit|emerg|emergency|alert)\b)` +
	`|^.{0,64}?\b(?:ERROR|FATAL|CRITICAL|PANIC|SEVERE)\b|^[EF]\d{4} \d\d:\d\d:|^panic: |^Traceback \(most recent call last\)`)

// CountErrorLogs reads the last window of the logs of a revision's pods. A
// container that has not started, or is gone, has logged nothing. It is for the
// ClusterAnalysisTemplate error-logs.
func CountErrorLogs(ctx context.Context, kube kubernetes.Interface, namespace, hash string, window time.Duration) (ErrorLogs, error) {
	var out ErrorLogs
	pods, err := kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: v1alpha1.DefaultRolloutUniqueLabelKey + "=" + hash})
	if err != nil {
		return out, failed("list pods", "", err)
	}
	seconds, limit := int64(window.Seconds()), int64(logBytes)
	for _, pod := range pods.Items {
		out.Pods++
		for _, c := range pod.Spec.Containers {
			o := &corev1.PodLogOptions{Container: c.Name, SinceSeconds: &seconds, LimitBytes: &limit}
			if err := countLog(ctx, kube, pod, o, &out); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

func countLog(ctx context.Context, kube kubernetes.Interface, pod corev1.Pod, o *corev1.PodLogOptions, out *ErrorLogs) error {
	stream, err := kube.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, o).Stream(ctx)
	if apierrors.IsNotFound(err) || apierrors.IsBadRequest(err) {
		return nil // gone, or not started
	}
	if err != nil {
		return failed("read the log of", pod.Name, err)
	}
	defer stream.Close()
	lines := bufio.NewScanner(stream)
	lines.Buffer(make([]byte, 64<<10), logBytes+1) // one line may be all of it
	for lines.Scan() {
		out.Lines++
		if errorLine.Match(lines.Bytes()) {
			out.Errors++
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("rollout: read the log of %s: %w", pod.Name, err)
	}
	return nil
}

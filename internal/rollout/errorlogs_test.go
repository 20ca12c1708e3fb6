package rollout

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestErrorLines(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		`{"time":"2026-01-02","level":"error","msg":"x"}`:           true,
		`{"levelname": "CRITICAL", "message": "x"}`:                 true,
		`time=2026-01-02 level=ERROR msg="cannot store"`:            true,
		`2026-01-02 03:04:05,678 ERROR app: cannot store`:           true,
		`[2026-01-02T03:04:05Z] [FATAL] out of disk`:                true,
		`E0102 03:04:05.678901       1 main.go:10] failed`:          true,
		`panic: runtime error: index out of range`:                  true,
		`Traceback (most recent call last):`:                        true,
		`INFO:     10.0.0.1:1234 - "GET /ERRORS HTTP/1.1" 200 OK`:   false,
		`level=info msg="no error"`:                                 false,
		`{"level":"info","msg":"errors: 0"}`:                        false,
		`GET /error 200`:                                            false,
		`{"level":"warn","error":"timeout, tried again"}`:           false,
		`2026-01-02 03:04:05 INFO retries=0 failures=0 errors=0 ok`: false,
	} {
		if got := errorLine.MatchString(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func TestCountErrorLogs(t *testing.T) {
	t.Parallel()
	pod := func(name, hash string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"rollouts-pod-template-hash": hash}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}, {Name: "sidecar"}}}}
	}
	kube := fake.NewClientset(pod("a", "new"), pod("b", "new"), pod("c", "old"))
	got, err := CountErrorLogs(t.Context(), kube, "shop", "new", 30*time.Second)
	if err != nil || got != (ErrorLogs{Pods: 2, Lines: 4}) { // the fake logs "fake logs"
		t.Errorf("%+v %v", got, err)
	}
}

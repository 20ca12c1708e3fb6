package main

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipwayhq/slipway/e2e/cluster/lab"
)

// deploy creates a deployment of the test image and returns the seconds from
// the request until all its pods were seen Ready.
func deploy(ctx context.Context, n *lab.Node, name string, replicas int) (float64, error) {
	config, err := clientcmd.BuildConfigFromFlags("", n.Config.Kubeconfig)
	if err != nil {
		return 0, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 0, err
	}
	labels := map[string]string{"bench": name}
	watch, err := client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{LabelSelector: "bench=" + name})
	if err != nil {
		return 0, err
	}
	defer watch.Stop()
	count := int32(replicas)
	begin := time.Now()
	_, err = client.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &count, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: lab.TestImage}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return 0, err
	}
	ready := map[string]bool{}
	for len(ready) < replicas {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d pods of %s are ready: %w", len(ready), replicas, name, ctx.Err())
		case event, open := <-watch.ResultChan():
			if !open {
				return 0, fmt.Errorf("the watch of %s ended", name)
			}
			pod, isPod := event.Object.(*corev1.Pod)
			if !isPod {
				return 0, fmt.Errorf("watch of %s: %v", name, event.Object)
			}
			for _, condition := range pod.Status.Conditions {
				if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
					ready[pod.Name] = true
				}
			}
		}
	}
	return time.Since(begin).Seconds(), nil
}

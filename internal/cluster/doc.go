// Package cluster runs a whole Kubernetes in one process: etcd, the API
// server, the controller manager, the scheduler, the kubelet, kube-proxy,
// CoreDNS, metrics-server and a provisioner of local volumes, each of them the
// upstream engine.
//
// It owns the cluster's certificates, keys and kubeconfigs, the objects every
// cluster starts with (manifests/), and the health of the components. It
// receives a node.Config for a host that node.Prepare has made ready, with
// containerd running. It emits a Kubernetes API, the administrator's
// kubeconfig, and the state of every component on a unix socket.
//
// Only this package and its command may import k8s.io/kubernetes, etcd and
// CoreDNS; it must not import any other stage of Slipway.
package cluster

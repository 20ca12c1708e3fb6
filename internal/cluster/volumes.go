package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/slipwayhq/slipway/internal/node"
)

// volumeProvisioner is the provisioner's name in StorageClasses.
const volumeProvisioner = "slipway.dev/local-directory"

// volumeNodeAnnotation names the node that holds a volume's directory.
const volumeNodeAnnotation = "slipway.dev/node"

// runVolumes provisions the default StorageClass until ctx ends.
func runVolumes(ctx context.Context, c node.Config, creds *credentials) error {
	config, err := restConfig(creds.kubeconfig("volumes"))
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client for the volume provisioner: %w", err)
	}
	ctx = klog.NewContext(ctx, klog.Background().WithName("volumes"))
	provisioner := &directories{dir: c.VolumeDir(), node: c.Node.Name}
	controller.NewProvisionController(ctx, client, volumeProvisioner, provisioner,
		controller.LeaderElection(false),
		controller.MetricsPort(0),
		controller.Threadiness(2),
	).Run(ctx)
	return nil
}

// directories provisions a volume as a directory of this node. Its size is not
// enforced: a plain directory has no quota.
type directories struct {
	dir  string
	node string
}

// Provision makes the directory <namespace>_<claim>_<volume> and the volume
// that is bound to this node. It does nothing harmful when repeated.
func (d *directories) Provision(_ context.Context, options controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	if mode := claim.Spec.VolumeMode; mode != nil && *mode == corev1.PersistentVolumeBlock {
		return nil, controller.ProvisioningFinished, fmt.Errorf("claim %s/%s: a local directory cannot be a block volume", claim.Namespace, claim.Name)
	}
	for _, mode := range claim.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return nil, controller.ProvisioningFinished, fmt.Errorf("claim %s/%s: a local directory can be ReadWriteOnce or ReadWriteOncePod, not %s", claim.Namespace, claim.Name, mode)
		}
	}
	if options.SelectedNodeName != "" && options.SelectedNodeName != d.node {
		return nil, controller.ProvisioningFinished, fmt.Errorf("claim %s/%s: node %s is not this one (%s)", claim.Namespace, claim.Name, options.SelectedNodeName, d.node)
	}
	path := filepath.Join(d.dir, strings.Join([]string{claim.Namespace, claim.Name, options.PVName}, "_"))
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("make volume %s: %w", options.PVName, err)
	}
	// Pods run as any user: the mode must not depend on our umask. The
	// directory above it is closed to everyone but root.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("open volume %s to pods: %w", options.PVName, err)
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName, Annotations: map[string]string{volumeNodeAnnotation: d.node}},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			MountOptions:                  options.StorageClass.MountOptions,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{d.node},
				}},
			}}}},
		},
	}, controller.ProvisioningFinished, nil
}

// Delete removes the directory of a released volume whose reclaim policy is
// Delete. Another node's volume is left to that node.
func (d *directories) Delete(_ context.Context, volume *corev1.PersistentVolume) error {
	if holder := volume.Annotations[volumeNodeAnnotation]; holder != d.node {
		return &controller.IgnoredError{Reason: fmt.Sprintf("volume %s is on node %q", volume.Name, holder)}
	}
	if volume.Spec.Local == nil {
		return fmt.Errorf("volume %s is not a local directory", volume.Name)
	}
	path := filepath.Clean(volume.Spec.Local.Path)
	if filepath.Dir(path) != filepath.Clean(d.dir) {
		return fmt.Errorf("volume %s: %s does not lie in %s: it must be removed by hand", volume.Name, path, d.dir)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove volume %s: %w", volume.Name, err)
	}
	return nil
}

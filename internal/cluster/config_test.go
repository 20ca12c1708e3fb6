package cluster

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/slipwayhq/slipway/internal/node"
)

func TestManifests(t *testing.T) {
	t.Parallel()
	objects, err := manifests(testCredentials(t).config, []byte("CA"))
	if err != nil {
		t.Fatal(err)
	}
	find := func(kind, name string) *unstructured.Unstructured {
		index := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name })
		if index < 0 {
			t.Fatalf("no %s %s", kind, name)
		}
		return objects[index]
	}
	for _, want := range []struct {
		kind, name, value string
		path              []string
	}{
		{"Service", "kube-dns", "10.43.0.10", []string{"spec", "clusterIP"}},
		{"APIService", "v1beta1.metrics.k8s.io", "Q0E=", []string{"spec", "caBundle"}},
		{"StorageClass", "local-directory", volumeProvisioner, []string{"provisioner"}},
	} {
		if value, _, err := unstructured.NestedString(find(want.kind, want.name).Object, want.path...); err != nil || value != want.value {
			t.Errorf("%s of %s is %q, want %q (%v)", strings.Join(want.path, "."), want.name, value, want.value, err)
		}
	}
	endpoints, _, err := unstructured.NestedSlice(find("EndpointSlice", "kube-dns-slipway").Object, "endpoints")
	if err != nil || len(endpoints) != 1 {
		t.Fatalf("endpoints %v, %v", endpoints, err)
	}
	addresses, _, err := unstructured.NestedStringSlice(endpoints[0].(map[string]any), "addresses")
	if err != nil || !slices.Equal(addresses, []string{"10.42.0.1"}) {
		t.Errorf("cluster DNS is sent to %v (%v)", addresses, err)
	}
}

func TestParseResolvConf(t *testing.T) {
	t.Parallel()
	const text = `# comment
nameserver 127.0.0.53
nameserver 10.43.0.10
nameserver 192.0.2.53
search example
nameserver 2001:db8::53
nameserver nonsense
nameserver`
	got := parseResolvConf([]byte(text), []string{"10.43.0.10"})
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}
	if !slices.Equal(got, want) {
		t.Errorf("resolvers %v, want %v", got, want)
	}
}

func TestCorefileWithoutResolver(t *testing.T) {
	t.Parallel()
	c := testCredentials(t).config
	if text := corefile(c, "/k", nil); strings.Contains(text, "forward") {
		t.Errorf("forwards nowhere:\n%s", text)
	}
	text := corefile(c, "/k", []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")})
	if !strings.Contains(text, "forward . 192.0.2.53:53 {") || !strings.Contains(text, "bind 10.42.0.1\n") {
		t.Errorf("corefile:\n%s", text)
	}
}

func TestImageThreshold(t *testing.T) {
	t.Parallel()
	const gibibyte = 1 << 30
	for _, test := range []struct {
		free, total int64
		want        int32
	}{
		{4 * gibibyte, 40 * gibibyte, 90},
		{4 * gibibyte, 250 * gibibyte, 98},
		{4 * gibibyte, 5 * gibibyte, 50},
		{0, 10 * gibibyte, 99},
		{4 * gibibyte, 0, 85},
	} {
		if got := imageThreshold(test.free, test.total); got != test.want {
			t.Errorf("%d of %d: %d %%, want %d %%", test.free, test.total, got, test.want)
		}
	}
}

func TestReservationsThatExceedTheHost(t *testing.T) {
	t.Parallel()
	var config kubeletconfig.KubeletConfiguration
	err := setReservations(&config, node.ResourceConfig{PodMemory: 1 << 50, KubeReserved: 1 << 30}, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "resources.pod_memory") {
		t.Errorf("error %v", err)
	}
}

func TestDirectories(t *testing.T) {
	t.Parallel()
	d := &directories{dir: t.TempDir(), node: "a"}
	policy := corev1.PersistentVolumeReclaimDelete
	options := controller.ProvisionOptions{
		PVName: "pv-1", StorageClass: &storagev1.StorageClass{ReclaimPolicy: &policy}, SelectedNodeName: "a",
		PVC: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		},
	}
	volume, state, err := d.Provision(t.Context(), options)
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatalf("state %s, %v", state, err)
	}
	path := filepath.Join(d.dir, "shop_data_pv-1")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o777 || volume.Spec.Local.Path != path {
		t.Fatalf("%v, %v, volume at %s", info, err, volume.Spec.Local.Path)
	}
	if _, _, err := d.Provision(t.Context(), options); err != nil {
		t.Errorf("provisioning again: %v", err)
	}

	foreign := volume.DeepCopy()
	foreign.Annotations[volumeNodeAnnotation] = "b"
	if err := d.Delete(t.Context(), foreign); err == nil {
		t.Error("deleted another node's volume")
	}
	outside := volume.DeepCopy()
	outside.Spec.Local.Path = path + "/../../elsewhere"
	if err := d.Delete(t.Context(), outside); err == nil {
		t.Error("deleted a directory outside")
	}
	if err := d.Delete(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the directory remains: %v", err)
	}
	if err := d.Delete(t.Context(), volume); err != nil {
		t.Errorf("deleting again: %v", err)
	}

	shared := options
	shared.PVC = options.PVC.DeepCopy()
	shared.PVC.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	if _, _, err := d.Provision(t.Context(), shared); err == nil {
		t.Error("provisioned a shared volume")
	}
	block := options
	block.PVC = options.PVC.DeepCopy()
	mode := corev1.PersistentVolumeBlock
	block.PVC.Spec.VolumeMode = &mode
	if _, _, err := d.Provision(t.Context(), block); err == nil {
		t.Error("provisioned a block volume")
	}
}

package csi

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

// node is a driver that notes its calls and makes its targets.
type node struct {
	csi.UnimplementedNodeServer
	mu      sync.Mutex
	calls   []string
	publish *csi.NodePublishVolumeRequest
	stage   *csi.NodeStageVolumeRequest
	can     []csi.NodeServiceCapability_RPC_Type
	limit   atomic.Int64 // of volumes
}

func (n *node) note(call string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, call)
}

// since returns the calls since it was asked last.
func (n *node) since() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := strings.Join(n.calls, " ")
	n.calls = nil
	return s
}

func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	out := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range n.can {
		out.Capabilities = append(out.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}})
	}
	return out, nil
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "id", MaxVolumesPerNode: n.limit.Load(), AccessibleTopology: &csi.Topology{Segments: map[string]string{"zone": "z"}}}, nil
}

func (n *node) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	n.note("stage")
	n.stage = r
	return &csi.NodeStageVolumeResponse{}, nil
}

func (n *node) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	n.note("unstage")
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (n *node) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	n.note("publish")
	n.publish = r
	return &csi.NodePublishVolumeResponse{}, os.MkdirAll(r.TargetPath, 0o755)
}

func (n *node) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	n.note("unpublish")
	return &csi.NodeUnpublishVolumeResponse{}, os.RemoveAll(r.TargetPath)
}

func (n *node) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: 9, Available: 4, Used: 5}, {Unit: csi.VolumeUsage_INODES, Total: 3, Available: 1, Used: 2}}}, nil
}

func (n *node) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	n.note("expand")
	return &csi.NodeExpandVolumeResponse{}, nil
}

type suite struct {
	*Plugin
	t      *testing.T
	client *fake.Clientset
	driver *node
}

// start runs a driver d that can do what is given, and a plug-in that knows it.
func start(t *testing.T, can []csi.NodeServiceCapability_RPC_Type, objects ...runtime.Object) *suite {
	t.Helper()
	dir, err := os.MkdirTemp("", "csi") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{can: can}
	n.limit.Store(5)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	csi.RegisterNodeServer(s, n)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-ended })
	client := fake.NewClientset(append(objects, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})...)
	client.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r := a.(clienttesting.CreateAction).GetObject().(*authentication.TokenRequest)
		r.Status.Token = "token for " + strings.Join(r.Spec.Audiences, ",")
		return true, r, nil
	})
	p := &Plugin{Root: dir, Node: "n", Client: client}
	if err := p.Register(t.Context(), "d", filepath.Join(dir, "s"), []string{"1.0.0"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Deregister("d") })
	return &suite{p, t, client, n}
}

func (s *suite) spec(uid types.UID, pv *v1.PersistentVolume) *volume.Spec {
	return &volume.Spec{
		Pod:        &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: uid}, Spec: v1.PodSpec{ServiceAccountName: "sa"}},
		Volume:     &v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}},
		Persistent: pv, Claim: &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}},
		Dir: filepath.Join(s.Root, "pods", string(uid), "volumes", "kubernetes.io~csi", pv.Name),
	}
}

func (s *suite) mount(spec *volume.Spec) volume.Mounted {
	s.t.Helper()
	m, err := s.Mount(s.t.Context(), spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *suite) called(want string) {
	s.t.Helper()
	if got := s.driver.since(); got != want {
		s.t.Errorf("calls %q, want %q", got, want)
	}
}

func persistent(change ...func(*v1.PersistentVolume)) *v1.PersistentVolume {
	pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: v1.PersistentVolumeSpec{
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}, MountOptions: []string{"noatime"},
		PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h", FSType: "xfs", VolumeAttributes: map[string]string{"a": "b"}}},
	}}
	for _, f := range change {
		f(pv)
	}
	return pv
}

func detached(change ...func(*storage.CSIDriver)) *storage.CSIDriver {
	d := &storage.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storage.CSIDriverSpec{AttachRequired: ptr.To(false)}}
	for _, f := range change {
		f(d)
	}
	return d
}

var (
	stages = []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}
	single = append([]csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER}, stages...)
)

// TestRegistration checks that the cluster knows the driver while it is
// registered.
func TestRegistration(t *testing.T) {
	s := start(t, nil)
	n, err := s.client.StorageV1().CSINodes().Get(t.Context(), "n", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := n.Spec.Drivers; len(d) != 1 || d[0].Name != "d" || d[0].NodeID != "id" || !slices.Equal(d[0].TopologyKeys, []string{"zone"}) || *d[0].Allocatable.Count != 5 {
		t.Errorf("drivers %v", d)
	}
	o, err := s.client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
	if err != nil || o.Labels["zone"] != "z" || o.Annotations[nodeIDs] != `{"d":"id"}` {
		t.Errorf("node %v %v (%v)", o.Labels, o.Annotations, err)
	}
	s.Deregister("d")
	if n, err = s.client.StorageV1().CSINodes().Get(t.Context(), "n", metav1.GetOptions{}); err != nil || len(n.Spec.Drivers) != 0 {
		t.Errorf("drivers after the end: %v (%v)", n.Spec.Drivers, err)
	}
	if err := s.Register(t.Context(), "old", "/x", []string{"0.3.0"}); err == nil {
		t.Error("a driver of CSI 0.3 registers")
	}
}

// TestLife checks that two pods share what is staged; an agent after this one
// takes both down.
func TestLife(t *testing.T) {
	s := start(t, single, detached())
	a, b := s.spec("a", persistent()), s.spec("b", persistent())
	if m := s.mount(a); m.HostPath != filepath.Join(a.Dir, "mount") || m.ReadOnly {
		t.Errorf("mounted %+v", m)
	}
	s.called("stage publish")
	if r := s.driver.publish; r.VolumeCapability.AccessMode.Mode != csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER || r.VolumeCapability.GetMount().FsType != "xfs" ||
		!slices.Equal(r.VolumeCapability.GetMount().MountFlags, []string{"noatime"}) || r.VolumeContext["a"] != "b" || r.StagingTargetPath != s.driver.stage.StagingTargetPath {
		t.Errorf("published with %v", r)
	}
	s.mount(b)
	s.called("stage publish")
	next := &Plugin{Root: s.Root, Node: "n", Client: s.client, drivers: s.drivers}
	if err := next.Unmount(t.Context(), a.Dir); err != nil {
		t.Fatal(err)
	}
	s.called("unpublish")
	if err := next.Unmount(t.Context(), b.Dir); err != nil {
		t.Fatal(err)
	}
	s.called("unpublish unstage")
	for _, left := range []string{a.Dir, b.Dir, s.driver.stage.StagingTargetPath} {
		if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", left, err)
		}
	}
	if err := next.Unmount(t.Context(), b.Dir); err != nil {
		t.Errorf("unmounting what is not there: %v", err)
	}
}

// TestDamaged checks that a file that cannot be read does not keep a pod from
// ending.
func TestDamaged(t *testing.T) {
	s := start(t, nil, detached())
	spec := s.spec("a", persistent())
	s.mount(spec)
	if err := os.WriteFile(filepath.Join(spec.Dir, dataFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.called("publish")
	if err := s.Unmount(t.Context(), spec.Dir); err != nil {
		t.Error(err)
	}
	s.called("")
}

// TestAttach checks that the volume is reported as in use before its attachment
// is read, and waited for until it is attached.
func TestAttach(t *testing.T) {
	s := start(t, nil)
	spec := s.spec("a", persistent())
	_, err := s.Mount(t.Context(), spec)
	var pending *volume.Pending
	if !errors.As(err, &pending) {
		t.Fatalf("without an attachment: %v", err)
	}
	inUse := func(want int) {
		t.Helper()
		n, err := s.client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
		if err != nil || len(n.Status.VolumesInUse) != want || want == 1 && n.Status.VolumesInUse[0] != "kubernetes.io/csi/d^h" {
			t.Errorf("in use: %v (%v)", n.Status.VolumesInUse, err)
		}
	}
	inUse(1)
	d, err := read(spec.Dir)
	if err != nil || d != nil {
		t.Errorf("nothing is published, and the file says %v (%v)", d, err)
	}
	va := &storage.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: attachment("h", "d", "n")}, Status: storage.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "x"}}}
	if _, err := s.client.StorageV1().VolumeAttachments().Create(t.Context(), va, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.mount(spec)
	if s.driver.publish.PublishContext["device"] != "x" {
		t.Errorf("published with %v", s.driver.publish.PublishContext)
	}
	if err := s.Unmount(t.Context(), spec.Dir); err != nil {
		t.Fatal(err)
	}
	inUse(0)
}

// TestInline checks that inline volumes need a driver that supports them, and
// get the pod's name, tokens and secret.
func TestInline(t *testing.T) {
	inline := func(s *suite) *volume.Spec {
		spec := s.spec("a", persistent())
		spec.Persistent, spec.Claim = nil, nil
		spec.Volume = &v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{CSI: &v1.CSIVolumeSource{Driver: "d", VolumeAttributes: map[string]string{"a": "b"}, NodePublishSecretRef: &v1.LocalObjectReference{Name: "s"}}}}
		return spec
	}
	s := start(t, stages, detached())
	if _, err := s.Mount(t.Context(), inline(s)); err == nil || !strings.Contains(err.Error(), `volume mode "Ephemeral" not supported by driver d`) {
		t.Errorf("a driver without such volumes: %v", err)
	}
	for _, inSecrets := range []bool{false, true} {
		s = start(t, stages, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Data: map[string][]byte{"k": []byte("v")}}, detached(func(d *storage.CSIDriver) {
			d.Spec.VolumeLifecycleModes = []storage.VolumeLifecycleMode{storage.VolumeLifecycleEphemeral}
			d.Spec.PodInfoOnMount, d.Spec.TokenRequests, d.Spec.ServiceAccountTokenInSecrets = ptr.To(true), []storage.TokenRequest{{Audience: "aud"}}, &inSecrets
		}))
		spec := inline(s)
		s.mount(spec)
		s.called("publish")
		r := s.driver.publish
		if c := r.VolumeContext; c["a"] != "b" || c["csi.storage.k8s.io/pod.name"] != "pod" || c["csi.storage.k8s.io/ephemeral"] != "true" || c["csi.storage.k8s.io/serviceAccount.name"] != "sa" || r.Secrets["k"] != "v" {
			t.Errorf("published with %v, %v", c, r.Secrets)
		}
		from, other := r.VolumeContext, r.Secrets
		if inSecrets {
			from, other = other, from
		}
		var tokens map[string]authentication.TokenRequestStatus
		if err := json.Unmarshal([]byte(from[tokensKey]), &tokens); err != nil || tokens["aud"].Token != "token for aud" || other[tokensKey] != "" {
			t.Errorf("tokens %v (%v), elsewhere %q", tokens, err, other[tokensKey])
		}
		if err := s.Unmount(t.Context(), spec.Dir); err != nil {
			t.Fatal(err)
		}
		s.called("unpublish")
	}
}

// TestGroup checks that files are the pod's group's by the driver's policy.
func TestGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test changes owners: run it as root (make test does)")
	}
	for _, c := range []struct {
		name   string
		policy storage.FSGroupPolicy
		can    []csi.NodeServiceCapability_RPC_Type
		mode   v1.PersistentVolumeAccessMode
		fs     string
		agent  bool
		driver string
	}{
		{"by file system", storage.ReadWriteOnceWithFSTypeFSGroupPolicy, nil, v1.ReadWriteOnce, "ext4", true, ""},
		{"no file system", storage.ReadWriteOnceWithFSTypeFSGroupPolicy, nil, v1.ReadWriteOnce, "", false, ""},
		{"shared", storage.ReadWriteOnceWithFSTypeFSGroupPolicy, nil, v1.ReadWriteMany, "ext4", false, ""},
		{"always", storage.FileFSGroupPolicy, nil, v1.ReadWriteMany, "", true, ""},
		{"never", storage.NoneFSGroupPolicy, nil, v1.ReadWriteOnce, "ext4", false, ""},
		{"the driver", storage.FileFSGroupPolicy, []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP}, v1.ReadWriteOnce, "ext4", false, "7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, c.can, detached(func(d *storage.CSIDriver) { d.Spec.FSGroupPolicy = &c.policy }))
			spec := s.spec("a", persistent(func(pv *v1.PersistentVolume) {
				pv.Spec.AccessModes, pv.Spec.CSI.FSType = []v1.PersistentVolumeAccessMode{c.mode}, c.fs
			}))
			spec.Pod.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](7)}
			m := s.mount(spec)
			info, err := os.Stat(m.HostPath)
			if err != nil || (info.Mode()&os.ModeSetgid != 0) != c.agent {
				t.Errorf("the folder is %v (%v)", info.Mode(), err)
			}
			if got := s.driver.publish.VolumeCapability.GetMount().VolumeMountGroup; got != c.driver {
				t.Errorf("the driver is told of group %q", got)
			}
		})
	}
}

// TestGrowth checks that a claim that was granted more has it when the node's
// driver has grown the file system, also while the pod runs.
func TestGrowth(t *testing.T) {
	size := func(s string) v1.ResourceList {
		return v1.ResourceList{v1.ResourceStorage: resource.MustParse(s)}
	}
	claim := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}, Status: v1.PersistentVolumeClaimStatus{Capacity: size("1Gi"),
		Conditions: []v1.PersistentVolumeClaimCondition{{Type: v1.PersistentVolumeClaimFileSystemResizePending, Status: v1.ConditionTrue}}}}
	pv := persistent(func(pv *v1.PersistentVolume) { pv.Spec.Capacity = size("1Gi") })
	s := start(t, []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_EXPAND_VOLUME}, detached(), claim, pv)
	spec := s.spec("a", pv)
	spec.Claim = claim
	s.mount(spec)
	s.called("publish")
	if err := s.Again(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	s.called("")
	larger := pv.DeepCopy()
	larger.Spec.Capacity = size("2Gi")
	if _, err := s.client.CoreV1().PersistentVolumes().Update(t.Context(), larger, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Again(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	s.called("expand")
	c, err := s.client.CoreV1().PersistentVolumeClaims("ns").Get(t.Context(), "c", metav1.GetOptions{})
	if err != nil || c.Status.Capacity.Storage().String() != "2Gi" || len(c.Status.Conditions) != 0 {
		t.Errorf("the claim's status: %+v (%v)", c.Status, err)
	}
	if err := s.Again(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	s.called("")
}

// TestRepublish checks that a driver that wants it is called again and again.
func TestRepublish(t *testing.T) {
	s := start(t, nil, detached(func(d *storage.CSIDriver) { d.Spec.RequiresRepublish = ptr.To(true) }))
	spec := s.spec("a", persistent())
	s.mount(spec)
	if err := s.Again(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	s.called("publish publish")
}

// TestLabel checks that a driver that asks for it is given the pod's SELinux label as a
// mount option, and the runtime then leaves the files as they are.
func TestLabel(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{"sys/fs/selinux/enforce": "1", "etc/selinux/config": "SELINUXTYPE=p", "etc/selinux/p/contexts/lxc_contexts": "file = \"u:r:t:s0\""} {
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, asks := range []bool{true, false} {
		s := start(t, stages, detached(func(d *storage.CSIDriver) { d.Spec.SELinuxMount = &asks }))
		s.SELinux.Root = root
		spec := s.spec("a", persistent())
		spec.Pod.Spec.SecurityContext = &v1.PodSecurityContext{SELinuxOptions: &v1.SELinuxOptions{Level: "s0:c1,c2"}}
		spec.Pod.Spec.Containers = []v1.Container{{VolumeMounts: []v1.VolumeMount{{Name: "v"}}}}
		m := s.mount(spec)
		want := []string{"noatime"}
		if asks {
			want = append(want, `context="u:r:t:s0:c1,c2"`)
		}
		for _, c := range []*csi.VolumeCapability{s.driver.stage.VolumeCapability, s.driver.publish.VolumeCapability} {
			if got := c.GetMount().GetMountFlags(); !slices.Equal(got, want) {
				t.Errorf("asks %t: mounted with %q", asks, got)
			}
		}
		if m.Relabel == asks {
			t.Errorf("asks %t: the runtime labels the files: %t", asks, m.Relabel)
		}
	}
}

// TestStats checks that a driver's own figures are those of its volumes, and that others are not called.
func TestStats(t *testing.T) {
	for _, can := range []bool{true, false} {
		var capabilities []csi.NodeServiceCapability_RPC_Type
		if can {
			capabilities = append(capabilities, csi.NodeServiceCapability_RPC_GET_VOLUME_STATS)
		}
		s := start(t, capabilities, detached())
		s.Clock = clock.RealClock{}
		spec := s.spec("a", persistent())
		if got, err := s.Stats(t.Context(), spec); got != nil || err != nil {
			t.Errorf("before it is mounted: %v, %v", got, err)
		}
		s.mount(spec)
		got, err := s.Stats(t.Context(), spec)
		if err != nil || (got != nil) != can {
			t.Fatalf("the driver can: %t; %v, %v", can, got, err)
		}
		if can && (*got.CapacityBytes != 9 || *got.AvailableBytes != 4 || *got.UsedBytes != 5 || *got.Inodes != 3 || *got.InodesFree != 1 || *got.InodesUsed != 2) {
			t.Errorf("stats %+v", got)
		}
	}
}

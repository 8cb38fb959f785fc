package csi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/volume"
)

// binder is a driver that really mounts: it binds the folder of a volume where it is
// staged, and that where it is published.
type binder struct {
	csi.UnimplementedNodeServer
	dir, socket string
	server      *grpc.Server

	mu sync.Mutex
	// strike, if set, is called once, when a call is at this point ("before
	// NodeStageVolume"), whose answer is lost.
	point  string
	strike func()
}

func (*binder) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{
		Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}}}}}, nil
}

func (*binder) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "n"}, nil
}

func bindOnce(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	for _, m := range mountsBelow(target) {
		if m == target {
			return nil
		}
	}
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}

func unbind(target string) error {
	err := volume.Detach(target)
	if err == nil {
		err = os.Remove(target)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (b *binder) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	return &csi.NodeStageVolumeResponse{}, bindOnce(b.dir, r.StagingTargetPath)
}

func (b *binder) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, unbind(r.StagingTargetPath)
}

func (b *binder) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return &csi.NodePublishVolumeResponse{}, bindOnce(r.StagingTargetPath, r.TargetPath)
}

func (b *binder) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, unbind(r.TargetPath)
}

// reach strikes once when the point is reached.
func (b *binder) reach(point string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.strike == nil || b.point != point {
		return false
	}
	b.strike()
	b.strike = nil
	return true
}

// serve serves the driver at its socket.
func (b *binder) serve(t *testing.T) {
	t.Helper()
	if err := os.Remove(b.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	b.server = grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		method := filepath.Base(info.FullMethod)
		if b.reach("before " + method) {
			return nil, status.Error(codes.Unavailable, "struck")
		}
		out, err := next(ctx, r)
		if b.reach("after " + method) {
			return nil, status.Error(codes.Unavailable, "struck")
		}
		return out, err
	}))
	csi.RegisterNodeServer(b.server, b)
	go func() { _ = b.server.Serve(l) }()
}

// mountsBelow returns the mount points at and below a folder.
func mountsBelow(dir string) (out []string) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[4] == dir || strings.HasPrefix(f[4], dir+"/") {
			out = append(out, f[4])
		}
	}
	return out
}

// agentOf names the environment variable that makes the test's process an agent: the
// root, and what it does, mount or unmount.
const agentOf = "KEELSON_TEST_AGENT"

// killedPod has a volume of the driver.
var killedPod = &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "uid"}, Spec: v1.PodSpec{
	Containers: []v1.Container{{Name: "c", VolumeMounts: []v1.VolumeMount{{Name: "v"}}}},
	Volumes:    []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}}}

// agent returns the volumes of an agent on a node's folder, with a driver that has
// registered, and its plug-in. The cluster has the pod's volume if known is set.
func agent(t *testing.T, root string, known bool) (*volume.Manager, *Plugin) {
	t.Helper()
	objects := []runtime.Object{&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, &storage.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storage.CSIDriverSpec{AttachRequired: ptr.To(false)}}}
	if known {
		objects = append(objects, &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "claim"}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: "pv"},
			Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound}},
			persistent(func(pv *v1.PersistentVolume) { pv.Spec.ClaimRef = &v1.ObjectReference{UID: "claim"} }))
	}
	client := fake.NewClientset(objects...)
	p := &Plugin{Root: root, Node: "n", Client: client, Clock: clock.RealClock{}}
	if err := p.Register(t.Context(), "d", filepath.Join(root, "s"), []string{"1.0.0"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Deregister("d") })
	return &volume.Manager{Root: filepath.Join(root, "pods"), Plugins: []volume.Plugin{p}, Client: client, Clock: clock.RealClock{}}, p
}

// startBinder starts a driver on a folder that stands for a node's.
func startBinder(t *testing.T) *binder {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts: run it as root (make test does)")
	}
	root, err := os.MkdirTemp("", "csi") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range slices.Backward(mountsBelow(root)) {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
		os.RemoveAll(root)
	})
	b := &binder{dir: filepath.Join(root, "data"), socket: filepath.Join(root, "s")}
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.serve(t)
	t.Cleanup(func() { b.server.Stop() })
	return b
}

// has checks that the volume's content is at the pod's folder, mounted once there and
// once where it is staged.
func (b *binder) has(t *testing.T, m volume.Mounted) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.HostPath, "file"))
	if err != nil || string(text) != "text" {
		t.Errorf("the volume has %q (%v)", text, err)
	}
	if got := mountsBelow(filepath.Dir(b.socket)); len(got) != 2 {
		t.Errorf("mounted: %v", got)
	}
}

// clean checks that nothing is left of the pod's volumes.
func (b *binder) clean(t *testing.T, m *volume.Manager) {
	t.Helper()
	root := filepath.Dir(b.socket)
	if got := mountsBelow(root); len(got) > 0 {
		t.Errorf("mounts are left: %v", got)
	}
	staged, _ := filepath.Glob(filepath.Join(root, "plugins", "kubernetes.io", "csi", "d", "*"))
	if pods := m.Pods(); len(pods) > 0 || len(staged) > 0 {
		t.Errorf("left: pods %v, staged %v", pods, staged)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "file")); err != nil {
		t.Errorf("the volume's content: %v", err)
	}
}

// TestKilledAgent kills the agent with SIGKILL before the driver has done what it is
// called for, and after it, in each call of mounting and unmounting. The agent after it
// has the volume for a pod that is to run, and leaves nothing of one that is not.
func TestKilledAgent(t *testing.T) {
	if root, verb, ok := strings.Cut(os.Getenv(agentOf), " "); ok {
		m, _ := agent(t, root, true)
		if verb == "mount" {
			_, err := m.Mount(t.Context(), killedPod)
			t.Log(err)
		} else {
			t.Log(m.Unmount(t.Context(), killedPod.UID))
		}
		return
	}
	for verb, methods := range map[string][]string{"mount": {"NodeStageVolume", "NodePublishVolume"}, "unmount": {"NodeUnpublishVolume", "NodeUnstageVolume"}} {
		for _, method := range methods {
			for _, when := range []string{"before", "after"} {
				for _, wanted := range []bool{true, false} {
					t.Run(fmt.Sprintf("%s %s, the pod is wanted: %t", when, method, wanted), func(t *testing.T) {
						b := startBinder(t)
						root := filepath.Dir(b.socket)
						if verb == "unmount" {
							m, _ := agent(t, root, true)
							if _, err := m.Mount(t.Context(), killedPod); err != nil {
								t.Fatal(err)
							}
						}
						cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAgent$", "-test.v")
						cmd.Env = append(os.Environ(), agentOf+"="+root+" "+verb)
						var out strings.Builder
						cmd.Stdout, cmd.Stderr = &out, &out
						dead := make(chan struct{})
						b.mu.Lock() // the process is known before it is killed
						b.point, b.strike = when+" "+method, func() { _ = cmd.Process.Signal(syscall.SIGKILL); <-dead }
						err := cmd.Start()
						b.mu.Unlock()
						if err != nil {
							t.Fatal(err)
						}
						_ = cmd.Wait()
						close(dead)
						b.mu.Lock()
						missed := b.strike != nil
						b.mu.Unlock()
						if missed {
							t.Fatalf("the agent has not come to this point:\n%s", out.String())
						}
						m, _ := agent(t, root, true)
						if wanted {
							got, err := m.Mount(t.Context(), killedPod)
							if err != nil {
								t.Fatal(err)
							}
							b.has(t, got["v"])
						} else if pods := m.Pods(); len(pods) != 1 {
							t.Errorf("the agent finds volumes of %v", pods)
						}
						if err := m.Unmount(t.Context(), killedPod.UID); err != nil {
							t.Fatal(err)
						}
						b.clean(t, m)
					})
				}
			}
		}
	}
}

// TestKilledDriver ends the driver in the middle of each call. The pod is told, and has
// its volume when the driver is back; nothing is left at its end.
func TestKilledDriver(t *testing.T) {
	for _, method := range []string{"NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"} {
		for _, when := range []string{"before", "after"} {
			t.Run(when+" "+method, func(t *testing.T) {
				b := startBinder(t)
				m, p := agent(t, filepath.Dir(b.socket), true)
				b.point, b.strike = when+" "+method, func() { go b.server.Stop() }
				_, err := m.Mount(t.Context(), killedPod)
				if !strings.Contains(method, "Un") {
					var failed *volume.Failed
					if !errors.As(err, &failed) || failed.Errors["pv"] == nil {
						t.Fatalf("mounting by a driver that ends: %v", err)
					}
				} else {
					if err != nil {
						t.Fatal(err)
					}
					if err := m.Unmount(t.Context(), killedPod.UID); err == nil {
						t.Error("unmounting by a driver that ends succeeds")
					}
				}
				b.server.Stop()
				b.serve(t)
				if err := p.Register(t.Context(), "d", b.socket, []string{"1.0.0"}); err != nil {
					t.Fatal(err)
				}
				next := &volume.Manager{Root: m.Root, Plugins: m.Plugins, Client: m.Client, Clock: clock.RealClock{}} // without the pause of what has failed
				got, err := next.Mount(t.Context(), killedPod)
				if err != nil {
					t.Fatal(err)
				}
				b.has(t, got["v"])
				if err := next.Unmount(t.Context(), killedPod.UID); err != nil {
					t.Fatal(err)
				}
				b.clean(t, next)
			})
		}
	}
}

// TestTorn has the pod's record damaged by a loss of power. A pod that is to run has
// its volume; one that is not leaves nothing, whether the cluster knows the volume yet
// or not.
func TestTorn(t *testing.T) {
	for _, text := range []string{"", `{"driverName":"d","volumeHa`} {
		for _, c := range []struct{ wanted, known bool }{{true, true}, {false, true}, {false, false}} {
			t.Run(fmt.Sprintf("%q %+v", text, c), func(t *testing.T) {
				b := startBinder(t)
				root := filepath.Dir(b.socket)
				before, _ := agent(t, root, true)
				if _, err := before.Mount(t.Context(), killedPod); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, "pods", "uid", "volumes", "kubernetes.io~csi", "pv", dataFile), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				m, p := agent(t, root, c.known)
				if err := p.unstageStray(t.Context()); err != nil || len(mountsBelow(root)) != 2 {
					t.Fatalf("what a pod has is unstaged: %v, mounted %v", err, mountsBelow(root))
				}
				if c.wanted {
					got, err := m.Mount(t.Context(), killedPod)
					if err != nil {
						t.Fatal(err)
					}
					b.has(t, got["v"])
				}
				if err := m.Unmount(t.Context(), killedPod.UID); err != nil {
					t.Fatal(err)
				}
				if p.stray.Load() != !c.known {
					t.Errorf("something stray is looked for: %t", p.stray.Load())
				}
				if err := p.unstageStray(t.Context()); err != nil {
					t.Fatal(err)
				}
				b.clean(t, m)
			})
		}
	}
}

// TestAllocatable checks that the CSINode has a driver's limit anew after the period
// that its CSIDriver names, and at once when a volume could not be attached because the
// node has too many.
func TestAllocatable(t *testing.T) {
	settings := &storage.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storage.CSIDriverSpec{NodeAllocatableUpdatePeriodSeconds: ptr.To[int64](60)}}
	s := start(t, nil, settings)
	count := func(want int32) {
		t.Helper()
		n, err := s.client.StorageV1().CSINodes().Get(t.Context(), "n", metav1.GetOptions{})
		if err != nil || *n.Spec.Drivers[0].Allocatable.Count != want {
			t.Errorf("%v (%v), want %d", n.Spec.Drivers, err, want)
		}
	}
	count(5)
	s.driver.limit.Store(3)
	d, err := s.Plugin.driver("d")
	if err != nil {
		t.Fatal(err)
	}
	if next := s.again(t.Context(), d); next != time.Minute {
		t.Errorf("asked again after %s", next)
	}
	count(3)
	s.driver.limit.Store(2)
	spec := s.spec("a", persistent())
	va := &storage.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: attachment("h", "d", "n")}, Status: storage.VolumeAttachmentStatus{
		AttachError: &storage.VolumeError{Message: "full", ErrorCode: ptr.To(int32(codes.ResourceExhausted))}}}
	if _, err := s.client.StorageV1().VolumeAttachments().Create(t.Context(), va, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(t.Context(), spec); !(&volume.Failed{Errors: map[string]error{"v": err}}).Exhausted() {
		t.Errorf("too many volumes: %v", err)
	}
	count(2)
	if err := s.client.StorageV1().CSIDrivers().Delete(t.Context(), "d", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.driver.limit.Store(1)
	if next := s.again(t.Context(), d); next != reread {
		t.Errorf("a driver without a period is looked at after %s", next)
	}
	count(2)
}

package provision

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

// full is a driver whose disk is full the first times.
type full struct {
	space
	times int
}

func (f *full) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if f.times--; f.times >= 0 {
		return nil, status.Error(codes.ResourceExhausted, "no space left on device")
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: r.Name, CapacityBytes: r.CapacityRange.RequiredBytes}}, nil
}

// TestFull checks that a claim is told that the disk is full, and has its volume when
// there is room; that a claim of another node's pod is left alone.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claim := func(name, node string) *v1.PersistentVolumeClaim {
			return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "uid-of-claim", Annotations: map[string]string{
				"volume.kubernetes.io/storage-provisioner": "d", "volume.kubernetes.io/selected-node": node}}, Spec: v1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("a"),
				AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}}}}
		}
		other := claim("other", "elsewhere")
		other.UID = "other"
		client := fake.NewClientset(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}, &storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Provisioner: "d"}, claim("c", "n"), other)
		factory := informers.NewSharedInformerFactory(client, 0)
		events := record.NewFakeRecorder(100)
		p := New(Config{Node: "n", Topology: "t", Driver: "d", Controller: &full{times: 2}, Client: client, Informers: factory, Recorder: events, Clock: clock.RealClock{}})
		ctx, stop := context.WithCancel(t.Context())
		factory.Start(ctx.Done())
		ended := make(chan struct{})
		go func() { defer close(ended); p.Run(ctx) }()
		time.Sleep(time.Minute)
		stop()
		<-ended
		factory.Shutdown()
		all, err := client.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
		if err != nil || len(all.Items) != 1 || all.Items[0].Name != "pvc-uid-of-claim" || all.Items[0].Spec.ClaimRef.Name != "c" || all.Items[0].Spec.Capacity.Storage().String() != "1Gi" {
			t.Errorf("volumes %+v (%v)", all.Items, err)
		}
		close(events.Events)
		failed, succeeded := 0, 0
		for e := range events.Events {
			switch {
			case strings.HasPrefix(e, `Warning ProvisioningFailed failed to provision volume with StorageClass "a": rpc error: code = ResourceExhausted desc = no space left on device`):
				failed++
			case strings.HasPrefix(e, "Normal ProvisioningSucceeded Successfully provisioned volume pvc-uid-of-claim"):
				succeeded++
			}
		}
		if failed != 2 || succeeded != 1 {
			t.Errorf("%d events of the failure, %d of the success", failed, succeeded)
		}
	})
}

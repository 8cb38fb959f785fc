package provision

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"
	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
)

// space is a driver that says how much is free.
type space struct {
	csi.UnimplementedControllerServer
	free atomic.Int64
}

func (s *space) GetCapacity(_ context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if r.AccessibleTopology.Segments["t"] != "n" {
		return &csi.GetCapacityResponse{}, nil
	}
	return &csi.GetCapacityResponse{AvailableCapacity: s.free.Load(), MaximumVolumeSize: wrapperspb.Int64(64 << 30)}, nil
}

// TestCapacity checks that the node's free space is told for each class of the driver,
// anew when it has changed by more than a 64th of the disk, and goes with the class.
func TestCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		class := func(name, driver string) *storage.StorageClass {
			return &storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: driver}
		}
		client := fake.NewClientset(class("a", "d"), class("other", "x"))
		factory := informers.NewSharedInformerFactory(client, 0)
		d := &space{}
		d.free.Store(10<<30 + 5)
		p := New(Config{Node: "n", Topology: "t", Driver: "d", Controller: d, Client: client, Informers: factory, Recorder: record.NewFakeRecorder(10), Clock: clock.RealClock{}})
		ctx, stop := context.WithCancel(t.Context())
		factory.Start(ctx.Done())
		ended := make(chan struct{})
		go func() { defer close(ended); p.Run(ctx) }()
		defer func() { stop(); <-ended; factory.Shutdown() }()
		want := func(what string, sizes map[string]string) {
			t.Helper()
			time.Sleep(capacityPeriod)
			synctest.Wait()
			all, err := client.StorageV1().CSIStorageCapacities("").List(ctx, metav1.ListOptions{})
			if err != nil || len(all.Items) != len(sizes) {
				t.Fatalf("%s: %v (%v)", what, all, err)
			}
			for _, c := range all.Items {
				if got := c.Capacity.String(); got != sizes[c.StorageClassName] || c.NodeTopology.MatchLabels["t"] != "n" || c.MaximumVolumeSize.String() != "64Gi" || c.OwnerReferences[0].UID != "uid" {
					t.Errorf("%s: %+v", what, c)
				}
			}
		}
		time.Sleep(retryPeriod / 2) // the node is not registered yet
		if _, err := client.CoreV1().Nodes().Create(ctx, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "uid"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retryPeriod)
		synctest.Wait()
		if all, err := client.StorageV1().CSIStorageCapacities("").List(ctx, metav1.ListOptions{}); err != nil || len(all.Items) != 1 {
			t.Fatalf("a second after the node is registered: %v (%v)", all, err)
		}
		want("at first", map[string]string{"a": "10Gi"})
		d.free.Add(100 << 20)
		want("after a small change", map[string]string{"a": "10Gi"})
		d.free.Add(-2 << 30)
		want("after a change", map[string]string{"a": "8Gi"})
		if _, err := client.StorageV1().StorageClasses().Create(ctx, class("b", "d"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		want("with another class", map[string]string{"a": "8Gi", "b": "8Gi"})
		if err := client.StorageV1().StorageClasses().Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		want("without the first", map[string]string{"b": "8Gi"})
	})
}

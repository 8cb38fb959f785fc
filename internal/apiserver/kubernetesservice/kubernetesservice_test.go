package kubernetesservice

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/clock"
)

// TestPublisher follows the server's address, keeps the last one while there is none, and
// makes again what somebody has deleted.
func TestPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The API server makes Endpoints that are updated and not there; this one does not.
		client := fake.NewClientset(&v1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}})
		address := netip.MustParseAddr("192.0.2.1")
		p := &Publisher{Client: client, Address: func() netip.Addr { return address }, Port: 6443, ClusterIP: netip.MustParseAddr("10.96.0.1"), Clock: clock.RealClock{}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); p.Run(ctx) }()
		is := func(want string) {
			t.Helper()
			time.Sleep(2 * masterPeriod)
			synctest.Wait()
			if s, err := client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{}); err != nil || s.Spec.ClusterIP != "10.96.0.1" {
				t.Errorf("%+v %v", s, err)
			}
			e, err := client.CoreV1().Endpoints("default").Get(ctx, "kubernetes", metav1.GetOptions{})
			if err != nil || e.Subsets[0].Addresses[0].IP != want {
				t.Errorf("%+v %v, want %s", e, err, want)
			}
			s, err := client.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
			if err != nil || s.Endpoints[0].Addresses[0] != want {
				t.Errorf("%+v %v, want %s", s, err, want)
			}
		}
		is("192.0.2.1")
		address = netip.MustParseAddr("192.0.2.2")
		is("192.0.2.2")
		address = netip.MustParseAddr("127.0.0.1")
		is("192.0.2.2")
		address = netip.MustParseAddr("192.0.2.2")
		if err := client.CoreV1().Services("default").Delete(ctx, "kubernetes", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := client.DiscoveryV1().EndpointSlices("default").Delete(ctx, "kubernetes", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		is("192.0.2.2")
		cancel()
		<-ended
	})
}

package servicecidr

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestServiceCIDRs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := controllertest.New(t, New)
		cidrs, addresses := c.Client.NetworkingV1().ServiceCIDRs(), c.Client.NetworkingV1().IPAddresses()
		make := func(name, cidr string) {
			t.Helper()
			controllertest.Must[*v1.ServiceCIDR](t)(cidrs.Create(ctx, &v1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceCIDRSpec{CIDRs: []string{cidr}}}, metav1.CreateOptions{}))
		}
		take := func(ip string) {
			t.Helper()
			controllertest.Must[*v1.IPAddress](t)(addresses.Create(ctx, &v1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: ip}, Spec: v1.IPAddressSpec{ParentRef: &v1.ParentReference{Resource: "services", Namespace: "n", Name: "s"}}}, metav1.CreateOptions{}))
		}
		remove := func(name string) {
			t.Helper()
			if err := cidrs.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			c.Advance(0)
		}
		gone := func(name string) bool {
			_, err := cidrs.Get(ctx, name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}
		make("a", "10.0.0.0/24")
		c.Advance(0)
		a := controllertest.Must[*v1.ServiceCIDR](t)(cidrs.Get(ctx, "a", metav1.GetOptions{}))
		if !slices.Contains(a.Finalizers, finalizer) || !meta.IsStatusConditionTrue(a.Status.Conditions, "Ready") || a.Status.Conditions[0].Message != "Kubernetes Service CIDR is ready" {
			t.Fatalf("a new range: %v %+v", a.Finalizers, a.Status)
		}
		take("10.0.0.7")
		remove("a")
		c.Advance(time.Minute)
		a = controllertest.Must[*v1.ServiceCIDR](t)(cidrs.Get(ctx, "a", metav1.GetOptions{}))
		if cond := meta.FindStatusCondition(a.Status.Conditions, "Ready"); cond.Status != metav1.ConditionFalse || cond.Reason != "Terminating" ||
			cond.Message != "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR" {
			t.Errorf("a range in use: %+v", cond)
		}
		// Another range has the address too.
		make("b", "10.0.0.0/23")
		c.Advance(0)
		if !gone("a") {
			t.Error("the range waits although another one has its addresses")
		}
		// The last address goes, but the range stays quiet for a while.
		remove("b")
		if err := addresses.Delete(ctx, "10.0.0.7", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.Advance(9 * time.Second)
		if gone("b") {
			t.Error("the range went at once")
		}
		c.Advance(2 * time.Second)
		if !gone("b") {
			t.Error("the range did not go")
		}
		// Of two that go, neither counts for the other.
		make("c", "10.0.2.0/24")
		make("d", "10.0.2.0/24")
		take("10.0.2.1")
		c.Advance(0)
		remove("c")
		remove("d")
		c.Advance(time.Minute)
		if gone("c") == gone("d") && gone("c") {
			t.Error("both went, and left an address of no range")
		}
	})
}

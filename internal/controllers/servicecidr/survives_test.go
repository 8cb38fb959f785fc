package servicecidr

import (
	"fmt"
	"slices"
	"testing"

	v1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that a range never goes while an address is in it alone, and goes in
// the end once none is.
func TestSurvives(t *testing.T) {
	cidr := func(name string, ranges ...string) *v1.ServiceCIDR {
		return &v1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceCIDRSpec{CIDRs: ranges}}
	}
	address := func(ip string) *v1.IPAddress { return &v1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: ip}} }
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{cidr("a", "10.0.0.0/24"), cidr("b", "10.1.0.0/24"), cidr("c", "10.2.0.0/24"), address("10.0.0.1"), address("10.1.0.1"), address("10.2.0.1")},
		Actions: []controllertest.Action{
			controllertest.Creates(cidr("wide", "10.0.0.0/16")),
			controllertest.Then(controllertest.Removes[*v1.ServiceCIDR]("", "a"), controllertest.Removes[*v1.ServiceCIDR]("", "b"), controllertest.Removes[*v1.ServiceCIDR]("", "c")),
			controllertest.Removes[*v1.IPAddress]("", "10.2.0.1"),
		},
		Always: func(t *testing.T, c *controllertest.Cluster) {
			// Before it has the finalizer nothing holds a range.
			if o, ok := controllertest.Find[*v1.ServiceCIDR](c, "", "b"); ok && !slices.Contains(o.Finalizers, finalizer) && o.DeletionTimestamp != nil {
				t.Error("the range of an address is let go")
			}
		},
		End: controllertest.Are("", func(o *v1.ServiceCIDR) string {
			ready := meta.FindStatusCondition(o.Status.Conditions, v1.ServiceCIDRConditionReady)
			return fmt.Sprintf("%s %s %s", o.Name, ready.Status, ready.Reason)
		}, "b False Terminating", "wide True "),
	}.Survives(t)
}

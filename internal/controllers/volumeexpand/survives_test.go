package volumeexpand

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that in the end the claims and volumes are as their users have made
// them: it is others that expand them.
func TestSurvives(t *testing.T) {
	size := func(s string) v1.ResourceList { return v1.ResourceList{v1.ResourceStorage: resource.MustParse(s)} }
	claim := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "c"},
		Spec:   v1.PersistentVolumeClaimSpec{VolumeName: "v", Resources: v1.VolumeResourceRequirements{Requests: size("1Gi")}},
		Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound, Capacity: size("1Gi")}}
	grows := func(s string) controllertest.Action {
		return controllertest.Edits("ns", "c", func(c *v1.PersistentVolumeClaim) { c.Spec.Resources.Requests = size(s) })
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{claim},
		Actions: []controllertest.Action{
			grows("2Gi"), // of a volume that is yet to be seen
			controllertest.Creates(&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: v1.PersistentVolumeSpec{Capacity: size("1Gi"), ClaimRef: &v1.ObjectReference{UID: "c"}}}),
			grows("3Gi"),
		},
		End: controllertest.Facts(
			controllertest.Are("ns", func(c *v1.PersistentVolumeClaim) string {
				return c.Spec.Resources.Requests.Storage().String() + " " + c.Status.Capacity.Storage().String()
			}, "3Gi 1Gi"),
			controllertest.Are("", func(v *v1.PersistentVolume) string { return v.Spec.Capacity.Storage().String() }, "1Gi"),
		),
	}.Survives(t)
}

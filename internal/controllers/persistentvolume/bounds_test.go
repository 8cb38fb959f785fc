package persistentvolume

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestMisfits checks that a claim that gets no volume says so, is looked at ever more
// rarely, and holds up no other.
func TestMisfits(t *testing.T) {
	class := func(name, provisioner string) *storage.StorageClass {
		return &storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: ptr.To(storage.VolumeBindingImmediate)}
	}
	for name, c := range map[string]struct {
		world []controllertest.Object
		event string
	}{
		"no such class":              {[]controllertest.Object{newClaim("bad", "1Gi", inClass("nothing"))}, `Warning ProvisioningFailed storageclass.storage.k8s.io "nothing" not found`},
		"no such plug-in":            {[]controllertest.Object{class("old", "kubernetes.io/unheard-of"), newClaim("bad", "1Gi", inClass("old"))}, "Warning ProvisioningFailed no volume plugin matched name: kubernetes.io/unheard-of"},
		"a provisioner that is away": {[]controllertest.Object{class("away", "away.example.com"), newClaim("bad", "1Gi", inClass("away"))}, "Normal ExternalProvisioning Waiting for a volume to be created either by the external provisioner 'away.example.com'"},
		"no volume":                  {[]controllertest.Object{newClaim("bad", "1Gi")}, "Normal FailedBinding no persistent volumes available for this claim and no storage class is set"},
		"a volume of another's": {[]controllertest.Object{
			newVolume("taken", "1Gi", func(v *v1.PersistentVolume) {
				v.Spec.ClaimRef = &v1.ObjectReference{Namespace: "ns", Name: "other", UID: "other"}
			}),
			newClaim("bad", "1Gi", func(c *v1.PersistentVolumeClaim) { c.Spec.VolumeName = "taken" }),
		}, `Warning FailedBinding volume "taken" already bound to a different claim.`},
	} {
		t.Run(name, func(t *testing.T) {
			controllertest.Misfit{
				Controllers: []controllertest.Constructor{New}, World: c.world,
				Event: c.event,
				Told: controllertest.Is("ns", "bad", func(c *v1.PersistentVolumeClaim) error {
					return controllertest.Unless(c.Status.Phase == v1.ClaimPending || c.Status.Phase == "", "its phase is %s", c.Status.Phase)
				}),
				Later: controllertest.Creates(newVolume("v", "2Gi", func(v *v1.PersistentVolume) { v.Spec.StorageClassName = "good" }), newClaim("good", "2Gi", inClass("good"))),
				Fine: controllertest.Is("ns", "good", func(c *v1.PersistentVolumeClaim) error {
					return controllertest.Unless(c.Status.Phase == v1.ClaimBound || c.Spec.VolumeName != "", "it is %s", c.Status.Phase)
				}),
			}.Bounded(t)
		})
	}
}

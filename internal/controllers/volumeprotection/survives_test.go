package volumeprotection

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that what is used never goes, and what nothing uses is gone in the
// end.
func TestSurvives(t *testing.T) {
	claim := func(name string) *v1.PersistentVolumeClaim {
		return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Finalizers: []string{claimFinalizer}}}
	}
	volume := func(name string, phase v1.PersistentVolumePhase) *v1.PersistentVolume {
		return &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{volumeFinalizer}}, Status: v1.PersistentVolumeStatus{Phase: phase}}
	}
	class := func(name string) *storage.VolumeAttributesClass {
		return &storage.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{classFinalizer}}}
	}
	user := func(name, of string) *v1.Pod {
		p := user(name, "n")
		p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = of
		return p
	}
	classed := claim("classed")
	classed.Spec.VolumeAttributesClassName = ptr.To("gold")
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{NewClaims, NewVolumes, NewAttributesClasses},
		World: []controllertest.Object{claim("used"), claim("freed"), claim("free"), classed, user("p", "used"), user("q", "freed"),
			volume("bound", v1.VolumeBound), volume("released", v1.VolumeBound), class("gold"), class("tin")},
		Actions: []controllertest.Action{
			// A pod may be made a moment before the claim that it uses is deleted.
			controllertest.Then(controllertest.Creates(claim("late")), controllertest.Creates(user("r", "late")), controllertest.Removes[*v1.PersistentVolumeClaim]("ns", "late")),
			controllertest.Then(controllertest.Removes[*v1.PersistentVolumeClaim]("ns", "used"), controllertest.Removes[*v1.PersistentVolumeClaim]("ns", "freed"), controllertest.Removes[*v1.PersistentVolumeClaim]("ns", "free")),
			controllertest.Then(controllertest.Removes[*v1.PersistentVolume]("", "bound"), controllertest.Removes[*v1.PersistentVolume]("", "released")),
			controllertest.Then(controllertest.Removes[*storage.VolumeAttributesClass]("", "gold"), controllertest.Removes[*storage.VolumeAttributesClass]("", "tin")),
			controllertest.Then(controllertest.Removes[*v1.Pod]("ns", "q"), controllertest.Edits("", "released", func(v *v1.PersistentVolume) { v.Status.Phase = v1.VolumeReleased })),
		},
		Always: func(t *testing.T, c *controllertest.Cluster) {
			for _, p := range controllertest.All[*v1.Pod](c, "ns") {
				name := p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName
				if _, ok := controllertest.Find[*v1.PersistentVolumeClaim](c, "ns", name); !ok {
					t.Errorf("the claim %s is gone, which %s uses", name, p.Name)
				}
			}
		},
		End: controllertest.Facts(
			controllertest.Are("ns", controllertest.Name[*v1.PersistentVolumeClaim], "used", "late", "classed"),
			controllertest.Are("", controllertest.Name[*v1.PersistentVolume], "bound"),
			controllertest.Are("", controllertest.Name[*storage.VolumeAttributesClass], "gold"),
		),
	}.Survives(t)
}

package ephemeralvolume

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that each pod has a claim of its own in the end: also where another
// one was in its way, or it was deleted.
func TestSurvives(t *testing.T) {
	pod := func(name string) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1.PodSpec{Volumes: []v1.Volume{{Name: "v",
			VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{VolumeClaimTemplate: &v1.PersistentVolumeClaimTemplate{}}}}}}}
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{pod("p"), &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "q-v"}}},
		Actions: []controllertest.Action{
			controllertest.Creates(pod("q"), pod("r")),
			controllertest.Removes[*v1.PersistentVolumeClaim]("ns", "p-v"),
			controllertest.Removes[*v1.PersistentVolumeClaim]("ns", "q-v"),
		},
		End: func(t *testing.T, c *controllertest.Cluster) {
			controllertest.Are("ns", controllertest.Name[*v1.PersistentVolumeClaim], "p-v", "q-v", "r-v")(t, c)
			for _, claim := range controllertest.All[*v1.PersistentVolumeClaim](c, "ns") {
				p, _ := controllertest.Find[*v1.Pod](c, "ns", claim.Name[:1])
				if !metav1.IsControlledBy(claim, p) {
					t.Errorf("%s is not of %s", claim.Name, p.Name)
				}
			}
		},
	}.Survives(t)
}

package attachdetach

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that a volume for one node is never to be attached to two, though its
// pods move about, and that in the end each volume is attached where its pod is, and
// nowhere else.
func TestSurvives(t *testing.T) {
	node := func(name string) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{managed: "true"}},
			Status: v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}}}
	}
	pod := func(name, node, claim string) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1.PodSpec{NodeName: node, Volumes: []v1.Volume{{Name: "x", VolumeSource: v1.VolumeSource{
			PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}}}
	}
	world := []controllertest.Object{node("n1"), node("n2"), node("n3")}
	for _, name := range []string{"a", "b"} {
		world = append(world, &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "claim"}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: name},
			Status: v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound}},
			&v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PersistentVolumeSpec{
				AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, ClaimRef: &v1.ObjectReference{Namespace: "ns", Name: name, UID: "claim"},
				PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: name}}}})
	}
	gone := func(names ...string) controllertest.Action {
		return func(c *controllertest.Cluster) {
			for _, n := range names {
				controllertest.Remove[*v1.Pod](c, "ns", n, *metav1.NewDeleteOptions(0))
			}
		}
	}
	controllertest.Trial{
		Seeds: 300, Controllers: []controllertest.Constructor{New}, World: append(world, pod("a1", "n1", "a")),
		Actions: []controllertest.Action{
			controllertest.Then(gone("a1"), controllertest.Creates(pod("a2", "n2", "a"), pod("b1", "n1", "b"))),
			controllertest.Creates(pod("b2", "n2", "b"), pod("b3", "n3", "b")), // which wait
			gone("a2"),
			controllertest.Then(controllertest.Creates(pod("a3", "n3", "a")), gone("b1", "b3")),
		},
		// The driver's attacher.
		Others: func(c *controllertest.Cluster, chance func() bool) (changed bool) {
			for _, va := range controllertest.All[*storage.VolumeAttachment](c, "") {
				done := va.Status.Attached && len(va.Finalizers) > 0
				if va.DeletionTimestamp != nil {
					done = false
				}
				if done || !chance() {
					continue
				}
				controllertest.Edit(c, "", va.Name, func(va *storage.VolumeAttachment) {
					if va.DeletionTimestamp != nil {
						va.Finalizers, va.Status.Attached = nil, false
						return
					}
					va.Finalizers, va.Status.Attached = []string{"attacher"}, true
				})
				changed = true
			}
			return changed
		},
		Always: func(t *testing.T, c *controllertest.Cluster) {
			at := map[string]string{}
			for _, va := range controllertest.All[*storage.VolumeAttachment](c, "") {
				name := *va.Spec.Source.PersistentVolumeName
				if at[name] != "" {
					t.Errorf("%s is attached to %s and %s", name, at[name], va.Spec.NodeName)
				}
				at[name] = va.Spec.NodeName
			}
		},
		End: controllertest.Facts(
			controllertest.Are("", func(va *storage.VolumeAttachment) string {
				return *va.Spec.Source.PersistentVolumeName + " " + va.Spec.NodeName
			}, "a n3", "b n2"),
			func(t *testing.T, c *controllertest.Cluster) {
				for name, want := range map[string]string{"n1": "", "n2": "kubernetes.io/csi/d^b", "n3": "kubernetes.io/csi/d^a"} {
					n, _ := controllertest.Find[*v1.Node](c, "", name)
					if got := n.Status.VolumesAttached; want == "" && len(got) > 0 || want != "" && !slices.ContainsFunc(got, func(v v1.AttachedVolume) bool { return string(v.Name) == want && len(got) == 1 }) {
						t.Errorf("%s has %v, want %q", name, got, want)
					}
				}
			},
		),
	}.Survives(t)
}

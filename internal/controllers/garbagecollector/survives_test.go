package garbagecollector

import (
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that in the end what has no owner any more is gone, what was to be
// orphaned is left, and nothing else has gone.
func TestSurvives(t *testing.T) {
	object := func(name string, owners ...string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)}
		for _, o := range owners {
			m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: o, UID: types.UID("uid-" + o), BlockOwnerDeletion: ptr.To(true)})
		}
		return m
	}
	set := func(name string, owners ...string) *apps.ReplicaSet {
		return &apps.ReplicaSet{ObjectMeta: object(name, owners...)}
	}
	pod := func(name string, owners ...string) *v1.Pod { return &v1.Pod{ObjectMeta: object(name, owners...)} }
	entry := func(name string, owners ...string) *v1.ConfigMap {
		return &v1.ConfigMap{ObjectMeta: object(name, owners...)}
	}
	deletes := func(name string, policy metav1.DeletionPropagation) controllertest.Action {
		return controllertest.Removes[*apps.ReplicaSet]("ns", name, metav1.DeleteOptions{PropagationPolicy: &policy})
	}
	controllertest.Trial{
		Seeds: 300, Controllers: []controllertest.Constructor{New}, Collected: true,
		World: []controllertest.Object{
			set("background"), pod("b1", "background"), pod("b2", "background"), entry("b3", "b-set"),
			set("foreground"), pod("f1", "foreground"), set("f-set", "foreground"), pod("f2", "f-set"), entry("f3", "f-set"),
			set("orphans"), pod("o1", "orphans"), entry("o2", "orphans"),
			set("stays"), pod("s1", "stays", "background"), pod("s2", "stays"),
			// Each of these waits for the other.
			set("circle-a", "circle-b"), set("circle-b", "circle-a"), pod("c1", "circle-a"),
		},
		Actions: []controllertest.Action{
			controllertest.Then(deletes("background", metav1.DeletePropagationBackground), controllertest.Creates(pod("b4", "background"))),
			deletes("foreground", metav1.DeletePropagationForeground),
			controllertest.Then(controllertest.Creates(entry("o3", "orphans")), deletes("orphans", metav1.DeletePropagationOrphan)),
			deletes("circle-a", metav1.DeletePropagationForeground),
			controllertest.Creates(pod("s3", "stays"), pod("lost", "nobody")),
		},
		End: controllertest.Facts(
			controllertest.Are("ns", controllertest.Name[*apps.ReplicaSet], "stays"),
			controllertest.Are("ns", func(p *v1.Pod) string {
				for _, o := range p.OwnerReferences {
					p.Name += " " + o.Name
				}
				return p.Name
			}, "o1", "s1 stays", "s2 stays", "s3 stays"),
			controllertest.Are("ns", func(m *v1.ConfigMap) string {
				for _, o := range m.OwnerReferences {
					m.Name += " " + o.Name
				}
				return m.Name
			}, "o2", "o3"),
		),
	}.Survives(t)
}

package garbagecollector

import (
	"errors"
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestMisfits checks that what cannot be collected is tried ever more rarely, and holds up
// nothing else.
func TestMisfits(t *testing.T) {
	object := func(name string, owners ...metav1.OwnerReference) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), OwnerReferences: owners}
	}
	of := func(kind, apiVersion, name string) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: types.UID("uid-" + name), BlockOwnerDeletion: ptr.To(true)}
	}
	set := func(name string, owners ...metav1.OwnerReference) *apps.ReplicaSet {
		return &apps.ReplicaSet{ObjectMeta: object(name, owners...)}
	}
	held := &v1.ConfigMap{ObjectMeta: object("held", of("ReplicaSet", "apps/v1", "owner"))}
	held.Finalizers = []string{"example.com/hold"}
	foreground := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}
	for name, m := range map[string]controllertest.Misfit{
		"owners in a circle": {World: []controllertest.Object{
			set("a", of("ReplicaSet", "apps/v1", "b")), set("b", of("ReplicaSet", "apps/v1", "a")), set("self", of("ReplicaSet", "apps/v1", "self"))}},
		"a circle that is deleted": {
			World: []controllertest.Object{set("a", of("ReplicaSet", "apps/v1", "b")), set("b", of("ReplicaSet", "apps/v1", "c")), set("c", of("ReplicaSet", "apps/v1", "a"))},
			Begin: controllertest.Removes[*apps.ReplicaSet]("ns", "a", foreground),
			Told:  controllertest.Are("ns", controllertest.Name[*apps.ReplicaSet], "good"),
		},
		"a dependent that never goes": {
			World: []controllertest.Object{set("owner"), held},
			Begin: controllertest.Removes[*apps.ReplicaSet]("ns", "owner", foreground),
			Told:  controllertest.Are("ns", controllertest.Name[*apps.ReplicaSet], "good", "owner"),
		},
		"an owner of no known kind": {World: []controllertest.Object{&v1.ConfigMap{ObjectMeta: object("x", of("Unicorn", "example.com/v1", "u"))}},
			Told: controllertest.Are("ns", func(c *v1.ConfigMap) string { return c.Name }, "x", "good")},
		"an owner of no valid version": {World: []controllertest.Object{&v1.ConfigMap{ObjectMeta: object("x", of("Unicorn", "a/b/c", "u"))}}},
		"a deletion that is refused": {
			World: []controllertest.Object{&v1.ConfigMap{ObjectMeta: object("x", of("ReplicaSet", "apps/v1", "nobody"))}},
			Refuse: func(a clienttesting.Action) error {
				if a.GetVerb() == "delete" && a.GetResource().Resource == "configmaps" {
					return apierrors.NewForbidden(a.GetResource().GroupResource(), "x", errors.New("no"))
				}
				return nil
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m.Controllers, m.Collected = []controllertest.Constructor{New}, true
			m.World = append(m.World, set("good"), &v1.ConfigMap{ObjectMeta: object("good", of("ReplicaSet", "apps/v1", "good"))}, &v1.Pod{ObjectMeta: object("good-pod", of("ReplicaSet", "apps/v1", "good"))})
			m.Reads = 20 // each attempt reads the object and its owner
			m.Later = controllertest.Removes[*apps.ReplicaSet]("ns", "good", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
			m.Fine = controllertest.Are("ns", func(p *v1.Pod) string { return p.Name })
			m.Bounded(t)
		})
	}
}

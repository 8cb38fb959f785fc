package replicaset

import (
	"fmt"
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func labelled(app string) *v1.PodTemplateSpec {
	return &v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}}}
}

func set(name string, n int32) *apps.ReplicaSet {
	return &apps.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: apps.ReplicaSetSpec{
		Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labelled(name).Labels}, Template: *labelled(name)}}
}

func replication(name string, n int32) *v1.ReplicationController {
	return &v1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1.ReplicationControllerSpec{
		Replicas: &n, Selector: labelled(name).Labels, Template: labelled(name)}}
}

// TestRefusedPods checks that a set whose pods are refused says so, is tried again ever
// more rarely, and holds up no other.
func TestRefusedPods(t *testing.T) {
	for what, err := range controllertest.Refusals(v1.SchemeGroupVersion.WithKind("Pod").GroupKind(), "pods") {
		t.Run(what, func(t *testing.T) {
			controllertest.Misfit{
				Controllers: []controllertest.Constructor{New, NewReplicationController},
				World:       []controllertest.Object{set("bad", 1000), replication("bad", 1000), set("good", 2), replication("fine", 2)},
				Refuse:      controllertest.Refuses("pods", err),
				Event:       "Warning FailedCreate Error creating: " + err.Error(),
				Told: controllertest.Facts(
					controllertest.Is("ns", "bad", func(s *apps.ReplicaSet) error {
						c := s.Status.Conditions
						return controllertest.Unless(len(c) == 1 && c[0].Type == apps.ReplicaSetReplicaFailure && c[0].Status == v1.ConditionTrue && c[0].Reason == "FailedCreate" && c[0].Message == err.Error(), "the conditions are %+v", c)
					}),
					controllertest.Is("ns", "bad", func(s *v1.ReplicationController) error {
						c := s.Status.Conditions
						return controllertest.Unless(len(c) == 1 && c[0].Type == v1.ReplicationControllerReplicaFailure && c[0].Reason == "FailedCreate", "the conditions are %+v", c)
					}),
				),
				Later: controllertest.Then(
					controllertest.Edits("ns", "good", func(s *apps.ReplicaSet) { s.Spec.Replicas = ptr.To[int32](4) }),
					controllertest.Edits("ns", "fine", func(s *v1.ReplicationController) { s.Spec.Replicas = ptr.To[int32](1) }),
				),
				Fine: controllertest.Facts(
					controllertest.Are("ns", func(s *apps.ReplicaSet) string { return fmt.Sprint(s.Name, s.Status.AvailableReplicas) }, "bad0", "good4"),
					controllertest.Are("ns", func(s *v1.ReplicationController) string { return fmt.Sprint(s.Name, s.Status.AvailableReplicas) }, "bad0", "fine1"),
				),
			}.Bounded(t)
		})
	}
}

// TestManyPods checks that a set that selects very many pods of nobody's takes them once.
func TestManyPods(t *testing.T) {
	world := []controllertest.Object{set("good", 1)}
	for i := range 300 {
		world = append(world, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("p", i), Labels: labelled("all").Labels}})
	}
	controllertest.Misfit{
		Controllers: []controllertest.Constructor{New}, World: world,
		Begin: controllertest.Creates(set("all", 300)),
		Told: controllertest.Is("ns", "all", func(s *apps.ReplicaSet) error {
			return controllertest.Unless(s.Status.AvailableReplicas == 300, "the status is %+v", s.Status)
		}),
		Reads: 1, Writes: 1,
	}.Bounded(t)
}

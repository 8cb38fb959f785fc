package tainteviction

import (
	"errors"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestRefusedDeletion checks that a pod whose deletion is refused is tried again ever more
// rarely, and holds up no other.
func TestRefusedDeletion(t *testing.T) {
	pod := func(name, node string) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1.PodSpec{NodeName: node}}
	}
	taint := func(node string) controllertest.Action {
		return controllertest.Edits("", node, func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoExecute}} })
	}
	controllertest.Misfit{
		Controllers: []controllertest.Constructor{New},
		World:       []controllertest.Object{&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}}, pod("bad", "a"), pod("good", "b")},
		Refuse: func(a clienttesting.Action) error {
			if d, ok := a.(clienttesting.DeleteAction); ok && a.GetVerb() == "delete" && d.GetName() == "bad" {
				return apierrors.NewForbidden(a.GetResource().GroupResource(), "bad", errors.New("no"))
			}
			return nil
		},
		Begin: taint("a"),
		Event: "Normal TaintManagerEviction Marking for deletion Pod ns/bad",
		Later: taint("b"),
		Fine:  controllertest.Are("ns", controllertest.Name[*v1.Pod], "bad"),
	}.Bounded(t)
}

package tainteviction

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that the pods that bear no taint, or not for long, are gone in the
// end, and no others.
func TestSurvives(t *testing.T) {
	node := func(name string) *v1.Node { return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	pod := func(name, node string, tolerations ...v1.Toleration) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v1.PodSpec{NodeName: node, Tolerations: tolerations}}
	}
	ever := v1.Toleration{Key: "k", Operator: v1.TolerationOpExists}
	minutes := v1.Toleration{Key: "k", Operator: v1.TolerationOpExists, TolerationSeconds: ptr.To[int64](200)}
	taint := func(name string, on bool) controllertest.Action {
		return controllertest.Edits("", name, func(n *v1.Node) {
			n.Spec.Taints = nil
			if on {
				n.Spec.Taints = []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoExecute}}
			}
		})
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{node("a"), node("b"), pod("gone", "a"), pod("stays", "a", ever), pod("late", "a", minutes), pod("lifted", "b", minutes), pod("free", "")},
		Actions: []controllertest.Action{
			taint("a", true), taint("b", true), taint("b", false),
			controllertest.Creates(pod("new", "a"), pod("other", "b")),
			controllertest.Edits("ns", "free", func(p *v1.Pod) { p.Spec.NodeName = "a" }),
		},
		End: controllertest.Are("ns", controllertest.Name[*v1.Pod], "stays", "lifted", "other"),
	}.Survives(t)
}

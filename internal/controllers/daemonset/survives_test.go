package daemonset

import (
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that whatever goes wrong on the way, each node that the set is
// for has one pod of it in the end.
func TestSurvives(t *testing.T) {
	for _, surge := range []int32{0, 1} {
		controllertest.Trial{Seeds: 40, Controllers: []controllertest.Constructor{New}, Actions: []controllertest.Action{
			func(c *controllertest.Cluster) {
				s := suite{c, t}
				for _, name := range []string{"a", "b", "c"} {
					s.node(name)
				}
				ds := newSet()
				ds.Spec.UpdateStrategy.RollingUpdate = &apps.RollingUpdateDaemonSet{MaxSurge: ptr.To(intstr.FromInt32(surge)), MaxUnavailable: ptr.To(intstr.FromInt32(1 - surge))}
				s.create(ds)
			},
			func(c *controllertest.Cluster) {
				suite{c, t}.change(func(ds *apps.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "two" })
			},
			func(c *controllertest.Cluster) {
				s := suite{c, t}
				s.node("d")
				s.changeNode("a", func(n *v1.Node) { n.Spec.Taints = []v1.Taint{{Key: "x", Effect: v1.TaintEffectNoExecute}} })
			},
		}, End: func(t *testing.T, c *controllertest.Cluster) {
			s := suite{c, t}
			if have, want := s.pods(), "b two, c two, d two"; have != want {
				t.Errorf("surge %d: pods are %q, want %q", surge, have, want)
			}
			if st := s.get().Status; st.DesiredNumberScheduled != 3 || st.NumberAvailable != 3 || st.UpdatedNumberScheduled != 3 || st.NumberMisscheduled != 0 {
				t.Errorf("surge %d: status is %+v", surge, st)
			}
			if n := len(controllertest.Must[*apps.ControllerRevisionList](t)(c.Client.AppsV1().ControllerRevisions("ns").List(ctx, metav1.ListOptions{})).Items); n != 2 {
				t.Errorf("surge %d: %d revisions, want 2", surge, n)
			}
		}}.Survives(t)
	}
}

package daemonset

import (
	"fmt"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func named(name string) *apps.DaemonSet {
	s := newSet()
	s.Name = name
	s.Spec.Selector.MatchLabels, s.Spec.Template.Labels = map[string]string{"app": name}, map[string]string{"app": name}
	return s
}

func newNode(name string) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

var shown = func(s *apps.DaemonSet) string { return fmt.Sprint(s.Name, " ", s.Status.NumberAvailable) }

// TestRefused checks that a set whose pods are refused says so, is tried again ever more
// rarely, and holds up no other.
func TestRefused(t *testing.T) {
	for what, err := range controllertest.Refusals(v1.SchemeGroupVersion.WithKind("Pod").GroupKind(), "pods") {
		t.Run(what, func(t *testing.T) {
			controllertest.Misfit{
				Controllers: []controllertest.Constructor{New},
				World:       []controllertest.Object{newNode("a"), newNode("b"), named("bad"), named("good")},
				Refuse:      controllertest.Refuses("pods", err),
				Event:       "Warning FailedCreate Error creating: " + err.Error(),
				Later:       controllertest.Creates(newNode("c")),
				Fine:        controllertest.Are("ns", shown, "bad 0", "good 3"),
			}.Bounded(t)
		})
	}
}

// TestFailingPods checks that pods that fail as soon as they run are replaced ever more
// rarely.
func TestFailingPods(t *testing.T) {
	controllertest.Misfit{
		Controllers: []controllertest.Constructor{New},
		World:       []controllertest.Object{newNode("a"), named("bad"), named("good")},
		Others: func(c *controllertest.Cluster, _ func() bool) bool {
			for _, p := range controllertest.All[*v1.Pod](c, "ns") {
				if p.Labels["app"] == "bad" && p.Status.Phase == v1.PodRunning {
					controllertest.Edit(c, "ns", p.Name, func(p *v1.Pod) { p.Status.Phase = v1.PodFailed })
				}
			}
			return false
		},
		Event: "Warning FailedDaemonPod Found failed daemon pod ns/bad-",
		// One each quarter of an hour: its deletion, another, and some changes of the status.
		Writes: int(time.Hour / (15 * time.Minute) * 8),
		Later:  controllertest.Creates(newNode("c")),
		Fine: controllertest.Is("ns", "good", func(s *apps.DaemonSet) error {
			return controllertest.Unless(s.Status.NumberAvailable == 2, "%+v", s.Status)
		}),
	}.Bounded(t)
}

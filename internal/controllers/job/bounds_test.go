package job

import (
	"fmt"
	"testing"
	"time"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

func named(name string, change func(*batch.JobSpec)) *batch.Job {
	j := made(change)
	j.Name = name
	j.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	j.Spec.Template.Labels = j.Spec.Selector.MatchLabels
	return j
}

// runs ends the pods of a Job after they have begun to run.
func runs(app string, how v1.PodPhase) func(*controllertest.Cluster, func() bool) bool {
	return func(c *controllertest.Cluster, _ func() bool) bool {
		for _, p := range controllertest.All[*v1.Pod](c, "ns") {
			if p.Labels["app"] == app && p.Status.Phase == v1.PodRunning {
				controllertest.Edit(c, "ns", p.Name, func(p *v1.Pod) { p.Status.Phase = how })
			}
		}
		return false
	}
}

func completed(j *batch.Job) error {
	return controllertest.Unless(controllers.JobEnd(j) != nil && controllers.JobEnd(j).Type == batch.JobComplete, "the status is %+v", j.Status)
}

// TestRefused checks that a Job whose pods are refused says so, is tried again ever more
// rarely, and holds up no other.
func TestRefused(t *testing.T) {
	for what, err := range controllertest.Refusals(v1.SchemeGroupVersion.WithKind("Pod").GroupKind(), "pods") {
		for mode, change := range map[string]func(*batch.JobSpec){
			"fixed": func(s *batch.JobSpec) { s.Completions, s.Parallelism = ptr.To[int32](500), ptr.To[int32](500) },
			"indexed": func(s *batch.JobSpec) {
				s.Completions, s.Parallelism, s.CompletionMode = ptr.To[int32](500), ptr.To[int32](500), ptr.To(batch.IndexedCompletion)
			},
		} {
			t.Run(fmt.Sprint(mode, " ", what), func(t *testing.T) {
				controllertest.Misfit{
					Controllers: []controllertest.Constructor{New},
					World:       []controllertest.Object{named("bad", change)},
					Refuse:      controllertest.Refuses("pods", err),
					Others:      runs("good", v1.PodSucceeded),
					Event:       "Warning FailedCreate Error creating: " + err.Error(),
					Later:       controllertest.Creates(named("good", nil)),
					Fine:        controllertest.Is("ns", "good", completed),
				}.Bounded(t)
			})
		}
	}
}

// TestFailingPods checks that pods that fail as soon as they run are replaced ever more
// rarely, though the Job's backoff limit never ends it.
func TestFailingPods(t *testing.T) {
	controllertest.Misfit{
		Controllers: []controllertest.Constructor{New},
		World:       []controllertest.Object{named("bad", func(s *batch.JobSpec) { s.BackoffLimit = ptr.To[int32](1 << 30) })},
		Others:      runs("bad", v1.PodFailed),
		// One each ten minutes: a pod, the end of its finalizer, and three of the status.
		Writes: 6 * 6,
		Later:  controllertest.Creates(named("good", nil)),
		Fine:   controllertest.Is("ns", "good", func(j *batch.Job) error { return controllertest.Unless(j.Status.Active == 1, "%+v", j.Status) }),
	}.Bounded(t)
}

// TestClockJumps checks that a Job goes on though the clock is set, and that its deadline
// holds by the clock as it is.
func TestClockJumps(t *testing.T) {
	for name, by := range map[string]time.Duration{"a year on": 365 * 24 * time.Hour, "a year back": -365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			var clk *controllertest.JumpingClock
			controllertest.Misfit{
				Controllers: []controllertest.Constructor{New},
				Context: func(c *controllers.Context) {
					clk = &controllertest.JumpingClock{}
					c.Clock = clk
				},
				World:  []controllertest.Object{named("bad", func(s *batch.JobSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](3600 * 24) })},
				Begin:  func(*controllertest.Cluster) { clk.Jump(by) },
				Others: runs("good", v1.PodSucceeded),
				Later:  controllertest.Creates(named("good", nil)),
				Fine:   controllertest.Is("ns", "good", completed),
			}.Bounded(t)
		})
	}
}

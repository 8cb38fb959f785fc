package job

import (
	"testing"
	"time"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that in the end a Job is over, has counted each pod, and holds none
// back, though some pods fail and others are deleted.
func TestSurvives(t *testing.T) {
	for mode, change := range map[string]func(*batch.JobSpec){
		"fixed": func(s *batch.JobSpec) { s.Completions, s.Parallelism = ptr.To[int32](5), ptr.To[int32](2) },
		"indexed": func(s *batch.JobSpec) {
			s.Completions, s.Parallelism, s.CompletionMode = ptr.To[int32](5), ptr.To[int32](2), ptr.To(batch.IndexedCompletion)
		},
		"limited": func(s *batch.JobSpec) {
			s.Completions, s.Parallelism, s.CompletionMode = ptr.To[int32](4), ptr.To[int32](3), ptr.To(batch.IndexedCompletion)
			s.BackoffLimitPerIndex, s.MaxFailedIndexes = ptr.To[int32](3), ptr.To[int32](4)
		},
	} {
		parallel := func(n int32) controllertest.Action {
			return controllertest.Edits("ns", "j", func(j *batch.Job) { j.Spec.Parallelism = &n })
		}
		suspend := func(b bool) controllertest.Action {
			return controllertest.Edits("ns", "j", func(j *batch.Job) { j.Spec.Suspend = &b })
		}
		j := made(change)
		j.Spec.BackoffLimit = ptr.To[int32](1000)
		failures := 0
		controllertest.Trial{
			Seeds: 70, Controllers: []controllertest.Constructor{New}, World: []controllertest.Object{j}, Tick: 5 * time.Second,
			Actions: []controllertest.Action{
				parallel(3), suspend(true), suspend(false), parallel(1),
				func(c *controllertest.Cluster) { // somebody deletes a pod
					for _, p := range controllertest.All[*v1.Pod](c, "ns") {
						controllertest.Remove[*v1.Pod](c, "ns", p.Name)
						break
					}
				},
			},
			Others: func(c *controllertest.Cluster, chance func() bool) (changed bool) {
				for _, p := range controllertest.All[*v1.Pod](c, "ns") {
					if p.Status.Phase != v1.PodRunning || p.DeletionTimestamp != nil || !chance() {
						continue
					}
					phase := v1.PodSucceeded
					if failures < 2 && chance() {
						failures++
						phase = v1.PodFailed
					}
					controllertest.Edit(c, "ns", p.Name, func(p *v1.Pod) { p.Status.Phase = phase })
					changed = true
				}
				return changed
			},
			Rest: 15 * time.Minute,
			End: func(t *testing.T, c *controllertest.Cluster) {
				failures = 0
				j, _ := controllertest.Find[*batch.Job](c, "ns", "j")
				end := controllers.JobEnd(j)
				if end == nil || end.Type != batch.JobComplete {
					t.Fatalf("%s: it has not completed: %+v", mode, j.Status)
				}
				st := &j.Status
				if u := st.UncountedTerminatedPods; st.Active != 0 || ptr.Deref(st.Ready, 0) != 0 || ptr.Deref(st.Terminating, 0) != 0 || u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
					t.Errorf("%s: the status is %+v", mode, st)
				}
				if *j.Spec.CompletionMode == batch.IndexedCompletion && (st.Succeeded != *j.Spec.Completions || st.CompletedIndexes != parseIndexes("0-"+string(rune('0'+*j.Spec.Completions-1)), int(*j.Spec.Completions)).String()) ||
					st.Succeeded < *j.Spec.Completions {
					t.Errorf("%s: %d succeeded, indexes %s", mode, st.Succeeded, st.CompletedIndexes)
				}
				for _, p := range controllertest.All[*v1.Pod](c, "ns") {
					if tracked(p) || !metav1.IsControlledBy(p, j) || controllers.PodActive(p) {
						t.Errorf("%s: the pod %s is %s, with the finalizers %v", mode, p.Name, p.Status.Phase, p.Finalizers)
					}
				}
			},
		}.Survives(t)
	}
}

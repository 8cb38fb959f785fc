package ttlafterfinished

import (
	"testing"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that in the end the Jobs are gone whose time is over, as it was
// last set.
func TestSurvives(t *testing.T) {
	job := func(name string, ttl *int32) *batch.Job {
		return &batch.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: batch.JobSpec{TTLSecondsAfterFinished: ttl}}
	}
	ends := func(name string) controllertest.Action {
		return controllertest.Edits("ns", name, func(j *batch.Job) {
			j.Status.Conditions = []batch.JobCondition{{Type: batch.JobComplete, Status: v1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		})
	}
	lasts := func(name string, ttl int32) controllertest.Action {
		return controllertest.Edits("ns", name, func(j *batch.Job) { j.Spec.TTLSecondsAfterFinished = &ttl })
	}
	controllertest.Trial{
		Seeds: 200, Controllers: []controllertest.Constructor{New},
		World: []controllertest.Object{job("a", ptr.To[int32](0)), job("b", ptr.To[int32](300)), job("kept", nil), job("runs", ptr.To[int32](1)), job("longer", ptr.To[int32](100))},
		Actions: []controllertest.Action{
			controllertest.Then(ends("a"), ends("b"), ends("kept"), ends("longer")),
			controllertest.Then(lasts("longer", 1e6), lasts("b", 200)),
			controllertest.Creates(job("c", ptr.To[int32](60))),
			ends("c"),
		},
		End: controllertest.Are("ns", controllertest.Name[*batch.Job], "kept", "runs", "longer"),
	}.Survives(t)
}

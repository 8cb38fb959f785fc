package cronjob

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

// TestSurvives checks that Jobs that must not run beside one another never do, and that
// in the end the status and the history are those of the Jobs.
func TestSurvives(t *testing.T) {
	for _, policy := range []batch.ConcurrencyPolicy{batch.AllowConcurrent, batch.ForbidConcurrent, batch.ReplaceConcurrent} {
		suspend := func(b bool) controllertest.Action {
			return controllertest.Edits("ns", "tick", func(cj *batch.CronJob) { cj.Spec.Suspend = ptr.To(b) })
		}
		controllertest.Trial{
			Seeds: 100, Controllers: []controllertest.Constructor{New}, Tick: 40 * time.Second,
			World: []controllertest.Object{&batch.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "tick"}, Spec: batch.CronJobSpec{
				Schedule: "* * * * *", ConcurrencyPolicy: policy, SuccessfulJobsHistoryLimit: ptr.To[int32](2), FailedJobsHistoryLimit: ptr.To[int32](1)}}},
			Actions: []controllertest.Action{suspend(true), suspend(false), suspend(true)},
			Others: func(c *controllertest.Cluster, chance func() bool) (changed bool) {
				for _, j := range controllertest.All[*batch.Job](c, "ns") {
					if controllers.JobEnd(j) != nil || !chance() {
						continue
					}
					how := batch.JobComplete
					if chance() && j.Name[len(j.Name)-1]%3 == 0 {
						how = batch.JobFailed
					}
					controllertest.Edit(c, "ns", j.Name, func(j *batch.Job) {
						j.Status.StartTime, j.Status.CompletionTime = ptr.To(j.CreationTimestamp), ptr.To(metav1.Now())
						j.Status.Conditions = []batch.JobCondition{{Type: how, Status: v1.ConditionTrue}}
					})
					changed = true
				}
				return changed
			},
			Always: func(t *testing.T, c *controllertest.Cluster) {
				n := 0
				for _, j := range controllertest.All[*batch.Job](c, "ns") {
					if controllers.JobEnd(j) == nil {
						n++
					}
				}
				if policy == batch.ForbidConcurrent && n > 1 {
					t.Errorf("%d Jobs run", n)
				}
			},
			End: func(t *testing.T, c *controllertest.Cluster) {
				cj, _ := controllertest.Find[*batch.CronJob](c, "ns", "tick")
				ended := map[batch.JobConditionType]int{}
				for _, j := range controllertest.All[*batch.Job](c, "ns") {
					ended[controllers.JobEnd(j).Type]++
				}
				if len(cj.Status.Active) > 0 || ended[batch.JobComplete] > 2 || ended[batch.JobFailed] > 1 {
					t.Errorf("%s: active %v, Jobs that have ended %v", policy, cj.Status.Active, ended)
				}
				if ran := ended[batch.JobComplete] > 0; ran != (cj.Status.LastSuccessfulTime != nil) && ran || ran && cj.Status.LastScheduleTime == nil {
					t.Errorf("%s: the status is %+v", policy, cj.Status)
				}
			},
		}.Survives(t)
	}
}

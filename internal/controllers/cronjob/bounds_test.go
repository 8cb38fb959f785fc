package cronjob

import (
	"errors"
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

func hourly(name string, change func(*batch.CronJobSpec)) *batch.CronJob {
	cj := &batch.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: batch.CronJobSpec{Schedule: "@hourly", ConcurrencyPolicy: batch.AllowConcurrent,
		SuccessfulJobsHistoryLimit: ptr.To[int32](3), FailedJobsHistoryLimit: ptr.To[int32](1)}}
	if change != nil {
		change(&cj.Spec)
	}
	return cj
}

// ends ends each Job at once.
func ends(c *controllertest.Cluster, _ func() bool) bool {
	for _, j := range controllertest.All[*batch.Job](c, "ns") {
		if controllers.JobEnd(j) == nil {
			controllertest.Edit(c, "ns", j.Name, func(j *batch.Job) {
				j.Status.StartTime, j.Status.CompletionTime = ptr.To(j.CreationTimestamp), ptr.To(metav1.Now())
				j.Status.Conditions = []batch.JobCondition{{Type: batch.JobComplete, Status: v1.ConditionTrue}}
			})
		}
	}
	return false
}

// every is a CronJob whose Jobs show that the controller goes on.
func every(name string) *batch.CronJob {
	return hourly(name, func(s *batch.CronJobSpec) { s.Schedule, s.SuccessfulJobsHistoryLimit = "* * * * *", ptr.To[int32](1) })
}

func ran(name string) controllertest.Fact {
	return controllertest.Is("ns", name, func(cj *batch.CronJob) error {
		return controllertest.Unless(cj.Status.LastScheduleTime != nil && time.Since(cj.Status.LastScheduleTime.Time) < 2*time.Minute, "the status is %+v", cj.Status)
	})
}

// TestMisfits checks that CronJobs that cannot run say so, and hold up no other.
func TestMisfits(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*batch.CronJobSpec)
		refuse error
		event  string
		told   string // a message of an event
	}{
		"no schedule":  {change: func(s *batch.CronJobSpec) { s.Schedule = "often" }, event: `Warning UnparseableSchedule unparseable schedule: "often" : `},
		"no time zone": {change: func(s *batch.CronJobSpec) { s.TimeZone = ptr.To("Mars/Olympus") }, event: `Warning UnknownTimeZone invalid timeZone: "Mars/Olympus"`},
		"no such time": {change: func(s *batch.CronJobSpec) { s.Schedule = "0 0 31 2 *" }, event: "Warning InvalidSchedule invalid schedule: 0 0 31 2 * : time difference between two schedules is less than 1 second"},
		"refused Jobs": {change: func(s *batch.CronJobSpec) { s.Schedule = "30 0 * * *" }, refuse: errors.New("no"), event: "Warning FailedCreate Error creating job: no"},
	} {
		t.Run(name, func(t *testing.T) {
			controllertest.Misfit{
				Controllers: []controllertest.Constructor{New},
				World:       []controllertest.Object{hourly("bad", c.change)},
				Refuse:      controllertest.Refuses("jobs", c.refuse),
				Others:      ends,
				Event:       c.event,
				Later:       controllertest.Creates(every("good")),
				Within:      3 * time.Minute,
				Fine:        ran("good"),
			}.Bounded(t)
		})
	}
}

// TestClockJumps checks that a CronJob runs once for all that a clock which is set has
// skipped, runs nothing twice, and goes on.
func TestClockJumps(t *testing.T) {
	for name, c := range map[string]struct {
		by    time.Duration
		event string
		jobs  int
	}{
		"a year on":   {365 * 24 * time.Hour, "Warning TooManyMissedTimes too many missed start times", 4},
		"an hour on":  {time.Hour, "", 4},
		"a year back": {-365 * 24 * time.Hour, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var clk *controllertest.JumpingClock
			controllertest.Misfit{
				Controllers: []controllertest.Constructor{New},
				Context: func(x *controllers.Context) {
					clk = &controllertest.JumpingClock{}
					x.Clock = clk
				},
				World: []controllertest.Object{hourly("bad", func(s *batch.CronJobSpec) { s.SuccessfulJobsHistoryLimit = nil })},
				Begin: func(cl *controllertest.Cluster) {
					cl.Advance(time.Hour + time.Minute) // it runs once
					clk.Jump(c.by)
					cl.Advance(time.Hour)
				},
				Others: ends,
				Event:  c.event,
				Told: func(t *testing.T, cl *controllertest.Cluster) {
					if n := len(controllertest.All[*batch.Job](cl, "ns")); n > c.jobs {
						t.Errorf("%d Jobs, want %d at most", n, c.jobs)
					}
				},
				Reads: 20, Writes: 20,
				Later:  controllertest.Creates(every("good")),
				Within: 3 * time.Minute,
				Fine: func(t *testing.T, cl *controllertest.Cluster) {
					if _, ok := controllertest.Find[*batch.CronJob](cl, "ns", "good"); !ok {
						t.Fatal("there is no other")
					}
					good := 0
					for _, j := range controllertest.All[*batch.Job](cl, "ns") {
						if o := metav1.GetControllerOf(j); o != nil && o.Name == "good" {
							good++
						}
					}
					if good == 0 && c.by > 0 {
						t.Error(fmt.Sprint(name, ": the other has not run"))
					}
				},
			}.Bounded(t)
		})
	}
}

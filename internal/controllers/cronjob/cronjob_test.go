package cronjob

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"
	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

type cluster struct {
	*controllertest.Cluster
	t testing.TB
}

// start runs the controller with a CronJob of each minute. Time begins at
// midnight, UTC.
func start(t testing.TB, change func(*batch.CronJobSpec)) *cluster {
	c := &cluster{controllertest.New(t, New), t}
	cj := &batch.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "tick", CreationTimestamp: metav1.Now()}, Spec: batch.CronJobSpec{
		Schedule: "* * * * *", ConcurrencyPolicy: batch.AllowConcurrent, Suspend: ptr.To(false),
		SuccessfulJobsHistoryLimit: ptr.To[int32](3), FailedJobsHistoryLimit: ptr.To[int32](1),
		JobTemplate: batch.JobTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}}}}
	change(&cj.Spec)
	controllertest.Must[*batch.CronJob](t)(c.Client.BatchV1().CronJobs("ns").Create(context.Background(), cj, metav1.CreateOptions{}))
	c.Advance(time.Second)
	return c
}

func (c *cluster) cronJob() *batch.CronJob {
	c.t.Helper()
	return controllertest.Must[*batch.CronJob](c.t)(c.Client.BatchV1().CronJobs("ns").Get(context.Background(), "tick", metav1.GetOptions{}))
}

// jobs returns the Jobs' names without what they have in common, in order.
func (c *cluster) jobs() (out []string) {
	c.t.Helper()
	list := controllertest.Must[*batch.JobList](c.t)(c.Client.BatchV1().Jobs("ns").List(context.Background(), metav1.ListOptions{}))
	for _, j := range list.Items {
		var minute int64
		if _, err := fmt.Sscanf(j.Name, "tick-%d", &minute); err != nil {
			c.t.Fatal(err)
		}
		out = append(out, time.Unix(minute*60, 0).UTC().Format("15:04"))
	}
	slices.Sort(out)
	return out
}

func (c *cluster) want(jobs string, active int) {
	c.t.Helper()
	if got := strings.Join(c.jobs(), " "); got != jobs {
		c.t.Errorf("jobs %q, want %q", got, jobs)
	}
	if n := len(c.cronJob().Status.Active); n != active {
		c.t.Errorf("%d active, want %d", n, active)
	}
}

// end ends the Jobs that run.
func (c *cluster) end(how batch.JobConditionType) {
	c.t.Helper()
	list := controllertest.Must[*batch.JobList](c.t)(c.Client.BatchV1().Jobs("ns").List(context.Background(), metav1.ListOptions{}))
	for i := range list.Items {
		if j := &list.Items[i]; controllers.JobEnd(j) == nil {
			j.Status.StartTime, j.Status.CompletionTime = ptr.To(metav1.Now()), ptr.To(metav1.Now())
			j.Status.Conditions = []batch.JobCondition{{Type: how, Status: v1.ConditionTrue}}
			controllertest.Must[*batch.Job](c.t)(c.Client.BatchV1().Jobs("ns").UpdateStatus(context.Background(), j, metav1.UpdateOptions{}))
		}
	}
	c.Advance(time.Second)
}

func TestConcurrency(t *testing.T) {
	for _, c := range []struct {
		policy batch.ConcurrencyPolicy
		jobs   string
		active int
		event  string
		after  int // active, once those have ended
	}{
		{batch.AllowConcurrent, "00:01 00:02 00:03", 3, "Normal SuccessfulCreate Created job tick-15778083", 0},
		{batch.ForbidConcurrent, "00:01", 1, "Normal JobAlreadyActive Not starting job because prior execution is running and concurrency policy is Forbid", 1},
		{batch.ReplaceConcurrent, "00:03", 1, "Normal SuccessfulDelete Deleted job tick-15778082", 0},
	} {
		t.Run(string(c.policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := start(t, func(s *batch.CronJobSpec) { s.ConcurrencyPolicy = c.policy })
				cl.want("", 0)
				cl.Advance(3 * time.Minute)
				cl.want(c.jobs, c.active)
				cl.HasEvent(c.event)
				cl.end(batch.JobComplete)
				if s := cl.cronJob().Status; len(s.Active) != c.after || s.LastSuccessfulTime == nil {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

// TestForbidden checks that a Job that was held up is made when the earlier one
// has ended.
func TestForbidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(s *batch.CronJobSpec) { s.ConcurrencyPolicy = batch.ForbidConcurrent })
		c.Advance(2*time.Minute + 30*time.Second)
		c.want("00:01", 1)
		c.end(batch.JobComplete)
		c.want("00:01 00:02", 1)
	})
}

func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(s *batch.CronJobSpec) {
			s.SuccessfulJobsHistoryLimit, s.FailedJobsHistoryLimit = ptr.To[int32](2), ptr.To[int32](0)
		})
		for range 4 {
			c.Advance(time.Minute)
			c.end(batch.JobComplete)
		}
		c.want("00:03 00:04", 0)
		c.Advance(time.Minute)
		c.end(batch.JobFailed)
		c.want("00:03 00:04", 0)
	})
}

func TestJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(s *batch.CronJobSpec) { s.TimeZone, s.Schedule = ptr.To("Asia/Kolkata"), "31 5 * * *" }) // 00:01 UTC
		c.Advance(time.Hour)
		c.want("00:01", 1)
		j := controllertest.Must[*batch.JobList](t)(c.Client.BatchV1().Jobs("ns").List(context.Background(), metav1.ListOptions{})).Items[0]
		if !metav1.IsControlledBy(&j, c.cronJob()) || j.Labels["a"] != "b" || j.Annotations[batch.CronJobScheduledTimestampAnnotation] != "2000-01-01T05:31:00+05:30" {
			t.Errorf("job %+v", j.ObjectMeta)
		}
		if at := c.cronJob().Status.LastScheduleTime; at == nil || at.UTC().Format(time.RFC3339) != "2000-01-01T00:01:00Z" {
			t.Errorf("last schedule time %v", at)
		}
	})
}

func TestSuspendAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(s *batch.CronJobSpec) { s.Suspend = ptr.To(true) })
		c.Advance(4 * time.Hour)
		c.want("", 0)
		cj := c.cronJob()
		cj.Spec.Suspend = ptr.To(false)
		controllertest.Must[*batch.CronJob](t)(c.Client.BatchV1().CronJobs("ns").Update(context.Background(), cj, metav1.UpdateOptions{}))
		c.Advance(time.Second)
		c.want("04:00", 1) // the last of those that were missed
		c.HasEvent("Warning TooManyMissedTimes too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	})
}

func TestBadInput(t *testing.T) {
	for _, c := range []struct {
		change func(*batch.CronJobSpec)
		event  string
	}{
		{func(s *batch.CronJobSpec) { s.Schedule = "often" }, "Warning UnparseableSchedule "},
		{func(s *batch.CronJobSpec) { s.TimeZone = ptr.To("Mars/Olympus") }, "Warning UnknownTimeZone invalid timeZone: \"Mars/Olympus\""},
		{func(s *batch.CronJobSpec) { s.Schedule = "0 0 31 2 *" }, "Warning InvalidSchedule invalid schedule: 0 0 31 2 * : "},
		{func(s *batch.CronJobSpec) { s.Schedule = "TZ=UTC 0 0 31 12 *" }, "Warning UnsupportedSchedule CRON_TZ or TZ used in schedule \"TZ=UTC 0 0 31 12 *\" is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"},
	} {
		synctest.Test(t, func(t *testing.T) {
			cl := start(t, c.change)
			cl.Advance(time.Hour)
			cl.want("", 0)
			if events := cl.Events(); len(events) != 1 || !strings.HasPrefix(events[0], c.event) {
				t.Errorf("events %q, want one that begins with %q", events, c.event)
			}
		})
	}
}

// TestSuspendedBadInput checks that the schedule of a CronJob that is suspended is not judged.
func TestSuspendedBadInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := start(t, func(s *batch.CronJobSpec) { s.Schedule, s.Suspend = "often", ptr.To(true) })
		cl.Advance(time.Hour)
		if events := cl.Events(); len(events) != 0 {
			t.Errorf("events %q", events)
		}
	})
}

// TestLostStatus checks that a Job is not made twice where the status could not
// be written after it was made.
func TestLostStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(*batch.CronJobSpec) {})
		c.Advance(time.Minute)
		cj := c.cronJob()
		cj.Status = batch.CronJobStatus{}
		controllertest.Must[*batch.CronJob](t)(c.Client.BatchV1().CronJobs("ns").UpdateStatus(context.Background(), cj, metav1.UpdateOptions{}))
		c.Advance(time.Second)
		c.want("00:01", 1)
		if c.cronJob().Status.LastScheduleTime == nil {
			t.Error("the time is not noted again")
		}
	})
}

func TestDue(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02 15:04:05", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct{ schedule, since, now, want string }{
		{"0 * * * *", "2020-01-01 10:30:00", "2020-01-01 10:59:59", ""},
		{"0 * * * *", "2020-01-01 10:30:00", "2020-01-01 11:00:00", "2020-01-01 11:00:00"},
		{"0 * * * *", "2020-01-01 11:00:00", "2020-01-01 11:30:00", ""},
		{"0 * * * *", "2020-01-01 10:30:00", "2020-01-01 15:20:00", "2020-01-01 15:00:00"},
		{"* * * * *", "2019-01-01 00:00:00", "2020-01-01 15:20:30", "2020-01-01 15:20:00"},
		{"59 23 31 2 *", "2019-01-01 00:00:00", "2020-01-01 00:00:00", ""},
		{"* 3 1 * *", "2010-01-01 00:00:00", "2020-01-20 00:00:00", "2020-01-01 03:59:00"},
		{"30 6-16/4 * * 1-5", "2010-01-01 00:00:00", "2020-01-05 12:00:00", "2020-01-03 14:30:00"},
	} {
		s, err := cron.ParseStandard(c.schedule)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := due(s, at(c.since), at(c.now))
		text := ""
		if !got.IsZero() {
			text = got.Format("2006-01-02 15:04:05")
		}
		if text != c.want {
			t.Errorf("%s since %s at %s: %q, want %q", c.schedule, c.since, c.now, text, c.want)
		}
	}
}

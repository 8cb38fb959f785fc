package conformance

import (
	"context"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

const cronJobs = "[sig-apps] CronJob "

// The tests of CronJobs do not wait for the next minute. A CronJob has a schedule of
// one minute of each hour, and a last schedule time before the last such minute: it has
// missed that run, and starts its Job now, named by that minute.

// hourly returns the schedule of the minute of at.
func hourly(at time.Time) string { return fmt.Sprintf("%d * * * *", at.UTC().Minute()) }

func jobName(cronJob string, at time.Time) string { return fmt.Sprintf("%s-%d", cronJob, at.Unix()/60) }

// makeCronJob makes a CronJob that has missed the minute of at. Its Jobs do not end.
func (t *T) makeCronJob(name string, at time.Time, change ...func(*batchv1.CronJobSpec)) {
	t.Helper()
	cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.CronJobSpec{
		TimeZone: ptr.To("Etc/UTC"), Schedule: hourly(at), JobTemplate: batchv1.JobTemplateSpec{Spec: t.jobSpec(2)}}}
	for _, f := range change {
		f(&cj.Spec)
	}
	got[*batchv1.CronJob](t)(t.Client.BatchV1().CronJobs(t.NS).Create(t.Context(), cj, create))
	t.miss(name, at)
}

func concurrency(p batchv1.ConcurrencyPolicy) func(*batchv1.CronJobSpec) {
	return func(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = p }
}

// changeCronJob changes a CronJob's specification.
func (t *T) changeCronJob(name string, f func(*batchv1.CronJobSpec)) {
	t.Helper()
	t.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		cj := got[*batchv1.CronJob](t)(t.Client.BatchV1().CronJobs(t.NS).Get(t.Context(), name, get))
		f(&cj.Spec)
		_, err := t.Client.BatchV1().CronJobs(t.NS).Update(t.Context(), cj, update)
		return err
	}))
}

// miss changes the CronJob as if it had missed its run in the minute of at.
func (t *T) miss(name string, at time.Time) {
	t.Helper()
	patch := patchOf(dict{"status": dict{"lastScheduleTime": at.UTC().Truncate(time.Minute).Add(-30 * time.Second).Format(time.RFC3339)}})
	got[*batchv1.CronJob](t)(t.Client.BatchV1().CronJobs(t.NS).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"))
}

// reschedule sets the CronJob's schedule to the minute of at, as if it had
// missed that run.
func (t *T) reschedule(name string, at time.Time) {
	t.Helper()
	t.changeCronJob(name, func(s *batchv1.CronJobSpec) { s.Schedule = hourly(at) })
	t.miss(name, at)
}

// activeJobs waits until want are the active Jobs of a CronJob, and checks that there
// are no others.
func (t *T) activeJobs(cronJob string, want ...string) {
	t.Helper()
	t.until(fmt.Sprintf("%v to be active", want), func(ctx context.Context) (bool, error) {
		cj, err := t.Client.BatchV1().CronJobs(t.NS).Get(ctx, cronJob, get)
		if err != nil {
			return false, err
		}
		var have []string
		for _, ref := range cj.Status.Active {
			have = append(have, ref.Name)
		}
		slices.Sort(have)
		return slices.Equal(have, want), nil
	})
	t.exist(want...)
}

// exist checks that want are all Jobs, apart from those that are being deleted.
func (t *T) exist(want ...string) {
	t.Helper()
	var have []string
	for _, j := range got[*batchv1.JobList](t)(t.Client.BatchV1().Jobs(t.NS).List(t.Context(), all)).Items {
		if j.DeletionTimestamp == nil {
			have = append(have, j.Name)
		}
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Errorf("the Jobs are %v, want %v", have, want)
	}
}

var _ = It(cronJobs+"should schedule multiple jobs concurrently", func(t *T) {
	second := time.Now().Add(-time.Minute)
	first := second.Add(-time.Minute)
	t.makeCronJob("cj", first, concurrency(batchv1.AllowConcurrent))
	t.activeJobs("cj", jobName("cj", first))
	t.reschedule("cj", second)
	t.activeJobs("cj", jobName("cj", first), jobName("cj", second))
	j := got[*batchv1.Job](t)(t.Client.BatchV1().Jobs(t.NS).Get(t.Context(), jobName("cj", second), get))
	if ref := metav1.GetControllerOf(j); ref == nil || ref.Kind != "CronJob" || ref.Name != "cj" {
		t.Errorf("the Job's owner is %+v", ref)
	}
	if have, want := j.Annotations[batchv1.CronJobScheduledTimestampAnnotation], second.UTC().Truncate(time.Minute).Format(time.RFC3339); have != want {
		t.Errorf("the Job is of %s, want %s", have, want)
	}
})

var _ = It(cronJobs+"should not schedule new jobs when ForbidConcurrent", func(t *T) {
	second := time.Now().Add(-time.Minute)
	first := second.Add(-time.Minute)
	t.makeCronJob("cj", first, concurrency(batchv1.ForbidConcurrent))
	t.activeJobs("cj", jobName("cj", first))
	t.reschedule("cj", second)
	t.until("the controller to say that a Job is active", func(ctx context.Context) (bool, error) {
		l, err := t.Client.CoreV1().Events(t.NS).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=cj,reason=JobAlreadyActive"})
		return err == nil && len(l.Items) > 0, err
	})
	t.activeJobs("cj", jobName("cj", first))
	// The deletion allows the run that was held back.
	t.must(t.Client.BatchV1().Jobs(t.NS).Delete(t.Context(), jobName("cj", first), propagate(metav1.DeletePropagationBackground)))
	t.activeJobs("cj", jobName("cj", second))
})

var _ = It(cronJobs+"should replace jobs when ReplaceConcurrent", func(t *T) {
	second := time.Now().Add(-time.Minute)
	first := second.Add(-time.Minute)
	t.makeCronJob("cj", first, concurrency(batchv1.ReplaceConcurrent))
	t.activeJobs("cj", jobName("cj", first))
	t.reschedule("cj", second)
	t.activeJobs("cj", jobName("cj", second))
	t.gone(t.Dynamic.Resource(batchv1.SchemeGroupVersion.WithResource("jobs")).Namespace(t.NS), jobName("cj", first))
})

var _ = It(cronJobs+"should not schedule jobs when suspended", func(t *T) {
	at := time.Now().Add(-time.Minute)
	t.makeCronJob("suspended", at, func(s *batchv1.CronJobSpec) { s.Suspend = ptr.To(true) })
	// An equal CronJob that is created later starts its Job.
	t.makeCronJob("twin", at)
	t.activeJobs("twin", jobName("twin", at))
	if cj := got[*batchv1.CronJob](t)(t.Client.BatchV1().CronJobs(t.NS).Get(t.Context(), "suspended", get)); len(cj.Status.Active) != 0 {
		t.Errorf("the status of the suspended one: %+v", cj.Status)
	}
	t.changeCronJob("suspended", func(s *batchv1.CronJobSpec) { s.Suspend = ptr.To(false) })
	t.until("the Job of the one that is no longer suspended", func(ctx context.Context) (bool, error) {
		cj, err := t.Client.BatchV1().CronJobs(t.NS).Get(ctx, "suspended", get)
		return err == nil && len(cj.Status.Active) == 1 && cj.Status.Active[0].Name == jobName("suspended", at), err
	})
})

var _ = It(cronJobs+"should support CronJob API operations", func(t *T) {
	t.operate(operations{gvr: gvr("batch", "v1", "cronjobs"),
		one: t.template("{apiVersion: batch/v1, kind: CronJob, spec: {schedule: '* */1 * * ?', suspend: true, jobTemplate: {spec: {template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: keelson.local/demo}]}}}}}}"),
		status: func(u *unstructured.Unstructured) {
			t.must(unstructured.SetNestedField(u.Object, time.Now().UTC().Format(time.RFC3339), "status", "lastScheduleTime"))
		}})
})

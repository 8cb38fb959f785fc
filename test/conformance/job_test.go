package conformance

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

const jobs = "[sig-apps] Job "

// jobSpec returns the spec of a Job of two pods at a time. The pods are bound to a
// node that does not exist, whose agent the test plays.
func (t *T) jobSpec(completions int32) batchv1.JobSpec {
	return batchv1.JobSpec{Parallelism: ptr.To[int32](2), Completions: &completions, BackoffLimit: ptr.To[int32](6), Template: v1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "j"}},
		Spec: v1.PodSpec{NodeName: "played-" + t.NS, RestartPolicy: v1.RestartPolicyNever, TerminationGracePeriodSeconds: ptr.To[int64](0),
			Containers: []v1.Container{{Name: "c", Image: "keelson.local/demo"}}}}}
}

// makeJob makes the Job j.
func (t *T) makeJob(completions int32, change ...func(*batchv1.Job)) *batchv1.Job {
	t.Helper()
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: t.jobSpec(completions)}
	for _, f := range change {
		f(j)
	}
	return got[*batchv1.Job](t)(t.Client.BatchV1().Jobs(t.NS).Create(t.Context(), j, create))
}

func indexed(j *batchv1.Job) { j.Spec.CompletionMode = ptr.To(batchv1.IndexedCompletion) }

// limitPerIndex sets the backoff limit per index.
func limitPerIndex(n int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		indexed(j)
		j.Spec.BackoffLimit, j.Spec.BackoffLimitPerIndex = nil, &n
	}
}

func failurePolicy(rule batchv1.PodFailurePolicyRule) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{rule}}
	}
}

func onExit(code int32) *batchv1.PodFailurePolicyOnExitCodesRequirement {
	return &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{code}}
}

// exit returns the exit code of a running pod, and false if the pod keeps
// running.
type exit func(*v1.Pod) (int32, bool)

func runs(*v1.Pod) (int32, bool) { return 0, false }

func with(code int32) exit { return func(*v1.Pod) (int32, bool) { return code, true } }

// oddFail makes the pods of odd indexes fail, and the others succeed.
func oddFail(p *v1.Pod) (int32, bool) {
	i, _ := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	return int32(i % 2), true
}

// play moves the pods of j to their next stage, as the agent of their node would: they
// run, end with the code of how, and are removed once they are deleted.
func (t *T) play(how exit) {
	t.Helper()
	for _, p := range t.podsWith("j") {
		switch code, ends := how(&p); {
		case p.Status.Phase == v1.PodSucceeded, p.Status.Phase == v1.PodFailed:
			continue
		case p.DeletionTimestamp != nil:
			end(&p, 137)
		case p.Status.Phase == v1.PodPending:
			now := metav1.Now()
			p.Status.Phase, p.Status.StartTime = v1.PodRunning, &now
			p.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", Ready: true, Started: ptr.To(true), State: v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: now}}}}
			p.Status.Conditions = append(p.Status.Conditions, v1.PodCondition{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: now})
		case ends:
			end(&p, code)
		default:
			continue
		}
		_, err := t.Client.CoreV1().Pods(t.NS).UpdateStatus(t.Context(), &p, update)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
}

// end sets the pod's status to one whose container has ended with code. The end is in
// the past, as if the node had reported it late, so that the delay before a pod is
// replaced is over.
func end(p *v1.Pod, code int32) {
	at := metav1.NewTime(time.Now().Add(-time.Hour))
	p.Status.Phase = v1.PodSucceeded
	if code != 0 {
		p.Status.Phase = v1.PodFailed
	}
	p.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: code, StartedAt: at, FinishedAt: at}}}}
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == v1.PodReady {
			c.Status, c.LastTransitionTime = v1.ConditionFalse, at
		}
	}
}

// job plays the pods of j until ok reports true for the Job.
func (t *T) job(what string, how exit, ok func(*batchv1.Job) bool) *batchv1.Job {
	t.Helper()
	var j *batchv1.Job
	t.until(what, func(ctx context.Context) (bool, error) {
		t.play(how)
		var err error
		j, err = t.Client.BatchV1().Jobs(t.NS).Get(ctx, "j", get)
		return err == nil && ok(j), err
	})
	return j
}

// has returns a function that reports whether a Job has a condition with that
// reason.
func has(kind batchv1.JobConditionType, reason string) func(*batchv1.Job) bool {
	return func(j *batchv1.Job) bool {
		return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
			return c.Type == kind && c.Status == v1.ConditionTrue && c.Reason == reason
		})
	}
}

// over plays the pods of j until it has ended, for that reason, and checks that
// no pod of it is left running and that the condition that announces the end had
// the same reason.
func (t *T) over(how exit, kind batchv1.JobConditionType, reason string) *batchv1.Job {
	t.Helper()
	j := t.job(fmt.Sprintf("the Job to be %s: %s", kind, reason), how, has(kind, reason))
	interim := map[batchv1.JobConditionType]batchv1.JobConditionType{batchv1.JobComplete: batchv1.JobSuccessCriteriaMet, batchv1.JobFailed: batchv1.JobFailureTarget}[kind]
	if !has(interim, reason)(j) {
		t.Errorf("the Job is %s without having been %s: %+v", kind, interim, j.Status.Conditions)
	}
	if s := j.Status; s.Active != 0 || ptr.Deref(s.Ready, -1) != 0 || ptr.Deref(s.Terminating, -1) != 0 {
		t.Errorf("the status of the Job that has ended: %+v", s)
	}
	return j
}

func active(n int32) func(*batchv1.Job) bool {
	return func(j *batchv1.Job) bool { return j.Status.Active == n && ptr.Deref(j.Status.Ready, -1) == n }
}

// counts checks the numbers and indexes of a status.
func (t *T) counts(j *batchv1.Job, succeeded, failed int32, completed, lost string) {
	t.Helper()
	if s := j.Status; s.Succeeded != succeeded || s.Failed != failed || s.CompletedIndexes != completed || ptr.Deref(s.FailedIndexes, "") != lost {
		t.Errorf("%d succeeded (%s) and %d failed (%s), want %d (%s) and %d (%s)",
			s.Succeeded, s.CompletedIndexes, s.Failed, ptr.Deref(s.FailedIndexes, ""), succeeded, completed, failed, lost)
	}
}

var _ = It(jobs+"should create pods for an Indexed job with completion indexes and specified hostname", func(t *T) {
	t.makeJob(4, indexed)
	t.counts(t.over(with(0), batchv1.JobComplete, batchv1.JobReasonCompletionsReached), 4, 0, "0-3", "")
	var indexes []string
	for _, p := range t.podsWith("j") {
		i := p.Annotations[batchv1.JobCompletionIndexAnnotation]
		indexes = append(indexes, i)
		if p.Spec.Hostname != "j-"+i || p.Labels[batchv1.JobCompletionIndexAnnotation] != i || p.Status.Phase != v1.PodSucceeded {
			t.Errorf("the pod of index %s: host name %s, labels %v, %s", i, p.Spec.Hostname, p.Labels, p.Status.Phase)
		}
		if env := p.Spec.Containers[0].Env; len(env) != 1 || env[0].Name != "JOB_COMPLETION_INDEX" || env[0].ValueFrom == nil || env[0].ValueFrom.FieldRef == nil {
			t.Errorf("the environment of index %s: %+v", i, env)
		}
	}
	slices.Sort(indexes)
	if !slices.Equal(indexes, []string{"0", "1", "2", "3"}) {
		t.Errorf("the indexes are %v", indexes)
	}
})

var _ = It(jobs+"should allow to use the pod failure policy on exit code to fail the job early", func(t *T) {
	t.makeJob(4, failurePolicy(batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: onExit(1)}))
	t.job("two pods to run", runs, active(2))
	first := t.podsWith("j")[0].UID
	t.over(func(p *v1.Pod) (int32, bool) { return 1, p.UID == first }, batchv1.JobFailed, batchv1.JobReasonPodFailurePolicy)
})

var _ = It(jobs+"should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition", func(t *T) {
	t.makeJob(3, indexed, failurePolicy(batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyActionIgnore,
		OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue}}}),
		func(j *batchv1.Job) { j.Spec.Parallelism, j.Spec.BackoffLimit = ptr.To[int32](3), ptr.To[int32](2) })
	t.job("three pods to run", runs, active(3))
	evicted := map[types.UID]bool{}
	for _, p := range t.podsWith("j") {
		evicted[p.UID] = true
		t.must(t.Client.CoreV1().Pods(t.NS).EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name}}))
	}
	t.counts(t.over(func(p *v1.Pod) (int32, bool) { return 0, !evicted[p.UID] }, batchv1.JobComplete, batchv1.JobReasonCompletionsReached), 3, 0, "0-2", "")
})

var _ = It(jobs+"should execute all indexes despite some failing when using backoffLimitPerIndex", func(t *T) {
	t.makeJob(4, limitPerIndex(1))
	t.counts(t.over(oddFail, batchv1.JobFailed, batchv1.JobReasonFailedIndexes), 2, 4, "0,2", "1,3")
})

var _ = It(jobs+"should terminate job execution when the number of failed indexes exceeds maxFailedIndexes", func(t *T) {
	t.makeJob(4, limitPerIndex(0), func(j *batchv1.Job) {
		j.Spec.Parallelism, j.Spec.MaxFailedIndexes = ptr.To[int32](1), ptr.To[int32](0)
	})
	t.counts(t.over(with(1), batchv1.JobFailed, batchv1.JobReasonMaxFailedIndexesExceeded), 0, 1, "", "0")
})

var _ = It(jobs+"should mark indexes as failed when the FailIndex action is matched in podFailurePolicy", func(t *T) {
	t.makeJob(2, limitPerIndex(1), failurePolicy(batchv1.PodFailurePolicyRule{Action: batchv1.PodFailurePolicyActionFailIndex, OnExitCodes: onExit(1)}))
	t.counts(t.over(oddFail, batchv1.JobFailed, batchv1.JobReasonFailedIndexes), 1, 1, "0", "1")
})

func successPolicy(rule batchv1.SuccessPolicyRule) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		indexed(j)
		j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{rule}}
	}
}

var _ = It(jobs+"with successPolicy should succeeded when all indexes succeeded", func(t *T) {
	t.makeJob(2, successPolicy(batchv1.SuccessPolicyRule{SucceededCount: ptr.To[int32](2)}))
	t.counts(t.over(with(0), batchv1.JobComplete, batchv1.JobReasonSuccessPolicy), 2, 0, "0,1", "")
})

var _ = It(jobs+"with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending", func(t *T) {
	t.makeJob(5, successPolicy(batchv1.SuccessPolicyRule{SucceededIndexes: ptr.To("0")}))
	if j := t.over(oddFail, batchv1.JobComplete, batchv1.JobReasonSuccessPolicy); j.Status.CompletedIndexes != "0" || j.Status.Succeeded != 1 {
		t.Errorf("the status is %+v", j.Status)
	}
})

var _ = It(jobs+"with successPolicy succeededCount rule should succeeded even when some indexes remain pending", func(t *T) {
	t.makeJob(5, successPolicy(batchv1.SuccessPolicyRule{SucceededCount: ptr.To[int32](1)}))
	if j := t.over(oddFail, batchv1.JobComplete, batchv1.JobReasonSuccessPolicy); j.Status.CompletedIndexes != "0" || j.Status.Succeeded != 1 {
		t.Errorf("the status is %+v", j.Status)
	}
})

var _ = It(jobs+"should delete a job", func(t *T) {
	t.makeJob(4)
	t.job("two pods to run", runs, active(2))
	t.must(t.Client.BatchV1().Jobs(t.NS).Delete(t.Context(), "j", propagate(metav1.DeletePropagationBackground)))
	t.gone(t.Dynamic.Resource(batchv1.SchemeGroupVersion.WithResource("jobs")).Namespace(t.NS), "j")
	t.podsOf("app=j", 0)
})

var _ = It(jobs+"should adopt matching orphans and release non-matching pods", func(t *T) {
	j := t.makeJob(4)
	t.job("two pods to run", runs, active(2))
	name := t.podsWith("j")[0].Name
	orphan := patchOf(dict{"metadata": dict{"ownerReferences": nil}})
	if p := got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), name, types.MergePatchType, orphan, metav1.PatchOptions{})); metav1.GetControllerOf(p) != nil {
		t.Errorf("the orphan's owners are %+v", p.OwnerReferences)
	}
	t.controlled(name, j.UID)
	t.job("the pod to be counted again", runs, active(2))
	t.unmatch(name)
	t.controlled(name, "")
	t.podsOf("app=j", 2) // with one in its place
	t.must(t.Client.CoreV1().Pods(t.NS).Delete(t.Context(), name, remove))
	t.gone(t.Dynamic.Resource(v1.SchemeGroupVersion.WithResource("pods")).Namespace(t.NS), name) // it no longer has the Job's finalizer
})

var _ = It(jobs+"should apply changes to a job status", func(t *T) {
	j := t.makeJob(4)
	t.job("two pods to run", runs, active(2))
	r := t.Dynamic.Resource(batchv1.SchemeGroupVersion.WithResource("jobs")).Namespace(t.NS)
	conditions := func(at time.Time) []any {
		return []any{dict{"type": "CustomConditionType", "status": "True", "lastTransitionTime": at.UTC().Format(time.RFC3339)}}
	}
	check := func(u *unstructured.Unstructured, want []any) {
		t.Helper()
		have, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		if len(have) != 1 || have[0].(dict)["type"] != "CustomConditionType" || have[0].(dict)["lastTransitionTime"] != want[0].(dict)["lastTransitionTime"] {
			t.Errorf("the conditions are %v, want %v", have, want)
		}
	}
	first, second := conditions(time.Now()), conditions(time.Now().Add(time.Minute))
	patch := patchOf(dict{"metadata": dict{"annotations": dict{"patchedstatus": "true"}}, "status": dict{"conditions": first}})
	u := got[*unstructured.Unstructured](t)(r.Patch(t.Context(), "j", types.MergePatchType, patch, metav1.PatchOptions{}, "status"))
	check(u, first)
	if u.GetAnnotations()["patchedstatus"] != "true" {
		t.Errorf("annotations after the patch of the status: %v", u.GetAnnotations())
	}
	u = t.change(r, "j", "status", func(u *unstructured.Unstructured) {
		check(u, first)
		t.must(unstructured.SetNestedSlice(u.Object, second, "status", "conditions"))
	})
	check(u, second)
	u = got[*unstructured.Unstructured](t)(r.Get(t.Context(), "j", get, "status"))
	check(u, second)
	if u.GetUID() != j.UID {
		t.Errorf("the status of %s, want %s", u.GetUID(), j.UID)
	}
	// The controller leaves the condition alone.
	if done := t.over(with(0), batchv1.JobComplete, batchv1.JobReasonCompletionsReached); done.Status.Succeeded != 4 || !has("CustomConditionType", "")(done) {
		t.Errorf("the status in the end: %+v", done.Status)
	}
})

var _ = It(jobs+"should manage the lifecycle of a job", func(t *T) {
	label := "e2e-job-label=" + t.NS
	client := t.Client.BatchV1().Jobs(t.NS)
	list := got[*batchv1.JobList](t)(client.List(t.Context(), metav1.ListOptions{LabelSelector: label}))
	w := got[watch.Interface](t)(client.Watch(t.Context(), metav1.ListOptions{LabelSelector: label, ResourceVersion: list.ResourceVersion}))
	defer w.Stop()
	t.makeJob(4, func(j *batchv1.Job) {
		j.Labels, j.Spec.Suspend = map[string]string{"e2e-job-label": t.NS}, ptr.To(true)
	})
	t.job("the Job to be suspended", runs, has(batchv1.JobSuspended, "JobSuspended"))
	t.podsOf("app=j", 0)
	got[*batchv1.Job](t)(client.Patch(t.Context(), "j", types.StrategicMergePatchType, patchOf(dict{"metadata": dict{"labels": dict{"j": "patched"}}}), metav1.PatchOptions{}))
	t.event(w, watch.Modified, func(o runtime.Object) bool { return o.(*batchv1.Job).Labels["j"] == "patched" })
	t.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		j := got[*batchv1.Job](t)(client.Get(t.Context(), "j", get))
		j.Spec.Suspend, j.Annotations = ptr.To(false), map[string]string{"updated": "true"}
		_, err := client.Update(t.Context(), j, update)
		return err
	}))
	t.event(w, watch.Modified, func(o runtime.Object) bool { return o.(*batchv1.Job).Annotations["updated"] == "true" })
	everywhere := func() int {
		return len(got[*batchv1.JobList](t)(t.Client.BatchV1().Jobs("").List(t.Context(), metav1.ListOptions{LabelSelector: label})).Items)
	}
	if n := everywhere(); n != 1 {
		t.Errorf("%d Jobs are listed over all namespaces, want 1", n)
	}
	t.counts(t.over(with(0), batchv1.JobComplete, batchv1.JobReasonCompletionsReached), 4, 0, "", "")
	t.must(client.DeleteCollection(t.Context(), propagate(metav1.DeletePropagationBackground), metav1.ListOptions{LabelSelector: label}))
	t.event(w, watch.Deleted, nil)
	if n := everywhere(); n != 0 {
		t.Errorf("%d Jobs are listed after their deletion", n)
	}
	t.podsOf("app=j", 0)
})

var _ = InContainers(jobs+"should run a job to completion when tasks sometimes fail and are locally restarted", func(t *T) {
	// A container reads its pod's annotation when it starts: it fails, and succeeds
	// once the test has seen that and changed the annotation. Until then it may have
	// failed several times.
	t.makeJob(4, func(j *batchv1.Job) {
		template := &j.Spec.Template
		template.Annotations = map[string]string{"does": "fail"}
		template.Spec.NodeName, template.Spec.RestartPolicy = "", v1.RestartPolicyOnFailure
		c := &template.Spec.Containers[0]
		c.Env = []v1.EnvVar{{Name: "DOES", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.annotations['does']"}}}}
		c.Args = []string{"$(DOES)"}
		j.Spec.Parallelism, j.Spec.BackoffLimit = ptr.To[int32](4), ptr.To[int32](100)
	})
	failed := map[string]bool{}
	var j *batchv1.Job
	t.until("the Job to be complete", func(ctx context.Context) (bool, error) {
		for _, p := range t.podsWith("j") {
			s := p.Status.ContainerStatuses
			if failed[p.Name] || len(s) == 0 || s[0].State.Terminated == nil && s[0].LastTerminationState.Terminated == nil {
				continue
			}
			failed[p.Name] = true
			patch := patchOf(dict{"metadata": dict{"annotations": dict{"does": "echo"}}})
			if _, err := t.Client.CoreV1().Pods(t.NS).Patch(ctx, p.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
				return false, err
			}
		}
		var err error
		j, err = t.Client.BatchV1().Jobs(t.NS).Get(ctx, "j", get)
		return err == nil && has(batchv1.JobComplete, batchv1.JobReasonCompletionsReached)(j), err
	})
	t.counts(j, 4, 0, "", "")
	for _, p := range t.podsWith("j") {
		if n := p.Status.ContainerStatuses[0].RestartCount; n == 0 || !failed[p.Name] {
			t.Errorf("%s succeeded after %d restarts", p.Name, n)
		}
	}
})

package job

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

// made returns a Job as the API server stores it.
func made(change func(*batch.JobSpec)) *batch.Job {
	l := map[string]string{"job": "j"}
	j := &batch.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "j"}, Spec: batch.JobSpec{
		Completions: ptr.To[int32](1), Parallelism: ptr.To[int32](1), BackoffLimit: ptr.To[int32](6), Selector: &metav1.LabelSelector{MatchLabels: l},
		CompletionMode: ptr.To(batch.NonIndexedCompletion), Suspend: ptr.To(false), PodReplacementPolicy: ptr.To(batch.TerminatingOrFailed),
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, Containers: []v1.Container{{Name: "c"}}}},
	}}
	if change != nil {
		change(&j.Spec)
	}
	return j
}

type cluster struct {
	*controllertest.Cluster
	t testing.TB
}

// start runs the controller with a Job.
func start(t testing.TB, j *batch.Job) *cluster {
	c := &cluster{controllertest.New(t, New), t}
	c.GracefulPods()
	controllertest.Must[*batch.Job](t)(c.Client.BatchV1().Jobs("ns").Create(context.Background(), j, metav1.CreateOptions{}))
	c.Advance(time.Second)
	return c
}

func (c *cluster) job() *batch.Job {
	c.t.Helper()
	return controllertest.Must[*batch.Job](c.t)(c.Client.BatchV1().Jobs("ns").Get(context.Background(), "j", metav1.GetOptions{}))
}

// live returns the pods that have not ended, by name.
func (c *cluster) live() (out []v1.Pod) {
	c.t.Helper()
	for _, p := range c.Pods("ns") {
		if controllers.PodActive(&p) {
			out = append(out, p)
		}
	}
	return out
}

// exit ends a pod with a code.
func (c *cluster) exit(p *v1.Pod, code int32) {
	c.t.Helper()
	q := p.DeepCopy()
	q.Status.Phase = v1.PodSucceeded
	if code != 0 {
		q.Status.Phase = v1.PodFailed
	}
	q.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now()}}}}
	controllertest.Must[*v1.Pod](c.t)(c.Client.CoreV1().Pods("ns").UpdateStatus(context.Background(), q, metav1.UpdateOptions{}))
	c.Advance(time.Second)
}

// reap ends the pods that are being deleted, as a kubelet does.
func (c *cluster) reap() {
	c.t.Helper()
	for _, p := range c.Pods("ns") {
		if p.DeletionTimestamp != nil && !controllers.PodTerminated(&p) {
			c.exit(&p, 137)
			_ = c.Client.CoreV1().Pods("ns").Delete(context.Background(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		}
	}
	c.Advance(time.Second)
}

// summary returns the status in short: counts, and conditions with their reasons.
func (c *cluster) summary() string {
	c.t.Helper()
	s := c.job().Status
	out := fmt.Sprintf("active=%d succeeded=%d failed=%d", s.Active, s.Succeeded, s.Failed)
	if s.CompletedIndexes != "" {
		out += " completed=" + s.CompletedIndexes
	}
	if s.FailedIndexes != nil {
		out += " lost=" + *s.FailedIndexes
	}
	for _, x := range s.Conditions {
		out += fmt.Sprintf(" %s=%s(%s)", x.Type, x.Status, x.Reason)
	}
	if u := s.UncountedTerminatedPods; u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
		out += fmt.Sprintf(" uncounted=%d", len(u.Succeeded)+len(u.Failed))
	}
	return out
}

func (c *cluster) want(summary string) {
	c.t.Helper()
	if got := c.summary(); got != summary {
		c.t.Errorf("status is %s\n     want %s", got, summary)
	}
}

func TestCompletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) { s.Completions, s.Parallelism = ptr.To[int32](3), ptr.To[int32](2) }))
		c.want("active=2 succeeded=0 failed=0")
		if j := c.job(); j.Status.StartTime == nil || *j.Status.Ready != 0 {
			t.Errorf("status %+v", j.Status)
		}
		c.SetReady(&c.live()[0], true)
		c.Advance(time.Second)
		if j := c.job(); *j.Status.Ready != 1 {
			t.Errorf("%d ready", *j.Status.Ready)
		}
		for _, p := range c.live() {
			c.exit(&p, 0)
		}
		c.want("active=1 succeeded=2 failed=0")
		c.exit(&c.live()[0], 0)
		c.want("active=0 succeeded=3 failed=0 SuccessCriteriaMet=True(CompletionsReached) Complete=True(CompletionsReached)")
		if j := c.job(); j.Status.CompletionTime == nil {
			t.Error("no completion time")
		}
		for _, p := range c.Pods("ns") {
			if tracked(&p) {
				t.Errorf("pod %s still has the finalizer", p.Name)
			}
		}
		c.HasEvent("Normal Completed Job completed")
		if n := len(slices.DeleteFunc(c.Events(), func(e string) bool { return !strings.HasPrefix(e, "Normal SuccessfulCreate Created pod: j-") })); n != 3 {
			t.Errorf("%d events of creation", n)
		}
	})
}

// TestWorkQueue is a Job without completions: one success is enough, and the
// other pods finish what they do.
func TestWorkQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) { s.Completions, s.Parallelism = nil, ptr.To[int32](2) }))
		pods := c.live()
		c.exit(&pods[0], 0)
		c.want("active=1 succeeded=1 failed=0")
		c.exit(&pods[1], 1)
		c.want("active=0 succeeded=1 failed=1 SuccessCriteriaMet=True(CompletionsReached) Complete=True(CompletionsReached)")
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) { s.BackoffLimit = ptr.To[int32](2) }))
		for i, wait := range []time.Duration{10 * time.Second, 20 * time.Second} {
			c.exit(&c.live()[0], 1)
			c.Advance(wait - 3*time.Second)
			if n := len(c.live()); n != 0 {
				t.Errorf("failure %d: replaced too early", i+1)
			}
			c.Advance(3 * time.Second)
			if n := len(c.live()); n != 1 {
				t.Fatalf("failure %d: %d pods after the delay", i+1, n)
			}
		}
		c.exit(&c.live()[0], 1)
		c.want("active=0 succeeded=0 failed=3 FailureTarget=True(BackoffLimitExceeded) Failed=True(BackoffLimitExceeded)")
		c.HasEvent("Warning BackoffLimitExceeded Job has reached the specified backoff limit")
	})
}

// TestRestarts is a Job whose containers restart in place: their restarts count.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) {
			s.BackoffLimit, s.Template.Spec.RestartPolicy = ptr.To[int32](2), v1.RestartPolicyOnFailure
		}))
		p := c.live()[0]
		p.Status.Phase, p.Status.ContainerStatuses = v1.PodRunning, []v1.ContainerStatus{{Name: "c", RestartCount: 2}}
		controllertest.Must[*v1.Pod](t)(c.Client.CoreV1().Pods("ns").UpdateStatus(context.Background(), &p, metav1.UpdateOptions{}))
		c.Advance(time.Second)
		if n := len(c.live()); n != 0 {
			t.Errorf("%d pods go on", n)
		}
		c.reap()
		c.want("active=0 succeeded=0 failed=1 FailureTarget=True(BackoffLimitExceeded) Failed=True(BackoffLimitExceeded)")
	})
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](30) }))
		c.Advance(25 * time.Second)
		c.want("active=1 succeeded=0 failed=0")
		c.Advance(10 * time.Second)
		c.want("active=0 succeeded=0 failed=1 FailureTarget=True(DeadlineExceeded)")
		c.reap()
		c.want("active=0 succeeded=0 failed=1 FailureTarget=True(DeadlineExceeded) Failed=True(DeadlineExceeded)")
	})
}

func TestSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) { s.Suspend = ptr.To(true) }))
		c.want("active=0 succeeded=0 failed=0 Suspended=True(JobSuspended)")
		if c.job().Status.StartTime != nil {
			t.Error("a suspended Job has a start time")
		}
		set := func(on bool) {
			j := c.job()
			j.Spec.Suspend = &on
			controllertest.Must[*batch.Job](t)(c.Client.BatchV1().Jobs("ns").Update(context.Background(), j, metav1.UpdateOptions{}))
			c.Advance(time.Second)
		}
		set(false)
		c.want("active=1 succeeded=0 failed=0 Suspended=False(JobResumed)")
		c.HasEvent("Normal Resumed Job resumed")
		set(true)
		c.reap()
		c.want("active=0 succeeded=0 failed=0 Suspended=True(JobSuspended)")
		c.HasEvent("Normal Suspended Job suspended")
	})
}

func TestIndexed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) {
			s.CompletionMode, s.Completions, s.Parallelism = ptr.To(batch.IndexedCompletion), ptr.To[int32](3), ptr.To[int32](2)
		}))
		at := func(i int) *v1.Pod {
			t.Helper()
			for _, p := range c.live() {
				if indexOf(&p) == i {
					return &p
				}
			}
			t.Fatalf("no pod has index %d", i)
			return nil
		}
		p := at(1)
		if p.Spec.Hostname != "j-1" || p.Labels[batch.JobCompletionIndexAnnotation] != "1" || p.Spec.Containers[0].Env[0].Name != "JOB_COMPLETION_INDEX" || !strings.HasPrefix(p.Name, "j-1-") {
			t.Errorf("pod %+v", p)
		}
		c.exit(p, 0)
		c.want("active=2 succeeded=1 failed=0 completed=1")
		c.exit(at(0), 1)
		c.Advance(10 * time.Second)
		c.exit(at(0), 0)
		c.exit(at(2), 0)
		c.want("active=0 succeeded=3 failed=1 completed=0-2 SuccessCriteriaMet=True(CompletionsReached) Complete=True(CompletionsReached)")
	})
}

// TestLimitPerIndex has one index fail for good while the other succeeds; a
// failure that is ignored does not count.
func TestLimitPerIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) {
			s.CompletionMode, s.Completions, s.Parallelism = ptr.To(batch.IndexedCompletion), ptr.To[int32](2), ptr.To[int32](2)
			s.BackoffLimit, s.BackoffLimitPerIndex, s.PodReplacementPolicy = ptr.To[int32](1<<30), ptr.To[int32](1), ptr.To(batch.Failed)
			s.PodFailurePolicy = &batch.PodFailurePolicy{Rules: []batch.PodFailurePolicyRule{{Action: batch.PodFailurePolicyActionIgnore,
				OnExitCodes: &batch.PodFailurePolicyOnExitCodesRequirement{Operator: batch.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}}}}}
		}))
		again := func(code int32, counted, ignored string) {
			t.Helper()
			for _, p := range c.live() {
				if indexOf(&p) == 0 {
					c.exit(&p, code)
				}
			}
			c.Advance(time.Minute)
			for _, p := range c.live() {
				if indexOf(&p) == 0 {
					if a := p.Annotations; a[batch.JobIndexFailureCountAnnotation] != counted || a[batch.JobIndexIgnoredFailureCountAnnotation] != ignored {
						t.Errorf("annotations %v, want %q and %q", a, counted, ignored)
					}
					return
				}
			}
			if counted != "" {
				t.Error("index 0 has no pod")
			}
		}
		again(42, "0", "1")
		again(1, "1", "1")
		again(1, "", "")
		c.want("active=1 succeeded=0 failed=2 lost=0")
		c.exit(&c.live()[0], 0)
		c.want("active=0 succeeded=1 failed=2 completed=1 lost=0 FailureTarget=True(FailedIndexes) Failed=True(FailedIndexes)")
	})
}

func TestFailurePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) {
			s.Parallelism, s.Completions, s.PodReplacementPolicy = ptr.To[int32](2), ptr.To[int32](2), ptr.To(batch.Failed)
			s.PodFailurePolicy = &batch.PodFailurePolicy{Rules: []batch.PodFailurePolicyRule{
				{Action: batch.PodFailurePolicyActionIgnore, OnPodConditions: []batch.PodFailurePolicyOnPodConditionsPattern{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue}}},
				{Action: batch.PodFailurePolicyActionFailJob, OnExitCodes: &batch.PodFailurePolicyOnExitCodesRequirement{ContainerName: ptr.To("c"), Operator: batch.PodFailurePolicyOnExitCodesOpIn, Values: []int32{3}}}}}
		}))
		p := c.live()[0]
		p.Status.Conditions = []v1.PodCondition{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue}}
		c.exit(&p, 3)
		c.Advance(time.Minute)
		c.want("active=2 succeeded=0 failed=0")
		p = c.live()[0]
		c.exit(&p, 3)
		c.reap()
		c.want("active=0 succeeded=0 failed=2 FailureTarget=True(PodFailurePolicy) Failed=True(PodFailurePolicy)")
		c.HasEvent(fmt.Sprintf("Warning PodFailurePolicy Container c for pod ns/%s failed with exit code 3 matching FailJob rule at index 1", p.Name))
	})
}

func TestSuccessPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) {
			s.CompletionMode, s.Completions, s.Parallelism = ptr.To(batch.IndexedCompletion), ptr.To[int32](4), ptr.To[int32](4)
			s.SuccessPolicy = &batch.SuccessPolicy{Rules: []batch.SuccessPolicyRule{{SucceededIndexes: ptr.To("1-3"), SucceededCount: ptr.To[int32](1)}}}
		}))
		for _, p := range c.live() {
			if indexOf(&p) == 2 {
				c.exit(&p, 0)
			}
		}
		c.reap()
		c.want("active=0 succeeded=1 failed=0 completed=2 SuccessCriteriaMet=True(SuccessPolicy) Complete=True(SuccessPolicy)")
	})
}

// TestReplaceFailed waits for a pod that is being deleted to fail.
func TestReplaceFailed(t *testing.T) {
	for _, policy := range []batch.PodReplacementPolicy{batch.Failed, batch.TerminatingOrFailed} {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, made(func(s *batch.JobSpec) { s.PodReplacementPolicy = &policy }))
			if err := c.Client.CoreV1().Pods("ns").Delete(context.Background(), c.live()[0].Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			c.Advance(30 * time.Second)
			if n, want := len(c.live()), map[batch.PodReplacementPolicy]int{batch.Failed: 0, batch.TerminatingOrFailed: 1}[policy]; n != want {
				t.Errorf("%s: %d live pods, want %d", policy, n, want)
			}
			c.reap()
			c.Advance(30 * time.Second)
			if n := len(c.live()); n != 1 {
				t.Errorf("%s: %d live pods in the end", policy, n)
			}
		})
	}
}

// TestOtherControllers checks that Jobs of other controllers are left alone,
// and pods that no Job counts lose their finalizer.
func TestOtherControllers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(func(s *batch.JobSpec) { s.ManagedBy = ptr.To("example.com/other") }))
		c.want("active=0 succeeded=0 failed=0")
		orphan := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "o", Finalizers: []string{batch.JobTrackingFinalizer},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(&metav1.ObjectMeta{Name: "gone", UID: "u"}, kind)}}}
		controllertest.Must[*v1.Pod](t)(c.Client.CoreV1().Pods("ns").Create(context.Background(), orphan, metav1.CreateOptions{}))
		c.Advance(time.Second)
		if p := c.Pods("ns")[0]; tracked(&p) {
			t.Error("the orphan has the finalizer still")
		}
	})
}

// TestDeleted frees the pods of a Job that is deleted.
func TestDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, made(nil))
		if err := c.Client.BatchV1().Jobs("ns").Delete(context.Background(), "j", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.Advance(time.Second)
		for _, p := range c.Pods("ns") {
			if tracked(&p) {
				t.Error("the pod has the finalizer still")
			}
		}
	})
}

// TestKilled has writes fail at random and the controller start anew at random
// moments: in the end each index has succeeded once, and nothing is left.
func TestKilled(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			isIndexed := seed%2 == 0
			c := &cluster{controllertest.New(t), t}
			c.GracefulPods()
			fail := true
			c.Client.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
				if v := a.GetVerb(); fail && v != "get" && v != "list" && v != "watch" && rnd.IntN(5) == 0 {
					return true, nil, errors.New("connection refused")
				}
				return false, nil, nil
			})
			run := func() (stop func()) {
				ctx, cancel := context.WithCancel(context.Background())
				cc := c.Context
				cc.Informers = informers.NewSharedInformerFactory(c.Client, 0)
				r, err := New(cc)
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() { defer close(ended); r(ctx) }()
				cc.Informers.Start(ctx.Done())
				return func() { cancel(); <-ended; cc.Informers.Shutdown() }
			}
			stop := run()
			fail = false
			controllertest.Must[*batch.Job](t)(c.Client.BatchV1().Jobs("ns").Create(context.Background(), made(func(s *batch.JobSpec) {
				s.Completions, s.Parallelism, s.BackoffLimit = ptr.To[int32](6), ptr.To[int32](3), ptr.To[int32](1000)
				if isIndexed {
					s.CompletionMode = ptr.To(batch.IndexedCompletion)
				}
			}), metav1.CreateOptions{}))
			fail = true
			var wins, losses int32
			won := map[int]int{}
			for range 2000 {
				c.Advance(time.Duration(rnd.IntN(3000)) * time.Millisecond)
				if rnd.IntN(4) == 0 {
					stop()
					stop = run()
				}
				pods := c.live()
				if len(pods) > 3 {
					t.Fatalf("seed %d: %d pods run at once", seed, len(pods))
				}
				if len(pods) > 0 && rnd.IntN(2) == 0 {
					p := pods[rnd.IntN(len(pods))]
					fail = false
					if rnd.IntN(3) == 0 {
						losses++
						c.exit(&p, 1)
					} else {
						wins++
						won[indexOf(&p)]++
						c.exit(&p, 0)
					}
					fail = true
				}
				if finished(c.job()) {
					break
				}
			}
			fail = false
			c.Advance(time.Minute)
			stop()
			j := c.job()
			if !is(j, batch.JobComplete) || j.Status.Succeeded != 6 || j.Status.Failed != losses || wins != 6 || j.Status.Active != 0 {
				t.Errorf("seed %d: %s, want 6 succeeded of %d and %d failed", seed, c.summary(), wins, losses)
			}
			if isIndexed {
				for i := range 6 {
					if won[i] != 1 {
						t.Errorf("seed %d: index %d has succeeded %d times", seed, i, won[i])
					}
				}
			}
			for _, p := range c.Pods("ns") {
				if tracked(&p) {
					t.Errorf("seed %d: pod %s has the finalizer still", seed, p.Name)
				}
			}
		})
	}
}

func TestIndexes(t *testing.T) {
	for _, c := range []struct {
		list        string
		completions int
		want        string
		count       int
	}{
		{"", 5, "", 0}, {"0", 5, "0", 1}, {"1,3-5,7", 9, "1,3-5,7", 5}, {"1,2,3", 9, "1-3", 3}, {"1-2", 9, "1,2", 2}, {"3-8", 5, "3,4", 2},
		{"7", 5, "", 0}, {"x,2", 5, "2", 1}, {"4-2", 9, "", 0}, {"-1,2", 5, "2", 1},
	} {
		x := parseIndexes(c.list, c.completions)
		if x.String() != c.want || x.count() != c.count {
			t.Errorf("%q below %d: %q of %d, want %q of %d", c.list, c.completions, x, x.count(), c.want, c.count)
		}
	}
	x := parseIndexes("1,3-5", 10)
	if g := x.gaps(4, 8); !slices.Equal(g, []int{0, 2, 6, 7}) {
		t.Errorf("gaps %v", g)
	}
	if y := x.union(parseIndexes("0,2,9", 10)); y.String() != "0-5,9" || !y.has(2) || y.has(6) || y.overlap(x) != 4 {
		t.Errorf("union %q, overlap %d", y, y.overlap(x))
	}
}

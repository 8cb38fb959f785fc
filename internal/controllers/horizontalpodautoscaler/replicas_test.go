package horizontalpodautoscaler

import (
	"fmt"
	"math"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// pod returns a pod that requests one CPU, has been ready for long, and is changed by
// f.
func pod(name string, f func(*v1.Pod)) *v1.Pod {
	start, ready := metav1.NewTime(now.Add(-time.Hour)), metav1.NewTime(now.Add(-time.Hour+time.Minute))
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}}}}},
		Status: v1.PodStatus{Phase: v1.PodRunning, StartTime: &start,
			Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: ready}}},
	}
	if f != nil {
		f(p)
	}
	return p
}

func pending(p *v1.Pod) { p.Status.Phase, p.Status.Conditions = v1.PodPending, nil }

func failedPod(p *v1.Pod) { p.Status.Phase = v1.PodFailed }

func deleted(p *v1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now} }

func noRequest(p *v1.Pod) { p.Spec.Containers[0].Resources = v1.ResourceRequirements{} }

// readySince makes a pod that started a minute ago ready for so long.
func readySince(d time.Duration) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Status.StartTime = &metav1.Time{Time: now.Add(-time.Minute)}
		p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-d))
	}
}

// unready makes a pod that started long ago not ready, since d after its start.
func unready(d time.Duration) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Status.Conditions[0].Status = v1.ConditionFalse
		p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(p.Status.StartTime.Add(d))
	}
}

func TestReplicas(t *testing.T) {
	const unmeasured = -1
	type p struct {
		used int64 // thousandths of a CPU
		f    func(*v1.Pod)
	}
	for name, c := range map[string]struct {
		pods    []p
		percent int32
		want    int32
		err     string
	}{
		"above":                                   {pods: []p{{900, nil}, {900, nil}, {900, nil}}, percent: 30, want: 9},
		"below":                                   {pods: []p{{100, nil}, {300, nil}, {500, nil}}, percent: 60, want: 2},
		"within the tolerance":                    {pods: []p{{330, nil}, {330, nil}}, percent: 30, want: 2},
		"just outside it":                         {pods: []p{{340, nil}, {340, nil}}, percent: 30, want: 3},
		"a pending pod uses nothing, going up":    {pods: []p{{900, nil}, {900, nil}, {0, pending}}, percent: 30, want: 6},
		"a pending pod is not there, going down":  {pods: []p{{100, nil}, {100, nil}, {0, pending}}, percent: 50, want: 1},
		"pending pods turn no direction":          {pods: []p{{400, nil}, {0, pending}, {0, pending}}, percent: 30, want: 3},
		"a missing one uses its target, down":     {pods: []p{{100, nil}, {100, nil}, {unmeasured, nil}}, percent: 60, want: 2},
		"a missing one that turns the direction":  {pods: []p{{500, nil}, {unmeasured, nil}}, percent: 60, want: 2},
		"a missing one uses nothing, up":          {pods: []p{{900, nil}, {900, nil}, {unmeasured, nil}}, percent: 50, want: 4},
		"of a target above 100, the target":       {pods: []p{{1500, nil}, {unmeasured, nil}}, percent: 300, want: 2},
		"failed and deleted ones do not count":    {pods: []p{{900, nil}, {900, failedPod}, {900, deleted}}, percent: 30, want: 3},
		"new, measured since it is ready":         {pods: []p{{900, readySince(30 * time.Second)}}, percent: 30, want: 3},
		"new, measured before it was ready":       {pods: []p{{900, nil}, {900, readySince(5 * time.Second)}}, percent: 30, want: 3},
		"old, and never ready":                    {pods: []p{{900, nil}, {900, unready(10 * time.Second)}}, percent: 30, want: 3},
		"old, and ready once":                     {pods: []p{{900, nil}, {900, unready(10 * time.Minute)}}, percent: 30, want: 6},
		"none is ready":                           {pods: []p{{900, pending}}, percent: 30, err: "did not receive metrics for targeted pods (pods might be unready)"},
		"none at all":                             {percent: 30, err: "no pods returned by selector while calculating replica count"},
		"one requests nothing":                    {pods: []p{{900, nil}, {900, noRequest}}, percent: 30, err: "missing request for cpu in container c of Pod p1"},
		"usage without bounds":                    {pods: []p{{math.MaxInt64, nil}, {math.MaxInt64, nil}}, percent: 1, want: math.MaxInt32},
		"all idle":                                {pods: []p{{0, nil}, {0, nil}}, percent: 30, want: 0},
		"two that wait, and one that is overused": {pods: []p{{3000, nil}, {0, pending}, {0, pending}}, percent: 50, want: 6},
	} {
		t.Run(name, func(t *testing.T) {
			var pods []*v1.Pod
			m := samples{}
			for i, p := range c.pods {
				pods = append(pods, pod(fmt.Sprint("p", i), p.f))
				if p.used != unmeasured {
					m[pods[i].Name] = sample{p.used, now, 10 * time.Second}
				}
			}
			got, _, err := replicas(pods, m, int32(len(pods)), utilization(pods, v1.ResourceCPU, "", c.percent, tolerances{0.1, 0.1}, starts{5 * time.Minute, 30 * time.Second}), now)
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Errorf("error %v, want %s", err, c.err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("%d replicas, %v, want %d", got, err, c.want)
			}
		})
	}
}

func TestByValue(t *testing.T) {
	same := tolerances{tolerance, tolerance}
	two := []*v1.Pod{pod("a", nil), pod("b", nil), pod("c", pending)}
	for _, c := range []struct {
		value, want int64
		current     int32
		pods        []*v1.Pod
		replicas    int32
	}{
		{20_000, 10_000, 2, two, 4}, {5_000, 10_000, 2, two, 1}, {10_500, 10_000, 3, two, 3}, {0, 10_000, 2, two, 0},
		{0, 10_000, 0, nil, 0}, {1, 10_000, 0, nil, 1}, {35_000, 10_000, 0, nil, 4},
	} {
		if got, err := byValue(c.value, c.want, c.current, c.pods, same); err != nil || got != c.replicas {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
	}
	if _, err := byValue(20_000, 10_000, 2, nil, same); err == nil {
		t.Error("no pods, and no error")
	}
	for _, c := range []struct {
		value, want int64
		status      int32
		replicas    int32
		each        int64
	}{{500_000, 100_000, 0, 5, 0}, {500_000, 100_000, 3, 5, 166_667}, {0, 100_000, 3, 0, 0}, {0, 100_000, 0, 0, 0}, {310_000, 100_000, 3, 3, 103_334}, {math.MaxInt64, 1, 2, math.MaxInt32, math.MaxInt64}} {
		if n, each := byAverage(c.value, c.want, c.status, same); n != c.replicas || each != c.each {
			t.Errorf("%+v: %d of %d", c, n, each)
		}
	}
}

package tainteviction

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestStay(t *testing.T) {
	now := time.Unix(1000, 0)
	bears := func(seconds *int64) *v1.Pod {
		return &v1.Pod{Spec: v1.PodSpec{Tolerations: []v1.Toleration{{Key: "k", Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute, TolerationSeconds: seconds}}}}
	}
	ago := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(-d)} }
	for name, c := range map[string]struct {
		pod       *v1.Pod
		added     *metav1.Time
		from      time.Time
		want      time.Duration
		tolerated bool
	}{
		"without a toleration":           {&v1.Pod{}, nil, now, -1, false},
		"for ever":                       {bears(nil), nil, now, -1, true},
		"seen now":                       {bears(ptr.To[int64](10)), nil, now, 10 * time.Second, true},
		"seen before":                    {bears(ptr.To[int64](10)), nil, now.Add(-4 * time.Second), 6 * time.Second, true},
		"seen too long ago":              {bears(ptr.To[int64](10)), nil, now.Add(-10 * time.Second), 0, false},
		"seen now, added before":         {bears(ptr.To[int64](10)), ago(3 * time.Second), now, 7 * time.Second, true},
		"no time at all, as a negative":  {bears(ptr.To[int64](-1)), nil, now, 0, false},
		"added so that the time is over": {bears(ptr.To[int64](10)), ago(time.Minute), now, 0, false},
	} {
		taint := &v1.Taint{Key: "k", Effect: v1.TaintEffectNoExecute, TimeAdded: c.added}
		got, tolerated := stay(t.Context(), c.pod, taint, c.from, now)
		if got != c.want || tolerated != c.tolerated {
			t.Errorf("%s: %v %v, want %v %v", name, got, tolerated, c.want, c.tolerated)
		}
	}
}

// TestCancelled checks that a pod is told of the end of a taint before its time was over,
// and stays.
func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controllertest.New(t, New)
		taints := func(all ...v1.Taint) {
			controllertest.Edit(c, "", "a", func(n *v1.Node) { n.Spec.Taints = all })
			c.Advance(time.Minute)
		}
		c.Put(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: v1.PodSpec{NodeName: "a",
			Tolerations: []v1.Toleration{{Key: "k", Operator: v1.TolerationOpExists, TolerationSeconds: ptr.To[int64](100)}}}})
		taints(v1.Taint{Key: "k", Effect: v1.TaintEffectNoExecute})
		if e := c.Events(); len(e) > 0 {
			t.Errorf("events %q", e)
		}
		taints()
		c.HasEvent("Normal TaintManagerEviction Cancelling deletion of Pod ns/p")
		c.Advance(time.Hour)
		controllertest.Are("ns", controllertest.Name[*v1.Pod], "p")(t, c)
	})
}

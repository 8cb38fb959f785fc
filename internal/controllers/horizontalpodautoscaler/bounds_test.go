package horizontalpodautoscaler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	v2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/controllers/replicaset"
	"keelson.dev/keelson/internal/reconcile"
)

// TestMisfits checks that an autoscaler without a target, or whose metric is not to be had,
// says so once, is looked at no more often than others, and holds up none of them.
func TestMisfits(t *testing.T) {
	v := &values{}
	set := func(name string) *apps.ReplicaSet {
		l := map[string]string{"app": name}
		return &apps.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: apps.ReplicaSetSpec{Replicas: ptr.To[int32](1),
			Selector: &metav1.LabelSelector{MatchLabels: l}, Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}}}}
	}
	scaler := func(name, target string, metric v2.MetricSpec) *v2.HorizontalPodAutoscaler {
		h := autoscaler(name, 1, metric)
		h.Spec.ScaleTargetRef = v2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: target}
		return h
	}
	for name, c := range map[string]struct {
		bad       *v2.HorizontalPodAutoscaler
		event     string
		condition string
	}{
		"no target": {scaler("bad", "nobody", onQueue), `Warning FailedGetScale replicasets.apps "nobody" not found`,
			`AbleToScale=False FailedGetScale: the HPA controller was unable to get the target's current scale: replicasets.apps "nobody" not found`},
		"no metric": {scaler("bad", "bad", onRequests), "Warning FailedGetObjectMetric unable to get metric requests on Service ns/web",
			"ScalingActive=False FailedGetObjectMetric: the HPA was unable to compute the replica count: unable to get metric requests on Service ns/web"},
		"an unknown metric": {scaler("bad", "bad", v2.MetricSpec{Type: "Guess"}), `Warning InvalidMetricSourceType unknown metric source type "Guess"`,
			"ScalingActive=False InvalidMetricSourceType"},
	} {
		t.Run(name, func(t *testing.T) {
			v.external = ""
			controllertest.Misfit{
				Controllers: []controllertest.Constructor{replicaset.New, func(c controllers.Context) (reconcile.Run, error) {
					return newRun(c, setScales{client: c.Client()}, &source{custom: v, external: externals{v}}), nil
				}},
				World: []controllertest.Object{set("bad"), set("good"), c.bad},
				Event: c.event,
				Told: controllertest.Is("ns", "bad", func(h *v2.HorizontalPodAutoscaler) error {
					for _, s := range says(h) {
						if strings.HasPrefix(s, c.condition) {
							return nil
						}
					}
					return fmt.Errorf("the conditions are %q", says(h))
				}),
				// The test knows the kind ReplicaSet in two groups.
				Reads: 2 * int(time.Hour/(15*time.Second)), Writes: 1,
				Later: func(cl *controllertest.Cluster) {
					v.external = "300"
					cl.Put(scaler("good", "good", onQueue))
				},
				Fine: controllertest.Is("ns", "good", func(s *apps.ReplicaSet) error {
					return controllertest.Unless(*s.Spec.Replicas == 3, "%d replicas", *s.Spec.Replicas)
				}),
			}.Bounded(t)
		})
	}
}

package horizontalpodautoscaler

import (
	"context"
	"fmt"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	v2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/scale"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/controllers/replicaset"
	"keelson.dev/keelson/internal/reconcile"
)

// setScales are the scales of ReplicaSets.
type setScales struct {
	scale.ScaleInterface
	client    kubernetes.Interface
	namespace string
}

func (s setScales) Scales(namespace string) scale.ScaleInterface {
	s.namespace = namespace
	return s
}

func (s setScales) Get(ctx context.Context, _ schema.GroupResource, name string, o metav1.GetOptions) (*autoscalingv1.Scale, error) {
	return s.client.AppsV1().ReplicaSets(s.namespace).GetScale(ctx, name, o)
}

func (s setScales) Update(ctx context.Context, _ schema.GroupResource, next *autoscalingv1.Scale, o metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	return s.client.AppsV1().ReplicaSets(s.namespace).UpdateScale(ctx, next.Name, next, o)
}

// TestSurvives checks that in the end there are as many replicas as the last value of the
// metric asks for, and the status says so.
func TestSurvives(t *testing.T) {
	v := &values{}
	queue := func(n string) controllertest.Action { return func(*controllertest.Cluster) { v.external = n } }
	app := map[string]string{"app": "web"}
	set := func(name string) *apps.ReplicaSet {
		return &apps.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: apps.ReplicaSetSpec{Replicas: ptr.To[int32](1),
			Selector: &metav1.LabelSelector{MatchLabels: app}, Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}}}}
	}
	hpa := autoscaler("web", 1, onQueue)
	hpa.Spec.ScaleTargetRef = v2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web"}
	controllertest.Trial{
		Seeds: 60, Tick: 30 * time.Second, Rest: 15 * time.Minute,
		Controllers: []controllertest.Constructor{replicaset.New, func(c controllers.Context) (reconcile.Run, error) {
			return newRun(c, setScales{client: c.Client()}, &source{custom: v, external: externals{v}}), nil
		}},
		World:   []controllertest.Object{set("web"), hpa},
		Actions: []controllertest.Action{queue("500"), queue("2000"), queue("400")},
		End: controllertest.Facts(
			controllertest.Are("ns", func(s *apps.ReplicaSet) string { return fmt.Sprint(*s.Spec.Replicas, s.Status.AvailableReplicas) }, "4 4"),
			controllertest.Are("ns", func(h *v2.HorizontalPodAutoscaler) string {
				text := fmt.Sprint(h.Status.CurrentReplicas, h.Status.DesiredReplicas)
				for _, c := range h.Status.Conditions {
					text += fmt.Sprintf(" %s=%s", c.Type, c.Status)
				}
				return text
			}, "4 4 AbleToScale=True ScalingActive=True ScalingLimited=False ScaledToZero=False"),
		),
	}.Survives(t)
}

package replicaset

import (
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// TestSurvives checks that whatever goes wrong on the way, there are as many pods
// as wanted in the end.
func TestSurvives(t *testing.T) {
	sets := func(c *controllertest.Cluster) *apps.ReplicaSet {
		return controllertest.Must[*apps.ReplicaSet](t)(c.Client.AppsV1().ReplicaSets("ns").Get(t.Context(), "web", metav1.GetOptions{}))
	}
	scale := func(n int32) func(*controllertest.Cluster) {
		return func(c *controllertest.Cluster) {
			err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
				rs := sets(c)
				rs.Spec.Replicas = &n
				_, err := c.Client.AppsV1().ReplicaSets("ns").Update(t.Context(), rs, metav1.UpdateOptions{})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	controllertest.Trial{Seeds: 40, Controllers: []controllertest.Constructor{New}, Actions: []controllertest.Action{
		func(c *controllertest.Cluster) {
			n, app := int32(5), map[string]string{"app": "web"}
			controllertest.Must[*apps.ReplicaSet](t)(c.Client.AppsV1().ReplicaSets("ns").Create(t.Context(), &apps.ReplicaSet{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
				Spec: apps.ReplicaSetSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: app},
					Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}}},
			}, metav1.CreateOptions{}))
		}, scale(1), scale(8),
	}, End: func(t *testing.T, c *controllertest.Cluster) {
		if n := len(c.Pods("ns")); n != 8 {
			t.Errorf("%d pods, want 8", n)
		}
		if st := sets(c).Status; st.Replicas != 8 || st.AvailableReplicas != 8 || len(st.Conditions) != 0 {
			t.Errorf("status is %+v", st)
		}
	}}.Survives(t)
}

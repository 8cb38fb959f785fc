package deployment

import (
	"testing"

	apps "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/controllers/replicaset"
)

// TestSurvives checks that whatever goes wrong on the way, all pods are of the last
// template in the end, and there is a ReplicaSet for each template.
func TestSurvives(t *testing.T) {
	for _, strategy := range []apps.DeploymentStrategyType{apps.RollingUpdateDeploymentStrategyType, apps.RecreateDeploymentStrategyType} {
		change := func(f func(*apps.Deployment)) func(*controllertest.Cluster) {
			return func(c *controllertest.Cluster) {
				err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
					d := controllertest.Must[*apps.Deployment](t)(c.Client.AppsV1().Deployments("ns").Get(ctx, "web", metav1.GetOptions{}))
					f(d)
					_, err := c.Client.AppsV1().Deployments("ns").Update(ctx, d, metav1.UpdateOptions{})
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		image := func(name string) func(*controllertest.Cluster) {
			return change(func(d *apps.Deployment) { d.Spec.Template.Spec.Containers[0].Image = name })
		}
		controllertest.Trial{Seeds: 20, Controllers: []controllertest.Constructor{New, replicaset.New}, Actions: []controllertest.Action{
			func(c *controllertest.Cluster) {
				d := newDeployment(4)
				if d.Spec.Strategy.Type = strategy; strategy == apps.RecreateDeploymentStrategyType {
					d.Spec.Strategy.RollingUpdate = nil
				}
				controllertest.Must[*apps.Deployment](t)(c.Client.AppsV1().Deployments("ns").Create(ctx, d, metav1.CreateOptions{}))
			},
			image("two"),
			change(func(d *apps.Deployment) { d.Spec.Replicas = ptr.To[int32](2) }),
			image("one"),
			image("three"),
			change(func(d *apps.Deployment) { d.Spec.Replicas = ptr.To[int32](3) }),
		}, End: func(t *testing.T, c *controllertest.Cluster) {
			pods := c.Pods("ns")
			for i := range pods {
				if image := pods[i].Spec.Containers[0].Image; image != "three" || pods[i].DeletionTimestamp != nil {
					t.Errorf("%s: there is a pod of %s", strategy, image)
				}
			}
			if len(pods) != 3 {
				t.Errorf("%s: %d pods, want 3", strategy, len(pods))
			}
			d := controllertest.Must[*apps.Deployment](t)(c.Client.AppsV1().Deployments("ns").Get(ctx, "web", metav1.GetOptions{}))
			if st := d.Status; st.Replicas != 3 || st.AvailableReplicas != 3 || st.UpdatedReplicas != 3 || st.UnavailableReplicas != 0 || st.ObservedGeneration != d.Generation {
				t.Errorf("%s: status is %+v", strategy, st)
			}
			// A template may have come and gone before it was seen.
			if n := len(controllertest.Must[*apps.ReplicaSetList](t)(c.Client.AppsV1().ReplicaSets("ns").List(ctx, metav1.ListOptions{})).Items); n > 3 {
				t.Errorf("%s: %d ReplicaSets for 3 templates", strategy, n)
			}
		}}.Survives(t)
	}
}

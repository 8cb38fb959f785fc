package manager

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/reconcile"
)

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		sch := metadatafake.NewTestScheme()
		if err := metav1.AddMetaToScheme(sch); err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		c := controllertest.NewWith(t, nil, func(c controllers.Context) (reconcile.Run, error) {
			clients, meta := c.Clients, metadatafake.NewSimpleMetadataClient(sch)
			c.Clients = func(identity string) kubernetes.Interface { names[identity] = true; return clients(identity) }
			c.Metadatas = func(string) metadata.Interface { return meta }
			c.RootCA = []byte("pem")
			m, err := New(c)
			if err != nil {
				return nil, err
			}
			return m.Run, nil
		})
		labels := map[string]string{"app": "web"}
		controllertest.Must[*v1.Namespace](t)(c.Client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, metav1.CreateOptions{}))
		controllertest.Must[*apps.Deployment](t)(c.Client.AppsV1().Deployments("ns").Create(ctx, &apps.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
			Spec: apps.DeploymentSpec{Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels},
				Strategy: apps.DeploymentStrategy{Type: apps.RecreateDeploymentStrategyType},
				Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}}},
		}, metav1.CreateOptions{}))
		if n := len(c.Pods("ns")); n != 2 {
			t.Errorf("%d pods, want 2", n)
		}
		controllertest.Must[*v1.ServiceAccount](t)(c.Client.CoreV1().ServiceAccounts("ns").Get(ctx, "default", metav1.GetOptions{}))
		controllertest.Must[*v1.ConfigMap](t)(c.Client.CoreV1().ConfigMaps("ns").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{}))
		c.Advance(time.Second)
		events := controllertest.Must[*v1.EventList](t)(c.Client.CoreV1().Events("ns").List(ctx, metav1.ListOptions{}))
		sources := map[string]int{}
		for _, e := range events.Items {
			sources[e.Source.Component]++
		}
		// Two events of one instant have one name in the bubble's still time.
		if sources["deployment-controller"] != 1 || sources["replicaset-controller"] == 0 {
			t.Errorf("events by source: %v", sources)
		}
		if !names["deployment-controller"] || !names["namespace-controller"] {
			t.Errorf("identities asked for: %v", names)
		}
	})
}

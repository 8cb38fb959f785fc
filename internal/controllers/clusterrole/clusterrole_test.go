package clusterrole

import (
	"context"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestAggregate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := controllertest.New(t, New)
		roles := c.Client.RbacV1().ClusterRoles()
		make := func(name string, labels map[string]string, resources ...string) *v1.ClusterRole {
			t.Helper()
			r := &v1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
			for _, x := range resources {
				r.Rules = append(r.Rules, v1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{x}})
			}
			return controllertest.Must[*v1.ClusterRole](t)(roles.Create(ctx, r, metav1.CreateOptions{}))
		}
		part := map[string]string{"part": "true"}
		controllertest.Must[*v1.ClusterRole](t)(roles.Create(ctx, &v1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "whole", Labels: part},
			AggregationRule: &v1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: part}}}}, metav1.CreateOptions{}))
		b := make("b", part, "pods", "secrets")
		make("a", part, "services", "pods")
		make("other", nil, "nodes")
		want := func(resources ...string) {
			t.Helper()
			synctest.Wait()
			got := controllertest.Must[*v1.ClusterRole](t)(roles.Get(ctx, "whole", metav1.GetOptions{}))
			if len(got.Rules) != len(resources) {
				t.Fatalf("rules %+v, want those of %v", got.Rules, resources)
			}
			for i, r := range got.Rules {
				if r.Resources[0] != resources[i] {
					t.Errorf("rules %+v, want those of %v", got.Rules, resources)
				}
			}
		}
		want("services", "pods", "secrets")
		b.Rules = b.Rules[:1]
		controllertest.Must[*v1.ClusterRole](t)(roles.Update(ctx, b, metav1.UpdateOptions{}))
		want("services", "pods")
		if err := roles.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		want("pods")
		whole := controllertest.Must[*v1.ClusterRole](t)(roles.Get(ctx, "whole", metav1.GetOptions{}))
		whole.Rules = nil
		controllertest.Must[*v1.ClusterRole](t)(roles.Update(ctx, whole, metav1.UpdateOptions{}))
		want("pods")
	})
}

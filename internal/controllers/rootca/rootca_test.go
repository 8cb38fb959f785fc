package rootca

import (
	"context"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := controllertest.NewWith(t, func(c *controllers.Context) { c.RootCA = []byte("pem") }, New)
		controllertest.Must[*v1.Namespace](t)(c.Client.CoreV1().Namespaces().Create(ctx,
			&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}, Status: v1.NamespaceStatus{Phase: v1.NamespaceActive}}, metav1.CreateOptions{}))
		check := func(when string) *v1.ConfigMap {
			t.Helper()
			synctest.Wait()
			cm := controllertest.Must[*v1.ConfigMap](t)(c.Client.CoreV1().ConfigMaps("ns").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{}))
			if len(cm.Data) != 1 || cm.Data["ca.crt"] != "pem" || cm.Annotations["kubernetes.io/description"] == "" {
				t.Errorf("%s: %+v", when, cm)
			}
			return cm
		}
		cm := check("at first")
		cm.Data = map[string]string{"ca.crt": "forged"}
		controllertest.Must[*v1.ConfigMap](t)(c.Client.CoreV1().ConfigMaps("ns").Update(ctx, cm, metav1.UpdateOptions{}))
		check("after a change")
		if err := c.Client.CoreV1().ConfigMaps("ns").Delete(ctx, "kube-root-ca.crt", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		check("after deletion")
	})
}

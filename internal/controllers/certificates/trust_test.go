package certificates

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestPodRequestCleaner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := controllertest.New(t, NewPodRequestCleaner)
		requests := c.Client.CertificatesV1().PodCertificateRequests("ns")
		left := func() int {
			t.Helper()
			return len(controllertest.Must[*v1.PodCertificateRequestList](t)(requests.List(ctx, metav1.ListOptions{})).Items)
		}
		controllertest.Must[*v1.PodCertificateRequest](t)(requests.Create(ctx, &v1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", CreationTimestamp: metav1.Now()}}, metav1.CreateOptions{}))
		c.Advance(14 * time.Minute)
		if left() != 1 {
			t.Error("a young request is gone")
		}
		c.Advance(2 * time.Minute)
		if left() != 0 {
			t.Error("an old request is left")
		}
	})
}

func TestTrustPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := controllertest.NewWith(t, func(c *controllers.Context) { c.RootCA = []byte("pem") }, NewTrustPublisher)
		bundles := c.Client.CertificatesV1().ClusterTrustBundles()
		expect := func(what string) {
			t.Helper()
			c.Advance(0)
			all := controllertest.Must[*v1.ClusterTrustBundleList](t)(bundles.List(ctx, metav1.ListOptions{})).Items
			if len(all) != 2 || all[0].Name != "mine" && all[1].Name != "mine" {
				t.Fatalf("%s: %v", what, all)
			}
			for _, b := range all {
				if b.Name != "mine" && (b.Name != bundleName([]byte("pem")) || b.Spec.SignerName != servingSigner || b.Spec.TrustBundle != "pem") {
					t.Errorf("%s: %+v", what, b)
				}
			}
		}
		controllertest.Must[*v1.ClusterTrustBundle](t)(bundles.Create(ctx, &v1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "mine"}}, metav1.CreateOptions{}))
		expect("at first")
		controllertest.Must[*v1.ClusterTrustBundle](t)(bundles.Create(ctx, &v1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes.io:kube-apiserver-serving:old"},
			Spec: v1.ClusterTrustBundleSpec{SignerName: servingSigner, TrustBundle: "old"}}, metav1.CreateOptions{}))
		expect("after a former authority's")
		if err := bundles.Delete(ctx, bundleName([]byte("pem")), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("after it was deleted")
	})
}

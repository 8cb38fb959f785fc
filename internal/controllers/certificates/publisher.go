package certificates

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	v1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// servingSigner is the signer of the API server's own certificate, as pods see it.
const servingSigner = "kubernetes.io/kube-apiserver-serving"

// bundleName returns the name of the ClusterTrustBundle of servingSigner with these
// authorities: another text has another name, so that it never changes under a reader.
func bundleName(authorities []byte) string {
	sum := sha256.Sum256(authorities)
	return strings.ReplaceAll(servingSigner, "/", ":") + ":" + hex.EncodeToString(sum[:6])
}

// NewTrustPublisher makes the controller that publishes the authorities by which the API
// server is verified; it is nil where there are none.
func NewTrustPublisher(c controllers.Context) (reconcile.Run, error) {
	if len(c.RootCA) == 0 {
		return nil, nil
	}
	client := c.Client().CertificatesV1().ClusterTrustBundles()
	informer := c.Informers.Certificates().V1().ClusterTrustBundles()
	lister := informer.Lister()
	want := bundleName(c.RootCA)
	queue := c.Queue("kube_apiserver_serving_clustertrustbundle_publisher")
	queue.Add(want)
	changed := func(b *v1.ClusterTrustBundle) {
		if b.Spec.SignerName == servingSigner {
			queue.Add(want)
		}
	}
	reconcile.Handle(informer.Informer(), changed, func(_, b *v1.ClusterTrustBundle) { changed(b) }, changed)
	return reconcile.Keys{
		Queue: queue, Reads: []cache.SharedIndexInformer{informer.Informer()},
		Reconcile: func(ctx context.Context, _ string) (reconcile.Result, error) {
			all, err := lister.List(labels.Everything())
			if err != nil {
				return reconcile.Result{}, err
			}
			found := false
			var errs []error
			for _, b := range all {
				switch {
				case b.Spec.SignerName != servingSigner:
				case b.Name == want && b.Spec.TrustBundle == string(c.RootCA):
					found = true
				default: // of a former authority, or changed by a user
					if err := client.Delete(ctx, b.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptrTo(b.UID)}}); err != nil && !apierrors.IsNotFound(err) {
						errs = append(errs, err)
					}
				}
			}
			if !found && len(errs) == 0 {
				_, err := client.Create(ctx, &v1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: want},
					Spec: v1.ClusterTrustBundleSpec{SignerName: servingSigner, TrustBundle: string(c.RootCA)}}, metav1.CreateOptions{})
				if err != nil && !apierrors.IsAlreadyExists(err) {
					errs = append(errs, err)
				}
			}
			return reconcile.Result{}, errors.Join(errs...)
		},
	}.Run, nil
}

package certificates

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

// podRequestLife is how long a pod's request for a certificate stays, answered or not,
// and podCleanPeriod how often the old ones are looked for (KEP-4317).
const (
	podRequestLife = 15 * time.Minute
	podCleanPeriod = time.Minute
)

// NewPodRequestCleaner makes the controller that deletes old PodCertificateRequests.
func NewPodRequestCleaner(c controllers.Context) (reconcile.Run, error) {
	client := c.Client().CertificatesV1()
	informer := c.Informers.Certificates().V1().PodCertificateRequests()
	lister := informer.Lister()
	return reconcile.Every(c.Clock, podCleanPeriod, func(ctx context.Context) {
		all, _ := lister.List(labels.Everything())
		for _, p := range all {
			if c.Clock.Since(p.CreationTimestamp.Time) < podRequestLife {
				continue
			}
			err := client.PodCertificateRequests(p.Namespace).Delete(trace.WithCause(ctx, p), p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptrTo(p.UID)}})
			if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Deleting an old PodCertificateRequest", "podCertificateRequest", klog.KObj(p))
			}
		}
	}, informer.Informer()), nil
}

package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"time"

	v1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

// How long a request stays once it has been answered, or without an answer,
// and how often the old ones are looked for.
const (
	answeredLife = time.Hour
	pendingLife  = 24 * time.Hour
	cleanPeriod  = time.Hour
)

// NewCleaner makes the cleaning controller.
func NewCleaner(c controllers.Context) (reconcile.Run, error) {
	client := c.Client().CertificatesV1().CertificateSigningRequests()
	informer := c.Informers.Certificates().V1().CertificateSigningRequests()
	lister := informer.Lister()
	return reconcile.Every(c.Clock, cleanPeriod, func(ctx context.Context) {
		all, _ := lister.List(labels.Everything())
		for _, csr := range all {
			if !old(csr, c.Clock.Now()) {
				continue
			}
			err := client.Delete(trace.WithCause(ctx, csr), csr.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptrTo(csr.UID)}})
			if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Deleting an old CertificateSigningRequest", "csr", csr.Name)
			}
		}
	}, informer.Informer()), nil
}

func ptrTo(uid types.UID) *types.UID { return &uid }

// old reports whether the request is no longer needed.
func old(csr *v1.CertificateSigningRequest, now time.Time) bool {
	before := func(t metav1.Time, life time.Duration) bool { return !t.IsZero() && now.After(t.Add(life)) }
	if c := condition(csr, v1.CertificateApproved); c != nil {
		if len(csr.Status.Certificate) == 0 {
			failed := condition(csr, v1.CertificateFailed)
			return failed != nil && before(failed.LastUpdateTime, answeredLife)
		}
		if before(c.LastUpdateTime, answeredLife) {
			return true
		}
		block, _ := pem.Decode(csr.Status.Certificate)
		if block == nil {
			return false
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		return err == nil && now.After(cert.NotAfter)
	}
	for _, t := range []v1.RequestConditionType{v1.CertificateDenied, v1.CertificateFailed} {
		if c := condition(csr, t); c != nil && before(c.LastUpdateTime, answeredLife) {
			return true
		}
	}
	return len(csr.Status.Conditions) == 0 && before(csr.CreationTimestamp, pendingLife)
}

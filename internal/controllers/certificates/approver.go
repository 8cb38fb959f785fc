package certificates

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// kinds are the requests that are approved by themselves, where the requester
// may create that subresource of a request.
var kinds = []struct{ subresource, message string }{
	{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."},
	{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."},
}

// NewApprover makes the approving controller.
func NewApprover(c controllers.Context) (reconcile.Run, error) {
	client := c.Client()
	return each(c, "csrapproving", func(ctx context.Context, csr *v1.CertificateSigningRequest) error {
		if len(csr.Status.Certificate) > 0 || has(csr, v1.CertificateApproved) || has(csr, v1.CertificateDenied) || csr.Spec.SignerName != v1.KubeAPIServerClientKubeletSignerName {
			return nil
		}
		r, err := parse(csr)
		if err != nil {
			return fmt.Errorf("unable to parse csr %q: %w", csr.Name, err)
		}
		if kubeletClient(r, csr) != nil {
			return nil //nolint:nilerr // a request of another kind is left to other approvers
		}
		var tried []string
		for _, k := range kinds {
			if k.subresource == "selfnodeclient" && csr.Spec.Username != r.Subject.CommonName {
				continue
			}
			tried = append(tried, k.subresource)
			extra := map[string]authorizationv1.ExtraValue{}
			for name, v := range csr.Spec.Extra {
				extra[name] = authorizationv1.ExtraValue(v)
			}
			review, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User: csr.Spec.Username, UID: csr.Spec.UID, Groups: csr.Spec.Groups, Extra: extra,
				ResourceAttributes: &authorizationv1.ResourceAttributes{Group: v1.GroupName, Resource: "certificatesigningrequests", Verb: "create", Subresource: k.subresource, Version: "*"},
			}}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			if !review.Status.Allowed {
				continue
			}
			next := csr.DeepCopy()
			next.Status.Conditions = append(next.Status.Conditions, v1.CertificateSigningRequestCondition{
				Type: v1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: k.message})
			_, err = client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, next, metav1.UpdateOptions{})
			return err
		}
		// What it may do can change at any time, so the request is looked at again.
		return fmt.Errorf("recognized csr %q as %v but subject access review was not approved", csr.Name, tried)
	})
}

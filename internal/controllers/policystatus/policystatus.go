package policystatus

import (
	"context"

	arv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

type controller struct {
	client  kubernetes.Interface
	checker validating.TypeChecker
}

// New makes the controller; it is nil where the schemas of the cluster's
// resources cannot be found.
func New(c controllers.Context) (reconcile.Run, error) {
	if c.Discovery == nil {
		return nil, nil
	}
	policies := c.Informers.Admissionregistration().V1().ValidatingAdmissionPolicies()
	p := &controller{
		client:  c.Client(),
		checker: validating.TypeChecker{SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: c.Discovery}, RestMapper: c.RESTMapper},
	}
	queue := c.Queue("validatingadmissionpolicy-status")
	reconcile.Handle(policies.Informer(), reconcile.Enqueue[*arv1.ValidatingAdmissionPolicy](queue), nil, reconcile.Ignore)
	return reconcile.Loop[*arv1.ValidatingAdmissionPolicy]{Queue: queue, Workers: c.Workers(1), For: policies.Informer(), Reconcile: p.reconcile}.Run, nil
}

func (c *controller) reconcile(ctx context.Context, policy *arv1.ValidatingAdmissionPolicy) (reconcile.Result, error) {
	if policy.Generation <= policy.Status.ObservedGeneration {
		return reconcile.Result{}, nil
	}
	next := policy.DeepCopy()
	next.Status.ObservedGeneration = policy.Generation
	next.Status.TypeChecking = &arv1.TypeChecking{ExpressionWarnings: c.checker.Check(policy)}
	_, err := c.client.AdmissionregistrationV1().ValidatingAdmissionPolicies().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return reconcile.Result{}, err
}

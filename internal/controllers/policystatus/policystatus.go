package policystatus

import (
	"context"

	arv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/admissionregistration/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
)

type controller struct {
	client   kubernetes.Interface
	policies listers.ValidatingAdmissionPolicyLister
	checker  validating.TypeChecker
}

// Start runs the controller until ctx is done.
func Start(ctx context.Context, c controllers.Context) error {
	policies := c.Informers.Admissionregistration().V1().ValidatingAdmissionPolicies()
	p := &controller{
		client: c.Client("validatingadmissionpolicy-status-controller"), policies: policies.Lister(),
		checker: validating.TypeChecker{SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: c.Discovery}, RestMapper: c.RESTMapper},
	}
	queue := controllers.NewQueue("validatingadmissionpolicy-status", c.Clock)
	controllers.Handle(policies.Informer(), func(o *arv1.ValidatingAdmissionPolicy) { queue.Add(o.Name) }, nil, func(*arv1.ValidatingAdmissionPolicy) {})
	loop := &controllers.Loop{Name: "validatingadmissionpolicy-status-controller", Queue: queue, Workers: 1,
		Synced: []cache.SharedIndexInformer{policies.Informer()}, Sync: p.sync}
	go loop.Run(ctx)
	return nil
}

func (c *controller) sync(ctx context.Context, name string) error {
	policy, err := c.policies.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || policy.Generation <= policy.Status.ObservedGeneration {
		return err
	}
	next := policy.DeepCopy()
	next.Status.ObservedGeneration = policy.Generation
	next.Status.TypeChecking = &arv1.TypeChecking{ExpressionWarnings: c.checker.Check(policy)}
	_, err = c.client.AdmissionregistrationV1().ValidatingAdmissionPolicies().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

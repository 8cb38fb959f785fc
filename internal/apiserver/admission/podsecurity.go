package admission

import (
	"context"
	"errors"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	corelisters "k8s.io/client-go/listers/core/v1"
	podsecurity "k8s.io/pod-security-admission/admission"
	podsecurityconfig "k8s.io/pod-security-admission/admission/api/load"
	podsecurityapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"
)

// podSecurity enforces the pod security standards that a namespace's labels
// name, with upstream's own library.
type podSecurity struct {
	*admission.Handler
	admission func() (*podsecurity.Admission, error)
	extractor podsecurity.DefaultPodSpecExtractor
}

func newPodSecurity(e *Environment) (admission.Interface, error) {
	r, err := e.Configuration.ConfigFor("PodSecurity")
	if err != nil {
		return nil, err
	}
	config, err := podsecurityconfig.LoadFromReader(r)
	if err != nil {
		return nil, err
	}
	p := &podSecurity{Handler: admission.NewHandler(admission.Create, admission.Update)}
	pods := e.Informers.Core().V1().Pods().Lister()
	// The checks of every version are made when the first pod asks for them.
	p.admission = sync.OnceValues(func() (*podsecurity.Admission, error) {
		checks, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
		if err != nil {
			return nil, err
		}
		a := &podsecurity.Admission{
			Configuration: config, Evaluator: checks, Metrics: metrics.NewPrometheusRecorder(podsecurityapi.GetAPIVersion()),
			PodSpecExtractor: p.extractor, NamespaceGetter: namespaceGetter(e.Namespaces), PodLister: podsOf{pods},
		}
		if err := a.CompleteConfiguration(); err != nil {
			return nil, err
		}
		return a, a.ValidateConfiguration()
	})
	return p, nil
}

type namespaceGetter Namespaces

// GetNamespace implements podsecurity.NamespaceGetter.
func (g namespaceGetter) GetNamespace(ctx context.Context, name string) (*v1.Namespace, error) {
	return g(ctx, name)
}

type podsOf struct{ lister corelisters.PodLister }

// ListPods implements podsecurity.PodLister.
func (p podsOf) ListPods(_ context.Context, namespace string) ([]*v1.Pod, error) {
	return p.lister.Pods(namespace).List(labels.Everything())
}

var namespaceResource = v1.Resource("namespaces")

// Validate implements admission.ValidationInterface.
func (p *podSecurity) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	gr := a.GetResource().GroupResource()
	if gr != namespaceResource && gr != podResource && !p.extractor.HasPodSpec(gr) {
		return nil
	}
	switch a.GetSubresource() {
	case "", "ephemeralcontainers", "resize":
	default:
		return nil
	}
	check, err := p.admission()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	res := check.Validate(ctx, securityAttributes{a})
	for _, w := range res.Warnings {
		warning.AddWarning(ctx, "", w)
	}
	for k, v := range res.AuditAnnotations {
		if err := a.AddAnnotation(podsecurityapi.AuditAnnotationPrefix+k, v); err != nil {
			return apierrors.NewInternalError(err)
		}
	}
	if res.Allowed {
		return nil
	}
	refused := admission.NewForbidden(a, errors.New("Not allowed by PodSecurity")).(*apierrors.StatusError) //nolint:errorlint // made here
	if r := res.Result; r != nil {
		if r.Message != "" {
			refused.ErrStatus.Message = r.Message
		}
		if r.Reason != "" {
			refused.ErrStatus.Reason = r.Reason
		}
		if r.Code != 0 {
			refused.ErrStatus.Code = r.Code
		}
		if r.Details != nil {
			refused.ErrStatus.Details = r.Details
		}
	}
	return refused
}

// securityAttributes are a request's as the library asks for them.
type securityAttributes struct{ admission.Attributes }

// GetOperation implements podsecurityapi.Attributes.
func (s securityAttributes) GetOperation() admissionv1.Operation {
	return admissionv1.Operation(s.Attributes.GetOperation())
}

// GetObject implements podsecurityapi.Attributes.
func (s securityAttributes) GetObject() (runtime.Object, error) {
	return s.Attributes.GetObject(), nil
}

// GetOldObject implements podsecurityapi.Attributes.
func (s securityAttributes) GetOldObject() (runtime.Object, error) {
	return s.Attributes.GetOldObject(), nil
}

// GetUserName implements podsecurityapi.Attributes.
func (s securityAttributes) GetUserName() string { return s.GetUserInfo().GetName() }

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
	p := &podSecurity{}
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
	return validates(&function{concerns: p.concerns, run: p.validate}, admission.Create, admission.Update), nil
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

// concerns reports whether the request is for a namespace, or for what has a pod's spec.
func (p *podSecurity) concerns(a admission.Attributes) bool {
	switch a.GetSubresource() {
	case "", "ephemeralcontainers", "resize":
		gr := a.GetResource().GroupResource()
		return gr == namespaceResource || gr == podResource || p.extractor.HasPodSpec(gr)
	}
	return false
}

func (p *podSecurity) validate(ctx context.Context, a admission.Attributes) error {
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

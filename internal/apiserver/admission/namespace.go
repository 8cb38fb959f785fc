package admission

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

// Namespaces reads a namespace as it is now.
type Namespaces func(ctx context.Context, name string) (*v1.Namespace, error)

var immortal = map[string]bool{metav1.NamespaceDefault: true, metav1.NamespaceSystem: true, metav1.NamespacePublic: true}

// namespaceLifecycle keeps objects out of namespaces that are absent or go away, and
// the system's namespaces from being deleted.
func (e *Environment) namespaceLifecycle(ctx context.Context, a admission.Attributes) error {
	ns := v1.SchemeGroupVersion.WithResource("namespaces").GroupResource()
	if a.GetOperation() == admission.Delete && a.GetResource().GroupResource() == ns && immortal[a.GetName()] {
		return apierrors.NewForbidden(ns, a.GetName(), fmt.Errorf("this namespace may not be deleted"))
	}
	if a.GetNamespace() == "" || a.GetKind().GroupKind() == v1.SchemeGroupVersion.WithKind("Namespace").GroupKind() {
		return nil
	}
	if a.GetOperation() != admission.Create || a.GetResource().Group == "authorization.k8s.io" {
		return nil
	}
	namespace, err := e.Namespaces(ctx, a.GetNamespace())
	if err != nil {
		return err
	}
	if namespace.Status.Phase != v1.NamespaceTerminating && namespace.DeletionTimestamp == nil {
		return nil
	}
	refused := admission.NewForbidden(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", a.GetNamespace()))
	if e, ok := refused.(*apierrors.StatusError); ok { //nolint:errorlint // made above
		e.ErrStatus.Details.Causes = append(e.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: v1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", a.GetNamespace()), Field: "metadata.namespace"})
	}
	return refused
}

package admission

import (
	"cmp"
	"context"
	"errors"
	"slices"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
)

const (
	pvcProtection = "kubernetes.io/pvc-protection"
	pvProtection  = "kubernetes.io/pv-protection"
	vacProtection = "kubernetes.io/vac-protection"
)

// inUseProtection keeps claims, volumes and attributes classes from being removed while something
// uses them: their protection controllers take the finalizers away.
type inUseProtection struct{ *admission.Handler }

func newInUseProtection() *inUseProtection {
	return &inUseProtection{admission.NewHandler(admission.Create)}
}

// Admit implements admission.MutationInterface.
func (*inUseProtection) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" {
		return nil
	}
	add := func(o metav1.Object, f string) {
		if !slices.Contains(o.GetFinalizers(), f) {
			o.SetFinalizers(append(o.GetFinalizers(), f))
		}
	}
	switch o := a.GetObject().(type) {
	case *v1.PersistentVolumeClaim:
		add(o, pvcProtection)
	case *v1.PersistentVolume:
		add(o, pvProtection)
	case *storagev1.VolumeAttributesClass:
		add(o, vacProtection)
	}
	return nil
}

// newest gives the class that was made last, of two the first by name: where
// several are marked as default that is the one.
func newest[T metav1.Object](classes []T) T {
	return slices.MinFunc(classes, func(a, b T) int {
		at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		return cmp.Or(bt.Compare(at.Time), cmp.Compare(a.GetName(), b.GetName()))
	})
}

// defaultStorageClass gives claims that name no class the default one.
type defaultStorageClass struct {
	*admission.Handler
	classes storagelisters.StorageClassLister
}

func newDefaultStorageClass(e *Environment) *defaultStorageClass {
	return &defaultStorageClass{admission.NewHandler(admission.Create), e.Informers.Storage().V1().StorageClasses().Lister()}
}

// Admit implements admission.MutationInterface.
func (d *defaultStorageClass) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*v1.PersistentVolumeClaim)
	if !ok || a.GetSubresource() != "" || claim.Spec.StorageClassName != nil {
		return nil
	}
	if _, named := claim.Annotations[v1.BetaStorageClassAnnotation]; named {
		return nil
	}
	all, err := d.classes.List(everything)
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	all = slices.DeleteFunc(slices.Clone(all), func(c *storagev1.StorageClass) bool {
		return c.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" && c.Annotations["storageclass.beta.kubernetes.io/is-default-class"] != "true"
	})
	if len(all) > 0 {
		name := newest(all).Name
		claim.Spec.StorageClassName = &name
	}
	return nil
}

// claimResize lets a claim grow only if its class allows it.
type claimResize struct {
	*admission.Handler
	classes storagelisters.StorageClassLister
}

func newClaimResize(e *Environment) *claimResize {
	return &claimResize{admission.NewHandler(admission.Update), e.Informers.Storage().V1().StorageClasses().Lister()}
}

// Validate implements admission.ValidationInterface.
func (r *claimResize) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*v1.PersistentVolumeClaim)
	old, had := a.GetOldObject().(*v1.PersistentVolumeClaim)
	if !ok || !had || a.GetSubresource() != "" {
		return nil
	}
	was, is := old.Spec.Resources.Requests[v1.ResourceStorage], claim.Spec.Resources.Requests[v1.ResourceStorage]
	if is.Cmp(was) <= 0 {
		return nil
	}
	if old.Status.Phase != v1.ClaimBound {
		return admission.NewForbidden(a, errors.New("Only bound persistent volume claims can be expanded"))
	}
	name := claim.Annotations[v1.BetaStorageClassAnnotation]
	if name == "" && claim.Spec.StorageClassName != nil {
		name = *claim.Spec.StorageClassName
	}
	if name != "" {
		if class, err := r.classes.Get(name); err == nil && class.AllowVolumeExpansion != nil && *class.AllowVolumeExpansion {
			return nil
		}
	}
	return admission.NewForbidden(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
}

// defaultIngressClass gives Ingresses that name no class the default one.
type defaultIngressClass struct {
	*admission.Handler
	classes networkinglisters.IngressClassLister
}

func newDefaultIngressClass(e *Environment) *defaultIngressClass {
	return &defaultIngressClass{admission.NewHandler(admission.Create), e.Informers.Networking().V1().IngressClasses().Lister()}
}

// Admit implements admission.MutationInterface.
func (d *defaultIngressClass) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	ingress, ok := a.GetObject().(*networkingv1.Ingress)
	if !ok || a.GetSubresource() != "" || ingress.Spec.IngressClassName != nil {
		return nil
	}
	if _, named := ingress.Annotations["kubernetes.io/ingress.class"]; named {
		return nil
	}
	all, err := d.classes.List(everything)
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	all = slices.DeleteFunc(slices.Clone(all), func(c *networkingv1.IngressClass) bool {
		return c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "true"
	})
	if len(all) > 0 {
		name := newest(all).Name
		ingress.Spec.IngressClassName = &name
	}
	return nil
}

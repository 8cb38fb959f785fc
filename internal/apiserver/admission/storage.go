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

// protectInUse keeps claims, volumes and attributes classes from being removed while something
// uses them: their protection controllers take the finalizers away.
func protectInUse(o metav1.Object, finalizer string) {
	if !slices.Contains(o.GetFinalizers(), finalizer) {
		o.SetFinalizers(append(o.GetFinalizers(), finalizer))
	}
}

func protectClaim(_ context.Context, _ admission.Attributes, c *v1.PersistentVolumeClaim) error {
	protectInUse(c, pvcProtection)
	return nil
}

func protectVolume(_ context.Context, _ admission.Attributes, v *v1.PersistentVolume) error {
	protectInUse(v, pvProtection)
	return nil
}

// newest returns the class that was made last, of two the first by name: where
// several are marked as default that is the one.
func newest[T metav1.Object](classes []T) T {
	return slices.MinFunc(classes, func(a, b T) int {
		at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		return cmp.Or(bt.Compare(at.Time), cmp.Compare(a.GetName(), b.GetName()))
	})
}

// defaultStorageClass gives claims that name no class the default one.
func defaultStorageClass(e *Environment) *plain {
	classes := e.Informers.Storage().V1().StorageClasses().Lister()
	return admits(onObject(func(_ context.Context, a admission.Attributes, claim *v1.PersistentVolumeClaim) error {
		return setStorageClass(classes, a, claim)
	}), admission.Create)
}

func setStorageClass(classes storagelisters.StorageClassLister, a admission.Attributes, claim *v1.PersistentVolumeClaim) error {
	if claim.Spec.StorageClassName != nil {
		return nil
	}
	if _, named := claim.Annotations[v1.BetaStorageClassAnnotation]; named {
		return nil
	}
	all, err := classes.List(everything)
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
func claimResize(e *Environment) *plain {
	classes := e.Informers.Storage().V1().StorageClasses().Lister()
	return validates(onObject(func(ctx context.Context, a admission.Attributes, claim *v1.PersistentVolumeClaim) error {
		return validateResize(a, claim, func(name string) (*storagev1.StorageClass, error) {
			class, err := classes.Get(name)
			return found(ctx, e, "storage.k8s.io", "storageclasses", name, class, err)
		})
	}), admission.Update)
}

func validateResize(a admission.Attributes, claim *v1.PersistentVolumeClaim, class func(string) (*storagev1.StorageClass, error)) error {
	old, had := a.GetOldObject().(*v1.PersistentVolumeClaim)
	if !had {
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
		if class, err := class(name); err == nil && class.AllowVolumeExpansion != nil && *class.AllowVolumeExpansion {
			return nil
		}
	}
	return admission.NewForbidden(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
}

// defaultIngressClass gives Ingresses that name no class the default one.
func defaultIngressClass(e *Environment) *plain {
	classes := e.Informers.Networking().V1().IngressClasses().Lister()
	return admits(onObject(func(_ context.Context, a admission.Attributes, ingress *networkingv1.Ingress) error {
		return setIngressClass(classes, a, ingress)
	}), admission.Create)
}

func setIngressClass(classes networkinglisters.IngressClassLister, a admission.Attributes, ingress *networkingv1.Ingress) error {
	if ingress.Spec.IngressClassName != nil {
		return nil
	}
	if _, named := ingress.Annotations["kubernetes.io/ingress.class"]; named {
		return nil
	}
	all, err := classes.List(everything)
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

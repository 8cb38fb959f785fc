package disruption

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/scale"
	"k8s.io/utils/ptr"
)

// workloads finds the controllers of pods.
type workloads struct {
	deployments            appslisters.DeploymentLister
	replicaSets            appslisters.ReplicaSetLister
	statefulSets           appslisters.StatefulSetLister
	replicationControllers corelisters.ReplicationControllerLister
	mapper                 meta.RESTMapper
	discovery              discovery.ServerResourcesInterface
	scales                 scale.ScalesGetter
}

// workload is a controller of pods.
type workload struct {
	uid      types.UID
	replicas int32
}

// replicas adds up the replicas that the controllers of pods want. unmanaged
// reports whether there are pods without one.
func (w *workloads) replicas(ctx context.Context, pods []*v1.Pod) (sum int32, unmanaged bool, _ error) {
	refs, counted := sets.New[types.UID](), sets.New[types.UID]()
	for _, p := range pods {
		ref := metav1.GetControllerOfNoCopy(p)
		if ref == nil {
			unmanaged = true
			continue
		}
		if refs.Has(ref.UID) {
			continue
		}
		found, err := w.find(ctx, p.Namespace, ref)
		if err != nil {
			return 0, false, err
		}
		if found == nil {
			return 0, false, fmt.Errorf("found no controllers for pod %q", p.Name)
		}
		refs.Insert(ref.UID)
		// Several ReplicaSets may be of one Deployment.
		if !counted.Has(found.uid) {
			counted.Insert(found.uid)
			sum += found.replicas
		}
	}
	return sum, unmanaged, nil
}

// find returns the controller that ref names, for the ReplicaSet of a Deployment
// that Deployment, and nil if there is none.
func (w *workloads) find(ctx context.Context, namespace string, ref *metav1.OwnerReference) (*workload, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, err
	}
	gk := schema.GroupKind{Group: gv.Group, Kind: ref.Kind}
	if found := w.cached(namespace, gk, ref); found != nil {
		return found, nil
	}
	mapping, err := w.mapper.RESTMapping(gk, gv.Version)
	if err != nil {
		return nil, err
	}
	resource := mapping.Resource.GroupResource()
	s, err := w.scales.Scales(namespace).Get(ctx, resource, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		// It is the object that is not there, or the subresource.
		if ok, err := w.scalable(mapping.Resource); err != nil {
			return nil, err
		} else if !ok {
			return nil, fmt.Errorf("%s does not implement the scale subresource", resource)
		}
		return nil, nil
	case err != nil:
		return nil, err
	case s.UID != ref.UID:
		return nil, nil
	}
	return &workload{s.UID, s.Spec.Replicas}, nil
}

// cached is find for the built-in controllers, as far as the caches have them.
func (w *workloads) cached(namespace string, gk schema.GroupKind, ref *metav1.OwnerReference) *workload {
	of := func(o metav1.Object, err error, replicas func() *int32) *workload {
		if err != nil || o.GetUID() != ref.UID {
			return nil // the only error is that there is none
		}
		return &workload{ref.UID, ptr.Deref(replicas(), 1)}
	}
	switch gk {
	case schema.GroupKind{Kind: "ReplicationController"}:
		c, err := w.replicationControllers.ReplicationControllers(namespace).Get(ref.Name)
		return of(c, err, func() *int32 { return c.Spec.Replicas })
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		s, err := w.statefulSets.StatefulSets(namespace).Get(ref.Name)
		return of(s, err, func() *int32 { return s.Spec.Replicas })
	case schema.GroupKind{Group: "apps", Kind: "Deployment"}:
		d, err := w.deployments.Deployments(namespace).Get(ref.Name)
		return of(d, err, func() *int32 { return d.Spec.Replicas })
	case schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}:
		s, err := w.replicaSets.ReplicaSets(namespace).Get(ref.Name)
		found := of(s, err, func() *int32 { return s.Spec.Replicas })
		if found == nil {
			return nil
		}
		owner := metav1.GetControllerOfNoCopy(s)
		if owner == nil || owner.Kind != "Deployment" {
			return found
		}
		return w.cached(namespace, schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind(), owner)
	}
	return nil
}

// scalable reports whether a resource has the subresource scale.
func (w *workloads) scalable(resource schema.GroupVersionResource) (bool, error) {
	list, err := w.discovery.ServerResourcesForGroupVersion(resource.GroupVersion().String())
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool {
		return r.Name == resource.Resource+"/scale" && r.Kind == "Scale"
	}), nil
}

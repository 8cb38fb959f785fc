package quota

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/component-helpers/storage/volume"
)

func services(list Lister) quota.Evaluator {
	const count v1.ResourceName = "count/services"
	resource := v1.Resource("services")
	return &evaluator{
		resource: resource, list: of(list, resource), scope: generic.MatchesNoScopeFunc,
		handles: func(a admission.Attributes) bool {
			return a.GetSubresource() == "" && (a.GetOperation() == admission.Create || a.GetOperation() == admission.Update)
		},
		matching: func(names []v1.ResourceName) []v1.ResourceName {
			return quota.Intersection(names, []v1.ResourceName{count, v1.ResourceServices, v1.ResourceServicesNodePorts, v1.ResourceServicesLoadBalancers})
		},
		usage: func(obj runtime.Object) (v1.ResourceList, error) {
			svc, err := as[*v1.Service](obj)
			if err != nil {
				return nil, err
			}
			ports, balancers := 0, 0
			switch svc.Spec.Type {
			case v1.ServiceTypeNodePort:
				ports = len(svc.Spec.Ports)
			case v1.ServiceTypeLoadBalancer:
				balancers, ports = 1, len(svc.Spec.Ports)
				if a := svc.Spec.AllocateLoadBalancerNodePorts; a != nil && !*a {
					ports = 0
					for i := range svc.Spec.Ports {
						if svc.Spec.Ports[i].NodePort != 0 {
							ports++
						}
					}
				}
			}
			return v1.ResourceList{count: one(), v1.ResourceServices: one(), v1.ResourceServicesNodePorts: number(ports), v1.ResourceServicesLoadBalancers: number(balancers)}, nil
		},
	}
}

// ofStorageClass comes between a class and a resource in a quota's name.
const ofStorageClass = ".storageclass.storage.k8s.io/"

func claims(list Lister) quota.Evaluator {
	const count v1.ResourceName = "count/persistentvolumeclaims"
	own := []v1.ResourceName{v1.ResourcePersistentVolumeClaims, v1.ResourceRequestsStorage}
	resource := v1.Resource("persistentvolumeclaims")
	return &evaluator{
		resource: resource, list: of(list, resource),
		handles: func(a admission.Attributes) bool {
			switch a.GetSubresource() {
			case "":
				return a.GetOperation() == admission.Create || a.GetOperation() == admission.Update
			case "status":
				c, err := as[*v1.PersistentVolumeClaim](a.GetObject())
				old, oldErr := as[*v1.PersistentVolumeClaim](a.GetOldObject())
				return err == nil && oldErr == nil && RequiresReplenish(c, old)
			}
			return false
		},
		matching: func(names []v1.ResourceName) (out []v1.ResourceName) {
			for _, n := range names {
				_, rest, classed := strings.Cut(string(n), ofStorageClass)
				if n == count || slices.Contains(own, n) || classed && slices.Contains(own, v1.ResourceName(rest)) {
					out = append(out, n)
				}
			}
			return out
		},
		scope: func(s v1.ScopedResourceSelectorRequirement, obj runtime.Object) (bool, error) {
			c, err := as[*v1.PersistentVolumeClaim](obj)
			if err != nil || s.ScopeName != v1.ResourceQuotaScopeVolumeAttributesClass {
				return false, err
			}
			names := attributesClasses(c)
			if len(names) == 0 {
				return selects(s, "")
			}
			for _, n := range names {
				if ok, err := selects(s, n); ok || err != nil {
					return ok, err
				}
			}
			return false, nil
		},
		usage: func(obj runtime.Object) (v1.ResourceList, error) {
			c, err := as[*v1.PersistentVolumeClaim](obj)
			if err != nil {
				return nil, err
			}
			out := v1.ResourceList{v1.ResourcePersistentVolumeClaims: one(), count: one()}
			if size, ok := c.Spec.Resources.Requests[v1.ResourceStorage]; ok {
				if got := c.Status.AllocatedResources[v1.ResourceStorage]; got.Cmp(size) > 0 {
					size = got
				}
				size = size.DeepCopy()
				size.RoundUp(0)
				out[v1.ResourceRequestsStorage] = size
			}
			if class := volume.GetPersistentVolumeClaimClass(c); class != "" {
				for _, n := range own {
					if q, ok := out[n]; ok {
						out[v1.ResourceName(class+ofStorageClass)+n] = q
					}
				}
			}
			return out, nil
		},
	}
}

// attributesClasses returns the classes that a claim has, had or is to have.
func attributesClasses(c *v1.PersistentVolumeClaim) (out []string) {
	add := func(s string) {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if n := c.Spec.VolumeAttributesClassName; n != nil {
		add(*n)
	}
	if n := c.Status.CurrentVolumeAttributesClassName; n != nil {
		add(*n)
	}
	if m := c.Status.ModifyVolumeStatus; m != nil {
		add(m.TargetVolumeAttributesClassName)
	}
	slices.Sort(out)
	return out
}

// RequiresReplenish reports whether a claim's change of status changes its usage.
func RequiresReplenish(c, old *v1.PersistentVolumeClaim) bool {
	a, b := c.Status.AllocatedResources[v1.ResourceStorage], old.Status.AllocatedResources[v1.ResourceStorage]
	return a.Cmp(b) != 0 || !slices.Equal(attributesClasses(c), attributesClasses(old))
}

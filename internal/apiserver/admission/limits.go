package admission

import (
	"context"
	"fmt"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

var everything = labels.Everything()

// limitRanger fills in and enforces the limits of a namespace.
type limitRanger struct{ all corelisters.LimitRangeLister }

func newLimitRanger(e *Environment) *plain {
	l := limitRanger{e.Informers.Core().V1().LimitRanges().Lister()}
	return both(onObject(l.admit), either(onObject(l.validatePod, "", "resize"), onObject(l.validateClaim)), admission.Create, admission.Update)
}

func (l limitRanger) ranges(a admission.Attributes) ([]*v1.LimitRange, error) {
	if a.GetNamespace() == "" {
		return nil, nil
	}
	return l.all.LimitRanges(a.GetNamespace()).List(everything)
}

// admit fills in what the containers of a new pod do not say.
func (l limitRanger) admit(_ context.Context, a admission.Attributes, pod *v1.Pod) error {
	if a.GetOperation() != admission.Create {
		return nil
	}
	ranges, err := l.ranges(a)
	if err != nil || len(ranges) == 0 {
		return err
	}
	requests, limits := v1.ResourceList{}, v1.ResourceList{}
	for _, r := range ranges {
		for i := range r.Spec.Limits {
			if it := &r.Spec.Limits[i]; it.Type == v1.LimitTypeContainer {
				for k, q := range it.DefaultRequest {
					requests[k] = q.DeepCopy()
				}
				for k, q := range it.Default {
					limits[k] = q.DeepCopy()
				}
			}
		}
	}
	var notes []string
	fill := func(kind string, cs []v1.Container) {
		for i := range cs {
			c := &cs[i]
			var req, lim []string
			for k, q := range limits {
				if _, ok := c.Resources.Limits[k]; !ok {
					if c.Resources.Limits == nil {
						c.Resources.Limits = v1.ResourceList{}
					}
					c.Resources.Limits[k] = q
					lim = append(lim, string(k))
				}
			}
			for k, q := range requests {
				if _, ok := c.Resources.Requests[k]; !ok {
					if c.Resources.Requests == nil {
						c.Resources.Requests = v1.ResourceList{}
					}
					c.Resources.Requests[k] = q
					req = append(req, string(k))
				}
			}
			note := func(what string, keys []string) {
				if len(keys) > 0 {
					sort.Strings(keys)
					notes = append(notes, fmt.Sprintf("%s %s for %s %s", strings.Join(keys, ", "), what, kind, c.Name))
				}
			}
			note("request", req)
			note("limit", lim)
		}
	}
	fill("container", pod.Spec.Containers)
	fill("init container", pod.Spec.InitContainers)
	if len(notes) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
	return nil
}

// validatePod enforces the limits of pods. An update changes a pod's resources only by
// a resize.
func (l limitRanger) validatePod(_ context.Context, a admission.Attributes, pod *v1.Pod) error {
	create := a.GetOperation() == admission.Create
	if create != (a.GetSubresource() == "") || !create && pod.DeletionTimestamp != nil {
		return nil
	}
	return l.validate(a, func(it *v1.LimitRangeItem) []error { return limitPod(it, pod) })
}

// validateClaim enforces the limits of claims.
func (l limitRanger) validateClaim(_ context.Context, a admission.Attributes, c *v1.PersistentVolumeClaim) error {
	if a.GetOperation() == admission.Update && c.DeletionTimestamp != nil {
		return nil
	}
	return l.validate(a, func(it *v1.LimitRangeItem) []error {
		if it.Type != v1.LimitTypePersistentVolumeClaim {
			return nil
		}
		return append(least(it, c.Spec.Resources.Requests, nil), mostRequest(it, c.Spec.Resources.Requests)...)
	})
}

func (l limitRanger) validate(a admission.Attributes, check func(*v1.LimitRangeItem) []error) error {
	ranges, err := l.ranges(a)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range ranges {
		for i := range r.Spec.Limits {
			errs = append(errs, check(&r.Spec.Limits[i])...)
		}
	}
	if len(errs) > 0 {
		return admission.NewForbidden(a, utilerrors.NewAggregate(errs))
	}
	return nil
}

func limitPod(it *v1.LimitRangeItem, pod *v1.Pod) (errs []error) {
	check := func(req, lim v1.ResourceList) {
		errs = append(errs, least(it, req, lim)...)
		errs = append(errs, most(it, req, lim)...)
		errs = append(errs, ratio(it, req, lim)...)
	}
	switch it.Type {
	case v1.LimitTypeContainer:
		for i := range pod.Spec.Containers {
			check(pod.Spec.Containers[i].Resources.Requests, pod.Spec.Containers[i].Resources.Limits)
		}
		for i := range pod.Spec.InitContainers {
			check(pod.Spec.InitContainers[i].Resources.Requests, pod.Spec.InitContainers[i].Resources.Limits)
		}
	case v1.LimitTypePod:
		o := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
		check(resourcehelper.PodRequests(pod, o), resourcehelper.PodLimits(pod, o))
	}
	return errs
}

func get(l v1.ResourceList, k v1.ResourceName) (resource.Quantity, bool) {
	q, ok := l[k]
	return q, ok
}

func least(it *v1.LimitRangeItem, req, lim v1.ResourceList) (errs []error) {
	for k, min := range it.Min {
		r, hasR := get(req, k)
		l, hasL := get(lim, k)
		switch {
		case !hasR:
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", k, it.Type, min.String()))
		case r.Cmp(min) < 0:
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s, but request is %s", k, it.Type, min.String(), r.String()))
		case hasL && l.Cmp(min) < 0:
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", k, it.Type, min.String(), l.String()))
		}
	}
	return errs
}

func most(it *v1.LimitRangeItem, req, lim v1.ResourceList) (errs []error) {
	for k, max := range it.Max {
		r, hasR := get(req, k)
		l, hasL := get(lim, k)
		switch {
		case !hasL:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", k, it.Type, max.String()))
		case l.Cmp(max) > 0:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", k, it.Type, max.String(), l.String()))
		case hasR && r.Cmp(max) > 0:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but request is %s", k, it.Type, max.String(), r.String()))
		}
	}
	return errs
}

// mostRequest is most for what has no limits: a claim.
func mostRequest(it *v1.LimitRangeItem, req v1.ResourceList) (errs []error) {
	for k, max := range it.Max {
		r, has := get(req, k)
		switch {
		case !has:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s.  No request is specified", k, it.Type, max.String()))
		case r.Cmp(max) > 0:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but request is %s", k, it.Type, max.String(), r.String()))
		}
	}
	return errs
}

func ratio(it *v1.LimitRangeItem, req, lim v1.ResourceList) (errs []error) {
	for k, max := range it.MaxLimitRequestRatio {
		r, hasR := get(req, k)
		l, hasL := get(lim, k)
		if !hasR || r.IsZero() {
			errs = append(errs, fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", k, it.Type, max.String()))
			continue
		}
		if !hasL || l.IsZero() {
			errs = append(errs, fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", k, it.Type, max.String()))
			continue
		}
		if got := float64(l.MilliValue()) / float64(r.MilliValue()); got > float64(max.MilliValue())/1000 {
			errs = append(errs, fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", k, it.Type, max.String(), got))
		}
	}
	return errs
}

package resource

import (
	"strings"
	"time"

	v1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of resource.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{deviceClasses(), taintRules(), claims(), claimTemplates(), resourceSlices()}
}

func deviceClasses() *api.Resource {
	r := api.Resource{Columns: []metav1.TableColumnDefinition{row.Name(), row.Age()}}
	return row.New[v1.DeviceClassList](v1.SchemeGroupVersion, r, row.Kind[*v1.DeviceClass]{
		Generation:     true,
		Spec:           func(c *v1.DeviceClass) any { return &c.Spec },
		Validate:       validateClass,
		ValidateUpdate: validateClassUpdate,
		Cells:          func(c *v1.DeviceClass, now time.Time) []any { return []any{c.Name, row.Created(c, now)} },
	})
}

func claims() *api.Resource {
	r := api.Resource{Namespaced: true, Columns: []metav1.TableColumnDefinition{row.Name(), row.String("State", "A summary of the current state (allocated, pending, reserved, etc.)."), row.Age()}}
	return row.New[v1.ResourceClaimList](v1.SchemeGroupVersion, r, row.Kind[*v1.ResourceClaim]{
		Spec:   func(c *v1.ResourceClaim) any { return &c.Spec },
		Status: func(c *v1.ResourceClaim) any { return &c.Status },
		Default: func(c *v1.ResourceClaim) {
			setDefaults(&c.Spec)
			if a := c.Status.Allocation; a != nil {
				for i := range a.Devices.Results {
					setOperators(a.Devices.Results[i].Tolerations)
				}
			}
		},
		PrepareForCreate:    func(c *v1.ResourceClaim) { dropSpec(&c.Spec, nil) },
		PrepareForUpdate:    func(c, old *v1.ResourceClaim) { dropSpec(&c.Spec, &old.Spec) },
		StatusOnly:          true,
		PrepareStatusUpdate: func(c, old *v1.ResourceClaim) { dropStatus(&c.Status, &old.Status) },
		Validate:            validateClaim,
		// The spec cannot change, so it is as good as it was.
		ValidateUpdate:       func(_, _ *v1.ResourceClaim) field.ErrorList { return nil },
		ValidateStatusUpdate: validateClaimStatusUpdate,
		ValidateRequest: func(req api.Request, c, old *v1.ResourceClaim) field.ErrorList {
			if old != nil {
				return nil
			}
			return validateAdminRequest(req, &c.Spec.Devices)
		},
		ValidateStatusRequest: validateStatusRequest,
		Cells: func(c *v1.ResourceClaim, now time.Time) []any {
			return []any{c.Name, state(c), row.Created(c, now)}
		},
	})
}

func state(c *v1.ResourceClaim) string {
	var list []string
	if c.DeletionTimestamp != nil {
		list = append(list, "deleted")
	}
	switch {
	case c.Status.Allocation != nil:
		list = append(list, "allocated")
	case c.DeletionTimestamp == nil:
		list = append(list, "pending")
	}
	if len(c.Status.ReservedFor) > 0 {
		list = append(list, "reserved")
	}
	return strings.Join(list, ",")
}

func claimTemplates() *api.Resource {
	r := api.Resource{Namespaced: true, Columns: []metav1.TableColumnDefinition{row.Name(), row.Age()}}
	return row.New[v1.ResourceClaimTemplateList](v1.SchemeGroupVersion, r, row.Kind[*v1.ResourceClaimTemplate]{
		Default:          func(t *v1.ResourceClaimTemplate) { setDefaults(&t.Spec.Spec) },
		PrepareForCreate: func(t *v1.ResourceClaimTemplate) { dropSpec(&t.Spec.Spec, nil) },
		PrepareForUpdate: func(t, old *v1.ResourceClaimTemplate) { dropSpec(&t.Spec.Spec, &old.Spec.Spec) },
		Validate:         validateTemplate,
		ValidateUpdate:   validateTemplateUpdate,
		ValidateRequest: func(req api.Request, t, old *v1.ResourceClaimTemplate) field.ErrorList {
			if old != nil {
				return nil
			}
			return validateAdminRequest(req, &t.Spec.Spec.Devices)
		},
		Cells: func(t *v1.ResourceClaimTemplate, now time.Time) []any {
			return []any{t.Name, row.Created(t, now)}
		},
	})
}

func resourceSlices() *api.Resource {
	spec := v1.ResourceSliceSpec{}.SwaggerDoc()
	r := api.Resource{Columns: []metav1.TableColumnDefinition{row.Name(), row.String("Node", spec["nodeName"]), row.String("Driver", spec["driver"]),
		row.String("Pool", v1.ResourcePool{}.SwaggerDoc()["name"]), row.Age()}}
	r.FieldLabels = []string{v1.ResourceSliceSelectorNodeName, v1.ResourceSliceSelectorDriver, v1.ResourceSliceSelectorPoolName}
	return row.New[v1.ResourceSliceList](v1.SchemeGroupVersion, r, row.Kind[*v1.ResourceSlice]{
		Generation: true,
		Spec:       func(s *v1.ResourceSlice) any { return &s.Spec },
		Default: func(s *v1.ResourceSlice) {
			for i := range s.Spec.Devices {
				for j := range s.Spec.Devices[i].Taints {
					setTimeAdded(&s.Spec.Devices[i].Taints[j])
				}
			}
		},
		PrepareForCreate: func(s *v1.ResourceSlice) { dropSlice(&s.Spec, nil) },
		PrepareForUpdate: func(s, old *v1.ResourceSlice) { dropSlice(&s.Spec, &old.Spec) },
		Validate:         validateSlice,
		ValidateUpdate:   validateSliceUpdate,
		Fields: func(s *v1.ResourceSlice) fields.Set {
			return fields.Set{
				v1.ResourceSliceSelectorNodeName: ptr.Deref(s.Spec.NodeName, ""),
				v1.ResourceSliceSelectorDriver:   s.Spec.Driver,
				v1.ResourceSliceSelectorPoolName: s.Spec.Pool.Name,
			}
		},
		Cells: func(s *v1.ResourceSlice, now time.Time) []any {
			return []any{s.Name, ptr.Deref(s.Spec.NodeName, ""), s.Spec.Driver, s.Spec.Pool.Name, row.Created(s, now)}
		},
	})
}

func setDefaults(s *v1.ResourceClaimSpec) {
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if e := r.Exactly; e != nil {
			setCount(&e.AllocationMode, &e.Count)
			setOperators(e.Tolerations)
		}
		for j := range r.FirstAvailable {
			sub := &r.FirstAvailable[j]
			setCount(&sub.AllocationMode, &sub.Count)
			setOperators(sub.Tolerations)
		}
	}
}

func setCount(mode *v1.DeviceAllocationMode, count *int64) {
	if *mode == "" {
		*mode = v1.DeviceAllocationModeExactCount
	}
	if *mode == v1.DeviceAllocationModeExactCount && *count == 0 {
		*count = 1
	}
}

func setOperators(list []v1.DeviceToleration) {
	for i := range list {
		if list[i].Operator == "" {
			list[i].Operator = v1.DeviceTolerationOpEqual
		}
	}
}

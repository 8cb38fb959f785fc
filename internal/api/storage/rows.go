package storage

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Annotations that make a class the default one.
const (
	defaultClass           = "storageclass.kubernetes.io/is-default-class"
	betaDefaultClass       = "storageclass.beta.kubernetes.io/is-default-class"
	defaultAttributesClass = "volumeattributesclass.alpha.kubernetes.io/is-default-class"
)

// Resources returns the rows of storage.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{
		csiDrivers(), csiNodes(), csiStorageCapacities(), storageClasses(), volumeAttachments(), volumeAttributesClasses(),
	}
}

func storageClasses() *api.Resource {
	doc := v1.StorageClass{}.SwaggerDoc()
	r := api.Resource{ShortNames: []string{"sc"}, Columns: []metav1.TableColumnDefinition{
		row.Name(),
		row.String("Provisioner", doc["provisioner"]),
		row.String("ReclaimPolicy", doc["reclaimPolicy"]),
		row.String("VolumeBindingMode", doc["volumeBindingMode"]),
		row.String("AllowVolumeExpansion", doc["allowVolumeExpansion"]),
		row.Age(),
	}}
	return row.New[v1.StorageClassList](v1.SchemeGroupVersion, r, row.Kind[*v1.StorageClass]{
		Default: func(c *v1.StorageClass) {
			setDefault(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
			setDefault(&c.VolumeBindingMode, v1.VolumeBindingImmediate)
		},
		Validate: validateStorageClass,
		Warnings: storageClassWarnings,
		Cells: func(c *v1.StorageClass, now time.Time) []any {
			name := c.Name
			if c.Annotations[defaultClass] == "true" || c.Annotations[betaDefaultClass] == "true" {
				name += " (default)"
			}
			return []any{
				name, c.Provisioner,
				string(ptr.Deref(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)),
				string(ptr.Deref(c.VolumeBindingMode, v1.VolumeBindingImmediate)),
				ptr.Deref(c.AllowVolumeExpansion, false), row.Created(c, now),
			}
		},
	})
}

func volumeAttachments() *api.Resource {
	spec := v1.VolumeAttachmentSpec{}.SwaggerDoc()
	attacher := row.String("Attacher", spec["attacher"])
	attacher.Format = "name"
	r := api.Resource{}
	r.RequireResourceVersion = true
	r.Columns = []metav1.TableColumnDefinition{
		row.Name(),
		attacher,
		row.String("PV", v1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]),
		row.String("Node", spec["nodeName"]),
		row.Boolean("Attached", v1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"]),
		row.Age(),
	}
	return row.New[v1.VolumeAttachmentList](v1.SchemeGroupVersion, r, row.Kind[*v1.VolumeAttachment]{
		Spec:       func(a *v1.VolumeAttachment) any { return &a.Spec },
		Status:     func(a *v1.VolumeAttachment) any { return &a.Status },
		Validate:   validateVolumeAttachment,
		StatusOnly: true,
		ValidateStatusUpdate: func(a, _ *v1.VolumeAttachment) field.ErrorList {
			return validateAttachmentStatus(&a.Status, field.NewPath("status"))
		},
		Cells: func(a *v1.VolumeAttachment, now time.Time) []any {
			return []any{
				a.Name, a.Spec.Attacher, ptr.Deref(a.Spec.Source.PersistentVolumeName, ""), a.Spec.NodeName,
				a.Status.Attached, row.Created(a, now),
			}
		},
	})
}

func csiDrivers() *api.Resource {
	spec := v1.CSIDriverSpec{}.SwaggerDoc()
	r := api.Resource{}
	r.RequireResourceVersion = true
	r.Columns = []metav1.TableColumnDefinition{
		row.Name(),
		row.Boolean("AttachRequired", spec["attachRequired"]),
		row.Boolean("PodInfoOnMount", spec["podInfoOnMount"]),
		row.Boolean("StorageCapacity", spec["storageCapacity"]),
		row.String("TokenRequests", spec["tokenRequests"]),
		row.Boolean("RequiresRepublish", spec["requiresRepublish"]),
		row.String("Modes", spec["volumeLifecycleModes"]),
		row.Age(),
	}
	return row.New[v1.CSIDriverList](v1.SchemeGroupVersion, r, row.Kind[*v1.CSIDriver]{
		Generation:     true,
		Spec:           func(d *v1.CSIDriver) any { return &d.Spec },
		Default:        setCSIDriverDefaults,
		Validate:       validateCSIDriver,
		ValidateUpdate: validateCSIDriverUpdate,
		Cells: func(d *v1.CSIDriver, now time.Time) []any {
			var modes, audiences []string
			for _, m := range d.Spec.VolumeLifecycleModes {
				modes = append(modes, string(m))
			}
			for _, t := range d.Spec.TokenRequests {
				audiences = append(audiences, t.Audience)
			}
			tokens := "<unset>"
			if d.Spec.TokenRequests != nil {
				tokens = strings.Join(audiences, ",")
			}
			return []any{
				d.Name, ptr.Deref(d.Spec.AttachRequired, true), ptr.Deref(d.Spec.PodInfoOnMount, false),
				ptr.Deref(d.Spec.StorageCapacity, false), tokens, ptr.Deref(d.Spec.RequiresRepublish, false),
				orNone(strings.Join(modes, ",")), row.Created(d, now),
			}
		},
	})
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func setDefault[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func setCSIDriverDefaults(d *v1.CSIDriver) {
	s := &d.Spec
	setDefault(&s.AttachRequired, true)
	setDefault(&s.PodInfoOnMount, false)
	setDefault(&s.StorageCapacity, false)
	setDefault(&s.FSGroupPolicy, v1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	setDefault(&s.RequiresRepublish, false)
	setDefault(&s.SELinuxMount, false)
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []v1.VolumeLifecycleMode{v1.VolumeLifecyclePersistent}
	}
}

func csiNodes() *api.Resource {
	r := api.Resource{}
	r.RequireResourceVersion = true
	r.Columns = []metav1.TableColumnDefinition{
		row.Name(),
		row.Integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
		row.Age(),
	}
	return row.New[v1.CSINodeList](v1.SchemeGroupVersion, r, row.Kind[*v1.CSINode]{
		// The health in the status is behind a feature that is off, and has
		// no subresource: nothing of it is stored.
		PrepareForCreate: func(n *v1.CSINode) { n.Status = v1.CSINodeStatus{} },
		PrepareForUpdate: func(n, old *v1.CSINode) { n.Status = old.Status },
		Validate:         validateCSINode,
		ValidateUpdate:   validateCSINodeUpdate,
		Cells: func(n *v1.CSINode, now time.Time) []any {
			return []any{n.Name, int64(len(n.Spec.Drivers)), row.Created(n, now)}
		},
	})
}

func csiStorageCapacities() *api.Resource {
	doc := v1.CSIStorageCapacity{}.SwaggerDoc()
	r := api.Resource{Namespaced: true}
	r.RequireResourceVersion = true
	r.Columns = []metav1.TableColumnDefinition{
		row.Name(),
		row.String("StorageClassName", doc["storageClassName"]),
		row.String("Capacity", doc["capacity"]),
	}
	return row.New[v1.CSIStorageCapacityList](v1.SchemeGroupVersion, r, row.Kind[*v1.CSIStorageCapacity]{
		Validate:       func(c *v1.CSIStorageCapacity) field.ErrorList { return validateCSIStorageCapacity(c, false) },
		ValidateUpdate: validateCSIStorageCapacityUpdate,
		Cells: func(c *v1.CSIStorageCapacity, _ time.Time) []any {
			capacity := "<unset>"
			if c.Capacity != nil {
				capacity = c.Capacity.String()
			}
			return []any{c.Name, c.StorageClassName, capacity}
		},
	})
}

func volumeAttributesClasses() *api.Resource {
	doc := v1.VolumeAttributesClass{}.SwaggerDoc()
	r := api.Resource{ShortNames: []string{"vac"}, Columns: []metav1.TableColumnDefinition{row.Name(), row.String("DriverName", doc["driverName"]), row.Age()}}
	return row.New[v1.VolumeAttributesClassList](v1.SchemeGroupVersion, r, row.Kind[*v1.VolumeAttributesClass]{
		Validate:       validateVolumeAttributesClass,
		ValidateUpdate: validateVolumeAttributesClassUpdate,
		Cells: func(c *v1.VolumeAttributesClass, now time.Time) []any {
			name := c.Name
			if c.Annotations[defaultAttributesClass] == "true" {
				name += " (default)"
			}
			return []any{name, c.DriverName, row.Created(c, now)}
		},
	})
}

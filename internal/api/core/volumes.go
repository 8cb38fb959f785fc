package core

import (
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/api/row"
)

var shortModes = map[v1.PersistentVolumeAccessMode]string{
	v1.ReadWriteOnce: "RWO", v1.ReadOnlyMany: "ROX", v1.ReadWriteMany: "RWX", v1.ReadWriteOncePod: "RWOP",
}

func accessModes(modes []v1.PersistentVolumeAccessMode) string {
	var out []string
	for _, m := range []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce, v1.ReadOnlyMany, v1.ReadWriteMany, v1.ReadWriteOncePod} {
		if slices.Contains(modes, m) {
			out = append(out, shortModes[m])
		}
	}
	return strings.Join(out, ",")
}

func persistentVolumes() *api.Resource {
	r := api.Resource{ShortNames: []string{"pv"}}
	r.DeleteReturnsObject = true
	doc, status := v1.PersistentVolumeSpec{}.SwaggerDoc(), v1.PersistentVolumeStatus{}.SwaggerDoc()
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Capacity", doc["capacity"]), row.String("Access Modes", doc["accessModes"]),
		row.String("Reclaim Policy", doc["persistentVolumeReclaimPolicy"]), row.String("Status", status["phase"]), row.String("Claim", doc["claimRef"]),
		row.String("StorageClass", doc["storageClassName"]), row.String("VolumeAttributesClass", doc["volumeAttributesClassName"]),
		row.String("Reason", status["reason"]), row.Age(), row.Wide("VolumeMode", doc["volumeMode"])}
	return row.New[v1.PersistentVolumeList](v1.SchemeGroupVersion, r, row.Kind[*v1.PersistentVolume]{
		Spec:   func(p *v1.PersistentVolume) any { return &p.Spec },
		Status: func(p *v1.PersistentVolume) any { return &p.Status },
		Default: func(p *v1.PersistentVolume) {
			if p.Status.Phase == "" {
				p.Status.Phase = v1.VolumePending
			}
			if p.Spec.PersistentVolumeReclaimPolicy == "" {
				p.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
			}
			if p.Spec.VolumeMode == nil {
				p.Spec.VolumeMode = ptr.To(v1.PersistentVolumeFilesystem)
			}
			podspec.SetDefaultsPersistentVolumeSource(&p.Spec.PersistentVolumeSource)
		},
		PrepareForCreate: func(p *v1.PersistentVolume) {
			p.Status = v1.PersistentVolumeStatus{Phase: v1.VolumePending, LastPhaseTransitionTime: now()}
		},
		PrepareStatusUpdate: func(p, old *v1.PersistentVolume) {
			is, was := &p.Status, &old.Status
			if is.Phase != was.Phase && (is.LastPhaseTransitionTime == nil || is.LastPhaseTransitionTime.Equal(was.LastPhaseTransitionTime)) {
				is.LastPhaseTransitionTime = now()
			}
		},
		Validate:       validatePersistentVolume,
		ValidateUpdate: validatePersistentVolumeUpdate,
		Warnings:       persistentVolumeWarnings,
		Cells: func(p *v1.PersistentVolume, now time.Time) []any {
			phase := string(p.Status.Phase)
			if p.DeletionTimestamp != nil {
				phase = "Terminating"
			}
			claim := ""
			if c := p.Spec.ClaimRef; c != nil {
				claim = c.Namespace + "/" + c.Name
			}
			size := p.Spec.Capacity[v1.ResourceStorage]
			return []any{p.Name, size.String(), accessModes(p.Spec.AccessModes), string(p.Spec.PersistentVolumeReclaimPolicy), phase, claim,
				p.Spec.StorageClassName, unset(ptr.Deref(p.Spec.VolumeAttributesClassName, "")), p.Status.Reason, row.Created(p, now), string(ptr.Deref(p.Spec.VolumeMode, "<unset>"))}
		},
	})
}

// now returns the time as objects keep it.
func now() *metav1.Time { return ptr.To(metav1.Now().Rfc3339Copy()) }

func unset(s string) string {
	if s == "" {
		return "<unset>"
	}
	return s
}

func persistentVolumeClaims() *api.Resource {
	r := api.Resource{ShortNames: []string{"pvc"}, Namespaced: true}
	r.DeleteReturnsObject = true
	doc, status := v1.PersistentVolumeClaimSpec{}.SwaggerDoc(), v1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Status", status["phase"]), row.String("Volume", doc["volumeName"]),
		row.String("Capacity", status["capacity"]), row.String("Access Modes", status["accessModes"]), row.String("StorageClass", doc["storageClassName"]),
		row.String("VolumeAttributesClass", doc["volumeAttributesClassName"]), row.Age(), row.Wide("VolumeMode", doc["volumeMode"])}
	return row.New[v1.PersistentVolumeClaimList](v1.SchemeGroupVersion, r, row.Kind[*v1.PersistentVolumeClaim]{
		Spec:   func(p *v1.PersistentVolumeClaim) any { return &p.Spec },
		Status: func(p *v1.PersistentVolumeClaim) any { return &p.Status },
		Default: func(p *v1.PersistentVolumeClaim) {
			if p.Status.Phase == "" {
				p.Status.Phase = v1.ClaimPending
			}
			if p.Spec.VolumeMode == nil {
				p.Spec.VolumeMode = ptr.To(v1.PersistentVolumeFilesystem)
			}
		},
		PrepareForCreate: func(p *v1.PersistentVolumeClaim) {
			p.Status = v1.PersistentVolumeClaimStatus{Phase: v1.ClaimPending}
			prepareDataSources(&p.Spec, nil)
		},
		PrepareForUpdate:     func(p, old *v1.PersistentVolumeClaim) { prepareDataSources(&p.Spec, &old.Spec) },
		Validate:             validateClaim,
		ValidateUpdate:       validateClaimUpdate,
		ValidateStatusUpdate: validateClaimStatusUpdate,
		Warnings: func(p *v1.PersistentVolumeClaim) []string {
			return append(classAnnotationWarnings(p.Annotations), podspec.ClaimWarnings(&p.Spec, field.NewPath("spec"))...)
		},
		Cells: func(p *v1.PersistentVolumeClaim, now time.Time) []any {
			phase := string(p.Status.Phase)
			if p.DeletionTimestamp != nil {
				phase = "Terminating"
			}
			capacity, modes := "", ""
			if p.Spec.VolumeName != "" {
				modes = accessModes(p.Status.AccessModes)
				q := p.Status.Capacity[v1.ResourceStorage]
				capacity = q.String()
			}
			return []any{p.Name, phase, p.Spec.VolumeName, capacity, modes, ptr.Deref(p.Spec.StorageClassName, ""),
				unset(ptr.Deref(p.Spec.VolumeAttributesClassName, "")), row.Created(p, now), string(ptr.Deref(p.Spec.VolumeMode, "<unset>"))}
		},
	})
}

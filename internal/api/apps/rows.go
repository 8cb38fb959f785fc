package apps

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	v1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of apps/v1.
func Resources() []*api.Resource {
	return []*api.Resource{controllerRevisions(), daemonSets(), deployments(), replicaSets(), statefulSets()}
}

func scaleOf(replicas **int32, current int32, s *metav1.LabelSelector) row.Scale {
	text := "<error>"
	if sel, err := metav1.LabelSelectorAsSelector(s); err == nil {
		text = sel.String()
	}
	return row.Scale{Replicas: replicas, Current: current, Selector: text}
}

func wideSelector(doc string) []metav1.TableColumnDefinition {
	return append(row.TemplateColumns(), row.Wide("Selector", doc))
}

func deployments() *api.Resource {
	r := api.Resource{ShortNames: []string{"deploy"}, Categories: []string{"all"}, Namespaced: true}
	status := v1.DeploymentStatus{}.SwaggerDoc()
	r.Columns = append([]metav1.TableColumnDefinition{row.Name(), row.String("Ready", "Number of the pod with ready state"),
		row.String("Up-to-date", status["updatedReplicas"]), row.String("Available", status["availableReplicas"]), row.Age()},
		wideSelector(v1.DeploymentSpec{}.SwaggerDoc()["selector"])...)
	return row.New[v1.DeploymentList](v1.SchemeGroupVersion, r, row.Kind[*v1.Deployment]{
		Generation: true,
		Spec:       func(d *v1.Deployment) any { return &d.Spec },
		Status:     func(d *v1.Deployment) any { return &d.Status },
		Scale:      func(d *v1.Deployment) row.Scale { return scaleOf(&d.Spec.Replicas, d.Status.Replicas, d.Spec.Selector) },
		Default:    setDefaultsDeployment,
		Validate:   validateDeployment,
		ValidateUpdate: func(d, old *v1.Deployment) field.ErrorList {
			return append(validateDeployment(d), apivalidation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
		},
		ValidateStatusUpdate: validateDeploymentStatus,
		// Annotations steer roll-backs, so a change of them counts.
		Counted:             func(d *v1.Deployment) any { return d.Annotations },
		PrepareStatusUpdate: func(d, old *v1.Deployment) { d.Labels = old.Labels },
		Warnings:            func(d *v1.Deployment) []string { return namedWarnings(d.Name, &d.Spec.Template) },
		UpdateWarnings:      func(d, old *v1.Deployment) []string { return changedWarnings(d, old, &d.Spec.Template) },
		Cells: func(d *v1.Deployment, now time.Time) []any {
			names, images := row.Containers(d.Spec.Template.Spec.Containers)
			return []any{d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 0)), int64(d.Status.UpdatedReplicas),
				int64(d.Status.AvailableReplicas), row.Created(d, now), names, images, metav1.FormatLabelSelector(d.Spec.Selector)}
		},
	})
}

func replicaSets() *api.Resource {
	r := api.Resource{ShortNames: []string{"rs"}, Categories: []string{"all"}, Namespaced: true}
	status := v1.ReplicaSetStatus{}.SwaggerDoc()
	r.Columns = append([]metav1.TableColumnDefinition{row.Name(), row.Integer("Desired", v1.ReplicaSetSpec{}.SwaggerDoc()["replicas"]),
		row.Integer("Current", status["replicas"]), row.Integer("Ready", status["readyReplicas"]), row.Age()},
		wideSelector(v1.ReplicaSetSpec{}.SwaggerDoc()["selector"])...)
	r.FieldLabels = []string{"status.replicas"}
	return row.New[v1.ReplicaSetList](v1.SchemeGroupVersion, r, row.Kind[*v1.ReplicaSet]{
		Generation: true,
		Spec:       func(s *v1.ReplicaSet) any { return &s.Spec },
		Status:     func(s *v1.ReplicaSet) any { return &s.Status },
		Scale:      func(s *v1.ReplicaSet) row.Scale { return scaleOf(&s.Spec.Replicas, s.Status.Replicas, s.Spec.Selector) },
		Default: func(s *v1.ReplicaSet) {
			if s.Spec.Replicas == nil {
				s.Spec.Replicas = ptr.To[int32](1)
			}
			podspec.SetDefaultsPodTemplate(&s.Spec.Template)
		},
		Validate:       validateReplicaSet,
		Warnings:       func(s *v1.ReplicaSet) []string { return namedWarnings(s.Name, &s.Spec.Template) },
		UpdateWarnings: func(s, old *v1.ReplicaSet) []string { return changedWarnings(s, old, &s.Spec.Template) },
		ValidateUpdate: func(s, old *v1.ReplicaSet) field.ErrorList {
			return append(validateReplicaSet(s), apivalidation.ValidateImmutableField(s.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
		},
		ValidateStatusUpdate: validateReplicaSetStatus,
		Fields: func(s *v1.ReplicaSet) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(s.Status.Replicas))}
		},
		Cells: func(s *v1.ReplicaSet, now time.Time) []any {
			names, images := row.Containers(s.Spec.Template.Spec.Containers)
			return []any{s.Name, int64(ptr.Deref(s.Spec.Replicas, 0)), int64(s.Status.Replicas), int64(s.Status.ReadyReplicas), row.Created(s, now),
				names, images, metav1.FormatLabelSelector(s.Spec.Selector)}
		},
	})
}

func statefulSets() *api.Resource {
	r := api.Resource{ShortNames: []string{"sts"}, Categories: []string{"all"}, Namespaced: true}
	r.Columns = append([]metav1.TableColumnDefinition{row.Name(), row.String("Ready", "Number of the pod with ready state"), row.Age()}, row.TemplateColumns()...)
	r.ValidateName = apivalidation.NameIsDNSLabel
	return row.New[v1.StatefulSetList](v1.SchemeGroupVersion, r, row.Kind[*v1.StatefulSet]{
		Generation: true,
		Spec:       func(s *v1.StatefulSet) any { return &s.Spec },
		Status:     func(s *v1.StatefulSet) any { return &s.Status },
		Scale: func(s *v1.StatefulSet) row.Scale {
			return scaleOf(&s.Spec.Replicas, s.Status.Replicas, s.Spec.Selector)
		},
		Default: func(s *v1.StatefulSet) {
			if s.Spec.PodManagementPolicy == "" {
				s.Spec.PodManagementPolicy = v1.OrderedReadyPodManagement
			}
			if s.Spec.UpdateStrategy.Type == "" {
				s.Spec.UpdateStrategy.Type = v1.RollingUpdateStatefulSetStrategyType
			}
			if s.Spec.UpdateStrategy.Type == v1.RollingUpdateStatefulSetStrategyType {
				if s.Spec.UpdateStrategy.RollingUpdate == nil {
					s.Spec.UpdateStrategy.RollingUpdate = &v1.RollingUpdateStatefulSetStrategy{}
				}
				if s.Spec.UpdateStrategy.RollingUpdate.Partition == nil {
					s.Spec.UpdateStrategy.RollingUpdate.Partition = ptr.To[int32](0)
				}
			}
			if s.Spec.PersistentVolumeClaimRetentionPolicy == nil {
				s.Spec.PersistentVolumeClaimRetentionPolicy = &v1.StatefulSetPersistentVolumeClaimRetentionPolicy{}
			}
			p := s.Spec.PersistentVolumeClaimRetentionPolicy
			if p.WhenDeleted == "" {
				p.WhenDeleted = v1.RetainPersistentVolumeClaimRetentionPolicyType
			}
			if p.WhenScaled == "" {
				p.WhenScaled = v1.RetainPersistentVolumeClaimRetentionPolicyType
			}
			if s.Spec.Replicas == nil {
				s.Spec.Replicas = ptr.To[int32](1)
			}
			if s.Spec.RevisionHistoryLimit == nil {
				s.Spec.RevisionHistoryLimit = ptr.To[int32](10)
			}
			for i := range s.Spec.VolumeClaimTemplates {
				c := &s.Spec.VolumeClaimTemplates[i]
				c.APIVersion, c.Kind = "v1", "PersistentVolumeClaim"
				if c.Status.Phase == "" {
					c.Status.Phase = corev1.ClaimPending
				}
				if c.Spec.VolumeMode == nil {
					c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
				}
			}
			podspec.SetDefaultsPodTemplate(&s.Spec.Template)
		},
		Validate:             func(s *v1.StatefulSet) field.ErrorList { return validateStatefulSet(&s.Spec, statefulSetRules{}) },
		ValidateUpdate:       validateStatefulSetUpdate,
		ValidateStatusUpdate: validateStatefulSetStatus,
		Warnings: func(s *v1.StatefulSet) []string {
			return append(templateWarnings(&s.Spec.Template), statefulSetWarnings(s, "")...)
		},
		UpdateWarnings: func(s, old *v1.StatefulSet) []string {
			return append(changedWarnings(s, old, &s.Spec.Template), statefulSetWarnings(s, "Spec")...)
		},
		Cells: func(s *v1.StatefulSet, now time.Time) []any {
			names, images := row.Containers(s.Spec.Template.Spec.Containers)
			return []any{s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, ptr.Deref(s.Spec.Replicas, 0)), row.Created(s, now), names, images}
		},
	})
}

func daemonSets() *api.Resource {
	r := api.Resource{ShortNames: []string{"ds"}, Categories: []string{"all"}, Namespaced: true}
	st := v1.DaemonSetStatus{}.SwaggerDoc()
	r.Columns = append([]metav1.TableColumnDefinition{row.Name(), row.Integer("Desired", st["desiredNumberScheduled"]), row.Integer("Current", st["currentNumberScheduled"]),
		row.Integer("Ready", st["numberReady"]), row.Integer("Up-to-date", st["updatedNumberScheduled"]), row.Integer("Available", st["numberAvailable"]),
		row.String("Node Selector", corev1.PodSpec{}.SwaggerDoc()["nodeSelector"]), row.Age()}, wideSelector(v1.DaemonSetSpec{}.SwaggerDoc()["selector"])...)
	return row.New[v1.DaemonSetList](v1.SchemeGroupVersion, r, row.Kind[*v1.DaemonSet]{
		Generation: true,
		Spec:       func(s *v1.DaemonSet) any { return &s.Spec },
		Status:     func(s *v1.DaemonSet) any { return &s.Status },
		Default: func(s *v1.DaemonSet) {
			u := &s.Spec.UpdateStrategy
			if u.Type == "" {
				u.Type = v1.RollingUpdateDaemonSetStrategyType
			}
			if u.Type == v1.RollingUpdateDaemonSetStrategyType {
				if u.RollingUpdate == nil {
					u.RollingUpdate = &v1.RollingUpdateDaemonSet{}
				}
				if u.RollingUpdate.MaxUnavailable == nil {
					u.RollingUpdate.MaxUnavailable = number(1)
				}
				if u.RollingUpdate.MaxSurge == nil {
					u.RollingUpdate.MaxSurge = number(0)
				}
			}
			if s.Spec.RevisionHistoryLimit == nil {
				s.Spec.RevisionHistoryLimit = ptr.To[int32](10)
			}
			podspec.SetDefaultsPodTemplate(&s.Spec.Template)
		},
		PrepareForCreate: func(s *v1.DaemonSet) { setTemplateGeneration(s, max(templateGeneration(s), 1)) },
		PrepareForUpdate: func(s, old *v1.DaemonSet) {
			n := templateGeneration(old)
			if !equality.Semantic.DeepEqual(&s.Spec.Template, &old.Spec.Template) {
				n++
			}
			setTemplateGeneration(s, n)
		},
		PrepareStatusUpdate: func(s, old *v1.DaemonSet) { setTemplateGeneration(s, templateGeneration(old)) },
		Validate:            func(s *v1.DaemonSet) field.ErrorList { return validateDaemonSet(s, false) },
		ValidateUpdate: func(s, old *v1.DaemonSet) field.ErrorList {
			return append(validateDaemonSet(s, metav1validation.LabelSelectorHasInvalidLabelValue(old.Spec.Selector)),
				apivalidation.ValidateImmutableField(s.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
		},
		ValidateStatusUpdate: validateDaemonSetStatus,
		Warnings:             func(s *v1.DaemonSet) []string { return templateWarnings(&s.Spec.Template) },
		UpdateWarnings:       func(s, old *v1.DaemonSet) []string { return changedWarnings(s, old, &s.Spec.Template) },
		Cells: func(s *v1.DaemonSet, now time.Time) []any {
			names, images := row.Containers(s.Spec.Template.Spec.Containers)
			return []any{s.Name, int64(s.Status.DesiredNumberScheduled), int64(s.Status.CurrentNumberScheduled), int64(s.Status.NumberReady),
				int64(s.Status.UpdatedNumberScheduled), int64(s.Status.NumberAvailable), labels.FormatLabels(s.Spec.Template.Spec.NodeSelector),
				row.Created(s, now), names, images, metav1.FormatLabelSelector(s.Spec.Selector)}
		},
	})
}

// templateGeneration returns a count of the changes of a DaemonSet's template, from
// when it was not the controller that kept track of them.
func templateGeneration(s *v1.DaemonSet) int64 {
	n, _ := strconv.ParseInt(s.Annotations[v1.DeprecatedTemplateGeneration], 10, 64)
	return n
}

func setTemplateGeneration(s *v1.DaemonSet, n int64) {
	text := strconv.FormatInt(n, 10)
	if s.Annotations[v1.DeprecatedTemplateGeneration] == text {
		return
	}
	annotations := maps.Clone(s.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[v1.DeprecatedTemplateGeneration] = text
	s.Annotations = annotations
}

func controllerRevisions() *api.Resource {
	r := api.Resource{Categories: []string{"all"}, Namespaced: true}
	r.Categories = nil
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.String("Controller", "Controller of the object"),
		row.String("Revision", v1.ControllerRevision{}.SwaggerDoc()["revision"]), row.Age()}
	return row.New[v1.ControllerRevisionList](v1.SchemeGroupVersion, r, row.Kind[*v1.ControllerRevision]{
		Validate: validateRevision,
		ValidateUpdate: func(c, old *v1.ControllerRevision) field.ErrorList {
			return append(validateRevision(c), apivalidation.ValidateImmutableField(c.Data, old.Data, field.NewPath("data"))...)
		},
		Cells: func(c *v1.ControllerRevision, now time.Time) []any {
			owner := "<none>"
			if ref := metav1.GetControllerOfNoCopy(c); ref != nil {
				gv, _ := schemaParse(ref.APIVersion)
				owner = lowerKind(ref.Kind, gv) + "/" + ref.Name
			}
			return []any{c.Name, owner, c.Revision, row.Created(c, now)}
		},
	})
}

package apps

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
)

func schemaParse(apiVersion string) (schema.GroupVersion, error) {
	return schema.ParseGroupVersion(apiVersion)
}

// lowerKind returns a kind as tables name it, such as daemonset.apps.
func lowerKind(kind string, gv schema.GroupVersion) string {
	k := strings.ToLower(kind)
	if gv.Group != "" {
		k += "." + gv.Group
	}
	return k
}

func number(n int32) *intstr.IntOrString { return ptr.To(intstr.FromInt32(n)) }

func setDefaultsDeployment(d *v1.Deployment) {
	s := &d.Spec
	if s.Replicas == nil {
		s.Replicas = ptr.To[int32](1)
	}
	if s.Strategy.Type == "" {
		s.Strategy.Type = v1.RollingUpdateDeploymentStrategyType
	}
	if s.Strategy.Type == v1.RollingUpdateDeploymentStrategyType {
		if s.Strategy.RollingUpdate == nil {
			s.Strategy.RollingUpdate = &v1.RollingUpdateDeployment{}
		}
		if s.Strategy.RollingUpdate.MaxUnavailable == nil {
			s.Strategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromString("25%"))
		}
		if s.Strategy.RollingUpdate.MaxSurge == nil {
			s.Strategy.RollingUpdate.MaxSurge = ptr.To(intstr.FromString("25%"))
		}
	}
	if s.RevisionHistoryLimit == nil {
		s.RevisionHistoryLimit = ptr.To[int32](10)
	}
	if s.ProgressDeadlineSeconds == nil {
		s.ProgressDeadlineSeconds = ptr.To[int32](600)
	}
	podspec.SetDefaultsPodTemplate(&s.Template)
}

func validateReplicas(n *int32, at *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(int64(ptr.Deref(n, 0)), at.Child("replicas"))
}

// validateSelector checks the selector of a controller of that kind, and that it selects what the template makes.
// unparsable is the message for one that cannot be parsed.
func validateSelector(s *metav1.LabelSelector, template map[string]string, kind, unparsable string, at *field.Path) (errs field.ErrorList) {
	if s == nil {
		errs = append(errs, field.Required(at.Child("selector"), ""))
	} else {
		errs = metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, at.Child("selector"))
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(at.Child("selector"), s, "empty selector is invalid for "+kind))
		}
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	switch {
	case err != nil:
		errs = append(errs, field.Invalid(at.Child("selector"), s, unparsable))
	case !sel.Empty() && !sel.Matches(labels.Set(template)):
		errs = append(errs, field.Invalid(at.Child("template", "metadata", "labels"), template, "`selector` does not match template `labels`"))
	}
	return errs
}

// validateTemplate checks the template of a controller, of that kind, whose pods never end by themselves.
func validateTemplate(t *corev1.PodTemplateSpec, kind string, at *field.Path) field.ErrorList {
	return append(podspec.ValidatePodTemplateSpec(t, at), podspec.ValidateAlwaysRestart(&t.Spec, kind, at.Child("spec"))...)
}

// strategy is a strategy as messages show it.
type strategy struct {
	Type          string
	RollingUpdate any
}

func validateDeployment(d *v1.Deployment) field.ErrorList {
	at := field.NewPath("spec")
	s := &d.Spec
	errs := validateReplicas(s.Replicas, at)
	errs = append(errs, validateSelector(s.Selector, s.Template.Labels, "deployment", "invalid label selector", at)...)
	errs = append(errs, validateTemplate(&s.Template, "ReplicaSet", at.Child("template"))...)
	errs = append(errs, validateDeploymentStrategy(&s.Strategy, at.Child("strategy"))...)
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(s.MinReadySeconds), at.Child("minReadySeconds"))...)
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(ptr.Deref(s.RevisionHistoryLimit, 0)), at.Child("revisionHistoryLimit"))...)
	if p := s.ProgressDeadlineSeconds; p != nil {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*p), at.Child("progressDeadlineSeconds"))...)
		if *p <= s.MinReadySeconds {
			errs = append(errs, field.Invalid(at.Child("progressDeadlineSeconds"), *p, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateDeploymentStrategy(s *v1.DeploymentStrategy, at *field.Path) (errs field.ErrorList) {
	rolling := at.Child("rollingUpdate")
	switch s.Type {
	case v1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			errs = append(errs, field.Forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'"))
		}
	case v1.RollingUpdateDeploymentStrategyType:
		u := s.RollingUpdate
		if u == nil {
			return append(errs, field.Required(rolling, "this should be defaulted and never be nil"))
		}
		errs = append(validateAmount(u.MaxUnavailable, rolling.Child("maxUnavailable")), validateAmount(u.MaxSurge, rolling.Child("maxSurge"))...)
		if amount(u.MaxUnavailable) == 0 && amount(u.MaxSurge) == 0 {
			errs = append(errs, field.Invalid(rolling.Child("maxUnavailable"), u.MaxUnavailable, "may not be 0 when `maxSurge` is 0"))
		}
		errs = append(errs, notAll(u.MaxUnavailable, rolling.Child("maxUnavailable"))...)
	default:
		errs = append(errs, field.NotSupported(at, strategy{Type: string(s.Type)}, []v1.DeploymentStrategyType{v1.RecreateDeploymentStrategyType, v1.RollingUpdateDeploymentStrategyType}))
	}
	return errs
}

func validateReplicaSet(s *v1.ReplicaSet) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateReplicas(s.Spec.Replicas, at)
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(s.Spec.MinReadySeconds), at.Child("minReadySeconds"))...)
	errs = append(errs, validateSelector(s.Spec.Selector, s.Spec.Template.Labels, "deployment", "invalid label selector", at)...)
	return append(errs, validateTemplate(&s.Spec.Template, "ReplicaSet", at.Child("template"))...)
}

func validateDaemonSet(s *v1.DaemonSet, badValues bool) field.ErrorList {
	at := field.NewPath("spec")
	errs := metav1validation.ValidateLabelSelector(s.Spec.Selector,
		metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: badValues}, at.Child("selector"))
	if sel, err := metav1.LabelSelectorAsSelector(s.Spec.Selector); err == nil && !sel.Matches(labels.Set(s.Spec.Template.Labels)) {
		errs = append(errs, field.Invalid(at.Child("template", "metadata", "labels"), s.Spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	if sel := s.Spec.Selector; sel != nil && len(sel.MatchLabels)+len(sel.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(at.Child("selector"), sel, "empty selector is invalid for daemonset"))
	}
	errs = append(errs, validateTemplate(&s.Spec.Template, "DaemonSet", at.Child("template"))...)
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(s.Spec.MinReadySeconds), at.Child("minReadySeconds"))...)
	errs = append(errs, validateDaemonSetStrategy(&s.Spec.UpdateStrategy, at.Child("updateStrategy"))...)
	return append(errs, apivalidation.ValidateNonnegativeField(int64(ptr.Deref(s.Spec.RevisionHistoryLimit, 0)), at.Child("revisionHistoryLimit"))...)
}

func validateDaemonSetStrategy(s *v1.DaemonSetUpdateStrategy, at *field.Path) (errs field.ErrorList) {
	switch s.Type {
	case v1.OnDeleteDaemonSetStrategyType:
		return nil
	case v1.RollingUpdateDaemonSetStrategyType:
	default:
		return append(errs, field.NotSupported(at, strategy{Type: string(s.Type)}, []v1.DaemonSetUpdateStrategyType{v1.RollingUpdateDaemonSetStrategyType, v1.OnDeleteDaemonSetStrategyType}))
	}
	u, rolling := s.RollingUpdate, at.Child("rollingUpdate")
	if u == nil {
		return append(errs, field.Required(rolling, ""))
	}
	unavailable, surge := rolling.Child("maxUnavailable"), rolling.Child("maxSurge")
	errs = append(validateAmount(u.MaxUnavailable, unavailable), validateAmount(u.MaxSurge, surge)...)
	errs = append(append(errs, notAll(u.MaxUnavailable, unavailable)...), notAll(u.MaxSurge, surge)...)
	// A node's pod is replaced before or after, not both, and not neither.
	switch gone, more := amount(u.MaxUnavailable) != 0, amount(u.MaxSurge) != 0; {
	case gone && more:
		errs = append(errs, field.Invalid(surge, u.MaxSurge, "may not be set when maxUnavailable is non-zero"))
	case !gone && !more:
		errs = append(errs, field.Required(unavailable, "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

// statefulSetRules names the fields whose values are not checked in an update,
// because it cannot change them.
type statefulSetRules struct{ anyServiceName, anyTemplate, anyClaims bool }

func validateStatefulSet(s *v1.StatefulSetSpec, rules statefulSetRules) (errs field.ErrorList) {
	at := field.NewPath("spec")
	switch s.PodManagementPolicy {
	case v1.OrderedReadyPodManagement, v1.ParallelPodManagement:
	case "":
		errs = append(errs, field.Required(at.Child("podManagementPolicy"), ""))
	default:
		errs = append(errs, field.Invalid(at.Child("podManagementPolicy"), s.PodManagementPolicy,
			fmt.Sprintf("must be '%s' or '%s'", v1.OrderedReadyPodManagement, v1.ParallelPodManagement)))
	}
	errs = append(errs, validateStatefulSetStrategy(&s.UpdateStrategy, at.Child("updateStrategy"))...)
	if p := s.PersistentVolumeClaimRetentionPolicy; p != nil {
		errs = append(errs, validateRetention(p.WhenDeleted, at.Child("persistentVolumeClaimRetentionPolicy", "whenDeleted"))...)
		errs = append(errs, validateRetention(p.WhenScaled, at.Child("persistentVolumeClaimRetentionPolicy", "whenScaled"))...)
	}
	for i := range s.VolumeClaimTemplates {
		if !rules.anyClaims {
			errs = append(errs, podspec.ValidateClaimSpec(&s.VolumeClaimTemplates[i].Spec, at.Child("volumeClaimTemplates").Index(i).Child("spec"))...)
		}
	}
	errs = append(errs, validateReplicas(s.Replicas, at)...)
	errs = append(errs, apivalidation.ValidateNonnegativeField(int64(s.MinReadySeconds), at.Child("minReadySeconds"))...)
	if s.Ordinals != nil {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(s.Ordinals.Start), at.Child("ordinals.start"))...)
	}
	if s.ServiceName != "" && !rules.anyServiceName {
		for _, msg := range validation.IsDNS1123Label(s.ServiceName) {
			errs = append(errs, field.Invalid(at.Child("serviceName"), s.ServiceName, msg))
		}
	}
	errs = append(errs, validateSelector(s.Selector, s.Template.Labels, "statefulset", "", at)...)
	if !rules.anyTemplate {
		errs = append(errs, podspec.ValidatePodTemplateSpec(withClaims(s), at.Child("template"))...)
	}
	return append(errs, podspec.ValidateAlwaysRestart(&s.Template.Spec, "StatefulSet", at.Child("template", "spec"))...)
}

// withClaims returns the template with the volumes that the pods get from the
// templates of claims, which take the place of others of their names.
func withClaims(s *v1.StatefulSetSpec) *corev1.PodTemplateSpec {
	if len(s.VolumeClaimTemplates) == 0 {
		return &s.Template
	}
	t, claimed := s.Template, map[string]bool{}
	for i := range s.VolumeClaimTemplates {
		claimed[s.VolumeClaimTemplates[i].Name] = true
	}
	t.Spec.Volumes = slices.DeleteFunc(slices.Clone(t.Spec.Volumes), func(v corev1.Volume) bool { return claimed[v.Name] })
	for i := range s.VolumeClaimTemplates {
		name := s.VolumeClaimTemplates[i].Name
		t.Spec.Volumes = append(t.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
		}})
	}
	return &t
}

func validateStatefulSetStrategy(s *v1.StatefulSetUpdateStrategy, at *field.Path) (errs field.ErrorList) {
	switch u := s.RollingUpdate; s.Type {
	case "":
		errs = append(errs, field.Required(at, ""))
	case v1.OnDeleteStatefulSetStrategyType:
		if u != nil {
			errs = append(errs, field.Invalid(at.Child("rollingUpdate"), u, fmt.Sprintf("only allowed for updateStrategy '%s'", v1.RollingUpdateStatefulSetStrategyType)))
		}
	case v1.RollingUpdateStatefulSetStrategyType:
		if u == nil {
			break
		}
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(ptr.Deref(u.Partition, 0)), at.Child("rollingUpdate", "partition"))...)
		if v, at := u.MaxUnavailable, at.Child("rollingUpdate", "maxUnavailable"); v != nil {
			errs = append(errs, validateAmount(v, at)...)
			if amount(v) == 0 {
				errs = append(errs, field.Invalid(at, v, "cannot be 0"))
			}
			errs = append(errs, notAll(v, at)...)
		}
	default:
		errs = append(errs, field.Invalid(at, strategy{string(s.Type), s.RollingUpdate},
			fmt.Sprintf("must be '%s' or '%s'", v1.RollingUpdateStatefulSetStrategyType, v1.OnDeleteStatefulSetStrategyType)))
	}
	return errs
}

func validateStatefulSetUpdate(s, old *v1.StatefulSet) field.ErrorList {
	// A template that was let in by an older release may stay.
	valid := len(validateStatefulSet(&old.Spec, statefulSetRules{anyServiceName: true, anyClaims: true})) == 0
	errs := validateStatefulSet(&s.Spec, statefulSetRules{anyServiceName: true, anyTemplate: !valid, anyClaims: true})
	is, was := s.Spec, &old.Spec
	is.Replicas, is.Template, is.UpdateStrategy, is.MinReadySeconds = was.Replicas, was.Template, was.UpdateStrategy, was.MinReadySeconds
	is.Ordinals, is.PersistentVolumeClaimRetentionPolicy, is.RevisionHistoryLimit = was.Ordinals, was.PersistentVolumeClaimRetentionPolicy, was.RevisionHistoryLimit
	if !equality.Semantic.DeepEqual(&is, was) {
		errs = append(errs, field.Forbidden(field.NewPath("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "+
			"'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"))
	}
	return errs
}

func percent(v *intstr.IntOrString) (int, bool) {
	if v == nil || v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	n, _ := strconv.Atoi(strings.TrimSuffix(v.StrVal, "%"))
	return n, true
}

// amount returns a number, or a percentage of 100.
func amount(v *intstr.IntOrString) int {
	if v == nil {
		return 0
	}
	if n, ok := percent(v); ok {
		return n
	}
	return v.IntValue()
}

func validateAmount(v *intstr.IntOrString, at *field.Path) (errs field.ErrorList) {
	switch {
	case v == nil:
	case v.Type == intstr.String:
		for _, msg := range validation.IsValidPercent(v.StrVal) {
			errs = append(errs, field.Invalid(at, v, msg))
		}
	default:
		errs = apivalidation.ValidateNonnegativeField(int64(v.IntValue()), at)
	}
	return errs
}

// notAll refuses percentages above 100.
func notAll(v *intstr.IntOrString, at *field.Path) field.ErrorList {
	if n, ok := percent(v); ok && n > 100 {
		return field.ErrorList{field.Invalid(at, v, "must not be greater than 100%")}
	}
	return nil
}

func validateRetention(p v1.PersistentVolumeClaimRetentionPolicyType, at *field.Path) field.ErrorList {
	if p != v1.RetainPersistentVolumeClaimRetentionPolicyType && p != v1.DeletePersistentVolumeClaimRetentionPolicyType {
		return field.ErrorList{field.NotSupported(at, p, []v1.PersistentVolumeClaimRetentionPolicyType{v1.RetainPersistentVolumeClaimRetentionPolicyType, v1.DeletePersistentVolumeClaimRetentionPolicyType})}
	}
	return nil
}

func validateRevision(c *v1.ControllerRevision) (errs field.ErrorList) {
	data := field.NewPath("data")
	raw := strings.TrimSpace(string(c.Data.Raw))
	switch {
	case c.Data.Object == nil && (raw == "" || raw == "null"):
		errs = append(errs, field.Required(data, "data is mandatory"))
	case c.Data.Object == nil && !strings.HasPrefix(raw, "{"):
		errs = append(errs, field.Required(data, "data must be a valid JSON object"))
	}
	return append(errs, apivalidation.ValidateNonnegativeField(c.Revision, field.NewPath("revision"))...)
}

package node

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of node.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{row.New[v1.RuntimeClassList](v1.SchemeGroupVersion, api.Resource{
		Strategy: api.Strategy{RequireResourceVersion: true},
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Handler", v1.RuntimeClass{}.SwaggerDoc()["handler"]),
			row.Age(),
		},
	}, row.Kind[*v1.RuntimeClass]{
		Validate:       validate,
		ValidateUpdate: func(_, _ *v1.RuntimeClass) field.ErrorList { return nil },
		Warnings:       warnings,
		Cells: func(c *v1.RuntimeClass, now time.Time) []any {
			return []any{c.Name, c.Handler, row.Created(c, now)}
		},
	})}
}

func validate(c *v1.RuntimeClass) field.ErrorList {
	var errs field.ErrorList
	if c.Overhead != nil {
		errs = append(errs, podspec.ValidateResources(&corev1.ResourceRequirements{Limits: c.Overhead.PodFixed}, nil, field.NewPath("overhead"))...)
	}
	if s := c.Scheduling; s != nil {
		at := field.NewPath("scheduling")
		errs = append(errs, metav1validation.ValidateLabels(s.NodeSelector, at.Child("nodeSelector"))...)
		errs = append(errs, validateTolerations(s.Tolerations, at.Child("tolerations"))...)
	}
	return errs
}

func validateTolerations(list []corev1.Toleration, fldPath *field.Path) field.ErrorList {
	errs := podspec.ValidateTolerations(list, fldPath)
	for i := range list {
		same := func(t corev1.Toleration) bool { return equality.Semantic.DeepEqual(t, list[i]) }
		if slices.ContainsFunc(list[:i], same) {
			errs = append(errs, field.Duplicate(fldPath.Index(i), list[i]))
		}
	}
	return errs
}

func warnings(c *v1.RuntimeClass) (out []string) {
	if c.Scheduling == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(c.Scheduling.NodeSelector)) {
		if msg := podspec.DeprecatedNodeLabel(key); msg != "" {
			out = append(out, field.NewPath("scheduling", "nodeSelector").String()+": "+msg)
		}
	}
	return out
}

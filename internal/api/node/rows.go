package node

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/node/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources gives the rows of node.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{row.New(api.Resource{
		GroupVersionResource: v1.SchemeGroupVersion.WithResource("runtimeclasses"),
		Kind:                 "RuntimeClass",
		Singular:             "runtimeclass",
		New:                  func() runtime.Object { return &v1.RuntimeClass{} },
		NewList:              func() runtime.Object { return &v1.RuntimeClassList{} },
		StoragePrefix:        "runtimeclasses",
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Handler", v1.RuntimeClass{}.SwaggerDoc()["handler"]),
			row.Age(),
		},
	}, row.Kind[*v1.RuntimeClass]{
		Default: func(c *v1.RuntimeClass) {
			if c.Scheduling == nil {
				return
			}
			for i := range c.Scheduling.Tolerations {
				if t := &c.Scheduling.Tolerations[i]; t.Operator == "" && t.Key != "" {
					t.Operator = corev1.TolerationOpEqual
				}
			}
		},
		Validate: validate,
		ValidateUpdate: func(c, old *v1.RuntimeClass) field.ErrorList {
			return apivalidation.ValidateImmutableField(c.Handler, old.Handler, field.NewPath("handler"))
		},
		Warnings: warnings,
		Cells: func(c *v1.RuntimeClass, now time.Time) []any {
			return []any{c.Name, c.Handler, row.Created(c, now)}
		},
	})}
}

func validate(c *v1.RuntimeClass) field.ErrorList {
	var errs field.ErrorList
	if c.Handler == "" {
		errs = append(errs, field.Required(field.NewPath("handler"), ""))
	}
	for _, msg := range validation.IsDNS1123Label(c.Handler) {
		errs = append(errs, field.Invalid(field.NewPath("handler"), c.Handler, msg))
	}
	if c.Overhead != nil {
		at := field.NewPath("overhead", "podFixed")
		for name, q := range c.Overhead.PodFixed {
			for _, msg := range validation.IsQualifiedName(string(name)) {
				errs = append(errs, field.Invalid(at.Key(string(name)), name, msg))
			}
			if q.Sign() < 0 {
				errs = append(errs, field.Invalid(at.Key(string(name)), q.String(), "must be greater than or equal to 0"))
			}
		}
	}
	if c.Scheduling != nil {
		errs = append(errs, metav1validation.ValidateLabels(c.Scheduling.NodeSelector, field.NewPath("scheduling", "nodeSelector"))...)
	}
	return errs
}

func warnings(c *v1.RuntimeClass) []string {
	if c.Scheduling == nil {
		return nil
	}
	var out []string
	at := field.NewPath("scheduling", "nodeSelector")
	for key, use := range deprecatedNodeLabels {
		if _, ok := c.Scheduling.NodeSelector[key]; ok {
			msg := at.Key(key).String() + ": deprecated since " + use.since
			if use.instead != "" {
				msg += "; use \"" + use.instead + "\" instead"
			}
			out = append(out, strings.TrimSpace(msg))
		}
	}
	return out
}

var deprecatedNodeLabels = map[string]struct{ since, instead string }{
	"beta.kubernetes.io/arch":           {"v1.14", corev1.LabelArchStable},
	"beta.kubernetes.io/os":             {"v1.14", corev1.LabelOSStable},
	corev1.LabelFailureDomainBetaRegion: {"v1.17", corev1.LabelTopologyRegion},
	corev1.LabelFailureDomainBetaZone:   {"v1.17", corev1.LabelTopologyZone},
	corev1.LabelInstanceType:            {"v1.17", corev1.LabelInstanceTypeStable},
}

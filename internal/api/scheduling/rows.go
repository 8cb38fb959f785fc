package scheduling

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/scheduling/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

const (
	// systemPrefix begins the names that only the built-in classes may have.
	systemPrefix = "system-"
	// highestUserDefined is the greatest value of a class that is not built in.
	highestUserDefined = int32(1000000000)
	// systemCritical is the least value of the built-in classes.
	systemCritical = 2 * highestUserDefined
)

// SystemPriorityClasses returns the two classes that every cluster has.
func SystemPriorityClasses() []*v1.PriorityClass {
	return []*v1.PriorityClass{
		{
			ObjectMeta:  metav1.ObjectMeta{Name: "system-node-critical"},
			Value:       systemCritical + 1000,
			Description: "Used for system critical pods that must not be moved from their current node.",
		},
		{
			ObjectMeta:  metav1.ObjectMeta{Name: "system-cluster-critical"},
			Value:       systemCritical,
			Description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
		},
	}
}

// Resources returns the rows of scheduling.k8s.io/v1.
func Resources() []*api.Resource {
	doc := v1.PriorityClass{}.SwaggerDoc()
	r := api.Resource{
		ShortNames: []string{"pc"},
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.Integer("Value", doc["value"]),
			row.Boolean("Global-Default", doc["globalDefault"]),
			row.Age(),
			row.String("PreemptionPolicy", doc["preemptionPolicy"]),
		},
	}
	return []*api.Resource{row.New[v1.PriorityClassList](v1.SchemeGroupVersion, r, row.Kind[*v1.PriorityClass]{
		Generation: true,
		Default: func(c *v1.PriorityClass) {
			if c.PreemptionPolicy == nil {
				p := corev1.PreemptLowerPriority
				c.PreemptionPolicy = &p
			}
		},
		Validate:       validate,
		ValidateUpdate: validateUpdate,
		Cells: func(c *v1.PriorityClass, now time.Time) []any {
			policy := ""
			if c.PreemptionPolicy != nil {
				policy = string(*c.PreemptionPolicy)
			}
			return []any{c.Name, int64(c.Value), c.GlobalDefault, row.Created(c, now), policy}
		},
	})}
}

func validate(c *v1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(c.Name, systemPrefix) {
		if err := checkBuiltIn(c); err != nil {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"), "priority class names with '"+systemPrefix+"' prefix are reserved for system use only. error: "+err.Error()))
		}
	} else if c.Value > highestUserDefined {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", highestUserDefined)))
	}
	if p := c.PreemptionPolicy; p != nil {
		switch *p {
		case corev1.PreemptLowerPriority, corev1.PreemptNever:
		case "":
			errs = append(errs, field.Required(field.NewPath("preemptionPolicy"), ""))
		default:
			errs = append(errs, field.NotSupported(field.NewPath("preemptionPolicy"), *p, []corev1.PreemptionPolicy{corev1.PreemptLowerPriority, corev1.PreemptNever}))
		}
	}
	return errs
}

// checkBuiltIn returns an error if c is not one of the two built-in classes.
func checkBuiltIn(c *v1.PriorityClass) error {
	for _, known := range SystemPriorityClasses() {
		switch {
		case known.Name != c.Name:
		case known.Value != c.Value:
			return fmt.Errorf("value of %v PriorityClass must be %v", known.Name, known.Value)
		case known.GlobalDefault != c.GlobalDefault:
			return fmt.Errorf("globalDefault of %v PriorityClass must be %v", known.Name, known.GlobalDefault)
		default:
			return nil
		}
	}
	return fmt.Errorf("%v is not a known system priority class", c.Name)
}

func validateUpdate(c, old *v1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if c.Value != old.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, apivalidation.ValidateImmutableField(c.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}

package flowcontrol

import (
	"time"

	v1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

const defaultPrecedence = 1000

// Resources returns the rows of flowcontrol.apiserver.k8s.io/v1.
func Resources() []*api.Resource { return []*api.Resource{flowSchemas(), priorityLevels()} }

func flowSchemas() *api.Resource {
	spec := v1.FlowSchemaSpec{}.SwaggerDoc()
	r := api.Resource{
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("PriorityLevel", v1.PriorityLevelConfigurationReference{}.SwaggerDoc()["name"]),
			row.String("MatchingPrecedence", spec["matchingPrecedence"]),
			row.String("DistinguisherMethod", spec["distinguisherMethod"]),
			row.Age(),
			row.String("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
		},
	}
	return row.New[v1.FlowSchemaList](v1.SchemeGroupVersion, r, row.Kind[*v1.FlowSchema]{
		Generation: true,
		Spec:       func(s *v1.FlowSchema) any { return &s.Spec },
		Status:     func(s *v1.FlowSchema) any { return &s.Status },
		Default: func(s *v1.FlowSchema) {
			if s.Spec.MatchingPrecedence == 0 {
				s.Spec.MatchingPrecedence = defaultPrecedence
			}
		},
		Validate:       validateFlowSchema,
		ValidateUpdate: func(s, _ *v1.FlowSchema) field.ErrorList { return validateFlowSchema(s) },
		ValidateStatusUpdate: func(s, _ *v1.FlowSchema) field.ErrorList {
			return validateConditions(s.Status.Conditions, func(c v1.FlowSchemaCondition) string { return string(c.Type) })
		},
		Cells: func(s *v1.FlowSchema, now time.Time) []any {
			method, missing := "<none>", "?"
			if s.Spec.DistinguisherMethod != nil {
				method = string(s.Spec.DistinguisherMethod.Type)
			}
			for _, c := range s.Status.Conditions {
				if c.Type == v1.FlowSchemaConditionDangling {
					missing = string(c.Status)
				}
			}
			return []any{s.Name, s.Spec.PriorityLevelConfiguration.Name, int64(s.Spec.MatchingPrecedence), method, row.Created(s, now), missing}
		},
	})
}

func priorityLevels() *api.Resource {
	queuing := v1.QueuingConfiguration{}.SwaggerDoc()
	r := api.Resource{
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Type", v1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"]),
			row.String("NominalConcurrencyShares", v1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"]),
			row.String("Queues", queuing["queues"]),
			row.String("HandSize", queuing["handSize"]),
			row.String("QueueLengthLimit", queuing["queueLengthLimit"]),
			row.Age(),
		},
	}
	return row.New[v1.PriorityLevelConfigurationList](v1.SchemeGroupVersion, r, row.Kind[*v1.PriorityLevelConfiguration]{
		Generation:     true,
		Spec:           func(p *v1.PriorityLevelConfiguration) any { return &p.Spec },
		Status:         func(p *v1.PriorityLevelConfiguration) any { return &p.Status },
		Default:        setPriorityLevelDefaults,
		Validate:       validatePriorityLevel,
		ValidateUpdate: func(p, _ *v1.PriorityLevelConfiguration) field.ErrorList { return validatePriorityLevel(p) },
		ValidateStatusUpdate: func(p, _ *v1.PriorityLevelConfiguration) field.ErrorList {
			return validateConditions(p.Status.Conditions, func(c v1.PriorityLevelConfigurationCondition) string { return string(c.Type) })
		},
		Cells: func(p *v1.PriorityLevelConfiguration, now time.Time) []any {
			var shares, queues, hand, length any = "<none>", "<none>", "<none>", "<none>"
			if l := p.Spec.Limited; l != nil {
				if l.NominalConcurrencyShares != nil {
					shares = int64(*l.NominalConcurrencyShares)
				}
				if q := l.LimitResponse.Queuing; q != nil {
					queues, hand, length = int64(q.Queues), int64(q.HandSize), int64(q.QueueLengthLimit)
				}
			} else if e := p.Spec.Exempt; e != nil && e.NominalConcurrencyShares != nil {
				shares = int64(*e.NominalConcurrencyShares)
			}
			return []any{p.Name, string(p.Spec.Type), shares, queues, hand, length, row.Created(p, now)}
		},
	})
}

func setPriorityLevelDefaults(p *v1.PriorityLevelConfiguration) {
	orElse := func(v **int32, n int32) {
		if *v == nil {
			*v = &n
		}
	}
	if e := p.Spec.Exempt; e != nil {
		orElse(&e.NominalConcurrencyShares, 0)
		orElse(&e.LendablePercent, 0)
	}
	if l := p.Spec.Limited; l != nil {
		orElse(&l.NominalConcurrencyShares, 30)
		orElse(&l.LendablePercent, 0)
		if q := l.LimitResponse.Queuing; q != nil {
			for v, n := range map[*int32]int32{&q.Queues: 64, &q.HandSize: 8, &q.QueueLengthLimit: 50} {
				if *v == 0 {
					*v = n
				}
			}
		}
	}
}

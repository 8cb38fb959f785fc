package apiregistration

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/validation"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of apiregistration.k8s.io/v1.
func Resources() []*api.Resource {
	r := api.Resource{
		Categories:    []string{"api-extensions"},
		StoragePrefix: "apiregistration.k8s.io/apiservices",
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("Service", "The reference to the service that hosts this API endpoint."),
			row.String("Available", "Whether this service is available."),
			row.Age(),
		},
	}
	r.RequireResourceVersion = true
	r.AnyFinalizer = true
	r.ValidateName = row.ValidatePathSegment
	return []*api.Resource{row.New[v1.APIServiceList](v1.SchemeGroupVersion, r, row.Kind[*v1.APIService]{
		Spec:    func(a *v1.APIService) any { return &a.Spec },
		Status:  func(a *v1.APIService) any { return &a.Status },
		Default: v1.SetObjectDefaults_APIService,
		PrepareForCreate: func(a *v1.APIService) {
			if a.Spec.Service == nil {
				helper.SetAPIServiceCondition(a, helper.NewLocalAvailableAPIServiceCondition())
			}
		},
		PrepareStatusUpdate: func(a, old *v1.APIService) {
			a.Labels, a.Annotations, a.Finalizers, a.OwnerReferences = old.Labels, old.Annotations, old.Finalizers, old.OwnerReferences
		},
		Validate: func(a *v1.APIService) field.ErrorList {
			return validated(a, a, func(ctx context.Context, in, _ *apiregistration.APIService) field.ErrorList {
				return validation.ValidateAPIService(ctx, in)
			})
		},
		ValidateUpdate: func(a, old *v1.APIService) field.ErrorList {
			return validated(a, old, validation.ValidateAPIServiceUpdate)
		},
		ValidateStatusUpdate: func(a, old *v1.APIService) field.ErrorList {
			return validated(a, old, validation.ValidateAPIServiceStatusUpdate)
		},
		Cells: func(a *v1.APIService, now time.Time) []any {
			return []any{a.Name, server(a), available(a), row.Created(a, now)}
		},
	})}
}

// validated has upstream's validation, which knows the internal version only,
// check a and old.
func validated(a, old *v1.APIService, check func(ctx context.Context, in, old *apiregistration.APIService) field.ErrorList) field.ErrorList {
	var in, was apiregistration.APIService
	if err := errors.Join(v1.Convert_v1_APIService_To_apiregistration_APIService(a, &in, nil),
		v1.Convert_v1_APIService_To_apiregistration_APIService(old, &was, nil)); err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return check(context.Background(), &in, &was)
}

func server(a *v1.APIService) string {
	if s := a.Spec.Service; s != nil {
		return s.Namespace + "/" + s.Name
	}
	return "Local"
}

func available(a *v1.APIService) string {
	c := helper.GetAPIServiceConditionByType(a, v1.Available)
	switch {
	case c == nil:
		return string(v1.ConditionUnknown)
	case c.Status != v1.ConditionTrue && c.Reason != "":
		return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
	}
	return string(c.Status)
}

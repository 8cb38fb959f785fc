package apiextensions

import (
	"context"
	"errors"
	"slices"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of apiextensions.k8s.io/v1.
func Resources() []*api.Resource {
	r := api.Resource{
		ShortNames:    []string{"crd", "crds"},
		Categories:    []string{"api-extensions"},
		StoragePrefix: "apiextensions.k8s.io/customresourcedefinitions",
		Columns:       []metav1.TableColumnDefinition{row.Name(), row.CreatedAt()},
	}
	r.RequireResourceVersion = true
	r.AnyFinalizer = true
	return []*api.Resource{row.New[v1.CustomResourceDefinitionList](v1.SchemeGroupVersion, r, row.Kind[*v1.CustomResourceDefinition]{
		Spec:         func(c *v1.CustomResourceDefinition) any { return &c.Spec },
		Status:       func(c *v1.CustomResourceDefinition) any { return &c.Status },
		Generation:   true,
		BeforeDelete: terminate,
		Default:      v1.SetObjectDefaults_CustomResourceDefinition,
		PrepareForCreate: func(c *v1.CustomResourceDefinition) {
			stored(c)
		},
		PrepareForUpdate: func(c, _ *v1.CustomResourceDefinition) { stored(c) },
		PrepareStatusUpdate: func(c, old *v1.CustomResourceDefinition) {
			// A status update changes nothing else, not even the metadata.
			managed, rv := c.ManagedFields, c.ResourceVersion
			old.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
			c.ManagedFields, c.ResourceVersion = managed, rv
		},
		Validate: func(c *v1.CustomResourceDefinition) field.ErrorList {
			return validated(c, c, func(ctx context.Context, c, _ *apiextensions.CustomResourceDefinition) field.ErrorList {
				return validation.ValidateCustomResourceDefinition(ctx, c)
			})
		},
		ValidateUpdate: func(c, old *v1.CustomResourceDefinition) field.ErrorList {
			return validated(c, old, validation.ValidateCustomResourceDefinitionUpdate)
		},
		ValidateStatusUpdate: func(c, old *v1.CustomResourceDefinition) field.ErrorList {
			return validated(c, old, validation.ValidateUpdateCustomResourceDefinitionStatus)
		},
		Cells: func(c *v1.CustomResourceDefinition, _ time.Time) []any {
			return []any{c.Name, c.CreationTimestamp.UTC().Format(time.RFC3339)}
		},
	})}
}

// stored notes the version in which objects are stored from now on.
func stored(c *v1.CustomResourceDefinition) {
	for _, v := range c.Spec.Versions {
		if v.Storage && !slices.Contains(c.Status.StoredVersions, v.Name) {
			c.Status.StoredVersions = append(slices.Clone(c.Status.StoredVersions), v.Name)
		}
	}
}

// terminate keeps a definition until its objects are gone.
func terminate(c *v1.CustomResourceDefinition) {
	if !apihelpers.CRDHasFinalizer(c, v1.CustomResourceCleanupFinalizer) {
		c.Finalizers = append(c.Finalizers, v1.CustomResourceCleanupFinalizer)
	}
	apihelpers.SetCRDCondition(c, v1.CustomResourceDefinitionCondition{
		Type: v1.Terminating, Status: v1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	})
}

// validated has upstream's validation, which knows the internal version only,
// check c and old.
func validated(c, old *v1.CustomResourceDefinition, check func(ctx context.Context, c, old *apiextensions.CustomResourceDefinition) field.ErrorList) field.ErrorList {
	var in, was apiextensions.CustomResourceDefinition
	if err := errors.Join(v1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(c.DeepCopy(), &in, nil),
		v1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(old.DeepCopy(), &was, nil)); err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return check(context.Background(), &in, &was)
}

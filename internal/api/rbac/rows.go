package rbac

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of rbac.authorization.k8s.io/v1.
func Resources() []*api.Resource {
	return []*api.Resource{roles(), roleBindings(), clusterRoles(), clusterRoleBindings()}
}

// common returns the fields that the rows share. The names of roles may hold
// colons ("system:node"), so all that a URL path segment can hold is good.
func common(namespaced bool) api.Resource {
	r := api.Resource{Namespaced: namespaced}
	r.ValidateName = row.ValidatePathSegment
	r.AllowCreateOnUpdate = true
	return r
}

func roles() *api.Resource {
	r := common(true)
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.CreatedAt()}
	return row.New[v1.RoleList](v1.SchemeGroupVersion, r, row.Kind[*v1.Role]{
		Validate:       validateRole,
		ValidateUpdate: func(obj, _ *v1.Role) field.ErrorList { return validateRole(obj) },
		Cells: func(o *v1.Role, _ time.Time) []any {
			return []any{o.Name, o.CreationTimestamp.UTC().Format(time.RFC3339)}
		},
	})
}

func clusterRoles() *api.Resource {
	r := common(false)
	r.Columns = []metav1.TableColumnDefinition{row.Name(), row.CreatedAt()}
	return row.New[v1.ClusterRoleList](v1.SchemeGroupVersion, r, row.Kind[*v1.ClusterRole]{
		Validate:       validateClusterRole,
		ValidateUpdate: validateClusterRoleUpdate,
		Cells: func(o *v1.ClusterRole, _ time.Time) []any {
			return []any{o.Name, o.CreationTimestamp.UTC().Format(time.RFC3339)}
		},
	})
}

var bindingColumns = []metav1.TableColumnDefinition{
	row.Name(),
	row.String("Role", v1.RoleBinding{}.SwaggerDoc()["roleRef"]),
	row.Age(),
	row.Wide("Users", "Users in the roleBinding"),
	row.Wide("Groups", "Groups in the roleBinding"),
	row.Wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
}

func roleBindings() *api.Resource {
	r := common(true)
	r.Columns = bindingColumns
	return row.New[v1.RoleBindingList](v1.SchemeGroupVersion, r, row.Kind[*v1.RoleBinding]{
		Default: func(o *v1.RoleBinding) { setBindingDefaults(&o.RoleRef, o.Subjects) },
		Validate: func(o *v1.RoleBinding) field.ErrorList {
			return validateBinding(o.RoleRef, o.Subjects, true)
		},
		ValidateUpdate: func(o, old *v1.RoleBinding) field.ErrorList {
			return append(validateBinding(o.RoleRef, o.Subjects, true), validateRoleRefUpdate(o.RoleRef, old.RoleRef)...)
		},
		Cells: func(o *v1.RoleBinding, now time.Time) []any {
			return bindingCells(o, o.RoleRef, o.Subjects, now)
		},
	})
}

func clusterRoleBindings() *api.Resource {
	r := common(false)
	r.Columns = bindingColumns
	return row.New[v1.ClusterRoleBindingList](v1.SchemeGroupVersion, r, row.Kind[*v1.ClusterRoleBinding]{
		Default: func(o *v1.ClusterRoleBinding) { setBindingDefaults(&o.RoleRef, o.Subjects) },
		Validate: func(o *v1.ClusterRoleBinding) field.ErrorList {
			return validateBinding(o.RoleRef, o.Subjects, false)
		},
		ValidateUpdate: func(o, old *v1.ClusterRoleBinding) field.ErrorList {
			return append(validateBinding(o.RoleRef, o.Subjects, false), validateRoleRefUpdate(o.RoleRef, old.RoleRef)...)
		},
		Cells: func(o *v1.ClusterRoleBinding, now time.Time) []any {
			return bindingCells(o, o.RoleRef, o.Subjects, now)
		},
	})
}

func bindingCells(o metav1.Object, ref v1.RoleRef, subjects []v1.Subject, now time.Time) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case v1.UserKind:
			users = append(users, s.Name)
		case v1.GroupKind:
			groups = append(groups, s.Name)
		case v1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{
		o.GetName(), fmt.Sprintf("%s/%s", ref.Kind, ref.Name), row.Created(o, now),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", "),
	}
}

// setBindingDefaults fills in the API groups, which older clients leave out.
func setBindingDefaults(ref *v1.RoleRef, subjects []v1.Subject) {
	if ref.APIGroup == "" {
		ref.APIGroup = v1.GroupName
	}
	for i := range subjects {
		s := &subjects[i]
		if s.APIGroup == "" && (s.Kind == v1.UserKind || s.Kind == v1.GroupKind) {
			s.APIGroup = v1.GroupName
		}
	}
}

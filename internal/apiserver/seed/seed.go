package seed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	rbac "k8s.io/component-helpers/auth/rbac/reconciliation"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
)

// Seeder stores objects that a cluster is to have.
type Seeder struct {
	Store     store.Store
	Catalogue *catalogue.Catalogue
	Clock     clock.Clock
}

// Run stores each of objs that there is none of. Of those that there are, the
// data of ConfigMaps becomes that of objs, and the policy of RBAC is reconciled
// as upstream's: what is missing is added and nothing is taken away, unless the
// annotation rbac.authorization.kubernetes.io/autoupdate is "false".
func (s *Seeder) Run(ctx context.Context, objs []runtime.Object) error {
	rows := map[reflect.Type]*api.Resource{}
	for _, r := range s.Catalogue.All() {
		if r.Hub == nil && !r.NotStored {
			rows[reflect.TypeOf(r.New())] = r
		}
	}
	errs := make([]error, len(objs))
	var wg sync.WaitGroup
	for i, o := range objs {
		row := rows[reflect.TypeOf(o)]
		wg.Go(func() {
			e := entries{s, ctx, row}
			errs[i] = e.ensure(o.DeepCopyObject())
			for apierrors.IsAlreadyExists(errs[i]) || apierrors.IsConflict(errs[i]) {
				// Another server starts at the same time.
				errs[i] = e.ensure(o.DeepCopyObject())
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", row.GroupVersionResource.GroupResource(), errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// entries are the objects of a row.
type entries struct {
	*Seeder
	ctx context.Context
	row *api.Resource
}

// ensure stores obj or reconciles the one that there is with it.
func (e entries) ensure(obj runtime.Object) error {
	var err error
	switch obj := obj.(type) {
	case *rbacv1.ClusterRole:
		_, err = (&rbac.ReconcileRoleOptions{Role: rbac.ClusterRoleRuleOwner{ClusterRole: obj}, Confirm: true, Client: roles{e}}).Run()
	case *rbacv1.Role:
		_, err = (&rbac.ReconcileRoleOptions{Role: rbac.RoleRuleOwner{Role: obj}, Confirm: true, Client: roles{e}}).Run()
	case *rbacv1.ClusterRoleBinding:
		_, err = (&rbac.ReconcileRoleBindingOptions{RoleBinding: rbac.ClusterRoleBindingAdapter{ClusterRoleBinding: obj}, Confirm: true, Client: bindings{e}}).Run()
	case *rbacv1.RoleBinding:
		_, err = (&rbac.ReconcileRoleBindingOptions{RoleBinding: rbac.RoleBindingAdapter{RoleBinding: obj}, Confirm: true, Client: bindings{e}}).Run()
	case *v1.ConfigMap:
		var old runtime.Object
		if old, err = e.get(obj.Namespace, obj.Name); err == nil && !maps.Equal(old.(*v1.ConfigMap).Data, obj.Data) {
			next := old.(*v1.ConfigMap).DeepCopy()
			next.Data = obj.Data
			err = e.update(next)
		}
	default:
		var acc metav1.Object
		if acc, err = meta.Accessor(obj); err == nil {
			_, err = e.get(acc.GetNamespace(), acc.GetName())
		}
	}
	if apierrors.IsNotFound(err) {
		return e.create(obj)
	}
	return err
}

// get reads an object, which is shared.
func (e entries) get(namespace, name string) (runtime.Object, error) {
	entry, err := e.Store.Get(e.ctx, e.row.Key(namespace, name))
	if err != nil {
		return nil, err
	}
	if entry == nil {
		return nil, apierrors.NewNotFound(e.row.GroupVersionResource.GroupResource(), name)
	}
	return entry.Object(), nil
}

// create stores obj with its defaults.
func (e entries) create(obj runtime.Object) error {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	if e.row.Default != nil {
		e.row.Default(obj)
	}
	if e.row.PrepareForCreate != nil {
		e.row.PrepareForCreate(obj)
	}
	acc.SetUID(uuid.NewUUID())
	acc.SetCreationTimestamp(metav1.Time{Time: e.Clock.Now().UTC().Truncate(time.Second)})
	_, err = e.Store.Create(e.ctx, e.row.Key(acc.GetNamespace(), acc.GetName()), obj, 0)
	return e.status(err, acc.GetName())
}

// update replaces the object that obj was made of.
func (e entries) update(obj runtime.Object) error {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	revision, err := strconv.ParseInt(acc.GetResourceVersion(), 10, 64)
	if err != nil {
		return err
	}
	_, err = e.Store.Update(e.ctx, e.row.Key(acc.GetNamespace(), acc.GetName()), revision, obj, 0)
	return e.status(err, acc.GetName())
}

// status gives the store's errors the API's form, which the reconciliation
// looks at.
func (e entries) status(err error, name string) error {
	gr := e.row.GroupVersionResource.GroupResource()
	switch {
	case errors.Is(err, store.ErrExists):
		return apierrors.NewAlreadyExists(gr, name)
	case errors.Is(err, store.ErrNotFound):
		return apierrors.NewNotFound(gr, name)
	case errors.Is(err, store.ErrConflict):
		return apierrors.NewConflict(gr, name, err)
	}
	return err
}

// roles are Roles or ClusterRoles for the reconciliation.
type roles struct{ entries }

// Get implements rbac.RuleOwnerModifier.
func (r roles) Get(namespace, name string) (rbac.RuleOwner, error) {
	obj, err := r.get(namespace, name)
	if err != nil {
		return nil, err
	}
	if role, ok := obj.(*rbacv1.Role); ok {
		return rbac.RoleRuleOwner{Role: role}, nil
	}
	return rbac.ClusterRoleRuleOwner{ClusterRole: obj.(*rbacv1.ClusterRole)}, nil
}

// Create implements rbac.RuleOwnerModifier.
func (r roles) Create(o rbac.RuleOwner) (rbac.RuleOwner, error) { return o, r.create(o.GetObject()) }

// Update implements rbac.RuleOwnerModifier.
func (r roles) Update(o rbac.RuleOwner) (rbac.RuleOwner, error) { return o, r.update(o.GetObject()) }

// bindings are RoleBindings or ClusterRoleBindings for the reconciliation.
type bindings struct{ entries }

// Get implements rbac.RoleBindingModifier.
func (b bindings) Get(namespace, name string) (rbac.RoleBinding, error) {
	obj, err := b.get(namespace, name)
	if err != nil {
		return nil, err
	}
	if binding, ok := obj.(*rbacv1.RoleBinding); ok {
		return rbac.RoleBindingAdapter{RoleBinding: binding}, nil
	}
	return rbac.ClusterRoleBindingAdapter{ClusterRoleBinding: obj.(*rbacv1.ClusterRoleBinding)}, nil
}

// Delete implements rbac.RoleBindingModifier.
func (b bindings) Delete(namespace, name string, uid types.UID) error {
	key := b.row.Key(namespace, name)
	entry, err := b.Store.Get(b.ctx, key)
	if err != nil {
		return err
	}
	if entry == nil {
		return apierrors.NewNotFound(b.row.GroupVersionResource.GroupResource(), name)
	}
	if acc, err := meta.Accessor(entry.Object()); err != nil || acc.GetUID() != uid {
		return apierrors.NewConflict(b.row.GroupVersionResource.GroupResource(), name, errors.New("it was made anew"))
	}
	_, err = b.Store.Delete(b.ctx, key, entry.ModRevision)
	return b.status(err, name)
}

// Create implements rbac.RoleBindingModifier.
func (b bindings) Create(o rbac.RoleBinding) (rbac.RoleBinding, error) {
	return o, b.create(o.GetObject())
}

// Update implements rbac.RoleBindingModifier.
func (b bindings) Update(o rbac.RoleBinding) (rbac.RoleBinding, error) {
	return o, b.update(o.GetObject())
}

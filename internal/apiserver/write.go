package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/store"
)

// writing describes a write of an object.
type writing struct {
	verb         string // "create", "update", "patch", "delete"
	subresource  string
	options      runtime.Object // for admission
	dryRun       bool
	fieldManager string
	applied      bool // server-side apply has set the managed fields
	// seen, if set, returns what admission sees of the change in place of the
	// object, and puts back into the object what admission has changed there.
	seen func(obj, old runtime.Object) (admission.Attributes, func() error, error)
	// bare makes a change bypass admission: the server itself makes it.
	bare bool
	// upsert lets a change create the object where there is none.
	upsert bool
	// changes says that the change is never one that changes nothing.
	changes bool
	// retries bounds how often a change without a resourceVersion is tried
	// again on a conflict; 0 is without bound.
	retries int
}

// writer creates and changes objects of the request's row.
type writer struct {
	*call
	// managed points to the managers that manage has set in an object without a Go
	// type.
	managed *any
}

func invalidOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}

func isDryRun(flags []string) bool { return len(flags) > 0 }

// create stores the object in the body.
func (r *writer) create() error {
	opts := &metav1.CreateOptions{}
	if err := r.options(opts); err != nil {
		return err
	}
	if err := invalidOptions("CreateOptions", metav1validation.ValidateCreateOptions(opts)); err != nil {
		return err
	}
	obj, err := r.decode(r.row.New(), r.row.GVK(), opts.FieldValidation)
	if err != nil {
		return err
	}
	r.auditRequest(obj)
	e, err := r.insert(obj, writing{verb: "create", options: opts, dryRun: isDryRun(opts.DryRun), fieldManager: opts.FieldManager})
	if err != nil {
		return err
	}
	return r.writeEntry(http.StatusCreated, e)
}

// generatedRetries is how often another name is generated if one is taken.
const generatedRetries = 8

var errCreatedVersion = errors.New("resourceVersion should not be set on objects to be created")

// insert stores a new object after all steps of a creation: defaults, admission
// and validation.
func (r *writer) insert(obj runtime.Object, w writing) (*store.Entry, error) {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	if err := r.place(acc); err != nil {
		return nil, err
	}
	if r.row.Default != nil {
		r.row.Default(obj)
	}
	if !w.applied {
		obj = r.manage(obj, nil, w.fieldManager, w.subresource)
		if acc, err = meta.Accessor(obj); err != nil {
			return nil, err
		}
	}
	attrs := r.attributes(obj, nil, acc.GetName(), admission.Create, w)
	if err := r.mutate(attrs); err != nil {
		return nil, err
	}
	// Admission may have changed what was checked before.
	if err := r.place(acc); err != nil {
		return nil, err
	}
	if r.info.Name != "" {
		if err := r.checkName(acc); err != nil {
			return nil, err
		}
	}
	acc.SetDeletionTimestamp(nil)
	acc.SetDeletionGracePeriodSeconds(nil)
	acc.SetSelfLink("")
	acc.SetGeneration(0)
	acc.SetUID(uuid.NewUUID())
	acc.SetCreationTimestamp(metav1.Time{Time: r.s.Clock.Now().UTC().Truncate(time.Second)})
	generated := acc.GetName() == "" && acc.GetGenerateName() != ""
	for try := 0; ; try++ {
		if generated {
			acc.SetName(generateName(acc.GetGenerateName()))
		}
		if r.row.PrepareForCreate != nil {
			r.row.PrepareForCreate(obj)
		}
		if r.row.PrepareForRequest != nil {
			r.row.PrepareForRequest(r.call, obj)
		}
		e, err := r.insertNamed(obj, acc, attrs, w)
		if generated && apierrors.IsAlreadyExists(err) && try < generatedRetries {
			continue
		}
		if generated && apierrors.IsAlreadyExists(err) {
			return nil, apierrors.NewGenerateNameConflict(r.groupResource(), acc.GetName(), 1)
		}
		return e, err
	}
}

// generateName follows upstream's: at most 58 bytes of the prefix and five
// random characters.
func generateName(prefix string) string {
	if len(prefix) > 58 {
		prefix = prefix[:58]
	}
	return prefix + rand.String(5)
}

func (r *writer) insertNamed(obj runtime.Object, acc metav1.Object, attrs admission.Attributes, w writing) (*store.Entry, error) {
	done := func(bool) {}
	if res := r.s.Reservations[r.groupResource()]; res != nil {
		var err error
		if done, err = res.Reserve(r.ctx(), obj, nil, w.dryRun); err != nil {
			return nil, err
		}
	}
	committed := false
	defer func() { done(committed) }()
	nameFn := r.row.ValidateName
	if nameFn == nil {
		nameFn = apivalidation.NameIsDNSSubdomain
	}
	begin := time.Now()
	errs := apivalidation.ValidateObjectMetaAccessor(r.toValidate(acc), r.row.Namespaced, nameFn, field.NewPath("metadata"))
	errs = append(errs, r.validateFinalizers(acc.GetFinalizers(), nil)...)
	if r.row.Validate != nil {
		errs = append(errs, r.row.Validate(obj)...)
	}
	if r.row.ValidateRequest != nil {
		errs = append(errs, r.row.ValidateRequest(r.call, obj, nil)...)
	}
	r.timing.Validated(begin)
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(r.row.GVK().GroupKind(), acc.GetName(), errs)
	}
	r.warn(obj, nil)
	if attrs.GetName() == "" { // the name was generated
		attrs = r.attributes(obj, nil, acc.GetName(), admission.Create, w)
	}
	if err := r.validate(attrs); err != nil {
		return nil, err
	}
	key := r.row.Key(acc.GetNamespace(), acc.GetName())
	if w.dryRun {
		if e, err := r.s.Store.Get(r.ctx(), key); err != nil || e != nil {
			if err == nil {
				err = store.ErrExists
			}
			return nil, r.storeError(err, acc.GetName())
		}
		return r.unstored(obj)
	}
	if acc.GetResourceVersion() != "" {
		return nil, errCreatedVersion
	}
	stored, err := r.hub(obj)
	if err != nil {
		return nil, err
	}
	e, err := r.commit(Write{Resource: r.row, Verb: "create"}, acc.GetUID(), func(ctx context.Context) (*store.Entry, error) {
		return r.s.Store.Create(ctx, key, stored, r.ttl(obj))
	})
	if err != nil {
		return nil, r.storeError(err, acc.GetName())
	}
	committed = true
	return e, nil
}

func (r *writer) ttl(obj runtime.Object) time.Duration {
	if r.row.TTL == nil {
		return 0
	}
	if r.s.TTL > 0 {
		return r.s.TTL
	}
	return r.row.TTL(obj)
}

// hub returns obj as it is stored.
func (r *writer) hub(obj runtime.Object) (runtime.Object, error) {
	if r.row.Hub != nil {
		h, err := r.row.Hub.ToHub(obj)
		if err != nil {
			return nil, err
		}
		obj = h
	}
	untype(obj)
	return obj, nil
}

// unstored returns an entry with obj as a write would store it.
func (r *writer) unstored(obj runtime.Object) (*store.Entry, error) {
	stored, err := r.hub(obj)
	if err != nil {
		return nil, err
	}
	return store.Unstored(stored), nil
}

// commit has the store make a write of an object, of which the trace is told before any
// watch has the change, and records it. Its subresource is the request's unless w names one:
// a request may write an object other than its own.
func (r *writer) commit(w Write, uid types.UID, do func(context.Context) (*store.Entry, error)) (*store.Entry, error) {
	w.Subresource, w.Client, w.Timing = cmp.Or(w.Subresource, r.info.Subresource), r.req.UserAgent(), r.timing
	ctx := r.ctx()
	if r.s.Note != nil {
		ctx = store.WithNote(ctx, r.s.Note(ctx, w))
	}
	if r.timing == nil {
		return do(ctx)
	}
	at, _ := r.timing.Context(r.ctx())
	told := false
	begin := time.Now()
	e, err := do(store.WithCommitted(ctx, func(revision int64) {
		told = true
		r.s.Tracer.Committed(uid, formatRevision(revision), at)
	}))
	r.timing.Stored(begin)
	if err != nil {
		if told {
			r.s.Tracer.Withdraw(uid, at)
		}
		return nil, err
	}
	w.Object = e.Object()
	r.recorded(w)
	return e, nil
}

func (r *writer) recorded(w Write) {
	w.Subresource, w.Time, w.Client, w.Timing = cmp.Or(w.Subresource, r.info.Subresource), r.s.Clock.Now(), r.req.UserAgent(), r.timing
	r.s.Tracer.Record(r.ctx(), w)
	r.traced, _ = r.timing.Context(r.ctx())
	r.timing.Again() // a request may write several objects
}

func (r *writer) warn(obj, old runtime.Object) {
	if r.row.Warnings == nil {
		return
	}
	for _, text := range r.row.Warnings(obj, old) {
		r.warnings.AddWarning("", text)
	}
}

func (r *writer) attributes(obj, old runtime.Object, name string, op admission.Operation, w writing) admission.Attributes {
	return admission.NewAttributesRecord(obj, old, r.row.GVK(), r.info.Namespace, name, r.row.GroupVersionResource,
		w.subresource, op, admissionOptions(op, w.options), w.dryRun, r.user)
}

// update replaces an object, or the part of it that strategy allows.
func (r *writer) update(strategy *api.UpdateStrategy) error {
	opts := &metav1.UpdateOptions{}
	if err := r.options(opts); err != nil {
		return err
	}
	if err := invalidOptions("UpdateOptions", metav1validation.ValidateUpdateOptions(opts)); err != nil {
		return err
	}
	obj, err := r.decode(r.row.New(), r.row.GVK(), opts.FieldValidation)
	if err != nil {
		return err
	}
	r.auditRequest(obj)
	acc, err := meta.Accessor(obj)
	if err != nil {
		return badRequest("%v", err)
	}
	if err := r.checkName(acc); err != nil {
		return err
	}
	if err := r.place(acc); err != nil {
		return err
	}
	w := writing{verb: "update", subresource: r.info.Subresource, options: opts, dryRun: isDryRun(opts.DryRun), fieldManager: opts.FieldManager,
		upsert: r.row.AllowCreateOnUpdate && r.info.Subresource == ""}
	var pristine runtime.Object
	if acc.GetResourceVersion() == "" {
		pristine = obj.DeepCopyObject()
	}
	first := true
	e, created, err := r.change(strategy, w, func(runtime.Object) (runtime.Object, error) {
		if first {
			first = false
			return obj, nil
		}
		return pristine.DeepCopyObject(), nil
	})
	if err != nil {
		return err
	}
	code := http.StatusOK
	if created {
		code = http.StatusCreated
	}
	return r.writeEntry(code, e)
}

// change reads the object that the request names, calls produce for its new
// state (from the old one, which it must not change; nil where there is none),
// and stores that after all steps of an update. After a conflict with another
// write it starts again, unless the new state names the resourceVersion that it
// is made from.
func (r *writer) change(strategy *api.UpdateStrategy, w writing, produce func(old runtime.Object) (runtime.Object, error)) (*store.Entry, bool, error) {
	for try := 1; ; try++ {
		e, created, again, err := r.changeOnce(strategy, w, produce)
		if !again || w.retries > 0 && try >= w.retries || r.ctx().Err() != nil {
			return e, created, err
		}
	}
}

func (r *writer) changeOnce(strategy *api.UpdateStrategy, w writing, produce func(old runtime.Object) (runtime.Object, error)) (_ *store.Entry, created, again bool, _ error) {
	name := r.info.Name
	e, err := r.s.Store.Get(r.ctx(), r.row.Key(r.info.Namespace, name))
	if err != nil {
		return nil, false, false, r.storeError(err, name)
	}
	if e == nil {
		if err := r.absent(r.row.Key(r.info.Namespace, name), name); !w.upsert || !apierrors.IsNotFound(err) {
			return nil, false, false, err
		}
		obj, err := produce(nil)
		if err != nil {
			return nil, false, false, err
		}
		acc, err := meta.Accessor(obj)
		if err != nil {
			return nil, false, false, err
		}
		if acc.GetResourceVersion() != "" || acc.GetUID() != "" && w.verb != "update" {
			return nil, false, false, apierrors.NewConflict(r.groupResource(), name, errModified)
		}
		acc.SetName(name)
		ne, err := r.insert(obj, w)
		return ne, true, apierrors.IsAlreadyExists(err), err
	}
	old, err := versioned(r.row, e.Object())
	if err != nil {
		return nil, false, false, err
	}
	obj, err := produce(old)
	if err != nil {
		return nil, false, false, err
	}
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, false, false, err
	}
	oldAcc, err := meta.Accessor(old)
	if err != nil {
		return nil, false, false, err
	}
	from := acc.GetResourceVersion()
	conditional := from != ""
	if uid := acc.GetUID(); w.verb == "update" && uid != "" && uid != oldAcc.GetUID() {
		return nil, false, false, apierrors.NewConflict(r.groupResource(), name,
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, oldAcc.GetUID()))
	}
	if r.row.Default != nil {
		r.row.Default(obj)
	}
	inherit(acc, oldAcc)
	if !w.applied {
		obj = r.manage(obj, old, w.fieldManager, w.subresource)
		if acc, err = meta.Accessor(obj); err != nil {
			return nil, false, false, err
		}
	}
	attrs, putBack := r.attributes(obj, old, name, admission.Update, w), func() error { return nil }
	if w.seen != nil {
		if attrs, putBack, err = w.seen(obj, old); err != nil {
			return nil, false, false, err
		}
	}
	if !w.bare {
		if err := r.mutate(attrs); err != nil {
			return nil, false, false, err
		}
	}
	if err := putBack(); err != nil {
		return nil, false, false, err
	}
	// Who may not make the change is told so, whatever version it is made from.
	switch {
	case conditional && from != oldAcc.GetResourceVersion():
		return nil, false, false, apierrors.NewConflict(r.groupResource(), name, errModified)
	case !conditional && r.row.RequireResourceVersion && w.verb == "update" && w.subresource != "scale":
		return nil, false, false, r.noVersion(name)
	}
	if err := r.place(acc); err != nil {
		return nil, false, false, err
	}
	inherit(acc, oldAcc)
	if strategy.PrepareForUpdate != nil {
		strategy.PrepareForUpdate(obj, old)
	}
	acc.SetResourceVersion(oldAcc.GetResourceVersion())
	done := func(bool) {}
	if res := r.s.Reservations[r.groupResource()]; res != nil && w.subresource == "" {
		if done, err = res.Reserve(r.ctx(), obj, old, w.dryRun); err != nil {
			return nil, false, false, err
		}
	}
	committed := false
	defer func() { done(committed) }()
	begin := time.Now()
	errs := apivalidation.ValidateObjectMetaAccessorUpdate(r.toValidate(acc), oldAcc, field.NewPath("metadata"))
	errs = append(errs, r.validateFinalizers(acc.GetFinalizers(), oldAcc.GetFinalizers())...)
	switch {
	case strategy.ValidateUpdate != nil:
		errs = append(errs, strategy.ValidateUpdate(obj, old)...)
	case strategy == &r.row.UpdateStrategy && r.row.Validate != nil:
		errs = append(errs, r.row.Validate(obj)...)
	}
	if strategy.ValidateRequest != nil {
		errs = append(errs, strategy.ValidateRequest(r.call, obj, old)...)
	}
	r.timing.Validated(begin)
	if len(errs) > 0 {
		return nil, false, false, apierrors.NewInvalid(r.row.GVK().GroupKind(), name, errs)
	}
	if w.subresource == "" {
		r.warn(obj, old)
	}
	if !w.bare {
		if err := r.validate(attrs); err != nil {
			return nil, false, false, err
		}
	}
	if w.dryRun {
		ne, err := r.unstored(obj)
		return ne, false, false, err
	}
	if r.finished(obj, acc) {
		if _, err := r.remove(e, old); err != nil {
			return nil, false, errors.Is(err, store.ErrConflict) && !conditional, r.storeError(err, name)
		}
		committed = true
		// The object is removed in place of being stored; the answer is what the client
		// wrote.
		ne, err := r.unstored(obj)
		return ne, false, false, err
	}
	untype(obj)
	if !w.changes && !managedAnew(obj, acc, oldAcc) && equality.Semantic.DeepEqual(obj, old) && !r.s.stale(e) {
		return e, false, false, nil
	}
	stored, err := r.hub(obj)
	if err != nil {
		return nil, false, false, err
	}
	ne, err := r.commit(Write{Resource: r.row, Verb: w.verb, Old: e.Object()}, oldAcc.GetUID(), func(ctx context.Context) (*store.Entry, error) {
		return r.s.Store.Update(ctx, e.Key, e.ModRevision, stored, r.ttl(obj))
	})
	if err != nil {
		return nil, false, errors.Is(err, store.ErrConflict) && !conditional, r.storeError(err, name)
	}
	committed = true
	return ne, false, false, nil
}

// managedAnew reports whether the new object has other managers than the old one, and so
// is another one. Of an object without a Go type, whose managers take long to read, it
// does not know.
func managedAnew(obj runtime.Object, acc, old metav1.Object) bool {
	_, custom := obj.(*unstructured.Unstructured)
	return !custom && !sameManagers(acc.GetManagedFields(), old.GetManagedFields())
}

// noVersion returns the answer to an update without a resourceVersion of a kind
// that requires one.
func (r *writer) noVersion(name string) error {
	gr := r.groupResource()
	return apierrors.NewInvalid(schema.GroupKind{Group: gr.Group, Kind: gr.Resource}, name, field.ErrorList{
		field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update")})
}

// inherit copies from old what only the server sets. A changed UID, and a deletion
// timestamp where there was none, are left for validation to refuse.
func inherit(acc, old metav1.Object) {
	if acc.GetUID() == "" {
		acc.SetUID(old.GetUID())
	}
	acc.SetCreationTimestamp(old.GetCreationTimestamp())
	if t := old.GetDeletionTimestamp(); t != nil {
		acc.SetDeletionTimestamp(t)
	}
	if acc.GetDeletionGracePeriodSeconds() == nil {
		acc.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	}
	acc.SetGeneration(old.GetGeneration())
	acc.SetSelfLink("")
	if acc.GetGenerateName() == "" {
		acc.SetGenerateName(old.GetGenerateName())
	}
}

// finished reports whether obj can be removed: it is being deleted, its grace
// period is over and it has no finalizers.
func (r *writer) finished(obj runtime.Object, acc metav1.Object) bool {
	if acc.GetDeletionTimestamp() == nil || r.finalizing(obj, acc) {
		return false
	}
	grace := acc.GetDeletionGracePeriodSeconds()
	return grace == nil || *grace == 0
}

// remove deletes the entry; old is its object in the row's version.
func (r *writer) remove(e *store.Entry, old runtime.Object) (*store.Entry, error) {
	acc, err := meta.Accessor(old)
	if err != nil {
		return nil, err
	}
	d, err := r.commit(Write{Resource: r.row, Verb: "delete", Old: e.Object()}, acc.GetUID(), func(ctx context.Context) (*store.Entry, error) {
		return r.s.Store.Delete(ctx, e.Key, e.ModRevision)
	})
	if err != nil {
		return nil, err
	}
	if res := r.s.Reservations[r.groupResource()]; res != nil {
		res.Release(old)
	}
	return d, nil
}

// preconditions checks the preconditions of a deletion.
func (r *writer) preconditions(p *metav1.Preconditions, acc metav1.Object) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != acc.GetUID() {
		return apierrors.NewConflict(r.groupResource(), acc.GetName(),
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *p.UID, acc.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != acc.GetResourceVersion() {
		return apierrors.NewConflict(r.groupResource(), acc.GetName(),
			fmt.Errorf("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", *p.ResourceVersion, acc.GetResourceVersion()))
	}
	return nil
}

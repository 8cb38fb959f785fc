package apiserver

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apiserver/pkg/admission"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/store"
)

// finalizing reports whether an object that is being deleted still has finalizers,
// in its metadata or by its row.
func (r *writer) finalizing(obj runtime.Object, acc metav1.Object) bool {
	return len(acc.GetFinalizers()) > 0 || r.row.Finalizing != nil && r.row.Finalizing(obj)
}

// deleter deletes objects of the request's row.
type deleter struct{ writer }

func newDeleter(r *call) *deleter { return &deleter{writer{call: r}} }

// deleteOptions reads the options from the body, or from the query parameters.
func (r *deleter) deleteOptions() (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	data, err := r.body()
	if err != nil {
		return nil, err
	}
	if len(data) > 0 {
		mt, err := r.contentType()
		if err != nil {
			return nil, err
		}
		// Clients send it as a kind of v1, of their own group, or of meta.k8s.io.
		if opts, err = decodeDeleteOptions(data, mt); err != nil {
			return nil, err
		}
	} else if err := r.options(opts); err != nil {
		return nil, err
	}
	if r.s.NoUnsafeDeletion {
		opts.IgnoreStoreReadErrorWithClusterBreakingPotential = nil
	}
	opts.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("DeleteOptions"))
	r.auditRequest(opts)
	if r.row.DeleteWarning != "" && opts.PropagationPolicy == nil && opts.OrphanDependents == nil {
		r.warnings.AddWarning("", r.row.DeleteWarning)
	}
	return opts, invalidOptions("DeleteOptions", metav1validation.ValidateDeleteOptions(opts))
}

// delete deletes the object that the request names, now or when its grace period
// and finalizers allow.
func (r *deleter) delete() error {
	opts, err := r.deleteOptions()
	if err != nil {
		return err
	}
	if ignoresReadError(opts) {
		return r.deleteUnreadable(opts)
	}
	e, gone, err := r.end(r.info.Namespace, r.info.Name, opts)
	if err != nil {
		return err
	}
	if !gone || r.row.DeleteReturnsObject {
		return r.writeEntry(http.StatusOK, e)
	}
	acc, err := meta.Accessor(e.Object())
	if err != nil {
		return err
	}
	r.writeStatus(http.StatusOK, &metav1.Status{
		Status:  metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: acc.GetName(), Group: r.row.Group, Kind: r.row.Resource, UID: acc.GetUID()},
	})
	return nil
}

// end deletes one object; gone reports whether it has been removed.
func (r *deleter) end(ns, name string, opts *metav1.DeleteOptions) (*store.Entry, bool, error) {
	key := r.row.Key(ns, name)
	for {
		e, err := r.s.Store.Get(r.ctx(), key)
		if err != nil {
			return nil, false, r.storeError(err, name)
		}
		if e == nil {
			return nil, false, r.absent(key, name)
		}
		ne, gone, err := r.endOnce(e, opts)
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			continue
		}
		return ne, gone, r.storeError(err, name)
	}
}

func (r *deleter) endOnce(e *store.Entry, opts *metav1.DeleteOptions) (*store.Entry, bool, error) {
	old, err := versioned(r.row, e.Object())
	if err != nil {
		return nil, false, err
	}
	oldAcc, err := meta.Accessor(old)
	if err != nil {
		return nil, false, err
	}
	if err := r.preconditions(opts.Preconditions, oldAcc); err != nil {
		return nil, false, err
	}
	w := writing{verb: "delete", options: opts, dryRun: isDryRun(opts.DryRun)}
	attrs := admission.NewAttributesRecord(nil, old, r.row.GVK(), r.info.Namespace, oldAcc.GetName(), r.row.GroupVersionResource, "", admission.Delete, admissionOptions(admission.Delete, opts), w.dryRun, r.user)
	if err := r.mutate(attrs); err != nil {
		return nil, false, err
	}
	if err := r.validate(attrs); err != nil {
		return nil, false, err
	}
	obj := r.toEnd(old)
	acc, err := meta.Accessor(obj)
	if err != nil {
		return nil, false, err
	}
	changed := false
	if r.row.BeforeDelete != nil && acc.GetDeletionTimestamp() == nil {
		r.row.BeforeDelete(obj)
		changed = true
	}
	graced, wait := r.grace(obj, acc, opts)
	changed = changed || graced
	if fs := r.finalizers(acc, opts); !slices.Equal(fs, acc.GetFinalizers()) {
		acc.SetFinalizers(fs)
		changed = true
	}
	if !wait && r.finalizing(obj, acc) {
		if acc.GetDeletionTimestamp() == nil {
			r.mark(acc, 0)
			changed = true
		} else if g := acc.GetDeletionGracePeriodSeconds(); g == nil || *g != 0 {
			acc.SetDeletionGracePeriodSeconds(ptr(int64(0)))
			changed = true
		}
		wait = true
	}
	if w.dryRun {
		ne, err := r.unstored(obj)
		return ne, !wait, err
	}
	if !wait {
		d, err := r.remove(e, old)
		return d, true, err
	}
	if !changed {
		return e, false, nil
	}
	stored, err := r.hub(obj)
	if err != nil {
		return nil, false, err
	}
	ne, err := r.commit(Write{Resource: r.row, Verb: "delete", Old: e.Object()}, oldAcc.GetUID(), func(ctx context.Context) (*store.Entry, error) {
		return r.s.Store.Update(ctx, e.Key, e.ModRevision, stored, r.ttl(obj))
	})
	return ne, false, err
}

// toEnd returns a copy of old, whose metadata's fields may be set, and where the row
// changes more than those before a deletion, all else, too. The rest is shared with old:
// objects of the store do not change.
func (r *deleter) toEnd(old runtime.Object) runtime.Object {
	if r.row.BeforeDelete != nil || isUnstructured(r.row) {
		return old.DeepCopyObject()
	}
	return shallow(old)
}

// mark sets the deletion timestamp, seconds from now.
func (r *writer) mark(acc metav1.Object, seconds int64) {
	acc.SetDeletionTimestamp(&metav1.Time{Time: r.s.Clock.Now().UTC().Truncate(time.Second).Add(time.Duration(seconds) * time.Second)})
	acc.SetDeletionGracePeriodSeconds(&seconds)
	// A deletion counts as a change of the spec.
	if acc.GetGeneration() > 0 {
		acc.SetGeneration(acc.GetGeneration() + 1)
	}
}

// grace begins or shortens a graceful deletion. wait reports whether the object
// stays for its grace period.
func (r *deleter) grace(obj runtime.Object, acc metav1.Object, opts *metav1.DeleteOptions) (changed, wait bool) {
	if r.row.GracePeriod == nil {
		return false, false
	}
	seconds := r.row.GracePeriod(obj, opts.GracePeriodSeconds)
	if acc.GetDeletionTimestamp() == nil {
		if seconds == 0 {
			return false, false
		}
		r.mark(acc, seconds)
		return true, true
	}
	current := int64(0)
	if g := acc.GetDeletionGracePeriodSeconds(); g != nil {
		current = *g
	}
	if current == 0 {
		return false, false
	}
	if opts.GracePeriodSeconds == nil || seconds >= current {
		return false, true
	}
	if seconds == 0 {
		return false, false
	}
	begun := acc.GetDeletionTimestamp().Add(-time.Duration(current) * time.Second)
	acc.SetDeletionTimestamp(&metav1.Time{Time: begun.Add(time.Duration(seconds) * time.Second)})
	acc.SetDeletionGracePeriodSeconds(&seconds)
	return true, true
}

// finalizers returns the object's finalizers after the propagation policy has
// added or removed its own.
func (r *deleter) finalizers(acc metav1.Object, opts *metav1.DeleteOptions) []string {
	old := acc.GetFinalizers()
	orphan := slices.Contains(old, metav1.FinalizerOrphanDependents)
	foreground := slices.Contains(old, metav1.FinalizerDeleteDependents)
	switch {
	case opts.OrphanDependents != nil:
		orphan, foreground = *opts.OrphanDependents, false
	case opts.PropagationPolicy != nil:
		orphan = *opts.PropagationPolicy == metav1.DeletePropagationOrphan
		foreground = *opts.PropagationPolicy == metav1.DeletePropagationForeground
	case !orphan && !foreground:
		orphan = r.row.OrphanByDefault
	}
	out := slices.DeleteFunc(slices.Clone(old), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	})
	if orphan {
		out = append(out, metav1.FinalizerOrphanDependents)
	}
	if foreground {
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	if slices.Equal(sorted(out), sorted(old)) {
		return old
	}
	return out
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// deleteCollection deletes every selected object, and answers with them.
func (r *deleter) deleteCollection() error {
	lopts, sel, err := r.listOptions()
	if err != nil {
		return err
	}
	a, err := r.accept(canTransform)
	if err != nil {
		return err
	}
	opts, err := r.deleteOptions()
	if err != nil {
		return err
	}
	if ignoresReadError(opts) {
		return invalidIgnore("is not allowed with DELETECOLLECTION, try again after removing the option")
	}
	if err := r.readError(r.s.Store.Unreadable(sel.prefix)); err != nil {
		return err
	}
	lo := store.ListOptions{Limit: int(lopts.Limit), Index: sel.index, Value: sel.value}
	if !sel.trivial {
		lo.Match = sel.matches
	}
	res, err := r.s.Store.List(r.ctx(), sel.prefix, lo)
	if err != nil {
		return r.storeError(err, "")
	}
	for _, e := range res.Entries {
		acc, err := meta.Accessor(e.Object())
		if err != nil {
			return err
		}
		if _, _, err := r.end(acc.GetNamespace(), acc.GetName(), opts); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	return r.writeList(a, res.Entries, metav1.ListMeta{ResourceVersion: formatRevision(r.s.Store.Revision())})
}

func decodeDeleteOptions(data []byte, mediaType string) (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	var err error
	switch mediaType {
	case typeProtobuf:
		var env runtime.Unknown
		raw, ok := bytes.CutPrefix(data, []byte{'k', '8', 's', 0})
		if !ok {
			return nil, badRequest("provided data does not appear to be a protobuf message")
		}
		if err = env.Unmarshal(raw); err == nil {
			err = opts.Unmarshal(env.Raw)
			opts.Kind, opts.APIVersion = env.Kind, env.APIVersion
		}
	case typeCBOR:
		err = direct.Unmarshal(data, opts)
	case typeJSON:
		err = utiljson.Unmarshal(data, opts)
	default:
		if err := boundYAML(data); err != nil {
			return nil, err
		}
		err = yaml.Unmarshal(data, opts)
	}
	gvk := metav1.SchemeGroupVersion.WithKind("DeleteOptions")
	if err != nil {
		return nil, decodeError(err, nil, gvk, data)
	}
	if opts.Kind != "" && opts.Kind != gvk.Kind {
		return nil, badRequest("decoded object cannot be converted to DeleteOptions")
	}
	return opts, nil
}

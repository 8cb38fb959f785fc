package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/component-helpers/apps/poddisruptionbudget"
	"k8s.io/kubectl/pkg/util/podutils"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/store"
)

// maxDisrupted is upstream's bound of evictions that a budget's controller has
// not confirmed yet.
const maxDisrupted = 2000

// evictor deletes a pod if its disruption budget allows it.
type evictor struct{ deleter }

// evict deletes a pod if its disruption budget allows it: pods/eviction.
func (r *evictor) evict() error {
	opts := &metav1.CreateOptions{}
	if err := r.options(opts); err != nil {
		return err
	}
	if err := invalidOptions("CreateOptions", metav1validation.ValidateCreateOptions(opts)); err != nil {
		return err
	}
	gvk := policyv1.SchemeGroupVersion.WithKind("Eviction")
	ev, err := r.eviction(gvk, opts.FieldValidation)
	if err != nil {
		return err
	}
	attrs := admission.NewAttributesRecord(ev, nil, gvk, r.info.Namespace, r.info.Name, r.row.GroupVersionResource, "eviction", admission.Create, opts, isDryRun(opts.DryRun), r.user)
	if err := r.mutate(attrs); err != nil {
		return err
	}
	if ev.Name != r.info.Name {
		return badRequest("name in URL does not match name in Eviction object")
	}
	if ev.Namespace != "" && ev.Namespace != r.info.Namespace {
		return badRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	del := &metav1.DeleteOptions{}
	if ev.DeleteOptions != nil {
		del = ev.DeleteOptions.DeepCopy()
	}
	switch {
	case len(del.DryRun) == 0:
		del.DryRun = opts.DryRun
	case len(opts.DryRun) > 0 && !slices.Equal(del.DryRun, opts.DryRun):
		return badRequest("Non-matching dry-run options in request and content: %v and %v", opts.DryRun, del.DryRun)
	}
	dryRun := isDryRun(del.DryRun)
	if err := r.validate(attrs); err != nil {
		return err
	}
	for {
		again, err := r.evictOnce(del, dryRun)
		if again && r.ctx().Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		r.writeStatus(http.StatusCreated, &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated})
		return nil
	}
}

// eviction reads the request's Eviction, which may also be of policy/v1beta1: it is
// the same kind under another version, of which nothing else is served.
func (r *evictor) eviction(gvk schema.GroupVersionKind, fieldValidation string) (*policyv1.Eviction, error) {
	mediaType, err := r.contentType()
	if err != nil {
		return nil, err
	}
	data, err := r.body()
	if err != nil {
		return nil, err
	}
	into := runtime.Object(&policyv1.Eviction{})
	obj, _, _, err := r.parse(data, mediaType, into, gvk, metav1.FieldValidationIgnore)
	if _, old := obj.(*policyv1beta1.Eviction); err == nil && old {
		gvk, into = policyv1beta1.SchemeGroupVersion.WithKind("Eviction"), &policyv1beta1.Eviction{}
	}
	if obj, err = r.decodeBytes(data, mediaType, into, gvk, fieldValidation); err != nil {
		return nil, err
	}
	if old, ok := obj.(*policyv1beta1.Eviction); ok {
		return &policyv1.Eviction{ObjectMeta: old.ObjectMeta, DeleteOptions: old.DeleteOptions}, nil
	}
	return obj.(*policyv1.Eviction), nil
}

// evictOnce evicts the pod in its present state; again reports whether that
// state changed meanwhile and the request did not insist on it.
func (r *evictor) evictOnce(del *metav1.DeleteOptions, dryRun bool) (again bool, _ error) {
	e, err := r.entry()
	if err != nil {
		return false, err
	}
	pod := e.Object().(*v1.Pod)
	given := del.Preconditions != nil && del.Preconditions.ResourceVersion != nil
	// guarded: the pod may be deleted only as it has been found.
	ended := pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed || pod.DeletionTimestamp != nil
	guarded, budget := pod.Status.Phase == v1.PodPending && !ended, ""
	if !ended && !guarded {
		if guarded, budget, err = r.disrupt(pod, dryRun); err != nil {
			return false, err
		}
	}
	marked := pod.ResourceVersion
	if !ended && !dryRun && !given {
		rv, err := r.markDisrupted(pod, guarded)
		if err != nil {
			return apierrors.IsConflict(err) && budget == "", evictionConflict(err, budget)
		}
		marked = rv
	}
	if guarded && !given {
		del = del.DeepCopy()
		if del.Preconditions == nil {
			del.Preconditions = &metav1.Preconditions{}
		}
		del.Preconditions.ResourceVersion = &marked
	}
	if _, _, err = r.end(r.info.Namespace, r.info.Name, del); err != nil && guarded && !given {
		return apierrors.IsConflict(err) && budget == "", evictionConflict(err, budget)
	}
	return false, err
}

// evictionConflict is the error that makes the client try again where the
// budget's count was taken of a pod that is not the same any more.
func evictionConflict(err error, budget string) error {
	if budget == "" || !apierrors.IsConflict(err) {
		return err
	}
	return violates(fmt.Sprintf("The disruption budget %s is still being processed by the server.", budget), 10)
}

// markDisrupted sets the condition DisruptionTarget in the pod's status, and
// returns its new resourceVersion. With exact it fails if the pod has changed
// meanwhile.
func (r *evictor) markDisrupted(pod *v1.Pod, exact bool) (string, error) {
	w := writing{verb: "update", subresource: "status", options: &metav1.UpdateOptions{}, applied: true, bare: true}
	e, _, err := r.change(&api.UpdateStrategy{}, w, func(old runtime.Object) (runtime.Object, error) {
		p := old.(*v1.Pod).DeepCopy()
		if !exact {
			p.ResourceVersion = ""
		} else {
			p.ResourceVersion = pod.ResourceVersion
		}
		setCondition(&p.Status, v1.PodCondition{
			Type: v1.DisruptionTarget, Status: v1.ConditionTrue, ObservedGeneration: p.Generation,
			Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			LastTransitionTime: metav1.Time{Time: r.s.Clock.Now().UTC().Truncate(time.Second)},
		})
		return p, nil
	})
	if err != nil {
		return "", err
	}
	return formatRevision(e.ModRevision), nil
}

// violates returns the answer to an eviction that a budget does not allow.
func violates(message string, retryAfter int) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", retryAfter)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: message})
	return err
}

// disrupt takes one disruption from the pod's budget. free reports whether the
// pod is not ready and does not count, as long as that does not change; budget
// is the name of the budget.
func (r *evictor) disrupt(pod *v1.Pod, dryRun bool) (free bool, budget string, _ error) {
	row := r.s.Catalogue.Lookup("policy", "v1", "poddisruptionbudgets")
	for {
		e, err := r.budget(pod, row)
		if e == nil || err != nil {
			return false, "", err
		}
		pdb := e.Object().(*policyv1.PodDisruptionBudget)
		if !podutils.IsPodReady(pod) {
			if p := pdb.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow ||
				pdb.Status.CurrentHealthy >= pdb.Status.DesiredHealthy && pdb.Status.DesiredHealthy > 0 {
				return true, pdb.Name, nil
			}
		}
		forbidden := func(text string) error {
			return apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), pdb.Name, errors.New(text))
		}
		switch s := &pdb.Status; {
		case s.ObservedGeneration < pdb.Generation:
			return false, "", violates(fmt.Sprintf("The disruption budget %s is still being processed by the server.", pdb.Name), 10)
		case s.DisruptionsAllowed < 0:
			return false, "", forbidden("pdb disruptions allowed is negative")
		case len(s.DisruptedPods) > maxDisrupted:
			return false, "", forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller")
		case s.DisruptionsAllowed == 0:
			return false, "", violates(fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", pdb.Name, s.DesiredHealthy, s.CurrentHealthy), 0)
		case dryRun:
			return false, "", nil
		}
		next := pdb.DeepCopy()
		if next.Status.DisruptionsAllowed--; next.Status.DisruptionsAllowed == 0 {
			poddisruptionbudget.UpdateDisruptionAllowedCondition(next)
		}
		if next.Status.DisruptedPods == nil {
			next.Status.DisruptedPods = map[string]metav1.Time{}
		}
		next.Status.DisruptedPods[pod.Name] = metav1.Time{Time: r.s.Clock.Now().UTC().Truncate(time.Second)}
		_, err = r.commit(Write{Resource: row, Subresource: "status", Verb: "update", Old: pdb}, pdb.UID, func(ctx context.Context) (*store.Entry, error) {
			return r.s.Store.Update(ctx, e.Key, e.ModRevision, next, 0)
		})
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			continue
		}
		return false, "", r.storeError(err, pdb.Name)
	}
}

// budget returns the one budget that selects the pod, nil if there is none.
func (r *evictor) budget(pod *v1.Pod, row *api.Resource) (*store.Entry, error) {
	res, err := r.s.Store.List(r.ctx(), row.Prefix(pod.Namespace), store.ListOptions{})
	if err != nil {
		return nil, r.storeError(err, "")
	}
	var found *store.Entry
	for _, e := range res.Entries {
		sel, err := metav1.LabelSelectorAsSelector(e.Object().(*policyv1.PodDisruptionBudget).Spec.Selector)
		if err != nil || sel.Empty() || !sel.Matches(labels.Set(pod.Labels)) {
			continue
		}
		if found != nil {
			return nil, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}}
		}
		found = e
	}
	return found, nil
}

package apiserver

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/store"
)

// bindPod assigns a pod to a node: pods/binding, and bindings.
func (r *call) bindPod() error {
	opts := &metav1.CreateOptions{}
	if err := r.options(opts); err != nil {
		return err
	}
	if err := invalidOptions("CreateOptions", metav1validation.ValidateCreateOptions(opts)); err != nil {
		return err
	}
	obj, err := r.decode(&v1.Binding{}, v1.SchemeGroupVersion.WithKind("Binding"), opts.FieldValidation)
	if err != nil {
		return err
	}
	b := obj.(*v1.Binding)
	if r.info.Name == "" {
		r.info.Name = b.Name
	}
	if b.Name != "" && b.Name != r.info.Name {
		return badRequest("name in URL does not match name in Binding object")
	}
	var errs field.ErrorList
	if k := b.Target.Kind; k != "" && k != "Node" {
		errs = append(errs, field.NotSupported(field.NewPath("target", "kind"), k, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(field.NewPath("target", "name"), ""))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(v1.SchemeGroupVersion.WithKind("Binding").GroupKind(), b.Name, errs)
	}
	row := r.s.Catalogue.Lookup("", "v1", "pods")
	attrs := admission.NewAttributesRecord(b, nil, v1.SchemeGroupVersion.WithKind("Binding"), r.info.Namespace, r.info.Name,
		row.GroupVersionResource, "binding", admission.Create, opts, isDryRun(opts.DryRun), r.user)
	if err := r.mutate(attrs); err != nil {
		return err
	}
	if err := r.validate(attrs); err != nil {
		return err
	}
	c := r.as(row)
	// What a binding changes is not a client's to get wrong: the pod's own
	// rules for updates do not apply, and nobody owns the fields.
	strategy := &api.UpdateStrategy{PrepareForUpdate: func(obj, old runtime.Object) {
		if p := obj.(*v1.Pod); p.Generation > 0 {
			p.Generation = old.(*v1.Pod).Generation
		}
	}}
	w := writing{verb: "update", subresource: "binding", options: &metav1.UpdateOptions{}, dryRun: isDryRun(opts.DryRun), applied: true}
	_, _, err = c.changeBare(strategy, w, func(old runtime.Object) (runtime.Object, error) {
		p := old.(*v1.Pod).DeepCopy()
		conflict := func(format string, args ...any) error {
			return apierrors.NewConflict(v1.Resource("pods/binding"), p.Name, fmt.Errorf(format, args...))
		}
		if uid := b.UID; uid != "" && uid != p.UID {
			return nil, conflict("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, p.UID)
		}
		if rv := b.ResourceVersion; rv != "" && rv != p.ResourceVersion {
			return nil, conflict("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", rv, p.ResourceVersion)
		}
		switch {
		case p.DeletionTimestamp != nil:
			return nil, conflict("pod %s is being deleted, cannot be assigned to a host", p.Name)
		case p.Spec.NodeName != "":
			return nil, conflict("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
		case len(p.Spec.SchedulingGates) > 0:
			return nil, conflict("pod %v has non-empty .spec.schedulingGates", p.Name)
		}
		p.Spec.NodeName = b.Target.Name
		for k, val := range b.Annotations {
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[k] = val
		}
		setCondition(&p.Status, v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionTrue, LastTransitionTime: metav1.Time{Time: r.s.Clock.Now().UTC().Truncate(time.Second)}})
		p.ResourceVersion = ""
		return p, nil
	})
	r.code = c.code
	if err != nil {
		return err
	}
	r.writeStatus(http.StatusCreated, &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated})
	return nil
}

func setCondition(s *v1.PodStatus, c v1.PodCondition) {
	for i := range s.Conditions {
		if s.Conditions[i].Type == c.Type {
			if s.Conditions[i].Status == c.Status {
				c.LastTransitionTime = s.Conditions[i].LastTransitionTime
			}
			s.Conditions[i] = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}

// changeBare is change for what the server does itself: no admission.
func (r *call) changeBare(strategy *api.UpdateStrategy, w writing, produce func(old runtime.Object) (runtime.Object, error)) (*store.Entry, bool, error) {
	c := *r
	c.bare = true
	return c.change(strategy, w, produce)
}

// evict deletes a pod if its disruption budgets allow it.
func (r *call) evict() error {
	opts := &metav1.CreateOptions{}
	if err := r.options(opts); err != nil {
		return err
	}
	gvk := policyv1.SchemeGroupVersion.WithKind("Eviction")
	obj, err := r.decode(&policyv1.Eviction{}, gvk, opts.FieldValidation)
	if err != nil {
		return err
	}
	ev := obj.(*policyv1.Eviction)
	if ev.Name != "" && ev.Name != r.info.Name {
		return badRequest("name in URL does not match name in Eviction object")
	}
	attrs := admission.NewAttributesRecord(ev, nil, gvk, r.info.Namespace, r.info.Name, r.row.GroupVersionResource, "eviction", admission.Create, opts, isDryRun(opts.DryRun), r.user)
	if err := r.mutate(attrs); err != nil {
		return err
	}
	if err := r.validate(attrs); err != nil {
		return err
	}
	del := ev.DeleteOptions
	if del == nil {
		del = &metav1.DeleteOptions{}
	}
	if isDryRun(opts.DryRun) {
		del.DryRun = opts.DryRun
	}
	e, err := r.entry()
	if err != nil {
		return err
	}
	pod := e.Object.(*v1.Pod)
	if pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed && pod.Status.Phase != v1.PodPending && pod.DeletionTimestamp == nil {
		if err := r.disrupt(pod, isDryRun(del.DryRun)); err != nil {
			return err
		}
	}
	if _, _, err := r.end(r.info.Namespace, r.info.Name, del); err != nil {
		return err
	}
	r.writeStatus(http.StatusCreated, &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated})
	return nil
}

// disrupt takes one disruption from the pod's budget.
func (r *call) disrupt(pod *v1.Pod, dryRun bool) error {
	row := r.s.Catalogue.Lookup("policy", "v1", "poddisruptionbudgets")
	for {
		res, err := r.s.Store.List(r.ctx(), row.Prefix(pod.Namespace), store.ListOptions{})
		if err != nil {
			return r.storeError(err, "")
		}
		var match []*store.Entry
		for _, e := range res.Entries {
			sel, err := metav1.LabelSelectorAsSelector(e.Object.(*policyv1.PodDisruptionBudget).Spec.Selector)
			if err == nil && sel.Matches(labels.Set(pod.Labels)) {
				match = append(match, e)
			}
		}
		switch {
		case len(match) == 0:
			return nil
		case len(match) > 1:
			return apierrors.NewInternalError(errors.New("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."))
		}
		pdb := match[0].Object.(*policyv1.PodDisruptionBudget)
		if pdb.Spec.UnhealthyPodEvictionPolicy != nil && *pdb.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow && !podReady(pod) {
			return nil
		}
		refuse := func(message string) error {
			err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
			err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: message})
			return err
		}
		switch {
		case pdb.Status.ObservedGeneration < pdb.Generation:
			return refuse(fmt.Sprintf("The disruption budget %s is still being processed by the server.", pdb.Name))
		case pdb.Status.DisruptionsAllowed <= 0:
			return refuse(fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", pdb.Name, pdb.Status.DesiredHealthy, pdb.Status.CurrentHealthy))
		case dryRun:
			return nil
		}
		next := pdb.DeepCopy()
		next.Status.DisruptionsAllowed--
		if next.Status.DisruptedPods == nil {
			next.Status.DisruptedPods = map[string]metav1.Time{}
		}
		next.Status.DisruptedPods[pod.Name] = metav1.Time{Time: r.s.Clock.Now().UTC().Truncate(time.Second)}
		_, err = r.s.Store.Update(r.ctx(), match[0].Key, match[0].ModRevision, next, 0)
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			continue
		}
		return r.storeError(err, pdb.Name)
	}
}

func podReady(pod *v1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

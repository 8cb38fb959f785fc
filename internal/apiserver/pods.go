package apiserver

import (
	"fmt"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"keelson.dev/keelson/internal/api"
)

// bindPod assigns a pod to a node: pods/binding, and bindings.
func bindPod(r *call) error {
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
	row := r.s.Catalogue.Lookup("", "v1", "pods")
	attrs := admission.NewAttributesRecord(b, nil, v1.SchemeGroupVersion.WithKind("Binding"), r.info.Namespace, r.info.Name,
		row.GroupVersionResource, "binding", admission.Create, opts, isDryRun(opts.DryRun), r.user)
	if err := r.mutate(attrs); err != nil {
		return err
	}
	if b.Name != "" && b.Name != r.info.Name {
		return badRequest("name in URL does not match name in Binding object")
	}
	if b.Namespace != "" && b.Namespace != r.info.Namespace {
		return badRequest("the namespace of the provided object does not match the namespace sent on the request")
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
	if err := r.validate(attrs); err != nil {
		return err
	}
	c := writer{call: r.as(row)}
	// The server makes this change: the validation of a pod's updates does not
	// apply, and the fields get no owner.
	strategy := &api.UpdateStrategy{PrepareForUpdate: func(obj, old runtime.Object) {
		if p := obj.(*v1.Pod); p.Generation > 0 {
			p.Generation = old.(*v1.Pod).Generation
		}
	}}
	w := writing{verb: "update", subresource: "binding", options: &metav1.UpdateOptions{}, dryRun: isDryRun(opts.DryRun), applied: true, bare: true, changes: true}
	_, _, err = c.change(strategy, w, func(old runtime.Object) (runtime.Object, error) {
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
		for k, val := range b.Labels {
			if p.Labels == nil {
				p.Labels = map[string]string{}
			}
			p.Labels[k] = val
		}
		setCondition(&p.Status, v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionTrue, LastTransitionTime: metav1.Time{Time: r.s.Clock.Now().UTC().Truncate(time.Second)}})
		p.ResourceVersion = ""
		return p, nil
	})
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

package statefulset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var podKind = v1.SchemeGroupVersion.WithKind("Pod")

func claimName(t *v1.PersistentVolumeClaim, set *apps.StatefulSet, ordinal int) string {
	return t.Name + "-" + set.Name + "-" + strconv.Itoa(ordinal)
}

// claimOf reports whether name is that of a claim of template t for some pod of
// the set.
func claimOf(t *v1.PersistentVolumeClaim, set *apps.StatefulSet, name string) bool {
	rest, ok := strings.CutPrefix(name, t.Name+"-"+set.Name+"-")
	_, err := strconv.ParseUint(rest, 10, 31)
	return ok && err == nil
}

// claimsOf returns the claims that a pod of the set has, as they are made.
func claimsOf(set *apps.StatefulSet, pod *v1.Pod) []*v1.PersistentVolumeClaim {
	_, ordinal := identity(pod)
	var out []*v1.PersistentVolumeClaim
	for i := range set.Spec.VolumeClaimTemplates {
		c := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		c.Name, c.Namespace = claimName(c, set, ordinal), set.Namespace
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, set.Spec.Selector.MatchLabels)
		out = append(out, c)
	}
	return out
}

// createClaims makes the claims that a pod lacks.
func (s *controller) createClaims(ctx context.Context, set *apps.StatefulSet, pod *v1.Pod) error {
	var errs []error
	for _, c := range claimsOf(set, pod) {
		have, err := s.claims.PersistentVolumeClaims(c.Namespace).Get(c.Name)
		switch {
		case apierrors.IsNotFound(err):
			// With its owner: the controller may end before it could add that.
			c.OwnerReferences, _ = owners(c, set, pod)
			_, err := s.client.CoreV1().PersistentVolumeClaims(c.Namespace).Create(ctx, c, metav1.CreateOptions{})
			if err != nil {
				errs = append(errs, fmt.Errorf("failed to create PVC %s: %w", c.Name, err))
			}
			if !apierrors.IsAlreadyExists(err) {
				s.claimEvent("create", set, pod, c, err)
			}
		case err != nil:
			errs = append(errs, fmt.Errorf("failed to retrieve PVC %s: %w", c.Name, err))
			s.claimEvent("create", set, pod, c, err)
		case have.DeletionTimestamp != nil:
			errs = append(errs, fmt.Errorf("pvc %s is being deleted", c.Name))
		}
	}
	return errors.Join(errs...)
}

// policy returns whether a set's claims go with its pods when it is scaled down, and
// with the set.
func policy(set *apps.StatefulSet) (scaled, deleted bool) {
	p := set.Spec.PersistentVolumeClaimRetentionPolicy
	if p == nil {
		return false, false
	}
	return p.WhenScaled == apps.DeletePersistentVolumeClaimRetentionPolicyType, p.WhenDeleted == apps.DeletePersistentVolumeClaimRetentionPolicyType
}

// refersTo reports whether ref is to that object.
func refersTo(ref *metav1.OwnerReference, kind schema.GroupVersionKind, o metav1.Object) bool {
	return ref.Kind == kind.Kind && ref.APIVersion == kind.GroupVersion().String() && ref.UID == o.GetUID()
}

// owners returns the owner references that a pod's claim has by the set's policy:
// it goes with the set, or with a pod that is scaled down. Those of others stay;
// where another controls the claim, ours are left out and conflict is true.
func owners(claim *v1.PersistentVolumeClaim, set *apps.StatefulSet, pod *v1.Pod) (refs []metav1.OwnerReference, conflict bool) {
	for i := range claim.OwnerReferences {
		ref := &claim.OwnerReferences[i]
		if refersTo(ref, gvk, set) || refersTo(ref, podKind, pod) {
			continue
		}
		refs = append(refs, *ref)
		conflict = conflict || ref.Controller != nil && *ref.Controller
	}
	if conflict {
		return refs, true
	}
	_, ordinal := identity(pod)
	scaled, deleted := policy(set)
	switch {
	case scaled && !within(set, ordinal):
		refs = append(refs, *metav1.NewControllerRef(pod, podKind))
	case deleted:
		refs = append(refs, *metav1.NewControllerRef(set, gvk))
	}
	return refs, false
}

// sameOwners reports whether two lists name the same owners, and the same of them
// as controller.
func sameOwners(a, b []metav1.OwnerReference) bool {
	type owner struct {
		metav1.OwnerReference
		controller bool
	}
	plain := func(refs []metav1.OwnerReference) []owner {
		out := make([]owner, len(refs))
		for i, r := range refs {
			out[i] = owner{metav1.OwnerReference{APIVersion: r.APIVersion, Kind: r.Kind, Name: r.Name, UID: r.UID}, r.Controller != nil && *r.Controller}
		}
		slices.SortFunc(out, func(x, y owner) int { return strings.Compare(string(x.UID), string(y.UID)) })
		return out
	}
	return slices.Equal(plain(a), plain(b))
}

// ownClaims brings the owners of a pod's claims to what the set's policy says.
func (s *controller) ownClaims(ctx context.Context, set *apps.StatefulSet, pod *v1.Pod) error {
	var errs []error
	for _, c := range claimsOf(set, pod) {
		claim, err := s.claims.PersistentVolumeClaims(c.Namespace).Get(c.Name)
		if err != nil {
			// It is made with the pod, and owned at the next look.
			if !apierrors.IsNotFound(err) {
				errs = append(errs, err)
			}
			continue
		}
		refs, conflict := owners(claim, set, pod)
		if scaled, deleted := policy(set); conflict && (scaled || deleted) {
			s.recorder.Event(set, v1.EventTypeWarning, "ConflictingController", fmt.Sprintf(
				"PersistentVolumeClaim %s has a conflicting OwnerReference that acts as a managing controller, the retention policy is ignored for this claim", c.Name))
		}
		if sameOwners(refs, claim.OwnerReferences) {
			continue
		}
		next := claim.DeepCopy()
		next.OwnerReferences = refs
		if _, err := s.client.CoreV1().PersistentVolumeClaims(c.Namespace).Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			errs = append(errs, fmt.Errorf("could not update claim %s for delete policy ownerRefs: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}

// stale reports whether a claim of a pod that is to be made still goes with a
// former pod of its name: it will be deleted, and made anew then.
func (s *controller) stale(set *apps.StatefulSet, pod *v1.Pod) (bool, error) {
	if scaled, _ := policy(set); !scaled {
		return false, nil
	}
	for _, c := range claimsOf(set, pod) {
		claim, err := s.claims.PersistentVolumeClaims(c.Namespace).Get(c.Name)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		for i := range claim.OwnerReferences {
			ref := &claim.OwnerReferences[i]
			if ref.Kind == podKind.Kind && ref.APIVersion == podKind.GroupVersion().String() && ref.Name == pod.Name && ref.UID != pod.UID {
				return true, nil
			}
		}
	}
	return false, nil
}

package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/util/retry"

	"keelson.dev/keelson/internal/controllers"
)

const (
	// hashLabel is the label of a StatefulSet's revision with the hash of its data.
	hashLabel = "controller.kubernetes.io/hash"
	// longest is how much of an owner's name the name of a revision has.
	longest = 223
)

// Store reads and writes revisions.
type Store struct {
	Client kubernetes.Interface
	Lister appslisters.ControllerRevisionLister
}

// Claim returns the revisions that owner controls, the oldest first, once it has
// adopted those that match selector and have no controller. fresh reads the owner
// past any cache.
func (s Store) Claim(ctx context.Context, owner metav1.Object, kind schema.GroupVersionKind, selector labels.Selector,
	fresh func(context.Context) (metav1.Object, error)) ([]*apps.ControllerRevision, error) {
	all, err := s.Lister.ControllerRevisions(owner.GetNamespace()).List(labels.Everything())
	if err != nil {
		return nil, err
	}
	claimer := controllers.Claimer[*apps.ControllerRevision]{
		Owner: owner, Kind: kind, Selector: selector, Fresh: fresh,
		Patch: func(ctx context.Context, r *apps.ControllerRevision, data []byte) error {
			_, err := s.Client.AppsV1().ControllerRevisions(r.Namespace).Patch(ctx, r.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
			return err
		},
	}
	owned, err := claimer.Claim(ctx, all)
	Sort(owned)
	return owned, err
}

// Sort puts revisions in order, the oldest first.
func Sort(revisions []*apps.ControllerRevision) {
	slices.SortStableFunc(revisions, func(a, b *apps.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// Next returns the number of the revision after those of a sorted history.
func Next(revisions []*apps.ControllerRevision) int64 {
	if len(revisions) == 0 {
		return 1
	}
	return revisions[len(revisions)-1].Revision + 1
}

// Patch returns the data of a revision: a strategic merge patch that puts t in the
// place of the template that the workload has.
func Patch(t *v1.PodTemplateSpec) ([]byte, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var template map[string]any
	if err := json.Unmarshal(data, &template); err != nil {
		return nil, err
	}
	template["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": template}})
}

// Template returns the pod template of a revision.
func Template(r *apps.ControllerRevision) (*v1.PodTemplateSpec, error) {
	var patch struct {
		Spec struct {
			Template *v1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &patch); err != nil {
		return nil, fmt.Errorf("reading the template of ControllerRevision %s/%s: %w", r.Namespace, r.Name, err)
	}
	if patch.Spec.Template == nil {
		return nil, fmt.Errorf("the ControllerRevision %s/%s has no template", r.Namespace, r.Name)
	}
	return patch.Spec.Template, nil
}

// Has reports whether a revision's data is data.
func Has(r *apps.ControllerRevision, data []byte) bool { return bytes.Equal(r.Data.Raw, data) }

// New makes a revision of owner without a name. It has the annotations that owner
// has now, among them kubectl's change-cause.
func New(owner metav1.Object, kind schema.GroupVersionKind, template map[string]string, data []byte, number int64) *apps.ControllerRevision {
	marks := map[string]string{}
	maps.Copy(marks, template)
	return &apps.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: owner.GetNamespace(), Labels: marks, Annotations: maps.Clone(owner.GetAnnotations()),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)},
		},
		Data: runtime.RawExtension{Raw: data}, Revision: number,
	}
}

// Name returns the name of owner's revision with a hash.
func Name(owner metav1.Object, hash string) string {
	prefix := owner.GetName()
	return prefix[:min(len(prefix), longest)] + "-" + hash
}

// hash is upstream's hash of a revision's data, so that a workload finds the
// revisions that it had there.
func hash(data []byte, collisions int32) string {
	h := fnv.New32()
	h.Write(data)
	h.Write([]byte(strconv.FormatInt(int64(collisions), 10)))
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// Update returns the revision of owner whose data is data, which becomes the
// latest of a sorted history: an older one is numbered anew, and where there is
// none it is made. collisions is raised by each name that has been taken.
func (s Store) Update(ctx context.Context, owner metav1.Object, kind schema.GroupVersionKind, template map[string]string, data []byte,
	revisions []*apps.ControllerRevision, collisions *int32) (*apps.ControllerRevision, error) {
	for i, r := range slices.Backward(revisions) {
		if !Has(r, data) {
			continue
		}
		if i == len(revisions)-1 {
			return r, nil
		}
		return s.Renumber(ctx, r, Next(revisions))
	}
	r := New(owner, kind, template, data, Next(revisions))
	// The label keeps the first hash, as upstream's does.
	r.Labels[hashLabel] = hash(data, *collisions)
	for {
		r.Name = Name(owner, hash(data, *collisions))
		made, err := s.Client.AppsV1().ControllerRevisions(r.Namespace).Create(ctx, r, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			return made, err
		}
		old, err := s.Client.AppsV1().ControllerRevisions(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if Has(old, data) && controllers.ControlledBy(old, owner) {
			return old, nil
		}
		*collisions++
	}
}

// Renumber gives a revision another number.
func (s Store) Renumber(ctx context.Context, r *apps.ControllerRevision, number int64) (*apps.ControllerRevision, error) {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if r.Revision == number {
			return nil
		}
		next := r.DeepCopy()
		next.Revision = number
		updated, err := s.Client.AppsV1().ControllerRevisions(r.Namespace).Update(ctx, next, metav1.UpdateOptions{})
		if err == nil {
			r = updated
			return nil
		}
		if fresh, err := s.Client.AppsV1().ControllerRevisions(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{}); err == nil {
			r = fresh
		}
		return err
	})
	return r, err
}

// Truncate deletes the oldest of a sorted history's revisions that are not live,
// by name, until no more than limit of these are left; a negative limit keeps all.
func (s Store) Truncate(ctx context.Context, revisions []*apps.ControllerRevision, live map[string]bool, limit int) error {
	if limit < 0 {
		return nil
	}
	var dead []*apps.ControllerRevision
	for _, r := range revisions {
		if !live[r.Name] {
			dead = append(dead, r)
		}
	}
	var errs []error
	for _, r := range dead[:max(0, len(dead)-limit)] {
		err := s.Client.AppsV1().ControllerRevisions(r.Namespace).Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

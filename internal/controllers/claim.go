package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Claimer takes for its owner the objects that match the owner's selector and
// have no controller, and releases those that no longer match.
type Claimer[T metav1.Object] struct {
	Owner    metav1.Object
	Kind     schema.GroupVersionKind
	Selector labels.Selector
	// Fresh reads the owner past any cache: an owner that was deleted, or
	// deleted and made again, must adopt nothing.
	Fresh func(ctx context.Context) (metav1.Object, error)
	// Patch applies a strategic merge patch to an object.
	Patch func(ctx context.Context, obj T, patch []byte) error
	// Finalizers are added to adopted objects.
	Finalizers []string

	once     sync.Once
	adoptErr error
}

// Claim returns those of objs that the owner controls once it has adopted and
// released what it should.
func (c *Claimer[T]) Claim(ctx context.Context, objs []T) ([]T, error) {
	claimed := make([]T, 0, len(objs))
	var errs []error
	for _, o := range objs {
		ok, err := c.claim(ctx, o)
		if err != nil {
			errs = append(errs, err)
		} else if ok {
			claimed = append(claimed, o)
		}
	}
	return claimed, errors.Join(errs...)
}

func (c *Claimer[T]) claim(ctx context.Context, o T) (bool, error) {
	matches := c.Selector.Matches(labels.Set(o.GetLabels()))
	if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
		if ref.UID != c.Owner.GetUID() {
			return false, nil
		}
		if matches {
			return true, nil
		}
		if c.Owner.GetDeletionTimestamp() != nil {
			return false, nil
		}
		return false, c.release(ctx, o)
	}
	if c.Owner.GetDeletionTimestamp() != nil || !matches || o.GetDeletionTimestamp() != nil ||
		c.Owner.GetNamespace() != o.GetNamespace() {
		return false, nil
	}
	if err := c.adopt(ctx, o); err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return false, err
	}
	return true, nil
}

func (c *Claimer[T]) canAdopt(ctx context.Context) error {
	c.once.Do(func() {
		fresh, err := c.Fresh(ctx)
		switch {
		case err != nil:
			// Not wrapped: that the owner is not found must not be taken for the
			// object's end, after which the owner would make another one.
			c.adoptErr = fmt.Errorf("can't recheck DeletionTimestamp: %v", err) //nolint:errorlint // as said above
		case fresh.GetUID() != c.Owner.GetUID():
			c.adoptErr = fmt.Errorf("original %v %v/%v is gone: got uid %v, wanted %v", c.Kind.Kind,
				c.Owner.GetNamespace(), c.Owner.GetName(), fresh.GetUID(), c.Owner.GetUID())
		case fresh.GetDeletionTimestamp() != nil:
			c.adoptErr = fmt.Errorf("%v/%v has just been deleted at %v", c.Owner.GetNamespace(),
				c.Owner.GetName(), fresh.GetDeletionTimestamp())
		}
	})
	return c.adoptErr
}

func (c *Claimer[T]) adopt(ctx context.Context, o T) error {
	if err := c.canAdopt(ctx); err != nil {
		return fmt.Errorf("can't adopt %v %v/%v (%v): %w", c.Kind.Kind, o.GetNamespace(), o.GetName(), o.GetUID(), err)
	}
	return c.patch(ctx, o, []any{metav1.NewControllerRef(c.Owner, c.Kind)}, c.Finalizers)
}

func (c *Claimer[T]) release(ctx context.Context, o T) error {
	err := c.patch(ctx, o, []any{map[string]any{"$patch": "delete", "uid": c.Owner.GetUID()}}, nil)
	// Invalid is the answer where the UID differs: the object is another one
	// now, or has already been released.
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil
	}
	return err
}

// patch names the object's UID, so that it never reaches a namesake.
func (c *Claimer[T]) patch(ctx context.Context, o T, owners []any, finalizers []string) error {
	m := map[string]any{"uid": o.GetUID(), "ownerReferences": owners}
	if len(finalizers) > 0 {
		m["finalizers"] = finalizers
	}
	data, err := json.Marshal(map[string]any{"metadata": m})
	if err != nil {
		return err
	}
	return c.Patch(ctx, o, data)
}

// ControlledBy reports whether owner is obj's controller.
func ControlledBy(obj, owner metav1.Object) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	return ref != nil && ref.UID == owner.GetUID()
}

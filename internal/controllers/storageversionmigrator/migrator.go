package storageversionmigrator

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/api/storagemigration/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	name = "storage-version-migrator-controller"
	// page is how many objects are listed at once.
	page = 500
)

// The reasons of the conditions, upstream's.
const (
	reasonSucceeded = "StorageVersionMigrationSucceeded"
	reasonRunning   = "StorageVersionMigrationInProgress"
	reasonFailed    = "StorageVersionMigrationFailed"
)

type migrator struct {
	client   kubernetes.Interface
	metadata metadata.Interface
	mapper   meta.RESTMapper
}

// New makes the migrator; it is nil where the cluster's resources cannot be
// reached.
func New(c controllers.Context) (reconcile.Run, error) {
	m := &migrator{client: c.Client(), metadata: c.Metadata(), mapper: c.RESTMapper}
	if m.metadata == nil || m.mapper == nil {
		return nil, nil
	}
	informer := c.Informers.Storagemigration().V1beta1().StorageVersionMigrations().Informer()
	queue := c.Queue(name)
	reconcile.Handle(informer, reconcile.Enqueue[*v1beta1.StorageVersionMigration](queue), nil, reconcile.Ignore)
	return reconcile.Loop[*v1beta1.StorageVersionMigration]{
		Queue: queue, Workers: 5, For: informer,
		Reconcile: func(ctx context.Context, s *v1beta1.StorageVersionMigration) (reconcile.Result, error) {
			return reconcile.Result{}, m.migrate(ctx, s)
		},
	}.Run, nil
}

func (m *migrator) migrate(ctx context.Context, s *v1beta1.StorageVersionMigration) error {
	for _, t := range []v1beta1.MigrationConditionType{v1beta1.MigrationSucceeded, v1beta1.MigrationFailed} {
		if meta.IsStatusConditionTrue(s.Status.Conditions, string(t)) {
			return nil
		}
	}
	gr := schema.GroupResource{Group: s.Spec.Resource.Group, Resource: s.Spec.Resource.Resource}
	gvk, err := m.kind(gr)
	if meta.IsNoMatchError(err) {
		return m.end(ctx, s, v1beta1.MigrationFailed, reasonFailed, "resource not found")
	}
	if err != nil {
		return err
	}
	gvr := gr.WithVersion(gvk.Version)
	if s.Status.ResourceVersion == "" {
		// What is written after this revision is in the present version.
		list, err := m.metadata.Resource(gvr).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return err
		}
		next := s.DeepCopy()
		next.Status.ResourceVersion = list.ResourceVersion
		setCondition(next, v1beta1.MigrationRunning, metav1.ConditionTrue, reasonRunning, "")
		if s, err = m.client.StoragemigrationV1beta1().StorageVersionMigrations().UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	err = m.rewrite(ctx, gvr, gvk)
	switch {
	case err == nil:
		return m.end(ctx, s, v1beta1.MigrationSucceeded, reasonSucceeded, "")
	case passing(err) || ctx.Err() != nil:
		return err // again, from the start: what has been rewritten costs nothing
	}
	return m.end(ctx, s, v1beta1.MigrationFailed, reasonFailed, "migration encountered unhandled error: "+err.Error())
}

// passing reports whether a request that failed with err may succeed the next time: the
// server does not answer, or not now.
func passing(err error) bool {
	return apierrors.IsTooManyRequests(err) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsServiceUnavailable(err) ||
		apierrors.IsResourceExpired(err) || apierrors.ReasonForError(err) == metav1.StatusReasonUnknown
}

// kind finds a resource's preferred version; a resource may be younger than
// what the mapper has last discovered.
func (m *migrator) kind(gr schema.GroupResource) (schema.GroupVersionKind, error) {
	gvk, err := m.mapper.KindFor(gr.WithVersion(""))
	if r, ok := m.mapper.(meta.ResettableRESTMapper); ok && meta.IsNoMatchError(err) {
		r.Reset()
		gvk, err = m.mapper.KindFor(gr.WithVersion(""))
	}
	return gvk, err
}

// rewrite applies nothing to each object, which stores it anew.
func (m *migrator) rewrite(ctx context.Context, gvr schema.GroupVersionResource, gvk schema.GroupVersionKind) error {
	opts := metav1.ListOptions{Limit: page}
	for {
		list, err := m.metadata.Resource(gvr).List(ctx, opts)
		if err != nil {
			return err
		}
		for i := range list.Items {
			o := &list.Items[i]
			// The UID and the resourceVersion keep an object that has gone from
			// being made, and one that has changed from being written.
			patch, err := json.Marshal(metav1.PartialObjectMetadata{
				TypeMeta:   metav1.TypeMeta{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind},
				ObjectMeta: metav1.ObjectMeta{Name: o.Name, Namespace: o.Namespace, UID: o.UID, ResourceVersion: o.ResourceVersion},
			})
			if err != nil {
				return err
			}
			_, err = m.metadata.Resource(gvr).Namespace(o.Namespace).Patch(ctx, o.Name, types.ApplyPatchType, patch, metav1.PatchOptions{FieldManager: name})
			// A change or deletion meanwhile has done the work.
			if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s %s/%s: %w", gvr.GroupResource(), o.Namespace, o.Name, err)
			}
		}
		if opts.Continue = list.Continue; opts.Continue == "" {
			return nil
		}
	}
}

func (m *migrator) end(ctx context.Context, s *v1beta1.StorageVersionMigration, t v1beta1.MigrationConditionType, reason, message string) error {
	next := s.DeepCopy()
	if meta.IsStatusConditionTrue(next.Status.Conditions, string(v1beta1.MigrationRunning)) {
		setCondition(next, v1beta1.MigrationRunning, metav1.ConditionFalse, reason, "")
	}
	setCondition(next, t, metav1.ConditionTrue, reason, message)
	_, err := m.client.StoragemigrationV1beta1().StorageVersionMigrations().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return err
}

func setCondition(s *v1beta1.StorageVersionMigration, t v1beta1.MigrationConditionType, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{Type: string(t), Status: status, Reason: reason, Message: message})
}

package volumeprotection

import (
	"context"
	"errors"
	"slices"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	classFinalizer = "kubernetes.io/vac-protection"
	byAttributes   = "protected-attributes-class"
)

// NewAttributesClasses makes the protection of VolumeAttributesClasses: one that
// is being deleted goes when no claim and no volume names it.
func NewAttributesClasses(c controllers.Context) (reconcile.Run, error) {
	classes := c.Informers.Storage().V1().VolumeAttributesClasses().Informer()
	claims, volumes := c.Informers.Core().V1().PersistentVolumeClaims().Informer(), c.Informers.Core().V1().PersistentVolumes().Informer()
	index := cache.Indexers{byAttributes: func(o any) ([]string, error) { return classesOf(o), nil }}
	if err := errors.Join(claims.AddIndexers(index), volumes.AddIndexers(index)); err != nil {
		return nil, err
	}
	queue := c.Queue("vacprotection")
	reconcile.Handle(classes, reconcile.Enqueue[*storage.VolumeAttributesClass](queue), nil, reconcile.Ignore)
	released := func(old, cur any) {
		for _, name := range classesOf(old) {
			if !slices.Contains(classesOf(cur), name) {
				queue.Add(name)
			}
		}
	}
	reconcile.Handle(claims, nil, func(old, cur *v1.PersistentVolumeClaim) { released(old, cur) }, func(o *v1.PersistentVolumeClaim) { released(o, nil) })
	reconcile.Handle(volumes, nil, func(old, cur *v1.PersistentVolume) { released(old, cur) }, func(o *v1.PersistentVolume) { released(o, nil) })
	client := c.Client()
	return reconcile.Loop[*storage.VolumeAttributesClass]{
		Queue: queue, For: classes, Reads: []cache.SharedIndexInformer{claims, volumes},
		Reconcile: func(ctx context.Context, class *storage.VolumeAttributesClass) (reconcile.Result, error) {
			return reconcile.Result{}, protect(ctx, client, class, claims, volumes)
		},
	}.Run, nil
}

// classesOf returns the attributes classes that a claim or a volume has or asks for.
func classesOf(o any) (out []string) {
	add := func(name *string) {
		if name != nil && *name != "" && !slices.Contains(out, *name) {
			out = append(out, *name)
		}
	}
	switch o := o.(type) {
	case *v1.PersistentVolumeClaim:
		add(o.Spec.VolumeAttributesClassName)
		add(o.Status.CurrentVolumeAttributesClassName)
		if m := o.Status.ModifyVolumeStatus; m != nil {
			add(&m.TargetVolumeAttributesClassName)
		}
	case *v1.PersistentVolume:
		add(o.Spec.VolumeAttributesClassName)
	}
	return out
}

func protect(ctx context.Context, client kubernetes.Interface, class *storage.VolumeAttributesClass, users ...cache.SharedIndexInformer) error {
	next := class.DeepCopy()
	switch has := slices.Contains(class.Finalizers, classFinalizer); {
	case has == (class.DeletionTimestamp == nil):
		return nil
	case !has: // it is older than admission's protection
		next.Finalizers = append(next.Finalizers, classFinalizer)
		_, err := client.StorageV1().VolumeAttributesClasses().Update(ctx, next, metav1.UpdateOptions{})
		return err
	}
	for _, inf := range users {
		keys, err := inf.GetIndexer().IndexKeys(byAttributes, class.Name)
		if err != nil || len(keys) > 0 {
			return err
		}
	}
	next.Finalizers = without(next.Finalizers, classFinalizer)
	_, err := client.StorageV1().VolumeAttributesClasses().Update(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

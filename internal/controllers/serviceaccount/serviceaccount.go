package serviceaccount

import (
	"context"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const name = "default"

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	client := c.Client()
	namespaces := c.Informers.Core().V1().Namespaces()
	accounts := c.Informers.Core().V1().ServiceAccounts()
	saLister := accounts.Lister()
	queue := c.Queue("serviceaccount")

	reconcile.Handle(namespaces.Informer(), reconcile.Enqueue[*v1.Namespace](queue), nil, reconcile.Ignore)
	reconcile.Handle(accounts.Informer(), nil, nil, func(sa *v1.ServiceAccount) {
		if sa.Name == name {
			queue.Add(sa.Namespace)
		}
	})
	return reconcile.Loop[*v1.Namespace]{
		Queue: queue, For: namespaces.Informer(), Reads: []cache.SharedIndexInformer{accounts.Informer()},
		Reconcile: func(ctx context.Context, ns *v1.Namespace) (reconcile.Result, error) {
			// A namespace that was only just made has no phase yet where nothing
			// defaults it; only a terminating one is left alone.
			if ns.Status.Phase == v1.NamespaceTerminating || ns.DeletionTimestamp != nil {
				return reconcile.Result{}, nil
			}
			if _, err := saLister.ServiceAccounts(ns.Name).Get(name); !apierrors.IsNotFound(err) {
				return reconcile.Result{}, err
			}
			sa := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns.Name}}
			_, err := client.CoreV1().ServiceAccounts(ns.Name).Create(ctx, sa, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
				err = nil
			}
			return reconcile.Result{}, err
		},
	}.Run, nil
}

package serviceaccount

import (
	"context"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/trace"
)

const name = "default"

// Start runs the controller until ctx is done.
func Start(ctx context.Context, c controllers.Context) error {
	client := c.Client("service-account-controller")
	namespaces := c.Informers.Core().V1().Namespaces()
	accounts := c.Informers.Core().V1().ServiceAccounts()
	nsLister, saLister := namespaces.Lister(), accounts.Lister()
	queue := controllers.NewQueue("serviceaccount", c.Clock)

	controllers.Handle(namespaces.Informer(), func(ns *v1.Namespace) { queue.Add(ns.Name) }, nil, func(*v1.Namespace) {})
	controllers.Handle(accounts.Informer(), func(*v1.ServiceAccount) {}, nil, func(sa *v1.ServiceAccount) {
		if sa.Name == name {
			queue.Add(sa.Namespace)
		}
	})
	loop := controllers.Loop{
		Name: "service-account-controller", Queue: queue, Workers: 1,
		Synced: []cache.SharedIndexInformer{namespaces.Informer(), accounts.Informer()},
		Sync: func(ctx context.Context, key string) error {
			ns, err := nsLister.Get(key)
			if apierrors.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			// A namespace that was only just made has no phase yet where nothing
			// defaults it; only a terminating one is left alone.
			if ns.Status.Phase == v1.NamespaceTerminating || ns.DeletionTimestamp != nil {
				return nil
			}
			if _, err := saLister.ServiceAccounts(key).Get(name); !apierrors.IsNotFound(err) {
				return err
			}
			sa := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: key}}
			_, err = client.CoreV1().ServiceAccounts(key).Create(trace.WithCause(ctx, ns), sa, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
				return nil
			}
			return err
		},
	}
	go loop.Run(ctx)
	return nil
}

package rootca

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	name = "kube-root-ca.crt"
	key  = "ca.crt"

	descriptionAnnotation = "kubernetes.io/description"
	description           = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints " +
		"such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)

// New makes the publisher; it is nil where there is nothing to publish.
func New(c controllers.Context) (reconcile.Run, error) {
	if len(c.RootCA) == 0 {
		return nil, nil
	}
	client := c.Client()
	namespaces := c.Informers.Core().V1().Namespaces()
	configMaps := c.Informers.Core().V1().ConfigMaps()
	cmLister := configMaps.Lister()
	data := map[string]string{key: string(c.RootCA)}
	queue := c.Queue("root_ca_cert_publisher")

	reconcile.Handle(namespaces.Informer(), reconcile.Enqueue[*v1.Namespace](queue), nil, reconcile.Ignore)
	changed := func(cm *v1.ConfigMap) {
		if cm.Name == name {
			queue.Add(cm.Namespace)
		}
	}
	reconcile.Handle(configMaps.Informer(), nil, func(_, cm *v1.ConfigMap) { changed(cm) }, changed)

	publish := func(ctx context.Context, namespace *v1.Namespace) error {
		if namespace.Status.Phase == v1.NamespaceTerminating || namespace.DeletionTimestamp != nil {
			return nil
		}
		ns := namespace.Name
		cm, err := cmLister.ConfigMaps(ns).Get(name)
		if apierrors.IsNotFound(err) {
			_, err = client.CoreV1().ConfigMaps(ns).Create(ctx, &v1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{descriptionAnnotation: description}},
				Data:       data,
			}, metav1.CreateOptions{})
			// One that exists already may be another's, with other content: it is looked at
			// when the cache has it.
			if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
				return nil
			}
			return err
		}
		if err != nil || maps.Equal(cm.Data, data) && cm.Annotations[descriptionAnnotation] != "" {
			return err
		}
		cm = cm.DeepCopy()
		cm.Data = data
		if cm.Annotations == nil {
			cm.Annotations = map[string]string{}
		}
		cm.Annotations[descriptionAnnotation] = description
		_, err = client.CoreV1().ConfigMaps(ns).Update(ctx, cm, metav1.UpdateOptions{})
		return err
	}
	return reconcile.Loop[*v1.Namespace]{
		Queue: queue, For: namespaces.Informer(), Reads: []cache.SharedIndexInformer{configMaps.Informer()},
		Reconcile: func(ctx context.Context, ns *v1.Namespace) (reconcile.Result, error) {
			return reconcile.Result{}, publish(ctx, ns)
		},
	}.Run, nil
}

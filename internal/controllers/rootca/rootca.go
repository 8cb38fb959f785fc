package rootca

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/trace"
)

const (
	name = "kube-root-ca.crt"
	key  = "ca.crt"

	descriptionAnnotation = "kubernetes.io/description"
	description           = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints " +
		"such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Start runs the publisher until ctx is done.
func Start(ctx context.Context, c controllers.Context) error {
	client := c.Client("root-ca-cert-publisher")
	namespaces := c.Informers.Core().V1().Namespaces()
	configMaps := c.Informers.Core().V1().ConfigMaps()
	nsLister, cmLister := namespaces.Lister(), configMaps.Lister()
	data := map[string]string{key: string(c.RootCA)}
	queue := controllers.NewQueue("root_ca_cert_publisher", c.Clock)

	controllers.Handle(namespaces.Informer(), func(ns *v1.Namespace) { queue.Add(ns.Name) }, nil, func(*v1.Namespace) {})
	changed := func(cm *v1.ConfigMap) {
		if cm.Name == name {
			queue.Add(cm.Namespace)
		}
	}
	controllers.Handle(configMaps.Informer(), func(*v1.ConfigMap) {}, func(_, cm *v1.ConfigMap) { changed(cm) }, changed)

	loop := controllers.Loop{
		Name: "root-ca-cert-publisher", Queue: queue, Workers: 1,
		Synced: []cache.SharedIndexInformer{namespaces.Informer(), configMaps.Informer()},
		Sync: func(ctx context.Context, ns string) error {
			namespace, err := nsLister.Get(ns)
			if apierrors.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			if namespace.Status.Phase == v1.NamespaceTerminating || namespace.DeletionTimestamp != nil {
				return nil
			}
			ctx = trace.WithCause(ctx, namespace)
			cm, err := cmLister.ConfigMaps(ns).Get(name)
			if apierrors.IsNotFound(err) {
				_, err = client.CoreV1().ConfigMaps(ns).Create(ctx, &v1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{descriptionAnnotation: description}},
					Data:       data,
				}, metav1.CreateOptions{})
				if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
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
		},
	}
	go loop.Run(ctx)
	return nil
}

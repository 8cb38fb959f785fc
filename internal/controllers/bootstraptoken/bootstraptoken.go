package bootstraptoken

import (
	"context"
	"maps"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"
	"k8s.io/cluster-bootstrap/util/secrets"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/trace"
)

func isToken(s *v1.Secret) bool {
	return s.Namespace == metav1.NamespaceSystem && string(s.Type) == string(api.SecretTypeBootstrapToken)
}

// StartSigner runs the bootstrap signer until ctx is done.
func StartSigner(ctx context.Context, c controllers.Context) error {
	client := c.Client("bootstrap-signer")
	configMaps, tokens := c.Informers.Core().V1().ConfigMaps(), c.Informers.Core().V1().Secrets()
	cmLister, tokenLister := configMaps.Lister().ConfigMaps(metav1.NamespacePublic), tokens.Lister().Secrets(metav1.NamespaceSystem)
	queue := controllers.NewQueue("bootstrap_signer_queue", c.Clock)
	again := func() { queue.Add(api.ConfigMapClusterInfo) }
	info := func(cm *v1.ConfigMap) {
		if cm.Namespace == metav1.NamespacePublic && cm.Name == api.ConfigMapClusterInfo {
			again()
		}
	}
	token := func(s *v1.Secret) {
		if isToken(s) {
			again()
		}
	}
	controllers.Handle(configMaps.Informer(), info, func(_, cm *v1.ConfigMap) { info(cm) }, func(*v1.ConfigMap) {})
	controllers.Handle(tokens.Informer(), token, func(_, s *v1.Secret) { token(s) }, token)
	loop := controllers.Loop{
		Name: "bootstrap-signer", Queue: queue, Workers: 1, Synced: []cache.SharedIndexInformer{configMaps.Informer(), tokens.Informer()},
		Sync: func(ctx context.Context, name string) error {
			cm, err := cmLister.Get(name)
			if apierrors.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			all, err := tokenLister.List(labels.Everything())
			if err != nil {
				return err
			}
			data := maps.Clone(cm.Data)
			maps.DeleteFunc(data, func(key, _ string) bool { return strings.HasPrefix(key, api.JWSSignatureKeyPrefix) })
			kubeconfig, ok := cm.Data[api.KubeConfigKey]
			for _, s := range all {
				id, secret := secrets.GetData(s, api.BootstrapTokenIDKey), secrets.GetData(s, api.BootstrapTokenSecretKey)
				if !ok || !isToken(s) || s.DeletionTimestamp != nil || id == "" || secret == "" || s.Name != api.BootstrapTokenSecretPrefix+id ||
					secrets.HasExpired(s, c.Clock.Now()) || secrets.GetData(s, api.BootstrapTokenUsageSigningKey) != "true" {
					continue
				}
				signature, err := jws.ComputeDetachedSignature(kubeconfig, id, secret)
				if err != nil {
					return err
				}
				data[api.JWSSignatureKeyPrefix+id] = signature
			}
			if maps.Equal(data, cm.Data) {
				return nil
			}
			cm = cm.DeepCopy()
			cm.Data = data
			_, err = client.CoreV1().ConfigMaps(cm.Namespace).Update(trace.WithCause(ctx, cm), cm, metav1.UpdateOptions{})
			return err
		},
	}
	go loop.Run(ctx)
	return nil
}

// StartCleaner runs the token cleaner until ctx is done.
func StartCleaner(ctx context.Context, c controllers.Context) error {
	client := c.Client("token-cleaner")
	tokens := c.Informers.Core().V1().Secrets()
	lister := tokens.Lister().Secrets(metav1.NamespaceSystem)
	queue := controllers.NewQueue("token_cleaner", c.Clock)
	seen := func(s *v1.Secret) {
		if isToken(s) {
			queue.Add(s.Name)
		}
	}
	controllers.Handle(tokens.Informer(), seen, func(_, s *v1.Secret) { seen(s) }, func(*v1.Secret) {})
	loop := controllers.Loop{
		Name: "token-cleaner", Queue: queue, Workers: 1, Synced: []cache.SharedIndexInformer{tokens.Informer()},
		Sync: func(ctx context.Context, name string) error {
			s, err := lister.Get(name)
			if apierrors.IsNotFound(err) || err == nil && !isToken(s) {
				return nil
			}
			if err != nil {
				return err
			}
			left, expired := secrets.GetExpiration(s, c.Clock.Now())
			if !expired {
				if left > 0 {
					queue.AddAfter(name, left)
				}
				return nil
			}
			err = client.CoreV1().Secrets(s.Namespace).Delete(trace.WithCause(ctx, s), name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				return nil
			}
			return err
		},
	}
	go loop.Run(ctx)
	return nil
}

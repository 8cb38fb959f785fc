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
	"keelson.dev/keelson/internal/reconcile"
)

func isToken(s *v1.Secret) bool {
	return s.Namespace == metav1.NamespaceSystem && string(s.Type) == string(api.SecretTypeBootstrapToken)
}

// NewSigner makes the bootstrap signer until ctx is done.
func NewSigner(c controllers.Context) (reconcile.Run, error) {
	client := c.Client()
	configMaps, tokens := c.Informers.Core().V1().ConfigMaps(), c.Informers.Core().V1().Secrets()
	tokenLister := tokens.Lister().Secrets(metav1.NamespaceSystem)
	queue := c.Queue("bootstrap_signer_queue")
	again := func() { queue.Add(metav1.NamespacePublic + "/" + api.ConfigMapClusterInfo) }
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
	reconcile.Handle(configMaps.Informer(), info, nil, reconcile.Ignore)
	reconcile.Handle(tokens.Informer(), token, nil, nil)
	return reconcile.Loop[*v1.ConfigMap]{
		Queue: queue, For: configMaps.Informer(), Reads: []cache.SharedIndexInformer{tokens.Informer()},
		Reconcile: func(ctx context.Context, cm *v1.ConfigMap) (reconcile.Result, error) {
			all, err := tokenLister.List(labels.Everything())
			if err != nil {
				return reconcile.Result{}, err
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
					return reconcile.Result{}, err
				}
				data[api.JWSSignatureKeyPrefix+id] = signature
			}
			if maps.Equal(data, cm.Data) {
				return reconcile.Result{}, nil
			}
			cm = cm.DeepCopy()
			cm.Data = data
			_, err = client.CoreV1().ConfigMaps(cm.Namespace).Update(ctx, cm, metav1.UpdateOptions{})
			return reconcile.Result{}, err
		},
	}.Run, nil
}

// NewCleaner makes the token cleaner until ctx is done.
func NewCleaner(c controllers.Context) (reconcile.Run, error) {
	client := c.Client()
	tokens := c.Informers.Core().V1().Secrets()
	queue := c.Queue("token_cleaner")
	seen := func(s *v1.Secret) {
		if isToken(s) {
			queue.Add(reconcile.Key(s))
		}
	}
	reconcile.Handle(tokens.Informer(), seen, nil, reconcile.Ignore)
	return reconcile.Loop[*v1.Secret]{
		Queue: queue, For: tokens.Informer(),
		Reconcile: func(ctx context.Context, s *v1.Secret) (reconcile.Result, error) {
			if !isToken(s) {
				return reconcile.Result{}, nil
			}
			left, expired := secrets.GetExpiration(s, c.Clock.Now())
			if !expired {
				return reconcile.Result{RequeueAfter: left}, nil
			}
			err := client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				err = nil
			}
			return reconcile.Result{}, err
		},
	}.Run, nil
}

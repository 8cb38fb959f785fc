package accounttoken

import (
	"bytes"
	"context"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// byAccount is the index of the secrets by namespace/name of their account.
const byAccount = "serviceaccount"

func account(s *v1.Secret) (string, bool) {
	name := s.Annotations[v1.ServiceAccountNameKey]
	return s.Namespace + "/" + name, s.Type == v1.SecretTypeServiceAccountToken && name != ""
}

// complete reports whether a secret has all that it is to have of its account.
func complete(s *v1.Secret, sa *v1.ServiceAccount, rootCA []byte) bool {
	return s.Annotations[v1.ServiceAccountUIDKey] == string(sa.UID) && len(s.Data[v1.ServiceAccountTokenKey]) > 0 &&
		string(s.Data[v1.ServiceAccountNamespaceKey]) == s.Namespace && (len(rootCA) == 0 || bytes.Equal(s.Data[v1.ServiceAccountRootCAKey], rootCA))
}

// New makes the controller; it is nil where no tokens are to be had.
func New(c controllers.Context) (reconcile.Run, error) {
	if c.LegacyToken == nil {
		return nil, nil
	}
	client := c.Client()
	accounts, secrets := c.Informers.Core().V1().ServiceAccounts(), c.Informers.Core().V1().Secrets()
	saLister := accounts.Lister()
	queue := c.Queue("serviceaccount_tokens_secret")
	err := secrets.Informer().AddIndexers(cache.Indexers{byAccount: func(o any) ([]string, error) {
		if key, ok := account(o.(*v1.Secret)); ok {
			return []string{key}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return nil, err
	}
	seen := func(s *v1.Secret) {
		if _, ok := account(s); ok {
			queue.Add(reconcile.Key(s))
		}
	}
	reconcile.Handle(secrets.Informer(), seen, nil, reconcile.Ignore)
	changed := func(sa *v1.ServiceAccount) {
		keys, _ := secrets.Informer().GetIndexer().IndexKeys(byAccount, sa.Namespace+"/"+sa.Name)
		for _, k := range keys {
			queue.Add(k)
		}
	}
	reconcile.Handle(accounts.Informer(), changed, nil, changed)
	fill := func(ctx context.Context, s *v1.Secret) error {
		namespace, name := s.Namespace, s.Name
		if _, ok := account(s); !ok || s.DeletionTimestamp != nil {
			return nil
		}
		sa, err := saLister.ServiceAccounts(namespace).Get(s.Annotations[v1.ServiceAccountNameKey])
		if err == nil && complete(s, sa, c.RootCA) {
			return nil
		}
		// The cache may be behind, with no account or with a former one of its name:
		// what is written, or removed, is by the account that there is now.
		sa, err = client.CoreV1().ServiceAccounts(namespace).Get(ctx, s.Annotations[v1.ServiceAccountNameKey], metav1.GetOptions{})
		uid := s.Annotations[v1.ServiceAccountUIDKey]
		if apierrors.IsNotFound(err) || err == nil && uid != "" && uid != string(sa.UID) {
			err = client.CoreV1().Secrets(namespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				return nil
			}
			return err
		}
		if err != nil || complete(s, sa, c.RootCA) {
			return err
		}
		next := s.DeepCopy()
		if next.Data == nil {
			next.Data = map[string][]byte{}
		}
		next.Annotations[v1.ServiceAccountUIDKey] = string(sa.UID)
		next.Data[v1.ServiceAccountNamespaceKey] = []byte(namespace)
		if len(c.RootCA) > 0 {
			next.Data[v1.ServiceAccountRootCAKey] = c.RootCA
		}
		if len(next.Data[v1.ServiceAccountTokenKey]) == 0 {
			token, err := c.LegacyToken(sa, s)
			if err != nil {
				return err
			}
			next.Data[v1.ServiceAccountTokenKey] = []byte(token)
		}
		_, err = client.CoreV1().Secrets(namespace).Update(ctx, next, metav1.UpdateOptions{})
		return err
	}
	return reconcile.Loop[*v1.Secret]{
		Queue: queue, Workers: c.Workers(1), For: secrets.Informer(), Reads: []cache.SharedIndexInformer{accounts.Informer()},
		Reconcile: func(ctx context.Context, s *v1.Secret) (reconcile.Result, error) {
			return reconcile.Result{}, fill(ctx, s)
		},
	}.Run, nil
}

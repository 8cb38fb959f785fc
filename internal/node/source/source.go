package source

import (
	"context"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// renewPeriod is how often tokens are looked at.
const renewPeriod = 30 * time.Second

// Source reads objects through informers.
type Source struct {
	client     kubernetes.Interface
	clock      clock.WithTicker
	configMaps corelisters.ConfigMapLister
	secrets    corelisters.SecretLister
	informers  []cache.SharedIndexInformer

	mu     sync.Mutex
	tokens map[tokenKey]token
}

// Change is why files are to be made anew: an object that changed, or a pod
// whose labels, annotations or tokens did.
type Change struct {
	Namespace, ConfigMap, Secret string
	Pod                          types.UID
	// Object is the pod as it is now, where that is why.
	Object *v1.Pod
}

type tokenKey struct {
	pod      types.UID
	audience string
	use      string
}

type token struct {
	value           string
	issued, expires time.Time
}

// renewal is when a token is to be replaced: when four fifths of its life are
// over, as upstream's kubelet does.
func (t token) renewal() time.Time { return t.issued.Add(t.expires.Sub(t.issued) * 4 / 5) }

// New makes a source; the informers that it needs are those of the factory, which
// is started by the caller.
func New(client kubernetes.Interface, f informers.SharedInformerFactory, c clock.WithTicker) *Source {
	core := f.Core().V1()
	return &Source{
		client: client, clock: c, tokens: map[tokenKey]token{},
		configMaps: core.ConfigMaps().Lister(), secrets: core.Secrets().Lister(),
		informers: []cache.SharedIndexInformer{core.ConfigMaps().Informer(), core.Secrets().Informer(), core.Pods().Informer()},
	}
}

// Run calls on for each change, and for each pod with a token that is to be
// replaced, until ctx is done.
func (s *Source) Run(ctx context.Context, on func(Change)) error {
	changed := func(old, now any) {
		switch now := now.(type) {
		case *v1.ConfigMap:
			on(Change{Namespace: now.Namespace, ConfigMap: now.Name})
		case *v1.Secret:
			on(Change{Namespace: now.Namespace, Secret: now.Name})
		case *v1.Pod:
			if old, ok := old.(*v1.Pod); ok && (!equalMaps(old.Labels, now.Labels) || !equalMaps(old.Annotations, now.Annotations)) {
				on(Change{Pod: now.UID, Object: now})
			}
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(now any) { changed(nil, now) },
		UpdateFunc: changed,
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if p, ok := o.(*v1.Pod); ok {
				s.forget(p.UID)
			}
		},
	}
	for _, i := range s.informers {
		handle, err := i.AddEventHandler(handler)
		if err != nil {
			return err
		}
		defer func() { _ = i.RemoveEventHandler(handle) }()
	}
	t := s.clock.NewTicker(renewPeriod)
	defer t.Stop()
	for {
		select {
		case <-t.C():
		case <-ctx.Done():
			return nil
		}
		for _, uid := range s.due() {
			on(Change{Pod: uid})
		}
	}
}

// due are the pods with a token that is to be replaced.
func (s *Source) due() []types.UID {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []types.UID
	for k, t := range s.tokens {
		if !now.Before(t.renewal()) && !slices.Contains(out, k.pod) {
			out = append(out, k.pod)
		}
	}
	return out
}

func equalMaps(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// ConfigMap reads one; from the informer, else as it is now.
func (s *Source) ConfigMap(ctx context.Context, ns, name string) (*v1.ConfigMap, error) {
	if c, err := s.configMaps.ConfigMaps(ns).Get(name); err == nil {
		return c, nil
	}
	return s.client.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
}

// Secret reads one; from the informer, else as it is now.
func (s *Source) Secret(ctx context.Context, ns, name string) (*v1.Secret, error) {
	if c, err := s.secrets.Secrets(ns).Get(name); err == nil {
		return c, nil
	}
	return s.client.CoreV1().Secrets(ns).Get(ctx, name, metav1.GetOptions{})
}

// Token gives the pod's token for a use (a name of the caller's), a new one
// when it is time for that.
func (s *Source) Token(ctx context.Context, p *v1.Pod, use string, t *v1.ServiceAccountTokenProjection) (string, error) {
	key := tokenKey{p.UID, t.Audience, use}
	now := s.clock.Now()
	s.mu.Lock()
	has, ok := s.tokens[key]
	s.mu.Unlock()
	if ok && now.Before(has.renewal()) {
		return has.value, nil
	}
	tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: t.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID},
	}}
	if t.Audience != "" {
		tr.Spec.Audiences = []string{t.Audience}
	}
	got, err := s.client.CoreV1().ServiceAccounts(p.Namespace).CreateToken(ctx, p.Spec.ServiceAccountName, tr, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[key] = token{got.Status.Token, now, got.Status.ExpirationTimestamp.Time}
	return got.Status.Token, nil
}

// forget drops the tokens of a pod.
func (s *Source) forget(pod types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.tokens {
		if k.pod == pod {
			delete(s.tokens, k)
		}
	}
}

package source

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

// renewPeriod is how often tokens are looked at.
const renewPeriod = 30 * time.Second

// Source reads objects. Those that the node's pods name are watched, each by
// itself: a node may read no others.
type Source struct {
	client kubernetes.Interface
	clock  clock.WithTicker
	node   string
	pods   cache.SharedIndexInformer

	mu      sync.Mutex
	tokens  map[tokenKey]token
	objects map[reference]*object
	named   map[types.UID][]reference // by the pods that name them
	// certificates holds the certificates of pods.
	certificates map[certificateKey]certificate
}

// Change is why files are to be made anew: an object that changed, or a pod
// whose labels, annotations, tokens or certificates did.
type Change struct {
	Namespace, ConfigMap, Secret string
	// TrustBundles reports whether a ClusterTrustBundle changed.
	TrustBundles bool
	Pod          types.UID
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

// renewal returns when a token is to be replaced: when four fifths of its life are
// over, as upstream's kubelet does.
func (t token) renewal() time.Time { return t.issued.Add(t.expires.Sub(t.issued) * 4 / 5) }

// New makes a source for the pods of the node, which the informer gives. The
// informer may have others too; the caller starts it.
func New(client kubernetes.Interface, node string, pods cache.SharedIndexInformer, c clock.WithTicker) *Source {
	return &Source{client: client, clock: c, node: node, pods: pods,
		tokens: map[tokenKey]token{}, objects: map[reference]*object{}, named: map[types.UID][]reference{}, certificates: map[certificateKey]certificate{}}
}

// Run watches what the pods name, and calls on for each change, and for each pod
// with a token that is to be replaced, until ctx is done.
func (s *Source) Run(ctx context.Context, on func(Change)) error {
	var watches sync.WaitGroup
	defer watches.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := func(r reference) *object { return s.watch(ctx, &watches, r, on) }
	handle, err := s.pods.AddEventHandler(cache.FilteringResourceEventHandler{
		FilterFunc: func(o any) bool {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			p, ok := o.(*v1.Pod)
			return ok && p.Spec.NodeName == s.node
		},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(now any) { s.name(now.(*v1.Pod), watch) },
			UpdateFunc: func(old, now any) {
				was, is := old.(*v1.Pod), now.(*v1.Pod)
				s.name(is, watch)
				if !maps.Equal(was.Labels, is.Labels) || !maps.Equal(was.Annotations, is.Annotations) {
					on(Change{Pod: is.UID, Object: is})
				}
			},
			DeleteFunc: func(o any) {
				if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = t.Obj
				}
				if p, ok := o.(*v1.Pod); ok {
					s.forget(p.UID)
				}
			},
		},
	})
	if err != nil {
		return err
	}
	defer func() { _ = s.pods.RemoveEventHandler(handle) }()
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

// due returns the pods with a token or a certificate that is to be replaced.
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
	for k, c := range s.certificates {
		if c.chain != nil && !now.Before(c.renewal) && !slices.Contains(out, k.pod) {
			out = append(out, k.pod)
		}
	}
	return out
}

// ConfigMap reads one: as the watch for it has it, else as it is now.
func (s *Source) ConfigMap(ctx context.Context, ns, name string) (*v1.ConfigMap, error) {
	if c, ok := s.watched(reference{configMap, ns, name}).(*v1.ConfigMap); ok {
		return c, nil
	}
	return s.client.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
}

// Secret reads one: as the watch for it has it, else as it is now.
func (s *Source) Secret(ctx context.Context, ns, name string) (*v1.Secret, error) {
	if c, ok := s.watched(reference{secret, ns, name}).(*v1.Secret); ok {
		return c, nil
	}
	return s.client.CoreV1().Secrets(ns).Get(ctx, name, metav1.GetOptions{})
}

// Token returns the pod's token for a use (a name of the caller's), a new one
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

// forget drops the tokens of a pod, and what no other pod names.
func (s *Source) forget(pod types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.tokens {
		if k.pod == pod {
			delete(s.tokens, k)
		}
	}
	maps.DeleteFunc(s.certificates, func(k certificateKey, _ certificate) bool { return k.pod == pod })
	s.release(s.named[pod])
	delete(s.named, pod)
}

package aggregation

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/transport"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"

	"keelson.dev/keelson/internal/apiserver/certs"
)

// Registry is the set of group versions that other servers serve.
type Registry struct {
	resolver webhook.ServiceResolver
	identity func() (certs.Pair, error)

	mu         sync.Mutex // of writers; readers see one immutable snapshot
	current    atomic.Pointer[map[schema.GroupVersion]*backend]
	generation atomic.Uint64
}

// backend is the server of one group version.
type backend struct {
	service   *v1.APIService
	available bool
	transport http.RoundTripper
	// transportErr is the reason why there is no transport.
	transportErr error
	found        *findings
}

// findings holds the discovery documents of a server; immutable.
type findings struct {
	discovery apidiscovery.APIVersionDiscovery
	openapiV2 []byte
	v2Tag     string
	// openapiV3 is the URL of the group version's document, relative to the server.
	openapiV3 string
}

// New makes an empty registry. identity gives the certificate by which servers
// recognize this one as the sender of a user's request.
func New(resolver webhook.ServiceResolver, identity func() (certs.Pair, error)) *Registry {
	r := &Registry{resolver: resolver, identity: identity}
	r.current.Store(&map[schema.GroupVersion]*backend{})
	return r
}

func groupVersion(a *v1.APIService) schema.GroupVersion {
	return schema.GroupVersion{Group: a.Spec.Group, Version: a.Spec.Version}
}

// change replaces the snapshot by what f makes of a copy of it.
func (r *Registry) change(f func(map[schema.GroupVersion]*backend) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[schema.GroupVersion]*backend, len(*r.current.Load())+1)
	for gv, b := range *r.current.Load() {
		next[gv] = b
	}
	if f(next) {
		r.current.Store(&next)
		r.generation.Add(1)
	}
}

// Set adds a to the registry, available as its condition says; not if a later
// one is known.
func (r *Registry) Set(a *v1.APIService) {
	gv := groupVersion(a)
	if a.Spec.Service == nil {
		r.Remove(gv)
		return
	}
	r.change(func(m map[schema.GroupVersion]*backend) bool {
		b := &backend{service: a, available: helper.IsAPIServiceConditionTrue(a, v1.Available)}
		if old := m[gv]; old != nil {
			if earlier(a, old.service) {
				return false
			}
			b.found = old.found
			if reflect.DeepEqual(old.service.Spec, a.Spec) {
				b.transport, b.transportErr = old.transport, old.transportErr
			}
		}
		if b.transport == nil {
			b.transport, b.transportErr = r.transportTo(a)
		}
		m[gv] = b
		return true
	})
}

// earlier reports whether a was before b, the same object.
func earlier(a, b *v1.APIService) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return a.UID == b.UID && err == nil && order < 0
}

// Remove forgets the server of gv.
func (r *Registry) Remove(gv schema.GroupVersion) {
	if r.backend(gv) == nil {
		return
	}
	r.change(func(m map[schema.GroupVersion]*backend) bool {
		delete(m, gv)
		return true
	})
}

func (r *Registry) backend(gv schema.GroupVersion) *backend { return (*r.current.Load())[gv] }

// transportTo trusts what the APIService says of its server's certificate.
func (r *Registry) transportTo(a *v1.APIService) (http.RoundTripper, error) {
	me, err := r.identity()
	if err != nil {
		return nil, err
	}
	return transport.New(&transport.Config{TLS: transport.TLSConfig{
		Insecure:   a.Spec.InsecureSkipTLSVerify,
		ServerName: a.Spec.Service.Name + "." + a.Spec.Service.Namespace + ".svc",
		CertData:   me.Cert, KeyData: me.Key, CAData: a.Spec.CABundle,
	}})
}

// Generation changes with everything that this package says.
func (r *Registry) Generation() uint64 { return r.generation.Load() }

// Group is an API group of which other servers serve versions.
type Group struct {
	Name string
	// Priority is the greatest that one of its versions asks for.
	Priority int32
	// Versions, the preferred one first.
	Versions []Version
}

// Version is one that another server serves.
type Version struct {
	Name      string
	Discovery apidiscovery.APIVersionDiscovery
	// OpenAPIV3 is where the server's document is, empty if it has none.
	OpenAPIV3 string
}

// Groups returns the groups in no particular order.
func (r *Registry) Groups() []Group {
	byName := map[string][]*backend{}
	for gv, b := range *r.current.Load() {
		byName[gv.Group] = append(byName[gv.Group], b)
	}
	groups := make([]Group, 0, len(byName))
	for name, backends := range byName {
		g := Group{Name: name}
		slices.SortFunc(backends, func(a, b *backend) int {
			return cmp.Or(cmp.Compare(b.service.Spec.VersionPriority, a.service.Spec.VersionPriority), cmp.Compare(a.service.Name, b.service.Name))
		})
		for _, b := range backends {
			g.Priority = max(g.Priority, b.service.Spec.GroupPriorityMinimum)
			v := Version{Name: b.service.Spec.Version, Discovery: unknown(b.service.Spec.Version)}
			if b.found != nil {
				v.Discovery, v.OpenAPIV3 = b.found.discovery, b.found.openapiV3
				if !b.available {
					v.Discovery.Freshness = apidiscovery.DiscoveryFreshnessStale
				}
			}
			g.Versions = append(g.Versions, v)
		}
		groups = append(groups, g)
	}
	return groups
}

var errLocal = errors.New("no other server serves it")

func (r *Registry) remote(a *v1.APIService) (*backend, error) {
	b := r.backend(groupVersion(a))
	if b == nil {
		return nil, fmt.Errorf("%s: %w", a.Name, errLocal)
	}
	return b, b.transportErr
}

package catalogue

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/version"

	"keelson.dev/keelson/internal/api"
)

// Catalogue is a changing set of rows, safe for concurrent use. Readers never
// wait: each sees one immutable snapshot, which a writer replaces.
type Catalogue struct {
	writing sync.Mutex
	current atomic.Pointer[snapshot]
	// hidden are the resources that only this process's own parts see.
	hidden sets.Set[schema.GroupVersionResource]
}

// Group is an API group as discovery lists it.
type Group struct {
	Name string
	// Versions of the group, the preferred one first.
	Versions []string
}

type snapshot struct {
	generation uint64
	rows       []*api.Resource // hidden ones too
	served     []*api.Resource
	resources  map[schema.GroupVersionResource]*api.Resource
	kinds      map[schema.GroupVersionKind]*api.Resource
	groups     []Group
	// replaced is closed when another snapshot takes this one's place.
	replaced chan struct{}
}

// New makes a catalogue of rows.
func New(rows []*api.Resource) *Catalogue { return NewHiding(rows, nil) }

// NewHiding makes a catalogue of rows of which some are not served.
func NewHiding(rows []*api.Resource, hidden sets.Set[schema.GroupVersionResource]) *Catalogue {
	c := &Catalogue{hidden: hidden}
	c.current.Store(c.newSnapshot(slices.Clone(rows), 1))
	return c
}

// Hides says whether the resource is not served, but to this process's own parts.
func (c *Catalogue) Hides(gvr schema.GroupVersionResource) bool {
	return len(c.hidden) > 0 && c.hidden.Has(gvr)
}

// Lookup gives the row of a resource, hidden or not, nil if there is none.
func (c *Catalogue) Lookup(group, version, resource string) *api.Resource {
	return c.current.Load().resources[schema.GroupVersionResource{Group: group, Version: version, Resource: resource}]
}

// ForKind gives the row whose objects are of kind gvk, nil if there is none.
func (c *Catalogue) ForKind(gvk schema.GroupVersionKind) *api.Resource {
	return c.current.Load().kinds[gvk]
}

// Rows gives all rows that are served in the order in which they were added; the
// caller may not change the slice.
func (c *Catalogue) Rows() []*api.Resource { return c.current.Load().served }

// All gives all rows, hidden ones too; the caller may not change the slice.
func (c *Catalogue) All() []*api.Resource { return c.current.Load().rows }

// Groups gives the groups in discovery's order; the caller may not change
// the slice.
func (c *Catalogue) Groups() []Group { return c.current.Load().groups }

// Generation changes with every Add and Remove, so that what is computed from
// the rows (discovery, OpenAPI) can be kept until then.
func (c *Catalogue) Generation() uint64 { return c.current.Load().generation }

// Changed is closed at the next Add or Remove.
func (c *Catalogue) Changed() <-chan struct{} { return c.current.Load().replaced }

// Add adds rows; each takes the place of an earlier row of the same resource
// and version.
func (c *Catalogue) Add(rows ...*api.Resource) {
	c.writing.Lock()
	defer c.writing.Unlock()
	old := c.current.Load()
	next := slices.Clone(old.rows)
	for _, r := range rows {
		at := slices.IndexFunc(next, func(o *api.Resource) bool { return o.GroupVersionResource == r.GroupVersionResource })
		if at >= 0 {
			next[at] = r
		} else {
			next = append(next, r)
		}
	}
	c.current.Store(c.newSnapshot(next, old.generation+1))
	close(old.replaced)
}

// Remove takes the rows of gvrs away; those that are not there are ignored.
func (c *Catalogue) Remove(gvrs ...schema.GroupVersionResource) {
	c.writing.Lock()
	defer c.writing.Unlock()
	old := c.current.Load()
	next := slices.DeleteFunc(slices.Clone(old.rows), func(r *api.Resource) bool {
		return slices.Contains(gvrs, r.GroupVersionResource)
	})
	c.current.Store(c.newSnapshot(next, old.generation+1))
	close(old.replaced)
}

func (c *Catalogue) newSnapshot(rows []*api.Resource, generation uint64) *snapshot {
	served := rows
	if len(c.hidden) > 0 {
		served = slices.DeleteFunc(slices.Clone(rows), func(r *api.Resource) bool { return c.hidden.Has(r.GroupVersionResource) })
	}
	s := &snapshot{
		generation: generation,
		rows:       rows,
		served:     served,
		resources:  make(map[schema.GroupVersionResource]*api.Resource, len(rows)),
		kinds:      make(map[schema.GroupVersionKind]*api.Resource, len(rows)),
		groups:     groupsOf(served),
		replaced:   make(chan struct{}),
	}
	for _, r := range rows {
		s.resources[r.GroupVersionResource] = r
		if _, taken := s.kinds[r.GVK()]; !taken {
			s.kinds[r.GVK()] = r
		}
	}
	return s
}

// priorities of the built-in groups in discovery, the highest first. kubectl
// takes the first group that has the resource it was asked for.
var priorities = map[string]int{
	"":                             20100, // the only one of /api
	"apiregistration.k8s.io":       20000,
	"apps":                         17800,
	"events.k8s.io":                17750,
	"authentication.k8s.io":        17700,
	"authorization.k8s.io":         17600,
	"autoscaling":                  17500,
	"batch":                        17400,
	"certificates.k8s.io":          17300,
	"networking.k8s.io":            17200,
	"policy":                       17100,
	"rbac.authorization.k8s.io":    17000,
	"storage.k8s.io":               16800,
	"admissionregistration.k8s.io": 16700,
	"apiextensions.k8s.io":         16700,
	"scheduling.k8s.io":            16600,
	"coordination.k8s.io":          16500,
	"node.k8s.io":                  16300,
	"discovery.k8s.io":             16200,
	"flowcontrol.apiserver.k8s.io": 16100,
	"internal.apiserver.k8s.io":    16000,
	"resource.k8s.io":              15900,
	"storagemigration.k8s.io":      15800,
}

// IsBuiltin says whether the group is one of Kubernetes' own.
func IsBuiltin(group string) bool {
	_, ok := priorities[group]
	return ok
}

// customPriority is that of the groups of CustomResourceDefinitions.
const customPriority = 1000

func groupsOf(rows []*api.Resource) []Group {
	byName := map[string]*Group{}
	for _, r := range rows {
		g := byName[r.Group]
		if g == nil {
			g = &Group{Name: r.Group}
			byName[r.Group] = g
		}
		if !slices.Contains(g.Versions, r.Version) {
			g.Versions = append(g.Versions, r.Version)
		}
	}
	list := make([]Group, 0, len(byName))
	for _, g := range byName {
		slices.SortFunc(g.Versions, func(a, b string) int { return version.CompareKubeAwareVersionStrings(b, a) })
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b Group) int {
		return cmp.Or(cmp.Compare(Priority(b.Name), Priority(a.Name)), cmp.Compare(a.service(), b.service()))
	})
	return list
}

// Priority is a group's place in discovery: the greater comes first.
func Priority(group string) int {
	if p, ok := priorities[group]; ok {
		return p
	}
	return customPriority
}

// service is the least name that one of the group's versions has as an
// APIService. Upstream's discovery is a list of those: of two groups with the
// same priority the one with the lesser name is first.
func (g Group) service() string { return slices.Min(g.Versions) + "." + g.Name }

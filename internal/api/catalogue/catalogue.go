package catalogue

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	// Priority is the group's place in discovery: the greater comes first.
	Priority int
}

type snapshot struct {
	generation uint64
	rows       []*api.Resource // hidden ones too
	served     []*api.Resource
	groups     map[string]*group
	list       []Group
	// stored has the rows by where their objects are stored; it is made when first asked.
	stored func() map[string]*api.Resource
	// replaced is closed when another snapshot takes this one's place.
	replaced chan struct{}
}

// group has the rows of an API group; immutable.
type group struct {
	resources map[versioned]*api.Resource
	kinds     map[versioned]*api.Resource
	// versions has the rows that are served.
	versions map[string][]*api.Resource
}

// versioned is a resource or a kind in a version of its group.
type versioned struct{ version, name string }

// New makes a catalogue of rows.
func New(rows []*api.Resource) *Catalogue { return NewHiding(rows, nil) }

// NewHiding makes a catalogue of rows of which some are not served.
func NewHiding(rows []*api.Resource, hidden sets.Set[schema.GroupVersionResource]) *Catalogue {
	c := &Catalogue{hidden: hidden}
	c.current.Store(&snapshot{replaced: make(chan struct{}), stored: func() map[string]*api.Resource { return nil }})
	c.Add(rows...)
	return c
}

// Hides reports whether the resource is not served, but to this process's own parts.
func (c *Catalogue) Hides(gvr schema.GroupVersionResource) bool {
	return len(c.hidden) > 0 && c.hidden.Has(gvr)
}

// Lookup returns the row of a resource, hidden or not, nil if there is none.
func (c *Catalogue) Lookup(group, version, resource string) *api.Resource {
	if g := c.current.Load().groups[group]; g != nil {
		return g.resources[versioned{version, resource}]
	}
	return nil
}

// Must is Lookup of a built-in resource that is known to be there.
func (c *Catalogue) Must(group, version, resource string) *api.Resource {
	r := c.Lookup(group, version, resource)
	if r == nil {
		panic(fmt.Sprintf("the catalogue has no %s/%s %s", group, version, resource))
	}
	return r
}

// ForKind returns the row whose objects are of kind gvk, nil if there is none.
func (c *Catalogue) ForKind(gvk schema.GroupVersionKind) *api.Resource {
	if g := c.current.Load().groups[gvk.Group]; g != nil {
		return g.kinds[versioned{gvk.Version, gvk.Kind}]
	}
	return nil
}

// ForKey returns the resource whose objects are stored at a key of the store, with the
// object's namespace and name; nil where it is none's. Of the versions of a custom
// resource it is any.
func (c *Catalogue) ForKey(key string) (row *api.Resource, namespace, name string) {
	path, ok := strings.CutPrefix(key, "/registry/")
	if !ok {
		return nil, "", ""
	}
	stored := c.current.Load().stored()
	prefix, rest, _ := strings.Cut(path, "/")
	if row = stored[prefix]; row == nil { // as of most built-in ones: pods
		second, name, _ := strings.Cut(rest, "/") // services/specs, or GROUP/RESOURCE
		if row = stored[prefix+"/"+second]; row == nil {
			return nil, "", ""
		}
		rest = name
	}
	if row.Namespaced {
		namespace, rest, _ = strings.Cut(rest, "/")
	}
	return row, namespace, rest
}

// storedIn returns the rows by api.Resource.StoragePrefix.
func storedIn(rows []*api.Resource) map[string]*api.Resource {
	out := map[string]*api.Resource{}
	for _, row := range rows {
		if !row.NotStored && row.Hub == nil && out[row.StoragePrefix] == nil {
			out[row.StoragePrefix] = row
		}
	}
	return out
}

// Rows returns all rows that are served in the order in which they were added; the
// caller may not change the slice.
func (c *Catalogue) Rows() []*api.Resource { return c.current.Load().served }

// All returns all rows, hidden ones too; the caller may not change the slice.
func (c *Catalogue) All() []*api.Resource { return c.current.Load().rows }

// RowsOf returns the served rows of a version of a group in the order in which they were
// added; the caller may not change the slice.
func (c *Catalogue) RowsOf(gv schema.GroupVersion) []*api.Resource {
	if g := c.current.Load().groups[gv.Group]; g != nil {
		return g.versions[gv.Version]
	}
	return nil
}

// Groups returns the groups in discovery's order; the caller may not change
// the slice.
func (c *Catalogue) Groups() []Group { return c.current.Load().list }

// Generation changes with every Add and Remove, so that what is computed from
// the rows (discovery, OpenAPI) can be kept until then.
func (c *Catalogue) Generation() uint64 { return c.current.Load().generation }

// Changed is closed at the next Add or Remove.
func (c *Catalogue) Changed() <-chan struct{} { return c.current.Load().replaced }

// Add adds rows; each takes the place of an earlier row of the same resource
// and version.
func (c *Catalogue) Add(rows ...*api.Resource) {
	c.change(func(next []*api.Resource) ([]*api.Resource, []schema.GroupVersionResource) {
		touched := make([]schema.GroupVersionResource, len(rows))
		for i, r := range rows {
			touched[i] = r.GroupVersionResource
			if old := c.Lookup(r.Group, r.Version, r.Resource); old != nil {
				next[slices.Index(next, old)] = r
			} else {
				next = append(next, r)
			}
		}
		return next, touched
	})
}

// Remove takes the rows of gvrs away; those that are not there are ignored.
func (c *Catalogue) Remove(gvrs ...schema.GroupVersionResource) {
	c.change(func(next []*api.Resource) ([]*api.Resource, []schema.GroupVersionResource) {
		return slices.DeleteFunc(next, func(r *api.Resource) bool { return slices.Contains(gvrs, r.GroupVersionResource) }), gvrs
	})
}

// change replaces the snapshot by one with the rows that f makes of a copy of the
// present ones. Only the groups of the resources that f returns as touched are
// made anew.
func (c *Catalogue) change(f func([]*api.Resource) ([]*api.Resource, []schema.GroupVersionResource)) {
	c.writing.Lock()
	defer c.writing.Unlock()
	old := c.current.Load()
	rows, touched := f(slices.Clone(old.rows))
	next := &snapshot{generation: old.generation + 1, rows: rows, served: rows, groups: map[string]*group{}, list: old.list, replaced: make(chan struct{}),
		stored: sync.OnceValue(func() map[string]*api.Resource { return storedIn(rows) })}
	if len(c.hidden) > 0 {
		next.served = slices.DeleteFunc(slices.Clone(rows), func(r *api.Resource) bool { return c.hidden.Has(r.GroupVersionResource) })
	}
	maps.Copy(next.groups, old.groups)
	done := map[string]bool{}
	listed := true
	for _, gvr := range touched {
		if done[gvr.Group] {
			continue
		}
		done[gvr.Group] = true
		was, is := old.groups[gvr.Group], c.newGroup(rows, gvr.Group)
		if len(is.resources) == 0 {
			delete(next.groups, gvr.Group)
		} else {
			next.groups[gvr.Group] = is
		}
		listed = listed && was != nil && maps.EqualFunc(was.versions, is.versions, func(_, _ []*api.Resource) bool { return true })
	}
	if !listed {
		next.list = listOf(next.groups)
	}
	c.current.Store(next)
	close(old.replaced)
}

func (c *Catalogue) newGroup(rows []*api.Resource, name string) *group {
	g := &group{resources: map[versioned]*api.Resource{}, kinds: map[versioned]*api.Resource{}, versions: map[string][]*api.Resource{}}
	for _, r := range rows {
		if r.Group != name {
			continue
		}
		g.resources[versioned{r.Version, r.Resource}] = r
		if kind := (versioned{r.Version, r.Kind}); g.kinds[kind] == nil {
			g.kinds[kind] = r
		}
		if !c.Hides(r.GroupVersionResource) {
			g.versions[r.Version] = append(g.versions[r.Version], r)
		}
	}
	return g
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
	"metrics.k8s.io":               100, // metrics-server's
}

// IsBuiltin reports whether the group is one of Kubernetes' own.
func IsBuiltin(group string) bool {
	_, ok := priorities[group]
	return ok
}

// customPriority is the priority of the groups of CustomResourceDefinitions.
const customPriority = 1000

// listOf returns the groups in discovery's order. Upstream's discovery is a list of
// APIServices: of two groups with the same priority, the first is the one with
// the least name of an APIService among its versions.
func listOf(groups map[string]*group) []Group {
	type entry struct {
		Group
		service string
	}
	all := make([]entry, 0, len(groups))
	for name, g := range groups {
		if len(g.versions) == 0 {
			continue
		}
		versions := slices.SortedFunc(maps.Keys(g.versions), func(a, b string) int { return version.CompareKubeAwareVersionStrings(b, a) })
		all = append(all, entry{Group{Name: name, Versions: versions, Priority: priority(name)}, slices.Min(versions) + "." + name})
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.service, b.service))
	})
	list := make([]Group, len(all))
	for i, e := range all {
		list[i] = e.Group
	}
	return list
}

func priority(group string) int {
	if p, ok := priorities[group]; ok {
		return p
	}
	return customPriority
}

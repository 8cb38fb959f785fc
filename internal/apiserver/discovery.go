package apiserver

import (
	"cmp"
	"crypto/sha512"
	stdjson "encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/discovery"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/apiserver/aggregation"
)

// discoveryCache keeps the discovery documents until the catalogue changes.
type discoveryCache struct {
	mu         sync.Mutex
	generation [2]uint64
	aggregated map[bool]*aggregatedDiscovery // by whether it is the core group
}

// aggregatedDiscovery is a list of groups, and its JSON.
type aggregatedDiscovery struct {
	list *apidiscovery.APIGroupDiscoveryList
	json []byte
	etag string
}

var aggregatedKinds = map[schema.GroupVersionKind]bool{
	{Group: "apidiscovery.k8s.io", Version: "v2", Kind: "APIGroupDiscoveryList"}: true,
}

// documents answers requests that are for no resource: discovery, OpenAPI, health,
// metrics and other paths.
type documents struct{ *call }

// serveDiscovery answers below /api and /apis; it returns false if the path is
// not one of discovery.
func (r documents) serveDiscovery(parts []string) (bool, error) {
	groups := r.s.groups()
	switch {
	case len(parts) == 1:
		a, err := r.accept(func(k schema.GroupVersionKind) bool { return aggregatedKinds[k] })
		if err != nil {
			return true, err
		}
		core := parts[0] == "api"
		if !a.as.Empty() {
			return true, r.writeAggregated(a, core)
		}
		if core {
			v := &metav1.APIVersions{Versions: []string{"v1"}, ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: r.req.Host}}}
			v.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "APIVersions"})
			return true, r.writeAs(http.StatusOK, a, v)
		}
		l := &metav1.APIGroupList{Groups: []metav1.APIGroup{}}
		l.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "APIGroupList"})
		for _, g := range groups {
			if g.Name != "" {
				l.Groups = append(l.Groups, *apiGroup(g.Name, g.Versions))
			}
		}
		return true, r.writeAs(http.StatusOK, a, l)
	case parts[0] == "apis" && len(parts) == 2:
		for _, g := range groups {
			if g.Name == parts[1] && g.Name != "" {
				a, err := r.accept(nil)
				if err != nil {
					return true, err
				}
				out := apiGroup(g.Name, g.Versions)
				out.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "APIGroup"})
				return true, r.writeAs(http.StatusOK, a, out)
			}
		}
	case parts[0] == "api" && len(parts) == 2 || parts[0] == "apis" && len(parts) == 3:
		gv := schema.GroupVersion{Version: parts[len(parts)-1]}
		if parts[0] == "apis" {
			gv.Group = parts[1]
		}
		if r.aggregated(gv.Group, gv.Version) {
			return true, nil
		}
		l := &metav1.APIResourceList{GroupVersion: gv.String(), APIResources: []metav1.APIResource{}}
		l.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "APIResourceList"})
		for _, row := range byName(r.s.Catalogue.RowsOf(gv)) {
			l.APIResources = append(l.APIResources, apiResources(r.s.Catalogue, row)...)
		}
		if len(l.APIResources) == 0 {
			return false, nil
		}
		a, err := r.accept(nil)
		if err != nil {
			return true, err
		}
		return true, r.writeAs(http.StatusOK, a, l)
	}
	return false, nil
}

// generation returns numbers that change when the served groups change, here or
// on aggregated servers.
func (s *Server) generation() [2]uint64 {
	g := [2]uint64{s.Catalogue.Generation()}
	if s.Aggregation != nil {
		g[1] = s.Aggregation.Generation()
	}
	return g
}

// groups returns the groups that this server and others serve, in the order of
// their priorities.
func (s *Server) groups() []catalogue.Group {
	groups := s.Catalogue.Groups()
	if s.Aggregation == nil {
		return groups
	}
	others := s.Aggregation.Groups()
	if len(others) == 0 {
		return groups
	}
	groups = slices.Clone(groups)
	for _, o := range others {
		i := slices.IndexFunc(groups, func(g catalogue.Group) bool { return g.Name == o.Name })
		if i < 0 {
			i, groups = len(groups), append(groups, catalogue.Group{Name: o.Name})
		}
		groups[i].Priority = max(groups[i].Priority, int(o.Priority))
		versions := slices.Clone(groups[i].Versions)
		for _, v := range o.Versions {
			if !slices.Contains(versions, v.Name) {
				versions = append(versions, v.Name)
			}
		}
		groups[i].Versions = versions
	}
	slices.SortStableFunc(groups, func(a, b catalogue.Group) int { return b.Priority - a.Priority })
	return groups
}

// remoteVersions returns the group versions that other servers serve.
func (s *Server) remoteVersions() map[schema.GroupVersion]aggregation.Version {
	if s.Aggregation == nil {
		return nil
	}
	m := map[schema.GroupVersion]aggregation.Version{}
	for _, g := range s.Aggregation.Groups() {
		for _, v := range g.Versions {
			m[schema.GroupVersion{Group: g.Name, Version: v.Name}] = v
		}
	}
	return m
}

func apiGroup(name string, versions []string) *metav1.APIGroup {
	g := &metav1.APIGroup{Name: name}
	for _, v := range versions {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + v, Version: v})
	}
	g.PreferredVersion = g.Versions[0]
	return g
}

var updateVerbs = []string{"get", "patch", "update"}

// The verbs and subresources of custom resources are listed in another order than
// those of built-in ones, and a resource whose definition is being deleted has
// fewer verbs.
var (
	customVerbs      = []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}
	terminatingVerbs = []string{"delete", "deletecollection", "get", "list", "watch"}
)

func discoveredVerbs(row *api.Resource) []string {
	switch {
	case !isUnstructured(row):
		return row.ServedVerbs()
	case row.Terminating != "":
		return terminatingVerbs
	}
	return customVerbs
}

// byName returns the rows in the order in which a version's resources are
// listed.
func byName(rows []*api.Resource) []*api.Resource {
	return slices.SortedFunc(slices.Values(rows), func(a, b *api.Resource) int { return strings.Compare(a.Resource, b.Resource) })
}

// apiResources returns the resource and its subresources in discovery's form.
func apiResources(rows *catalogue.Catalogue, row *api.Resource) []metav1.APIResource {
	out := []metav1.APIResource{{
		Name: row.Resource, SingularName: row.Singular, Namespaced: row.Namespaced, Kind: row.Kind,
		Verbs: discoveredVerbs(row), ShortNames: row.ShortNames, Categories: row.Categories,
		StorageVersionHash: storageVersionHash(rows, row),
	}}
	for _, sub := range subresources(row) {
		kind := sub.Kind
		if kind.GroupVersion() == row.GroupVersion() {
			kind.Group, kind.Version = "", ""
		}
		out = append(out, metav1.APIResource{
			Name: row.Resource + "/" + sub.Name, Namespaced: row.Namespaced, Group: kind.Group, Version: kind.Version, Kind: kind.Kind, Verbs: sub.Verbs,
		})
	}
	return out
}

// storageVersionHash returns a hash by which clients see that the storage version
// of a resource has changed; it is empty for a resource that is not stored.
func storageVersionHash(rows *catalogue.Catalogue, row *api.Resource) string {
	if row.NotStored {
		return ""
	}
	if row.Hub != nil {
		hub := row.Hub.Resource
		if row = rows.Lookup(hub.Group, hub.Version, hub.Resource); row == nil {
			return ""
		}
	}
	return discovery.StorageVersionHash(row.Group, row.Version, row.Kind)
}

func subresources(row *api.Resource) []api.Subresource {
	var subs []api.Subresource
	if row.Status != nil {
		subs = append(subs, api.Subresource{Name: "status", Kind: row.GVK(), Verbs: updateVerbs})
	}
	if row.Scale != nil {
		subs = append(subs, api.Subresource{Name: "scale", Kind: schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, Verbs: updateVerbs})
	}
	for name := range row.Updates {
		verbs := updateVerbs
		if name == "finalize" {
			verbs = []string{"update"}
		}
		subs = append(subs, api.Subresource{Name: name, Kind: row.GVK(), Verbs: verbs})
	}
	subs = append(subs, row.Subresources...)
	if !isUnstructured(row) {
		sort.Slice(subs, func(i, j int) bool { return subs[i].Name < subs[j].Name })
	}
	return subs
}

func (r documents) writeAggregated(a accepted, core bool) error {
	d, err := r.s.aggregated(core)
	if err != nil {
		return err
	}
	h := r.w.Header()
	h.Set("ETag", d.etag)
	h.Set("Vary", "Accept")
	if r.req.Header.Get("If-None-Match") == d.etag {
		r.code = http.StatusNotModified
		r.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	contentType := a.mediaType + ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	if a.mediaType == typeJSON {
		return r.write(http.StatusOK, contentType, d.json, []byte{'\n'})
	}
	w := &typedWriter{ResponseWriter: r.w, contentType: contentType}
	c := *r.call
	c.w = w
	err = c.writeAs(http.StatusOK, a, d.list)
	r.code = c.code
	return err
}

// typedWriter overrides the content type of an answer.
type typedWriter struct {
	http.ResponseWriter
	contentType string
}

func (w *typedWriter) WriteHeader(code int) {
	w.Header().Set("Content-Type", w.contentType)
	w.ResponseWriter.WriteHeader(code)
}

func (s *Server) aggregated(core bool) (*aggregatedDiscovery, error) {
	d := &s.discovery
	d.mu.Lock()
	defer d.mu.Unlock()
	if gen := s.generation(); d.aggregated == nil || d.generation != gen {
		d.generation, d.aggregated = gen, map[bool]*aggregatedDiscovery{}
	}
	if l := d.aggregated[core]; l != nil {
		return l, nil
	}
	l := &apidiscovery.APIGroupDiscoveryList{Items: []apidiscovery.APIGroupDiscovery{}}
	l.SetGroupVersionKind(apidiscovery.SchemeGroupVersion.WithKind("APIGroupDiscoveryList"))
	remote := s.remoteVersions()
	groups := slices.Clone(s.groups())
	// In this document groups of equal priority are ordered by name.
	slices.SortFunc(groups, func(a, b catalogue.Group) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name))
	})
	for _, g := range groups {
		if (g.Name == "") != core {
			continue
		}
		item := apidiscovery.APIGroupDiscovery{}
		item.Name = g.Name
		for _, v := range g.Versions {
			if other, ok := remote[schema.GroupVersion{Group: g.Name, Version: v}]; ok {
				item.Versions = append(item.Versions, other.Discovery)
				continue
			}
			vd := apidiscovery.APIVersionDiscovery{Version: v, Freshness: apidiscovery.DiscoveryFreshnessCurrent}
			for _, row := range byName(s.Catalogue.RowsOf(schema.GroupVersion{Group: g.Name, Version: v})) {
				vd.Resources = append(vd.Resources, resourceDiscovery(row))
			}
			item.Versions = append(item.Versions, vd)
		}
		l.Items = append(l.Items, item)
	}
	b, err := stdjson.Marshal(l)
	if err != nil {
		return nil, err
	}
	d.aggregated[core] = &aggregatedDiscovery{l, b, fmt.Sprintf("\"%X\"", sha512.Sum512(b))}
	return d.aggregated[core], nil
}

func resourceDiscovery(row *api.Resource) apidiscovery.APIResourceDiscovery {
	scope := apidiscovery.ScopeCluster
	if row.Namespaced {
		scope = apidiscovery.ScopeNamespace
	}
	kind := func(k schema.GroupVersionKind) *metav1.GroupVersionKind {
		if k.GroupVersion() == row.GroupVersion() && !isUnstructured(row) {
			return &metav1.GroupVersionKind{Kind: k.Kind} // an empty kind is that of the list
		}
		return &metav1.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Kind}
	}
	d := apidiscovery.APIResourceDiscovery{
		Resource: row.Resource, ResponseKind: kind(row.GVK()), Scope: scope, SingularResource: row.Singular,
		Verbs: discoveredVerbs(row), ShortNames: row.ShortNames, Categories: row.Categories,
	}
	for _, sub := range subresources(row) {
		d.Subresources = append(d.Subresources, apidiscovery.APISubresourceDiscovery{Subresource: sub.Name, ResponseKind: kind(sub.Kind), Verbs: sub.Verbs})
	}
	return d
}

// serveNonResource answers requests for paths that are no resource.
func (r documents) serveNonResource() error {
	path := strings.Trim(r.req.URL.Path, "/")
	if h := r.s.further(r.req.URL.Path); h != nil {
		r.code = http.StatusOK
		h.ServeHTTP(r.w, r.req)
		return nil
	}
	parts := strings.Split(path, "/")
	if len(parts) > 1 && parts[0] == "debug" && (parts[1] == "pprof" || parts[1] == "flags") && r.s.debug != nil {
		r.code = http.StatusOK
		r.s.debug.ServeHTTP(r.w, r.req)
		return nil
	}
	if len(parts) > 1 && parts[0] == "debug" && parts[1] == "api_priority_and_fairness" && r.s.fairness != nil && r.s.fairness.debug != nil {
		r.code = http.StatusOK
		r.s.fairness.debug.ServeHTTP(r.w, r.req)
		return nil
	}
	if r.req.Method != http.MethodGet && r.req.Method != http.MethodHead {
		return r.notFoundPath()
	}
	switch parts[0] {
	case "api", "apis":
		if done, err := r.serveDiscovery(parts); done {
			return err
		}
	case "healthz", "livez", "readyz":
		return r.health(parts)
	case "logs":
		if r.s.NoLogs {
			break
		}
		r.code = http.StatusOK
		http.StripPrefix("/logs", http.FileServer(http.Dir("/var/log"))).ServeHTTP(r.w, r.req)
		return nil
	case "version":
		if len(parts) == 1 {
			b, err := stdjson.MarshalIndent(r.s.Version, "", "  ")
			if err != nil {
				return err
			}
			return r.write(http.StatusOK, typeJSON, b)
		}
	case "metrics":
		switch path {
		case "metrics":
			return r.serveMetrics()
		case "metrics/slis":
			return r.serveSLIs()
		}
	case "openapi":
		return r.serveOpenAPI(parts)
	case "":
		b, err := stdjson.MarshalIndent(map[string][]string{"paths": r.paths()}, "", "  ")
		if err != nil {
			return err
		}
		return r.write(http.StatusOK, typeJSON, b)
	}
	return r.notFoundPath()
}

// further returns the handler of Paths for a path; nil if there is none.
func (s *Server) further(path string) http.Handler {
	if h := s.Paths["/"+strings.Trim(path, "/")]; h != nil {
		return h
	}
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '/' {
			if h := s.Paths[path[:i+1]]; h != nil {
				return h
			}
		}
	}
	return s.Paths[path+"/"]
}

func (r documents) paths() []string {
	out := []string{"/api", "/api/v1", "/apis", "/apis/"}
	for _, g := range r.s.groups() {
		if g.Name == "" {
			continue
		}
		out = append(out, "/apis/"+g.Name)
		for _, v := range g.Versions {
			out = append(out, "/apis/"+g.Name+"/"+v)
		}
	}
	out = append(out, "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/version")
	for _, path := range []string{"healthz", "livez", "readyz"} {
		out = append(out, "/"+path)
		for name := range r.s.healthChecks(path) {
			out = append(out, "/"+path+"/"+name)
		}
	}
	for path := range r.s.Paths {
		if !strings.HasPrefix(path, "/debug/") {
			out = append(out, path)
		}
	}
	if !r.s.NoLogs {
		out = append(out, "/logs")
	}
	sort.Strings(out)
	return out
}

// Package zpages serves upstream's pages about a component: /statusz and /flagz
// (KEP-4827, KEP-4828). It may import package features.
package zpages

import (
	"maps"
	"net/http"
	"slices"
	"sync"

	"k8s.io/apiserver/pkg/server/flagz"
	"k8s.io/apiserver/pkg/server/statusz"
	"k8s.io/component-base/compatibility"

	"keelson.dev/keelson/internal/apiserver/features"
)

// pages are handlers by their path.
type pages map[string]http.Handler

// Handle has h serve path.
func (p pages) Handle(path string, h http.Handler) { p[path] = h }

// page installs one of upstream's pages when it is first asked for: few ever are.
func (p pages) page(path string, install func(pages)) {
	h := sync.OnceValue(func() http.Handler {
		own := pages{}
		install(own)
		return own[path]
	})
	p[path] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h().ServeHTTP(w, r) })
}

// listedPaths are the paths that /statusz names beside the server's own handlers.
var listedPaths = []string{"/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"}

// Add adds the pages of the API server to the handlers by path, unless gates
// switches them off: version is the one that it has, flags are those of its process.
func Add(to map[string]http.Handler, gates features.Gates, version string, flags map[string]string) {
	p := pages(to)
	if gates.Enabled(features.ComponentStatusz) {
		paths := slices.Sorted(maps.Keys(to))
		p.page(statusz.DefaultStatuszPath, func(own pages) {
			v := compatibility.NewEffectiveVersionFromString(version, "", "")
			statusz.Install(own, "kube-apiserver", statusz.NewRegistry(v, statusz.WithListedPaths(slices.Concat(listedPaths, paths))))
		})
	}
	if gates.Enabled(features.ComponentFlagz) {
		p.page(flagz.DefaultFlagzPath, func(own pages) { flagz.Install(own, "kube-apiserver", flagReader(flags)) })
	}
}

// flagReader implements flagz.Reader.
type flagReader map[string]string

// GetFlagz implements flagz.Reader.
func (f flagReader) GetFlagz() map[string]string { return f }

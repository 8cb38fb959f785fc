package cluster

import (
	"maps"
	"net/http"
	"slices"
	"sync"

	"k8s.io/apiserver/pkg/server/flagz"
	"k8s.io/apiserver/pkg/server/statusz"
	"k8s.io/component-base/compatibility"
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

// addZPages adds /statusz and /flagz (KEP-4827, KEP-4828), unless they are switched off.
func (c *Cluster) addZPages(to pages) {
	if c.Features.Enabled(ComponentStatusz) {
		paths := slices.Sorted(maps.Keys(to))
		to.page(statusz.DefaultStatuszPath, func(p pages) {
			version := compatibility.NewEffectiveVersionFromString(Version.GitVersion, "", "")
			statusz.Install(p, "kube-apiserver", statusz.NewRegistry(version, statusz.WithListedPaths(slices.Concat(listedPaths, paths))))
		})
	}
	if c.Features.Enabled(ComponentFlagz) {
		to.page(flagz.DefaultFlagzPath, func(p pages) { flagz.Install(p, "kube-apiserver", flagReader(c.Flags)) })
	}
}

// flagReader implements flagz.Reader.
type flagReader map[string]string

// GetFlagz implements flagz.Reader.
func (f flagReader) GetFlagz() map[string]string { return f }

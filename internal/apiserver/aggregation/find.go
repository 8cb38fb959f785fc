package aggregation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/transport"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"keelson.dev/keelson/internal/apiserver/answer"
)

const (
	// checkTimeout bounds one request of a check, as upstream does.
	checkTimeout = 5 * time.Second
	// checkTries is how many endpoints may fail before the service does.
	checkTries = 5
)

const aggregatedDiscovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"

// Check asks the APIService's server for its group version, and says why that
// fails in the words of the Available condition.
func (r *Registry) Check(ctx context.Context, a *v1.APIService) error {
	b, err := r.remote(a)
	if err != nil {
		return err
	}
	path := gvPath(groupVersion(a))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err = r.try(ctx, b, path); err == nil {
		return nil
	}
	// Another endpoint may do better; none has to wait for one that hangs.
	results := make(chan error, checkTries-1)
	for range cap(results) {
		go func() { results <- r.try(ctx, b, path) }()
	}
	for range cap(results) {
		if err = <-results; err == nil {
			return nil
		}
	}
	return err
}

func (r *Registry) try(ctx context.Context, b *backend, path string) error {
	resp, url, err := r.get(ctx, b, path, "", "")
	if err != nil && url == "" {
		return err // the service has no endpoint
	}
	if err != nil {
		return fmt.Errorf("failing or missing response from %v: %w", url, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return fmt.Errorf("failing or missing response from %v: bad status from %v: %d", url, url, resp.StatusCode)
	}
	return nil
}

// get asks b's server as the aggregator, which may see everything.
func (r *Registry) get(ctx context.Context, b *backend, path, accept, tag string) (resp *http.Response, url string, err error) {
	host, err := r.resolve(b)
	if err != nil {
		return nil, "", err
	}
	url = "https://" + host + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, url, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if tag != "" {
		req.Header.Set("If-None-Match", tag)
	}
	transport.SetAuthProxyHeaders(req, "system:kube-aggregator", "", []string{"system:masters"}, nil)
	c := http.Client{Transport: answer.Bounded(b.transport, answer.MaxBytes), Timeout: checkTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err = c.Do(req)
	return resp, url, err
}

// read gets a document; nil where the server has none, or has not changed it.
func (r *Registry) read(ctx context.Context, b *backend, path, accept, tag string) (body []byte, header http.Header, err error) {
	resp, url, err := r.get(ctx, b, path, accept, tag)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		body, err = io.ReadAll(resp.Body)
		return body, resp.Header, err
	case http.StatusNotFound, http.StatusNotModified, http.StatusNotAcceptable:
		return nil, resp.Header, nil
	}
	return nil, nil, fmt.Errorf("%s answered %s", url, resp.Status)
}

// Refresh reads what the server says of its group version: the resources, and
// its OpenAPI documents. What it cannot read stays as it was found before.
func (r *Registry) Refresh(ctx context.Context, a *v1.APIService) error {
	b, err := r.remote(a)
	if err != nil {
		return err
	}
	gv := groupVersion(a)
	next := &findings{discovery: unknown(gv.Version)}
	if b.found != nil {
		*next = *b.found
	}
	discovery, notDiscovered := r.discover(ctx, b, gv)
	if notDiscovered == nil {
		next.discovery = discovery
	}
	doc, header, noV2 := r.read(ctx, b, "/openapi/v2", "application/json", next.v2Tag)
	switch {
	case noV2 != nil:
	case doc != nil || header.Get("ETag") != next.v2Tag:
		next.openapiV2, next.v2Tag = doc, header.Get("ETag")
	}
	url, noV3 := r.v3URL(ctx, b, gv)
	if noV3 == nil {
		next.openapiV3 = url
	}
	r.change(func(m map[schema.GroupVersion]*backend) bool {
		now := m[gv]
		if now == nil || now.found != nil && same(now.found, next) {
			return false
		}
		changed := *now
		changed.found = next
		m[gv] = &changed
		return true
	})
	return errors.Join(notDiscovered, noV2, noV3)
}

// unknown returns the discovery of a version whose server has not been asked.
func unknown(version string) apidiscovery.APIVersionDiscovery {
	return apidiscovery.APIVersionDiscovery{Version: version, Freshness: apidiscovery.DiscoveryFreshnessStale}
}

func same(a, b *findings) bool {
	return a.v2Tag == b.v2Tag && a.v2Tag != "" && a.openapiV3 == b.openapiV3 && fmt.Sprint(a.discovery) == fmt.Sprint(b.discovery)
}

// discover reads the group version's resources, in the aggregated form or, from
// older servers, in the classic one.
func (r *Registry) discover(ctx context.Context, b *backend, gv schema.GroupVersion) (apidiscovery.APIVersionDiscovery, error) {
	none := apidiscovery.APIVersionDiscovery{}
	body, header, err := r.read(ctx, b, "/apis", aggregatedDiscovery, "")
	if err != nil {
		return none, err
	}
	if body != nil && strings.Contains(header.Get("Content-Type"), "as=APIGroupDiscoveryList") {
		var list apidiscovery.APIGroupDiscoveryList
		if err := json.Unmarshal(body, &list); err != nil {
			return none, err
		}
		for _, g := range list.Items {
			for _, v := range g.Versions {
				if g.Name == gv.Group && v.Version == gv.Version {
					v.Freshness = apidiscovery.DiscoveryFreshnessCurrent
					return v, nil
				}
			}
		}
		// An adapter of metrics lists none of its resources, which are as many as there are
		// metrics: the version is served all the same.
		return apidiscovery.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscovery.DiscoveryFreshnessCurrent}, nil
	}
	if body, _, err = r.read(ctx, b, gvPath(gv), "application/json", ""); err != nil {
		return none, err
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil {
		return none, errors.Join(fmt.Errorf("reading the resources of %s", gv), err)
	}
	return aggregated(gv, list.APIResources), nil
}

// aggregated returns classic discovery in the aggregated form.
func aggregated(gv schema.GroupVersion, resources []metav1.APIResource) apidiscovery.APIVersionDiscovery {
	out := apidiscovery.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscovery.DiscoveryFreshnessCurrent}
	at := map[string]int{}
	kind := func(r *metav1.APIResource) *metav1.GroupVersionKind {
		k := &metav1.GroupVersionKind{Group: gv.Group, Version: gv.Version, Kind: r.Kind}
		if r.Version != "" {
			k.Group, k.Version = r.Group, r.Version
		}
		return k
	}
	for i := range resources {
		r := &resources[i]
		if strings.Contains(r.Name, "/") {
			continue
		}
		scope := apidiscovery.ScopeCluster
		if r.Namespaced {
			scope = apidiscovery.ScopeNamespace
		}
		at[r.Name] = len(out.Resources)
		out.Resources = append(out.Resources, apidiscovery.APIResourceDiscovery{
			Resource: r.Name, ResponseKind: kind(r), Scope: scope, SingularResource: r.SingularName, Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
		})
	}
	for i := range resources {
		r := &resources[i]
		name, sub, ok := strings.Cut(r.Name, "/")
		if j, known := at[name]; ok && known {
			out.Resources[j].Subresources = append(out.Resources[j].Subresources, apidiscovery.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind(r), Verbs: r.Verbs})
		}
	}
	return out
}

// v3URL finds the group version's document in the server's index.
func (r *Registry) v3URL(ctx context.Context, b *backend, gv schema.GroupVersion) (string, error) {
	body, _, err := r.read(ctx, b, "/openapi/v3", "application/json", "")
	if err != nil || body == nil {
		return "", err
	}
	var index struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return "", fmt.Errorf("reading the index of the OpenAPI documents: %w", err)
	}
	return index.Paths[strings.TrimPrefix(gvPath(gv), "/")].ServerRelativeURL, nil
}

func gvPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

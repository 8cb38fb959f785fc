package controlplane

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/core"
	"keelson.dev/keelson/internal/api/metrics"
	"keelson.dev/keelson/internal/apiserver"
	"keelson.dev/keelson/internal/apiserver/live"
	"keelson.dev/keelson/internal/apiserver/usage"
	"keelson.dev/keelson/internal/reconcile"
)

// newMeter makes the meter of nodes and pods for metrics.k8s.io.
func (c *Instance) newMeter(reader *live.Reader) *usage.Meter {
	return usage.New(usage.Config{
		Nodes: c.Informers.Core().V1().Nodes().Lister(), Pods: c.Informers.Core().V1().Pods().Lister(), OfNode: reader.PodsOf,
		Agent: func(ctx context.Context, n *v1.Node) (*url.URL, http.RoundTripper, error) {
			return c.nodes.Node(ctx, n, false)
		},
		Simulated: core.Simulated, Clock: c.Clock,
	})
}

// computed returns the resources that metrics.k8s.io computes.
func computed(m *usage.Meter) map[schema.GroupResource]apiserver.Computed {
	return map[schema.GroupResource]apiserver.Computed{
		{Group: metrics.GroupName, Resource: "nodes"}: usage.Nodes{Meter: m},
		{Group: metrics.GroupName, Resource: "pods"}:  usage.Pods{Meter: m},
	}
}

// yieldMetrics leaves metrics.k8s.io to the server of an APIService, in all
// versions: clients that prefer one which that server lacks would get other figures
// from here.
func (c *Instance) yieldMetrics() {
	informer := c.Informers.InformerFor(&apiregistrationv1.APIService{}, nil)
	var rows []*api.Resource
	var gvrs []schema.GroupVersionResource
	for _, r := range c.Catalogue.All() {
		if r.Group == metrics.GroupName {
			rows, gvrs = append(rows, r), append(gvrs, r.GroupVersionResource)
		}
	}
	here := true
	serve := func() {
		taken := slices.ContainsFunc(informer.GetStore().List(), func(o any) bool {
			a := o.(*apiregistrationv1.APIService)
			return a.Spec.Group == metrics.GroupName && a.Spec.Service != nil
		})
		switch {
		case taken && here:
			c.Catalogue.Remove(gvrs...)
		case !taken && !here:
			c.Catalogue.Add(rows...)
		}
		here = !taken
	}
	relevant := func(a *apiregistrationv1.APIService) {
		if a.Spec.Group == metrics.GroupName {
			serve()
		}
	}
	reconcile.Handle[*apiregistrationv1.APIService](informer, relevant, nil, nil)
}

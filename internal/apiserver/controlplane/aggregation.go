package controlplane

import (
	"sync"

	"k8s.io/apiserver/pkg/util/webhook"
	apiregistration "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"

	"keelson.dev/keelson/internal/apiserver/aggregation"
	"keelson.dev/keelson/internal/apiserver/apiservice"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/apiserver/serviceresolver"
)

// frontProxyClient is the name by which aggregated API servers know this one.
const frontProxyClient = "front-proxy-client"

// serviceResolver gives the addresses of Services to all parts of the process
// that call them.
func (c *Instance) serviceResolver() (webhook.ServiceResolver, error) {
	if c.services == nil {
		var err error
		if c.services, err = serviceresolver.New(c.Informers, func() string { return c.Address }); err != nil {
			return nil, err
		}
	}
	return c.services, nil
}

// aggregation makes the registry of the API groups of other API servers.
func (c *Instance) aggregation() (*aggregation.Registry, error) {
	resolver, err := c.serviceResolver()
	if err != nil {
		return nil, err
	}
	identity := sync.OnceValues(c.proxyClient)
	return aggregation.New(resolver, identity), nil
}

// startAggregation keeps the APIServices.
func (c *Instance) startAggregation() error {
	client, err := apiregistration.NewForConfig(c.Config(inprocess.APIServer))
	if err != nil {
		return err
	}
	run := apiservice.New(apiservice.Options{
		Client: client, Informers: c.Informers, Registry: c.Server.Aggregation, Catalogue: c.Catalogue, Clock: c.Clock,
	})
	c.Process.Go(func() { run(c.Process.Ctx) })
	return nil
}

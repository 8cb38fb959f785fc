package cluster

import (
	"sync"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/util/webhook"
	apiregistration "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"

	"keelson.dev/keelson/internal/apiserver/aggregation"
	"keelson.dev/keelson/internal/apiserver/apiservice"
	"keelson.dev/keelson/internal/apiserver/serviceresolver"
)

// frontProxyClient is the name by which aggregated API servers know this one.
const frontProxyClient = "front-proxy-client"

// apiServer is the API server as its own client.
var apiServer = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}

// serviceResolver gives the addresses of Services to all parts of the process
// that call them.
func (c *Cluster) serviceResolver() (webhook.ServiceResolver, error) {
	if c.services == nil {
		var err error
		if c.services, err = serviceresolver.New(c.Informers, func() string { return c.Address }); err != nil {
			return nil, err
		}
	}
	return c.services, nil
}

// aggregation makes the registry of what other API servers serve.
func (c *Cluster) aggregation() (*aggregation.Registry, error) {
	resolver, err := c.serviceResolver()
	if err != nil {
		return nil, err
	}
	identity := sync.OnceValues(c.proxyClient)
	return aggregation.New(resolver, identity), nil
}

// startAggregation keeps the APIServices.
func (c *Cluster) startAggregation() error {
	client, err := apiregistration.NewForConfig(c.Config(apiServer))
	if err != nil {
		return err
	}
	run := apiservice.New(apiservice.Options{
		Client: client, Informers: c.Informers, Registry: c.Server.Aggregation, Catalogue: c.Catalogue, Clock: c.Clock,
	})
	c.wg.Go(func() { run(c.ctx) })
	return nil
}

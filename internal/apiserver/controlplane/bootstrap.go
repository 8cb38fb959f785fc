package controlplane

import (
	"fmt"
	"os"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/apiserver/seed"
)

// bootstrap stores the objects that a cluster has from its first start.
func (c *Instance) bootstrap() error {
	var ranges []string
	for _, r := range c.ServiceRanges() {
		ranges = append(ranges, r.Masked().String())
	}
	objs, err := seed.Objects(ranges...)
	if err != nil {
		return err
	}
	others, err := c.extensionAuthentication()
	if err != nil {
		return err
	}
	s := &seed.Seeder{Store: c.Store, Catalogue: c.Catalogue, Clock: c.Clock}
	return s.Run(c.Process.Ctx, append(objs, others))
}

// extensionAuthentication tells aggregated API servers how to authenticate
// requests that are passed on from here, and clients that connect directly.
func (c *Instance) extensionAuthentication() (*v1.ConfigMap, error) {
	proxies, err := c.Authentication.RequestHeader.Published(c.Certs.FrontProxy.CAPEM, []string{frontProxyClient})
	if err != nil {
		return nil, err
	}
	clients := string(c.Certs.CAPEM)
	if c.Authentication.ClientCAFile != "" {
		more, err := os.ReadFile(c.Authentication.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("--client-ca-file: %w", err)
		}
		clients += string(more)
	}
	proxies["client-ca-file"] = clients
	return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "extension-apiserver-authentication"}, Data: proxies}, nil
}

package cluster

import (
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/apiserver/seed"
)

// quiet drops what net/http says about clients' broken connections.
var quiet = log.New(discard{}, "", 0)

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func hostname() string {
	h, _ := os.Hostname()
	return h
}

// advertised is the machine's address towards its default route, else
// loopback. Nothing is sent.
func advertised() netip.Addr {
	if conn, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer conn.Close()
		if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			return a.AddrPort().Addr().Unmap()
		}
	}
	return netip.MustParseAddr("127.0.0.1")
}

func (c *Cluster) row(group, version, resource string) *api.Resource {
	r := c.Catalogue.Lookup(group, version, resource)
	if r == nil {
		panic(fmt.Sprintf("the catalogue has no %s/%s %s", group, version, resource))
	}
	return r
}

// bootstrap stores the objects that a cluster has from its first start.
func (c *Cluster) bootstrap() error {
	objs, err := seed.Objects(c.ServiceCIDR.String())
	if err != nil {
		return err
	}
	others, err := c.extensionAuthentication()
	if err != nil {
		return err
	}
	s := &seed.Seeder{Store: c.Store, Catalogue: c.Catalogue, Clock: c.Clock}
	return s.Run(c.ctx, append(objs, others))
}

// extensionAuthentication tells aggregated API servers how to authenticate
// requests that are passed on from here, and clients that connect directly.
func (c *Cluster) extensionAuthentication() (*v1.ConfigMap, error) {
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

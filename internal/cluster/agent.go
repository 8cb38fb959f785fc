package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"

	v1 "k8s.io/api/core/v1"

	"keelson.dev/keelson/internal/agent"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/store"
)

// StartAgent starts the node on the machine, in this process, and returns when
// the node is Ready or ctx ends.
func (c *Cluster) StartAgent(ctx context.Context, m *machine.Machine, o agent.Options) error {
	u := o.User()
	issue := func(ips []net.IP) (tls.Certificate, error) {
		names := []string{o.NodeName(), "127.0.0.1"}
		for _, ip := range ips {
			names = append(names, ip.String())
		}
		pair, err := c.Certs.ServingCert(u.GetName(), names)
		if err != nil {
			return tls.Certificate{}, err
		}
		return pair.TLS()
	}
	var address netip.Addr
	if !c.FollowsAddress {
		address = c.Advertise
	}
	if err := agent.Start(m, o, agent.Server{
		Process: c.Process, Step: c.Step, Informers: c.Informers, Clock: c.Clock, Node: c.Client(u), Admin: c.Client(inprocess.APIServer),
		Measured: c.Meter.Local, Trace: c.Trace.Reporter, Address: address, ServiceCIDR: c.ServiceCIDR, ClientCA: c.Certs.CAPEM, Issue: issue,
	}); err != nil {
		return err
	}
	return c.waitNode(ctx, o.NodeName())
}

// waitNode returns when the node is Ready.
func (c *Cluster) waitNode(ctx context.Context, name string) error {
	return c.Step("node ready", func() error {
		defer c.Why.Store("")
		w, err := c.Store.Watch(c.Catalogue.Must("", "v1", "nodes").Key("", name), store.WatchOptions{})
		if err != nil {
			return err
		}
		defer w.Stop()
		for {
			e, err := c.Store.Get(ctx, c.Catalogue.Must("", "v1", "nodes").Key("", name))
			if err != nil {
				return err
			}
			why := "it has not registered"
			if e != nil {
				for _, cond := range e.Object().(*v1.Node).Status.Conditions {
					if cond.Type == v1.NodeReady {
						if cond.Status == v1.ConditionTrue {
							return nil
						}
						why = cond.Message
					}
				}
			}
			c.Why.Store(": " + why)
			if _, err := w.Next(ctx); err != nil {
				return fmt.Errorf("node %s is not ready: %s", name, why)
			}
		}
	})
}

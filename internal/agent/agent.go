package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/apiserver/usage"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/network/policy"
	"keelson.dev/keelson/internal/network/reserved"
	"keelson.dev/keelson/internal/node"
	"keelson.dev/keelson/internal/node/credentials"
	"keelson.dev/keelson/internal/node/dra"
	"keelson.dev/keelson/internal/node/images"
	"keelson.dev/keelson/internal/node/pod"
	"keelson.dev/keelson/internal/node/server"
	"keelson.dev/keelson/internal/node/source"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/node/volume/csi"
	"keelson.dev/keelson/internal/node/volume/plugins"
	"keelson.dev/keelson/internal/trace"
)

// reconnect closes the connections to the API server, so that the next request opens
// another: the kernel would retry for minutes.
func (h *host) reconnect() {
	if h.connections != nil {
		h.connections.CloseAll()
	}
}

// host holds what the parts of a node share in its process, among them the client
// of the API server, which has the rights of the node and no others.
type host struct {
	// Process is ended if the agent cannot go on.
	*component.Process
	informers informers.SharedInformerFactory
	clock     clock.WithTicker
	client    kubernetes.Interface
	// measured, if set, is called with a function that measures the node from within
	// the process.
	measured func(node string, stats usage.Stats)
	// addresses are the node's.
	addresses *addresses
	// connections opens the connections to the API server. It is nil in the server's process.
	connections *connrotation.Dialer
	// provided are the addresses where the user has given them, so that a cloud is asked
	// for them.
	provided []net.IP
	// nodes is an informer of all nodes, where informers has this one only.
	nodes cache.SharedIndexInformer
	// allPods is an informer of the pods of all nodes, where informers has those of
	// this node only.
	allPods cache.SharedIndexInformer
	// services are the ranges of the Services' addresses at the start, and cidrs, where the
	// node may read them, those that there are now.
	services []netip.Prefix
	cidrs    cache.SharedIndexInformer
	// reserved are the addresses that Services may not have as external ones.
	reserved *reserved.Addresses
	// dns is the address of the cluster's name server; without one pods use the
	// machine's.
	dns     netip.Addr
	version string
	// trace returns what a part of the node reports its phases to.
	trace func(actor string) *trace.Reporter
	// clientCA is the authority, in PEM, of the client certificates that the node's
	// server accepts; certificate is the node's own.
	clientCA    []byte
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// start starts the agent, its server and its part of the cluster's network.
func (h *host) start(m *machine.Machine, o Options) error {
	var agent *node.Agent
	sources := source.New(h.client, o.Name, h.informers.Core().V1().Pods().Informer(), h.clock)
	devices := dra.New(h.client, o.Name, filepath.Join(m.Dir(), "dra.json"), h.clock)
	recorder := h.Recorder(h.client, "kubelet", o.Name)
	drivers := &csi.Plugin{Root: m.Root(), Node: o.Name, Client: h.client, Recorder: recorder, Clock: h.clock}
	nodes := h.informers.Core().V1().Nodes().Lister()
	volumes := &volume.Manager{Root: filepath.Join(m.Root(), "pods"), Clock: h.clock, Client: h.client,
		Plugins: append(plugins.All(sources, func() v1.ResourceList { return agent.Allocatable() }, m.Root(), h.client, h.clock), drivers),
		Node: func(context.Context) (map[string]string, error) {
			n, err := nodes.Get(o.Name)
			if err != nil {
				return nil, err
			}
			return n.Labels, nil
		}}
	var servers []string
	if h.dns.IsValid() {
		servers = []string{h.dns.String()}
	}
	policies, err := h.policies(o)
	if err != nil {
		return err
	}
	var providers *credentials.Providers
	if o.CredentialConfig != "" {
		if providers, err = credentials.Load(o.CredentialConfig, o.CredentialBin, h.client, sources, h.clock); err != nil {
			return err
		}
	}
	header, err := o.staticPodHeader()
	if err != nil {
		return err
	}
	agent, err = node.New(node.Config{
		NodeName: o.Name, Version: h.version, Client: h.client, Informers: h.informers, CRIEndpoint: m.Endpoint(), RootDir: m.Root(), LogDir: o.Logs,
		LogMaxSize: o.LogMaxSize, LogMaxFiles: o.LogMaxFiles, CgroupRoot: m.CgroupRoot(),
		MaxPods: o.MaxPods, KubeReserved: o.KubeReserved, SystemReserved: o.SystemReserved, Eviction: o.Eviction, ImageGC: o.ImageGC, Exclusive: o.Exclusive,
		Shutdown: o.Shutdown, MemoryQoS: o.MemoryQoS, LimitedSwap: o.Swap == LimitedSwap, SeccompDefault: o.SeccompDefault, MaxImages: o.MaxImages,
		PodsPerCore: o.PodsPerCore, LogPeriod: o.LogPeriod, MaxPulls: o.MaxPulls, MaxRestartPause: o.MaxRestartPause, VerifyPulls: o.VerifyPulls, VerifyPullsExcept: o.VerifyPullsExcept, StaticPods: o.StaticPods,
		StaticPodURL: o.StaticPodURL, StaticPodHeader: header,
		NodeIPs: h.addresses.ips, Port: int32(o.Port), PauseImage: images.Pause, Clock: h.clock, Hostname: o.Name,
		External: o.ExternalCloud, ProvidedIPs: h.provided, Unanswered: h.reconnect,
		ClusterDNS: servers, ClusterDomain: clusterDomain,
		HostPorts: m.HostPorts(), Policies: enforced(policies), AllowedUnsafeSysctls: o.AllowedUnsafeSysctls, CgroupDriver: o.CgroupDriver,
		Recorder: recorder, Trace: h.trace("kubelet"), Volumes: volumes, Sources: sources, Devices: devices, Credentials: providers,
		PodPidsLimit: o.PodPidsLimit, ResolvConf: o.ResolvConf, Labels: o.Labels, Taints: o.Taints, ProviderID: o.ProviderID,
	})
	if err != nil {
		return err
	}
	metrics := agent.Metrics().Registry
	metrics.MustRegister(volumes)
	volumes.Metrics, drivers.Calls = volume.NewMetrics(metrics), csi.NewCalls(metrics)
	if h.measured != nil {
		h.measured(o.Name, agent.Stats().CPUAndMemory)
	}
	if err := h.serve(agent, o); err != nil {
		return err
	}
	if err := h.startNetwork(m, agent, o); err != nil {
		return err
	}
	if err := h.followAddresses(agent, o); err != nil {
		return err
	}
	if h.addresses.now()[0].IsLoopback() {
		recorder.Event(&v1.ObjectReference{Kind: "Node", Name: o.Name, APIVersion: "v1"}, v1.EventTypeWarning, "AddressNotAvailable",
			"the machine has no default route, and so no address by which pods reach the API server: it is used when there is one; where there will be none, give --advertise-address (an agent --node-ip)")
	}
	h.startPlugins(m, agent, drivers, devices)
	h.startStorage(m, o, volumes)
	h.informers.StartWithContext(h.Ctx)
	if policies != nil {
		if h.allPods != nil {
			h.Go(func() { h.allPods.RunWithContext(h.Ctx) })
		}
		h.Go(func() {
			if err := policies.Run(h.Ctx); err != nil {
				klog.FromContext(h.Ctx).Error(err, "Network policies are not enforced anymore")
			}
		})
	}
	h.Go(func() {
		if err := sources.Run(h.Ctx, plugins.OnChange(h.Ctx, volumes)); err != nil {
			fmt.Fprintln(os.Stderr, "keelson: watching the objects of volumes: "+err.Error())
			h.End()
		}
	})
	h.Go(func() {
		if err := agent.Run(h.Ctx); err != nil {
			fmt.Fprintln(os.Stderr, "keelson: "+err.Error())
			h.End()
		}
	})
	return nil
}

// enforced returns c as an interface, which is nil if c is.
func enforced(c *policy.Controller) pod.Policies {
	if c == nil {
		return nil
	}
	return c
}

// serve serves the node's HTTP API. Its callers are authenticated and authorized
// by the API server.
func (h *host) serve(agent *node.Agent, o Options) error {
	l, err := net.Listen("tcp", net.JoinHostPort("", fmt.Sprint(o.Port)))
	if err != nil {
		return fmt.Errorf("%w: stop the program that listens there, or choose another port with --node-port", err)
	}
	access, err := server.NewAccess(o.Name, h.client, h.clientCA)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(h.clientCA)
	s := &http.Server{
		Handler:           server.New(agent, access, o.Server),
		TLSConfig:         &tls.Config{GetCertificate: h.certificate, ClientAuth: tls.RequestClientCert, ClientCAs: authorities, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 32 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
		// Streams are taken over from HTTP/1.1 connections only.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	h.Go(func() { _ = s.ServeTLS(l, "", "") })
	context.AfterFunc(h.Ctx, func() { s.Close() })
	return nil
}

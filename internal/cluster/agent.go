package cluster

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
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/apiserver/usage"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/network/policy"
	"keelson.dev/keelson/internal/node"
	"keelson.dev/keelson/internal/node/cgroup"
	"keelson.dev/keelson/internal/node/credentials"
	"keelson.dev/keelson/internal/node/dra"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/imagegc"
	"keelson.dev/keelson/internal/node/images"
	"keelson.dev/keelson/internal/node/pod"
	"keelson.dev/keelson/internal/node/server"
	"keelson.dev/keelson/internal/node/source"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/node/volume/csi"
	"keelson.dev/keelson/internal/node/volume/plugins"
	"keelson.dev/keelson/internal/store"
	"keelson.dev/keelson/internal/version"
)

// AgentOptions configures the node in this process.
type AgentOptions struct {
	// Name of the node; default the machine's.
	Name string
	// Port of the node's HTTP server (default 10250).
	Port int
	// Logs is where the containers' logs are (default below the data folder).
	Logs string
	// LogMaxSize (bytes) and LogMaxFiles of each container; the kubelet's
	// defaults (10 MiB, 5) where 0.
	LogMaxSize  int64
	LogMaxFiles int
	// MaxPods is how many pods may run, 110 where 0.
	MaxPods int64
	// KubeReserved and SystemReserved are kept from pods.
	KubeReserved, SystemReserved v1.ResourceList
	// Eviction and ImageGC have the kubelet's defaults where they are empty.
	Eviction eviction.Settings
	ImageGC  imagegc.Policy
	// StaticPods is the folder of static pods' manifests; empty is none.
	StaticPods string
	// AllowedUnsafeSysctls are kernel parameters that pods may set beside the
	// safe ones: names, or beginnings of names and *.
	AllowedUnsafeSysctls []string
	// PodPidsLimit is how many processes a pod may have; no limit where 0.
	PodPidsLimit int64
	// ResolvConf is the resolvers' configuration of pods that have the machine's.
	ResolvConf string
	// Labels, Taints and ProviderID are those that the node is registered with.
	Labels     map[string]string
	Taints     []v1.Taint
	ProviderID string
	// CredentialConfig is the file of the plug-ins that have credentials for images
	// (CredentialProviderConfig), and CredentialBin the folder of their programs.
	CredentialConfig, CredentialBin string
	// CgroupDriver makes the pods' cgroups; what the runtime says where it is empty.
	CgroupDriver cgroup.Driver
	// Storage is what makes volumes on this node's disk: Builtin, or None.
	Storage string
	// Network configures the service proxy and the name server for pods.
	Network Network
}

// NodeName is the name that the node has.
func (o *AgentOptions) NodeName() string {
	if o.Name == "" {
		return strings.ToLower(component.Hostname())
	}
	return o.Name
}

func (o *AgentOptions) complete(m *machine.Machine) {
	o.Name = o.NodeName()
	if o.Port == 0 {
		o.Port = 10250
	}
	if o.Logs == "" {
		o.Logs = filepath.Join(m.Dir(), "logs")
	}
}

// StartAgent starts the node on the machine, in this process, and returns when
// the node is Ready or ctx ends.
func (c *Cluster) StartAgent(ctx context.Context, m *machine.Machine, o AgentOptions) error {
	o.complete(m)
	if err := m.Start(c.Process.Ctx, c.Step); err != nil {
		return err
	}
	if err := c.Step("node agent", func() error { return c.startAgent(m, o) }); err != nil {
		return err
	}
	return c.waitNode(ctx, o.Name)
}

func (c *Cluster) startAgent(m *machine.Machine, o AgentOptions) error {
	u := &user.DefaultInfo{Name: nodeUser + o.Name, Groups: []string{user.NodesGroup, user.AllAuthenticated}}
	pair, err := c.Certs.ServingCert(u.Name, []string{o.Name, c.Advertise.String(), "127.0.0.1"})
	if err != nil {
		return err
	}
	cert, err := pair.TLS()
	if err != nil {
		return err
	}
	h := &host{Process: c.Process, informers: c.Informers, clock: c.Clock, client: c.Client(u),
		measured: c.Meter.Local, ip: c.Advertise, dns: dnsAddress(c.ServiceCIDR), version: version.Info.GitVersion, clientCA: c.Certs.CAPEM,
		certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }}
	c.Process.Go(func() { c.publishDNS(o.Network.DNS != None) })
	c.Process.Go(func() { c.publishRegistry(m.Registry()) })
	if o.Storage != None {
		c.Process.Go(c.publishStorage)
	}
	return h.start(m, o)
}

// nodeUser begins the name of a node's user.
const nodeUser = "system:node:"

// host is what a node has in the process that it runs in, and how it reaches the
// API server: with the rights of its node, and no others.
type host struct {
	// Process ends where the agent cannot go on.
	*component.Process
	informers informers.SharedInformerFactory
	clock     clock.WithTicker
	client    kubernetes.Interface
	// measured, if set, is told how the node is measured from within the process.
	measured func(node string, stats usage.Stats)
	ip       netip.Addr
	// nodes is an informer of all nodes, where informers has this one only.
	nodes cache.SharedIndexInformer
	// allPods is an informer of the pods of all nodes, where informers has those of
	// this node only.
	allPods cache.SharedIndexInformer
	// dns is the address of the cluster's name server; without one pods use the
	// machine's.
	dns     netip.Addr
	version string
	// clientCA is the authority, in PEM, of the certificates of those who call the
	// node; certificate is the node's own.
	clientCA    []byte
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// start starts the agent, its server and its part of the cluster's network.
func (h *host) start(m *machine.Machine, o AgentOptions) error {
	var agent *node.Agent
	sources := source.New(h.client, o.Name, h.informers.Core().V1().Pods().Informer(), h.clock)
	devices := dra.New(h.client, o.Name, filepath.Join(m.Dir(), "dra.json"), h.clock)
	recorder := h.Recorder(h.client, "kubelet", o.Name)
	drivers := &csi.Plugin{Root: m.Dir(), Node: o.Name, Client: h.client, Recorder: recorder}
	nodes := h.informers.Core().V1().Nodes().Lister()
	volumes := &volume.Manager{Root: filepath.Join(m.Dir(), "pods"), Clock: h.clock, Client: h.client,
		Plugins: append(plugins.All(sources, func() v1.ResourceList { return agent.Allocatable() }), drivers),
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
	agent, err = node.New(node.Config{
		NodeName: o.Name, Version: h.version, Client: h.client, Informers: h.informers, CRIEndpoint: m.Endpoint(), RootDir: m.Dir(), LogDir: o.Logs,
		LogMaxSize: o.LogMaxSize, LogMaxFiles: o.LogMaxFiles, CgroupRoot: m.CgroupRoot(),
		MaxPods: o.MaxPods, KubeReserved: o.KubeReserved, SystemReserved: o.SystemReserved, Eviction: o.Eviction, ImageGC: o.ImageGC, StaticPods: o.StaticPods,
		NodeIPs: []net.IP{net.IP(h.ip.AsSlice())}, Port: int32(o.Port), PauseImage: images.Pause, Clock: h.clock, Hostname: o.Name,
		ClusterDNS: servers, ClusterDomain: clusterDomain,
		HostPorts: m.HostPorts(), Policies: enforced(policies), AllowedUnsafeSysctls: o.AllowedUnsafeSysctls, CgroupDriver: o.CgroupDriver,
		Recorder: recorder, Volumes: volumes, Sources: sources, Devices: devices, Credentials: providers,
		PodPidsLimit: o.PodPidsLimit, ResolvConf: o.ResolvConf, Labels: o.Labels, Taints: o.Taints, ProviderID: o.ProviderID,
	})
	if err != nil {
		return err
	}
	if h.measured != nil {
		h.measured(o.Name, agent.Stats().CPUAndMemory)
	}
	if err := h.serve(agent, o); err != nil {
		return err
	}
	if err := h.startNetwork(m, agent, o); err != nil {
		return err
	}
	h.startStorage(m, o, volumes, drivers, devices)
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

// enforced is a nil interface for a nil controller.
func enforced(c *policy.Controller) pod.Policies {
	if c == nil {
		return nil
	}
	return c
}

// serve serves the node's HTTP API; the API server is asked about its callers.
func (h *host) serve(agent *node.Agent, o AgentOptions) error {
	l, err := net.Listen("tcp", net.JoinHostPort("", fmt.Sprint(o.Port)))
	if err != nil {
		return fmt.Errorf("%w: stop what listens there, or choose another port with --node-port", err)
	}
	access, err := server.NewAccess(o.Name, h.client, h.clientCA)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(h.clientCA)
	s := &http.Server{
		Handler:           server.New(agent, access),
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

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"keelson.dev/keelson/internal/node"
	"keelson.dev/keelson/internal/node/cni"
	"keelson.dev/keelson/internal/node/containerd"
	"keelson.dev/keelson/internal/node/images"
	"keelson.dev/keelson/internal/node/server"
	"keelson.dev/keelson/internal/node/volume"
	"keelson.dev/keelson/internal/store"
)

// AgentOptions are those of the node in this process.
type AgentOptions struct {
	// Name of the node; default the machine's.
	Name string
	// PodCIDR is the range of the pods' addresses (default 10.244.0.0/24).
	PodCIDR netip.Prefix
	// Runtime is a CRI socket; empty runs a private containerd.
	Runtime string
	// Port of the node's HTTP server (default 10250).
	Port int
	// Logs is where the containers' logs are (default below the data folder).
	Logs string
	// LogMaxSize (bytes) and LogMaxFiles of each container; the kubelet's
	// defaults (10 MiB, 5) where 0.
	LogMaxSize  int64
	LogMaxFiles int
	// CgroupRoot is the cgroup that the pods' cgroups are below; empty is the root.
	CgroupRoot string
}

// Machine is what a node has on this machine outside of the API.
type Machine struct {
	o          AgentOptions
	dir        string
	containerd containerd.Options
	cni        cni.Options
	// hostPorts maps host ports where pods are on our own bridge.
	hostPorts node.HostPorts
}

// NewMachine describes a node's folders below dataDir.
func NewMachine(dataDir string, o AgentOptions) *Machine {
	if o.Name == "" {
		o.Name = strings.ToLower(hostname())
	}
	if !o.PodCIDR.IsValid() {
		o.PodCIDR = netip.MustParsePrefix("10.244.0.0/24")
	}
	if o.Port == 0 {
		o.Port = 10250
	}
	dir := filepath.Join(dataDir, "node")
	if o.Logs == "" {
		o.Logs = filepath.Join(dir, "logs")
	}
	m := &Machine{o: o, dir: dir, cni: cni.Options{Dir: filepath.Join(dir, "cni"), PodCIDR: o.PodCIDR}}
	m.containerd = containerd.Options{
		Dir: filepath.Join(dir, "containerd"), State: filepath.Join("/run", "keelson-"+runName(dataDir)),
		CNIBin: cni.Bins, Hosts: filepath.Join(dir, "hosts"), PauseImage: images.Pause,
	}
	return m
}

// runName makes a short name of the data folder: a socket's path is short.
func runName(dataDir string) string {
	if dataDir == "/var/lib/keelson" {
		return "default"
	}
	h := uint32(2166136261)
	for _, b := range []byte(dataDir) {
		h = (h ^ uint32(b)) * 16777619
	}
	return fmt.Sprintf("%08x", h)
}

// Endpoint is the CRI socket of the node's runtime.
func (m *Machine) Endpoint() string {
	if m.o.Runtime != "" {
		return m.o.Runtime
	}
	return containerd.Existing(m.containerd).Endpoint()
}

// Clean stops the node's pods and its runtime, and takes its network down.
func (m *Machine) Clean(ctx context.Context) error {
	m.containerd.CNIConf = filepath.Join(m.cni.Dir, "net.d")
	err := errors.Join(containerd.Existing(m.containerd).Stop(ctx), cni.Cleanup(m.cni))
	node.RemoveCgroups("cgroupfs", m.o.CgroupRoot)
	return err
}

// StartAgent starts the node in this process.
func (c *Cluster) StartAgent(m *Machine) error {
	endpoint := m.o.Runtime
	if endpoint == "" {
		if err := c.step("network", func() error {
			dir, own, err := cni.Conf(m.cni)
			if m.containerd.CNIConf = dir; own {
				m.hostPorts = &cni.HostPorts{}
			}
			return err
		}); err != nil {
			return err
		}
		if err := c.step("images", func() error {
			r, err := images.Serve(m.containerd.Hosts)
			if err == nil {
				context.AfterFunc(c.ctx, func() { r.Close() })
			}
			return err
		}); err != nil {
			return err
		}
		if err := c.step("containerd", func() error {
			r, err := containerd.Start(c.ctx, m.containerd)
			if err == nil {
				endpoint = r.Endpoint()
			}
			return err
		}); err != nil {
			return err
		}
	}
	return c.step("node agent", func() error { return c.startAgent(m, endpoint) })
}

func (c *Cluster) startAgent(m *Machine, endpoint string) error {
	u := &user.DefaultInfo{Name: "system:node:" + m.o.Name, Groups: []string{user.NodesGroup, user.AllAuthenticated}}
	client := c.Client(u)
	var agent *node.Agent
	volumes := volume.New(volume.Config{RootDir: m.dir, Client: client, Informers: c.Informers, Clock: c.Clock,
		Allocatable: func() v1.ResourceList { return agent.Allocatable() }})
	ip := net.IP(c.Advertise.AsSlice())
	var err error
	agent, err = node.New(node.Config{
		NodeName: m.o.Name, Client: client, Informers: c.Informers, CRIEndpoint: endpoint, RootDir: m.dir, LogDir: m.o.Logs,
		LogMaxSize: m.o.LogMaxSize, LogMaxFiles: m.o.LogMaxFiles, CgroupRoot: m.o.CgroupRoot,
		NodeIPs: []net.IP{ip}, Port: int32(m.o.Port), PauseImage: images.Pause, Clock: c.Clock, Hostname: m.o.Name,
		HostPorts: m.hostPorts,
		Recorder:  c.Recorder(client, "kubelet", m.o.Name), Volumes: volumes, Sources: volumes,
	})
	if err != nil {
		return err
	}
	if err := c.serveAgent(agent, m, ip); err != nil {
		return err
	}
	c.Informers.StartWithContext(c.ctx)
	c.wg.Go(func() { volumes.Run(c.ctx) })
	c.wg.Go(func() {
		if err := agent.Run(c.ctx); err != nil {
			fmt.Fprintln(os.Stderr, "keelson: "+err.Error())
			c.cancel()
		}
	})
	return nil
}

// serveAgent serves the node's HTTP API to holders of the administrators'
// certificates: the API server.
func (c *Cluster) serveAgent(agent *node.Agent, m *Machine, ip net.IP) error {
	pair, err := c.Certs.ServingCert("system:node:"+m.o.Name, []string{m.o.Name, ip.String(), "127.0.0.1"})
	if err != nil {
		return err
	}
	cert, err := pair.TLS()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("", fmt.Sprint(m.o.Port)))
	if err != nil {
		return fmt.Errorf("%w: stop what listens there, or choose another port with --node-port", err)
	}
	h := server.New(agent)
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, o := range r.TLS.PeerCertificates[0].Subject.Organization {
				if o == user.SystemPrivilegedGroup {
					h.ServeHTTP(w, r)
					return
				}
			}
			http.Error(w, "Forbidden", http.StatusForbidden)
		}),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: c.Certs.Pool(), MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 32 * time.Second,
		ErrorLog:          quiet,
		// Streams are taken over from HTTP/1.1 connections only.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	c.wg.Go(func() { _ = s.ServeTLS(l, "", "") })
	context.AfterFunc(c.ctx, func() { s.Close() })
	return nil
}

// WaitNode returns when the node is Ready.
func (c *Cluster) WaitNode(ctx context.Context, name string) error {
	return c.step("node ready", func() error {
		w, err := c.Store.Watch(c.row("", "v1", "nodes").Key("", name), store.WatchOptions{})
		if err != nil {
			return err
		}
		defer w.Stop()
		for {
			e, err := c.Store.Get(ctx, c.row("", "v1", "nodes").Key("", name))
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
			if _, err := w.Next(ctx); err != nil {
				return fmt.Errorf("node %s is not ready: %s", name, why)
			}
		}
	})
}

// Name of the node.
func (m *Machine) Name() string { return m.o.Name }

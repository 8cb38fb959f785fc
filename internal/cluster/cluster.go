package cluster

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"keelson.dev/keelson/internal/apiserver/controlplane"
	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/cluster/sim"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/manager"
	"keelson.dev/keelson/internal/controllers/nodeipam"
	"keelson.dev/keelson/internal/network/lb"
	"keelson.dev/keelson/internal/nodegroup"
	"keelson.dev/keelson/internal/nodegroup/externalgrpc"
	"keelson.dev/keelson/internal/scheduler"
)

// Options of a cluster. The zero value is one in memory, without a listener
// and without nodes.
type Options struct {
	controlplane.Options
	// NodeIPAM selects the ranges that nodes get theirs of pods' addresses from.
	NodeIPAM nodeipam.Selection
	// LoadBalancer configures what gives Services of the type LoadBalancer their
	// addresses.
	LoadBalancer lb.Options
	// ExternalCloud leaves the addresses and the initialization of the nodes, and the
	// load balancers of Services without a class, to a cloud's controller manager.
	ExternalCloud bool
	// NoControllers and NoScheduler leave these out.
	NoControllers, NoScheduler bool
	// Controllers selects the controllers to run, in the form of upstream's
	// --controllers; none is all.
	Controllers []string
	// Tuning configures the controllers; nil is their default.
	Tuning *controllers.Tuning
	// SimNodes is the number of simulated nodes. Where MostSimNodes is greater, the
	// cluster autoscaler adds nodes up to that number, and removes them again.
	SimNodes, MostSimNodes int
	// AdoptNodes makes the nodes that are Ready in From simulated ones.
	AdoptNodes bool
	// Autoscaling configures the cluster autoscaler, which runs where there are node
	// groups: those of simulated nodes, or of its CloudConfig.
	Autoscaling nodegroup.Options
}

// Cluster is a running control plane.
type Cluster struct {
	*controlplane.Instance
	options Options
	sim     *sim.Nodes         // nil if there can be none
	groups  nodegroup.Provider // nil if there are none
}

// Start starts a cluster and returns when its API server is ready. It ends
// when ctx does; Stop waits for the end.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	o.NodeIPAM.Complete(max(o.SimNodes, o.MostSimNodes))
	o.DefaultAccounts = !o.NoControllers
	if o.ExternalCloud && o.LoadBalancer.Mode == "" {
		o.LoadBalancer.Mode = lb.Classes
	}
	server, err := controlplane.Start(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Instance: server, options: o}
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start() error {
	if err := c.nodeGroups(); err != nil {
		return err
	}
	if !c.options.NoControllers {
		err := c.Step("controllers", func() error {
			return c.leader().Lead("kube-controller-manager", c.Client(inprocess.ControllerManager), c.startControllers)
		})
		if err != nil {
			return err
		}
	}
	if !c.options.NoScheduler {
		err := c.Step("scheduler", func() error {
			client := c.Client(inprocess.Scheduler)
			return c.leader().Lead("kube-scheduler", client, func(t component.Term) error {
				return scheduler.Start(t, client, c.Clock, c.Trace.Reporter("scheduler", ""))
			})
		})
		if err != nil {
			return err
		}
	}
	if c.sim != nil {
		if err := c.Step("simulated nodes", c.startSimNodes); err != nil {
			return err
		}
	}
	c.Informers.StartWithContext(c.Process.Ctx)
	return nil
}

// leader returns what runs components for the whole cluster in this process: the
// only server does so at once, several elect one.
func (c *Cluster) leader() *component.Leader {
	l := &component.Leader{Process: c.Process, Clock: c.Clock, Metrics: c.Server.Metrics, Election: component.Election{LeaderElect: c.Etcd != nil},
		Informers: func() informers.SharedInformerFactory { return c.Informers }}
	if l.LeaderElect {
		l.Informers = func() informers.SharedInformerFactory { return inprocess.NewInformers(c.Store, c.Catalogue) }
	}
	return l
}

// startControllers starts the controllers, each under its own identity.
func (c *Cluster) startControllers(t component.Term) error {
	ranges, err := c.options.NodeIPAM.Ranges()
	if err != nil {
		return err
	}
	config := func(name string) *rest.Config { return c.Config(inprocess.Controller(name)) }
	return manager.Start(t, controllers.Context{
		Clients: func(name string) kubernetes.Interface { return kubernetes.NewForConfigOrDie(config(name)) },
		Metadatas: func(name string) metadata.Interface {
			return inprocess.NewMetadata(metadata.NewForConfigOrDie(metadata.ConfigFor(config(name))), c.Store, c.Catalogue)
		},
		Configs:      config,
		Discovery:    discovery.NewDiscoveryClientForConfigOrDie(c.Config(inprocess.ControllerManager)),
		Clock:        c.Clock,
		RootCA:       c.Certs.CAPEM,
		Sign:         c.Certs.Sign,
		LegacyToken:  c.LegacyToken(),
		LoadBalancer: &c.options.LoadBalancer,
		NodeGroups:   c.groups, Autoscaling: c.options.Autoscaling,
		PodRanges: ranges, ServiceRanges: c.ServiceRanges(),
		Tuning: c.options.Tuning,
	}, c.options.Controllers...)
}

// nodeGroups makes what nodes the cluster autoscaler may add and remove.
func (c *Cluster) nodeGroups() error {
	o := &c.options
	if o.SimNodes > 0 || o.MostSimNodes > 0 || o.AdoptNodes {
		c.sim = sim.New(sim.Options{Adopt: o.AdoptNodes, Client: c.Client(inprocess.SimulatedNodes), Informers: c.Informers, Nodes: o.SimNodes, Most: o.MostSimNodes, External: o.ExternalCloud, Store: c.Store, Clock: c.Clock, Trace: c.Trace.Reporter("simulator", "")})
		c.groups = c.sim.Provider()
	}
	if o.Autoscaling.CloudConfig == "" {
		return nil
	}
	if c.groups != nil {
		return errors.New("--cloud-config: the node groups are those of --sim-nodes already: give one number there, or leave one of the two out")
	}
	p, err := externalgrpc.New(o.Autoscaling.CloudConfig)
	if err != nil {
		return fmt.Errorf("--cloud-config: %w", err)
	}
	c.groups = p
	context.AfterFunc(c.Process.Ctx, func() { _ = p.Close() })
	return nil
}

// startSimNodes starts the simulated nodes.
func (c *Cluster) startSimNodes() error {
	if err := c.sim.Register(c.Process.Ctx); err != nil {
		return err
	}
	c.Process.Go(func() { c.sim.Run(c.Process.Ctx) })
	return nil
}

package cluster

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	v1core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/cluster/inprocess"
	"keelson.dev/keelson/internal/cluster/sim"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/manager"
	"keelson.dev/keelson/internal/scheduler"
)

// Recorder records events as component, through a client of its identity.
func (c *Cluster) Recorder(client kubernetes.Interface, component, host string) record.EventRecorder {
	return term{ctx: c.ctx, wg: &c.wg}.recorder(client, component, host)
}

func (t term) recorder(client kubernetes.Interface, component, host string) record.EventRecorder {
	b := record.NewBroadcaster(record.WithContext(t.ctx))
	b.StartRecordingToSink(&v1core.EventSinkImpl{Interface: client.CoreV1().Events("")})
	t.wg.Go(func() {
		<-t.ctx.Done()
		b.Shutdown()
	})
	return b.NewRecorder(catalogue.Scheme, v1.EventSource{Component: component, Host: host})
}

// startControllers starts the controllers, each under its own identity.
func (c *Cluster) startControllers(t term) error {
	ranges, err := c.NodeIPAM.Ranges()
	if err != nil {
		return err
	}
	m, err := manager.New(controllers.Context{
		Clients: func(name string) kubernetes.Interface { return c.Client(controller(name)) },
		Metadatas: func(name string) metadata.Interface {
			return inprocess.NewMetadata(metadata.NewForConfigOrDie(metadata.ConfigFor(c.Config(controller(name)))), c.Store, c.Catalogue)
		},
		Configs:   func(name string) *rest.Config { return c.Config(controller(name)) },
		Informers: t.informers,
		Discovery: discovery.NewDiscoveryClientForConfigOrDie(c.Config(controllerManagerUser)),
		Clock:     c.Clock,
		RootCA:    c.Certs.CAPEM,
		Sign:      c.Certs.Sign, LegacyToken: c.legacyToken(),
		PodRanges: ranges, ServiceRanges: []netip.Prefix{c.ServiceCIDR},
	}, c.Controllers...)
	if err != nil {
		return err
	}
	t.wg.Go(func() { m.Run(t.ctx) })
	return nil
}

// nodesUser acts for all simulated nodes, so it is none of them.
var nodesUser = &user.DefaultInfo{Name: "system:simulated-nodes", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// startSimNodes starts the simulated nodes.
func (c *Cluster) startSimNodes() error {
	nodes := sim.New(sim.Options{Client: c.Client(nodesUser), Informers: c.Informers, Nodes: c.SimNodes, Clock: c.Clock})
	if err := nodes.Register(c.ctx); err != nil {
		return err
	}
	c.wg.Go(func() { nodes.Run(c.ctx) })
	return nil
}

var controllerManagerUser = &user.DefaultInfo{Name: user.KubeControllerManager, Groups: []string{user.AllAuthenticated}}

var schedulerUser = &user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}}

// startScheduler starts the scheduler.
func (t term) startScheduler(client kubernetes.Interface, clk clock.WithTicker) error {
	s, err := scheduler.New(client, t.informers, scheduler.Options{Clock: clk, Recorder: t.recorder(client, v1.DefaultSchedulerName, ""), Metrics: t.metrics})
	if err != nil {
		return err
	}
	t.wg.Go(func() { _ = s.Run(t.ctx) })
	return nil
}

// leader gives what runs components for the whole cluster in this process: the
// only server does so at once, several elect one.
func (c *Cluster) leader() *leader {
	l := &leader{ctx: c.ctx, wg: &c.wg, clock: c.Clock, metrics: c.Server.Metrics, Election: Election{LeaderElect: c.Etcd != nil},
		informers: func() informers.SharedInformerFactory { return c.Informers }}
	if l.LeaderElect {
		l.informers = func() informers.SharedInformerFactory { return inprocess.NewInformers(c.Store, c.Catalogue) }
	}
	return l
}

// legacyToken gives what makes the tokens that are in secrets; nil where an external
// signer has the keys, which signs none.
func (c *Cluster) legacyToken() func(*v1.ServiceAccount, *v1.Secret) (string, error) {
	if c.Tokens.SigningEndpoint != "" {
		return nil
	}
	return c.tokens.Legacy
}

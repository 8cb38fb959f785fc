package garbagecollector

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// syncTimeout bounds how long a resource that cannot be listed holds up the
	// collection of all others.
	syncTimeout = 30 * time.Second
	// discoveryPeriod is how often resources are discovered where no CRD or
	// APIService changes; discoverySettle is how long one of these may need to
	// be served after it changed.
	discoveryPeriod = 30 * time.Second
	discoverySettle = time.Second
)

type collector struct {
	metadata  metadata.Interface
	discovery discovery.DiscoveryInterface
	mapper    meta.RESTMapper
	recorder  record.EventRecorder
	clock     clock.WithTicker
	shared    map[schema.GroupVersionResource]cache.SharedIndexInformer
	graph     *graph
	removals  reconcile.Queue
	orphans   reconcile.Queue
	changed   chan struct{}
	workers   int

	// watches are the goroutines of the collector's own watches.
	watches    sync.WaitGroup
	monitorsMu sync.Mutex
	monitors   map[schema.GroupVersionResource]*monitor
}

// New makes the collector; it is nil where the cluster's resources cannot be
// reached. The informers of c.Shared are used instead of watches of its own.
func New(c controllers.Context) (reconcile.Run, error) {
	gc := &collector{
		metadata: c.Metadata(), discovery: c.Discovery, mapper: c.RESTMapper, clock: c.Clock,
		recorder: c.Recorder(), workers: c.Workers(20),
		shared:   map[schema.GroupVersionResource]cache.SharedIndexInformer{},
		removals: c.Queue("garbage_collector_attempt_to_delete"),
		orphans:  c.Queue("garbage_collector_attempt_to_orphan"),
		changed:  make(chan struct{}, 1),
		monitors: map[schema.GroupVersionResource]*monitor{},
	}
	gc.graph = newGraph(func(uid types.UID) { gc.removals.Add(string(uid)) }, func(uid types.UID) { gc.orphans.Add(string(uid)) })
	if gc.metadata == nil || gc.discovery == nil {
		return nil, nil
	}
	for _, gvr := range c.Shared {
		inf, err := c.Informers.ForResource(gvr)
		if err != nil {
			return nil, err
		}
		gc.shared[gvr] = inf.Informer()
	}
	return gc.run, nil
}

func (c *collector) run(ctx context.Context) {
	defer c.watches.Wait()
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		err := c.resync(ctx)
		c.monitorsMu.Lock()
		n := len(c.monitors)
		c.monitorsMu.Unlock()
		if n > 0 {
			break
		}
		klog.FromContext(ctx).V(2).Info("No resources discovered yet", "err", err)
		select {
		case <-ctx.Done():
			c.removals.ShutDown()
			c.orphans.ShutDown()
			return
		case <-c.clock.After(delay):
		}
	}
	// An orphaning deletion must not miss a dependent that is yet to be listed.
	c.waitForMonitors(ctx)
	reconcile.Together(
		reconcile.Keys{Queue: c.removals, Workers: c.workers, Reconcile: c.tryRemove}.Run,
		reconcile.Keys{Queue: c.orphans, Workers: 2, Reconcile: c.tryOrphan}.Run,
		c.follow,
	)(ctx)
}

func (c *collector) waitForMonitors(ctx context.Context) {
	c.monitorsMu.Lock()
	var all []<-chan struct{}
	for _, m := range c.monitors {
		all = append(all, m.synced)
	}
	c.monitorsMu.Unlock()
	timeout := c.clock.NewTimer(syncTimeout)
	defer timeout.Stop()
	for _, synced := range all {
		select {
		case <-synced:
		case <-ctx.Done():
			return
		case <-timeout.C():
			klog.FromContext(ctx).Info("Not all resources could be listed, collecting garbage nevertheless")
			return
		}
	}
}

// follow keeps the monitors in step with the resources that are served.
func (c *collector) follow(ctx context.Context) {
	wait := discoveryPeriod
	for {
		timer := c.clock.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-c.changed:
			timer.Stop()
			// Look now, and once more when the change has settled.
			wait = discoverySettle
		case <-timer.C():
			wait = discoveryPeriod
		}
		begin := c.clock.Now()
		if err := c.resync(ctx); err != nil {
			klog.FromContext(ctx).V(2).Info("Discovery failed for some groups", "err", err)
		}
		// Discovery takes longer the more resources there are: while they come by the
		// hundred, it is not to take all of the time.
		pause := c.clock.NewTimer(discoveryShare * c.clock.Since(begin))
		select {
		case <-pause.C():
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// discoveryShare is how many times as long as the last discovery took it is
// until the next.
const discoveryShare = 10

// served notes a change of an object that makes resources come and go.
func (c *collector) served(r *resource) {
	if r.Group == "apiextensions.k8s.io" || r.Group == "apiregistration.k8s.io" {
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}
}

func (c *collector) observe(r *resource, o metav1.Object) {
	c.graph.observe(r, o)
	c.served(r)
}

// invalidOwner records an event about a reference to an owner in another
// namespace.
func (c *collector) invalidOwner(n node, ref metav1.OwnerReference) {
	apiVersion, kind := n.resource.GroupVersion().WithKind(n.resource.kind).ToAPIVersionAndKind()
	c.recorder.Eventf(&v1.ObjectReference{APIVersion: apiVersion, Kind: kind, Namespace: n.namespace, Name: n.name, UID: n.uid}, v1.EventTypeWarning,
		"OwnerRefInvalidNamespace", "ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
		ref.APIVersion, ref.Kind, n.namespace, ref.Name, ref.UID, n.namespace)
}

package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/network/upkeep"
)

// Config configures a Controller.
type Config struct {
	// NodeName is the name of this node.
	NodeName string
	// Pods (of all nodes), Namespaces and Policies are informers. The caller starts
	// them.
	Pods, Namespaces, Policies cache.SharedIndexInformer
	// IPv4 and IPv6 hold the tables; nil leaves a family out.
	IPv4, IPv6 Kernel
	// Bridged returns the bridge that this pod is reached over, "" if there is none, and
	// makes sure that packets to the pod pass the tables also when they come from a pod of
	// the same bridge. It may be nil.
	Bridged func(netip.Addr) (bridge string, err error)
	Clock   clock.WithTicker
	// Problem, if set, is called with an error that keeps policies from being
	// enforced.
	Problem func(error)
}

// Controller keeps the tables in step with the policies.
type Controller struct {
	Config
	synced []cache.DoneChecker
	wake   chan struct{}

	mu sync.Mutex // guards the changes since the last Sync
	// pods, namespaces and policies are the keys of the changed objects.
	pods, policies map[types.NamespacedName]bool
	namespaces     map[string]bool
	// admitted are pods of this node whose status may not have their addresses yet.
	admitted map[types.NamespacedName]*admission
	admitSeq int64

	syncing sync.Mutex // guards the fields below
	world   *world
	// bridged are the bridges of the isolated pods of this node, by address; unseen is the
	// error that keeps packets of one of them from passing the tables.
	bridged map[netip.Addr]string
	unseen  error
}

// admission is a pod of this node, with its addresses.
type admission struct {
	pod   *v1.Pod
	addrs []netip.Addr
	seq   int64
}

// New makes a controller. It does nothing before Run.
func New(c Config) (*Controller, error) {
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	p := &Controller{Config: c, wake: make(chan struct{}, 1), pods: map[types.NamespacedName]bool{}, policies: map[types.NamespacedName]bool{},
		namespaces: map[string]bool{}, admitted: map[types.NamespacedName]*admission{}, bridged: map[netip.Addr]string{},
		world: newWorld(newTable(c.IPv4, c.IPv6))}
	err := errors.Join(
		on(p, c.Pods, func(x *v1.Pod) { p.pods[types.NamespacedName{Namespace: x.Namespace, Name: x.Name}] = true }),
		on(p, c.Namespaces, func(x *v1.Namespace) { p.namespaces[x.Name] = true }),
		on(p, c.Policies, func(x *networkingv1.NetworkPolicy) {
			p.policies[types.NamespacedName{Namespace: x.Namespace, Name: x.Name}] = true
		}),
	)
	return p, err
}

// on registers changed for each object of an informer that changes.
func on[T any](p *Controller, i cache.SharedIndexInformer, changed func(T)) error {
	f := func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		x, ok := obj.(T)
		if !ok {
			return
		}
		p.mu.Lock()
		changed(x)
		p.mu.Unlock()
		p.poke()
	}
	reg, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: f, UpdateFunc: func(_, x any) { f(x) }, DeleteFunc: f})
	if err == nil {
		p.synced = append(p.synced, reg.HasSyncedChecker())
	}
	return err
}

// ready waits until the informers have synced, and reports whether they have.
func (p *Controller) ready(ctx context.Context) bool {
	for _, s := range p.synced {
		select {
		case <-s.Done():
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Admit returns when the policies that select the pod are enforced, so that its
// containers may be started. The pod is on this node and has these addresses.
func (p *Controller) Admit(ctx context.Context, pod *v1.Pod, addrs []netip.Addr) error {
	if pod.Spec.HostNetwork {
		return nil
	}
	if !p.ready(ctx) {
		return fmt.Errorf("network policies: they are not known yet: %w", ctx.Err())
	}
	name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	p.mu.Lock()
	p.admitSeq++
	p.admitted[name] = &admission{pod, slices.Clone(addrs), p.admitSeq}
	p.pods[name] = true
	p.mu.Unlock()
	p.syncing.Lock()
	for _, a := range addrs {
		delete(p.bridged, a) // it may have been another pod's, on another link
	}
	p.syncing.Unlock()
	return p.Sync()
}

// Forget forgets a pod that was admitted, and no longer has addresses.
func (p *Controller) Forget(pod *v1.Pod) {
	name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	p.mu.Lock()
	if a := p.admitted[name]; a != nil && a.pod.UID == pod.UID {
		delete(p.admitted, name)
		p.pods[name] = true
	}
	p.mu.Unlock()
	p.poke()
}

func (p *Controller) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run keeps the tables until ctx ends, and leaves them as they are: the policies
// stay enforced until the next process takes over.
func (p *Controller) Run(ctx context.Context) error {
	if !p.ready(ctx) {
		return nil
	}
	write := func() error {
		if err := p.Sync(); err != nil {
			return err
		}
		p.syncing.Lock()
		defer p.syncing.Unlock()
		return p.unseen
	}
	upkeep.Loop{Clock: p.Clock, Wake: p.wake, Sync: write, Inspect: p.inspect, Failed: func(err error, again time.Duration) {
		klog.FromContext(ctx).Error(err, "Network policies are not enforced as they should be; trying again", "in", again)
		if p.Problem != nil {
			p.Problem(err)
		}
	}}.Run(ctx)
	return nil
}

// inspect reports whether a table is to be written: another has changed it, or Admit could not
// write it.
func (p *Controller) inspect(ctx context.Context) bool {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	t := p.world.table
	if !t.current {
		return true // Admit has not succeeded
	}
	if !t.written {
		return false
	}
	for _, k := range t.kernels {
		if k == nil {
			continue
		}
		intact, err := k.Intact()
		if err != nil {
			klog.FromContext(ctx).Error(err, "Looking whether the rules of network policies are there")
			continue
		}
		if !intact {
			klog.FromContext(ctx).Info("The rules of network policies were taken away by others; writing them again")
			t.current = false
		}
	}
	return !t.current
}

// Sync writes the changes to the kernel.
func (p *Controller) Sync() error {
	p.syncing.Lock()
	defer p.syncing.Unlock()
	p.mu.Lock()
	pods, namespaces, policies := p.pods, p.namespaces, p.policies
	p.pods, p.namespaces, p.policies = map[types.NamespacedName]bool{}, map[string]bool{}, map[types.NamespacedName]bool{}
	p.mu.Unlock()
	for name := range namespaces {
		var l labels.Set
		if ns, ok := get[*v1.Namespace](p.Namespaces, name); ok {
			if l = ns.Labels; l == nil {
				l = labels.Set{}
			}
		}
		p.world.setNamespace(name, l)
	}
	for name := range policies {
		var s *spec
		if pol, ok := get[*networkingv1.NetworkPolicy](p.Policies, name.String()); ok {
			var err error
			if s, err = compile(pol); err != nil {
				// An invalid policy allows nothing.
				klog.Background().Error(err, "A network policy is not valid", "policy", name)
				s = isolating(pol)
			}
		}
		p.world.setPolicy(name, s)
	}
	for name := range pods {
		p.world.setPod(name, p.facts(name))
	}
	p.unseen = p.follow()
	if err := p.world.table.write(); err != nil {
		return fmt.Errorf("rules of network policies: %w", err)
	}
	return nil
}

func get[T any](i cache.SharedIndexInformer, key string) (x T, ok bool) {
	obj, there, err := i.GetIndexer().GetByKey(key)
	if err != nil || !there {
		return x, false
	}
	x, ok = obj.(T)
	return x, ok
}

// facts returns the facts of a pod, nil if it has no address of its own.
func (p *Controller) facts(name types.NamespacedName) *facts {
	pod, there := get[*v1.Pod](p.Pods, name.String())
	p.mu.Lock()
	a := p.admitted[name]
	// An admitted static pod has another UID than its mirror.
	if a != nil && there && pod.UID != a.pod.UID && string(a.pod.UID) != pod.Annotations[v1.MirrorPodAnnotationKey] && a.pod.CreationTimestamp.Before(&pod.CreationTimestamp) {
		delete(p.admitted, name)
		a = nil
	}
	p.mu.Unlock()
	switch {
	case !there && a == nil:
		return nil
	case !there:
		pod = a.pod
	}
	if pod.Spec.HostNetwork || pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
		return nil
	}
	f := &facts{labels: pod.Labels, local: a != nil || pod.Spec.NodeName == p.NodeName, rank: pod.CreationTimestamp.UnixNano()}
	if pod.DeletionTimestamp != nil {
		f.rank = -1 // another pod may have its address already
	}
	if a != nil {
		f.addrs, f.rank = a.addrs, 1<<62+a.seq
	} else {
		for _, ip := range pod.Status.PodIPs {
			if addr, err := netip.ParseAddr(ip.IP); err == nil {
				f.addrs = append(f.addrs, addr)
			}
		}
	}
	kernels := p.world.table.kernels
	f.addrs = slices.DeleteFunc(slices.Clone(f.addrs), func(a netip.Addr) bool { return kernels[family(a)] == nil })
	if len(f.addrs) == 0 {
		return nil
	}
	containers := func(all []v1.Container, counts func(*v1.Container) bool) {
		for i := range all {
			if !counts(&all[i]) {
				continue
			}
			for _, c := range all[i].Ports {
				if c.Name != "" {
					f.ports = append(f.ports, containerPort{c.Name, cmp.Or(c.Protocol, v1.ProtocolTCP), uint16(c.ContainerPort)})
				}
			}
		}
	}
	containers(pod.Spec.Containers, func(*v1.Container) bool { return true })
	containers(pod.Spec.InitContainers, func(c *v1.Container) bool {
		return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
	})
	return f
}

// follow tells the table of the bridges of this node's isolated pods, and makes sure that
// bridged packets to them traverse the tables.
func (p *Controller) follow() error {
	if p.Bridged == nil {
		return nil
	}
	var errs []error
	isolated := p.world.table.sets[itself].elements
	for k := range isolated {
		if _, known := p.bridged[k.Addr]; known {
			continue
		}
		bridge, err := p.Bridged(k.Addr)
		p.world.table.addLink(bridge)
		if err != nil {
			errs = append(errs, err) // and it is tried again
			continue
		}
		p.bridged[k.Addr] = bridge
	}
	for a := range p.bridged {
		if _, still := isolated[Key{Addr: a}]; !still {
			delete(p.bridged, a)
		}
	}
	if len(isolated) == 0 {
		p.world.table.forgetLinks()
	}
	return errors.Join(errs...)
}

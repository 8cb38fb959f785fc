package nodeipam

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// workers is how many Nodes are written at a time, upstream's.
const workers = 30

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	nodes    corelisters.NodeLister
	queue    reconcile.Queue

	mu    sync.Mutex
	pools []*pool
	// held are the ranges of each node: those that it has, or that are being
	// written to it.
	held map[string][]netip.Prefix
	// waiting are the nodes that there was no range for.
	waiting sets.Set[string]
}

// New makes the controller. Without ranges to give there is nothing to run.
func New(c controllers.Context) (reconcile.Run, error) {
	nodes := c.Informers.Core().V1().Nodes()
	informer := nodes.Informer()
	if len(c.PodRanges) == 0 {
		return nil, nil
	}
	n := &controller{client: c.Client(), recorder: c.Recorder(), nodes: nodes.Lister(), queue: c.Queue("node_ipam_controller"),
		held: map[string][]netip.Prefix{}, waiting: sets.New[string]()}
	for _, r := range c.PodRanges {
		p, err := newPool(r)
		if err != nil {
			return nil, err
		}
		for _, s := range c.ServiceRanges {
			p.hold(s, 1)
		}
		n.pools = append(n.pools, p)
	}
	// A Node keeps its ranges, so that one that has some is looked at once.
	reconcile.Handle(informer, reconcile.Enqueue[*v1.Node](n.queue), func(old, now *v1.Node) {
		if old.UID != now.UID || !slices.Equal(old.Spec.PodCIDRs, now.Spec.PodCIDRs) || len(now.Spec.PodCIDRs) == 0 && n.idle(now.Name) {
			n.queue.Add(now.Name)
		}
	}, reconcile.Enqueue[*v1.Node](n.queue))
	loop := reconcile.Loop[*v1.Node]{Queue: n.queue, Workers: workers, For: informer, Reconcile: n.reconcile, Gone: n.gone}
	return func(ctx context.Context) {
		// The ranges that nodes have must be known before any is given.
		if !reconcile.WaitFor(ctx, informer) {
			n.queue.ShutDown()
			return
		}
		all, _ := n.nodes.List(labels.Everything()) // of a cache: there is no error
		for _, node := range all {
			n.has(node)
		}
		loop.Run(ctx)
	}, nil
}

// idle reports whether the node is not known to wait, nor to be given ranges.
func (n *controller) idle(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.held[name]) == 0 && !n.waiting.Has(name)
}

// has notes the ranges that a Node has, and reports whether it has any.
func (n *controller) has(node *v1.Node) bool {
	if len(node.Spec.PodCIDRs) == 0 {
		return false
	}
	var ranges []netip.Prefix
	for _, s := range node.Spec.PodCIDRs {
		if r, err := netip.ParsePrefix(s); err == nil {
			ranges = append(ranges, r.Masked())
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting.Delete(node.Name)
	if was := n.held[node.Name]; !slices.Equal(was, ranges) {
		n.hold(ranges, 1)
		n.release(was)
		n.held[node.Name] = ranges
	}
	return true
}

// hold adds a holder of the ranges, or takes one away.
func (n *controller) hold(ranges []netip.Prefix, by int) {
	for _, r := range ranges {
		for _, p := range n.pools {
			p.hold(r, by)
		}
	}
}

// release gives ranges back, to those that wait.
func (n *controller) release(ranges []netip.Prefix) {
	if len(ranges) == 0 {
		return
	}
	n.hold(ranges, -1)
	for name := range n.waiting {
		n.queue.Add(name)
	}
}

func (n *controller) gone(_ context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting.Delete(name)
	n.release(n.held[name])
	delete(n.held, name)
	return nil
}

// reserve returns the ranges that the node is to have: those that were reserved
// before, whose write may have been lost, or new ones.
func (n *controller) reserve(name string) ([]netip.Prefix, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if held := n.held[name]; len(held) > 0 {
		return held, nil
	}
	var out []netip.Prefix
	for i, p := range n.pools {
		r, ok := p.take()
		if !ok {
			for j, r := range out {
				n.pools[j].hold(r, -1)
			}
			n.waiting.Insert(name)
			return nil, fmt.Errorf("failed to allocate cidr from cluster cidr at idx:%d: CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range", i)
		}
		out = append(out, r)
	}
	n.held[name] = out
	n.waiting.Delete(name)
	return out, nil
}

// reconcile gives a Node without ranges some.
func (n *controller) reconcile(ctx context.Context, node *v1.Node) (reconcile.Result, error) {
	if n.has(node) {
		return reconcile.Result{}, nil
	}
	ranges, err := n.reserve(node.Name)
	if err != nil {
		// It is queued again when a range is given back.
		n.tell(node, "CIDRNotAvailable")
		klog.FromContext(ctx).Info("No range of pods' addresses for a node: delete Nodes that are no more, or give a larger --cluster-cidr or --node-cidr-mask-size", "node", node.Name, "err", err)
		return reconcile.Result{}, nil
	}
	var spec struct {
		Metadata struct {
			UID types.UID `json:"uid"`
		} `json:"metadata"`
		Spec struct {
			PodCIDR  string   `json:"podCIDR"`
			PodCIDRs []string `json:"podCIDRs"`
		} `json:"spec"`
	}
	spec.Metadata.UID = node.UID
	for _, r := range ranges {
		spec.Spec.PodCIDRs = append(spec.Spec.PodCIDRs, r.String())
	}
	spec.Spec.PodCIDR = spec.Spec.PodCIDRs[0]
	patch, err := json.Marshal(spec)
	if err != nil {
		return reconcile.Result{}, err
	}
	_, err = n.client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil // the informer tells, and the ranges are given back
	}
	if err != nil && ctx.Err() == nil {
		n.tell(node, "CIDRAssignmentFailed")
	}
	return reconcile.Result{}, err
}

// tell records upstream's event of a change of a Node.
func (n *controller) tell(node *v1.Node, what string) {
	n.recorder.Eventf(&v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: node.Name, UID: node.UID}, v1.EventTypeNormal, what, "Node %s status is now: %s", node.Name, what)
}

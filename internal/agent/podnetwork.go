package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/machine"
	"keelson.dev/keelson/internal/network/podnet"
	"keelson.dev/keelson/internal/node"
	"keelson.dev/keelson/internal/node/cri"
)

// rangesPatience is how long the service proxy waits for the Node's ranges where the
// network of the pods is not the built-in one: the cluster may assign none.
const rangesPatience = 10 * time.Second

// startPods connects the machine's pods with those of other machines, and starts the
// parts that depend on the pods' ranges; it restarts them when these change. nodes is an
// informer of all nodes.
func (h *host) startPods(m *machine.Machine, agent *node.Agent, nodes cache.SharedIndexInformer, o Options) error {
	var mu sync.Mutex
	var known []netip.Prefix
	end := context.CancelFunc(func() {})
	begin := func(ranges []netip.Prefix) error {
		mu.Lock()
		defer mu.Unlock()
		if o.Network.Proxy == None || known != nil && slices.Equal(known, ranges) {
			return nil
		}
		end()
		var ctx context.Context
		ctx, end = context.WithCancel(h.Ctx)
		known = append([]netip.Prefix{}, ranges...)
		return h.startProxy(ctx, known, o)
	}
	if !m.OwnNetwork() {
		h.Go(func() {
			if err := begin(h.ranges(m, o)); err != nil {
				klog.FromContext(h.Ctx).Error(err, "The service proxy does not start")
				h.End()
			}
		})
		return nil
	}
	recorder := h.Recorder(h.client, "keelson-podnet", o.Name)
	var connected bool
	n, err := podnet.New(podnet.Config{
		NodeName: o.Name, Nodes: nodes, Kernel: podnet.Netlink(machine.PodLink), Ranges: m.PodCIDRs(), Services: h.services, Clock: h.clock,
		Local: func(p podnet.Plan) error {
			if err := m.Connect(p); err != nil {
				return err
			}
			if !connected {
				connected = true
				h.Go(func() { h.awaitNetwork(agent) })
			}
			return begin(p.Own)
		},
		Problem: func(reason string, err error) {
			recorder.Event(&v1.ObjectReference{Kind: "Node", Name: o.Name, APIVersion: "v1"}, v1.EventTypeWarning, reason, err.Error())
		},
	})
	if err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	h.Go(func() {
		if err := n.Run(h.Ctx); err != nil {
			klog.FromContext(h.Ctx).Error(err, "The pods' network is not kept anymore")
			h.End()
		}
	})
	return nil
}

// awaitNetwork polls the runtime until it has read the network's configuration, and
// then has the Node's status reported at once.
func (h *host) awaitNetwork(agent *node.Agent) {
	ctx, cancel := context.WithTimeout(h.Ctx, 10*time.Second)
	defer cancel()
	// After the timeout the agent's periodic report finds the network ready.
	if err := wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		return networkReady(ctx, agent.CRI())
	}); err == nil {
		agent.NetworkChanged()
	}
}

func networkReady(ctx context.Context, c *cri.Client) (bool, error) {
	r, err := c.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(r.GetStatus().GetConditions(), func(c *runtimeapi.RuntimeCondition) bool {
		return c.Type == runtimeapi.NetworkReady && !c.Status
	}), nil
}

// ranges returns the ranges of the machine's pods where the network is not the
// built-in one, none if the cluster assigns none within rangesPatience.
func (h *host) ranges(m *machine.Machine, o Options) []netip.Prefix {
	if given := m.PodCIDRs(); len(given) > 0 {
		return given
	}
	var out []netip.Prefix
	ctx, cancel := context.WithTimeout(h.Ctx, rangesPatience)
	defer cancel()
	nodes := h.informers.Core().V1().Nodes().Lister()
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(context.Context) (bool, error) {
		if n, err := nodes.Get(o.Name); err == nil {
			out = podnet.Ranges(n)
		}
		return len(out) > 0, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		klog.FromContext(h.Ctx).Info("The Node has no spec.podCIDRs, so that the service proxy does not know the pods' addresses: have the cluster allocate them, or give --pod-cidr")
	}
	return out
}

package devicetainteviction

import (
	"context"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	resourcelisters "k8s.io/client-go/listers/resource/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

// poolIndex indexes slices by their pool, and claims by the pools of the devices
// that they have: "<driver>/<pool>".
const poolIndex = "keelson/pool"

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	clock    clock.PassiveClock
	pods     corelisters.PodLister
	claims   resourcelisters.ResourceClaimLister
	rules    resourcelisters.DeviceTaintRuleLister
	// claimIndex and sliceIndex have poolIndex.
	claimIndex, sliceIndex cache.Indexer
	podQueue, ruleQueue    reconcile.Queue

	mu sync.Mutex
	// evicted counts the pods that were evicted because of a rule, since the
	// controller has started.
	evicted map[types.UID]int
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	pods, resource := c.Informers.Core().V1().Pods(), c.Informers.Resource().V1()
	claims, slices, rules := resource.ResourceClaims(), resource.ResourceSlices(), resource.DeviceTaintRules()
	e := &controller{
		client: c.Client(), recorder: c.Recorder(), clock: c.Clock, pods: pods.Lister(), claims: claims.Lister(), rules: rules.Lister(),
		claimIndex: claims.Informer().GetIndexer(), sliceIndex: slices.Informer().GetIndexer(),
		podQueue: c.Queue("device_taint_eviction"), ruleQueue: c.Queue("device_taint_rule"), evicted: map[types.UID]int{},
	}
	for _, inf := range []cache.SharedIndexInformer{claims.Informer(), slices.Informer()} {
		// An error means that another component has added the index.
		_ = inf.AddIndexers(cache.Indexers{poolIndex: pools})
	}
	reconcile.Handle(pods.Informer(), func(p *v1.Pod) {
		if len(p.Spec.ResourceClaims) > 0 || p.Status.ExtendedResourceClaimStatus != nil {
			e.podQueue.Add(reconcile.Key(p))
		}
	}, nil, reconcile.Ignore)
	reconcile.Handle(claims.Informer(), e.usersOf, func(old, c *resourceapi.ResourceClaim) {
		e.usersOf(old)
		e.usersOf(c)
	}, e.usersOf)
	reconcile.Handle(slices.Informer(), e.sliceChanged, func(old, s *resourceapi.ResourceSlice) {
		e.sliceChanged(old)
		e.sliceChanged(s)
	}, e.sliceChanged)
	reconcile.Handle(rules.Informer(), e.ruleChanged, func(old, r *resourceapi.DeviceTaintRule) {
		if old.UID != r.UID || !equality.Semantic.DeepEqual(old.Spec, r.Spec) {
			e.selected(old)
			e.ruleChanged(r)
		}
	}, func(r *resourceapi.DeviceTaintRule) {
		e.mu.Lock()
		delete(e.evicted, r.UID)
		e.mu.Unlock()
		e.selected(r)
	})
	reads := []cache.SharedIndexInformer{pods.Informer(), claims.Informer(), slices.Informer(), rules.Informer()}
	return reconcile.Together(
		reconcile.Loop[*v1.Pod]{Queue: e.podQueue, Workers: c.Workers(8), For: pods.Informer(), Reads: reads, Reconcile: e.reconcilePod}.Run,
		reconcile.Loop[*resourceapi.DeviceTaintRule]{Queue: e.ruleQueue, For: rules.Informer(), Reads: reads, Reconcile: e.reconcileRule}.Run,
	), nil
}

// pools is the index function of poolIndex.
func pools(obj any) ([]string, error) {
	switch o := obj.(type) {
	case *resourceapi.ResourceSlice:
		return []string{o.Spec.Driver + "/" + o.Spec.Pool.Name}, nil
	case *resourceapi.ResourceClaim:
		var keys []string
		for _, d := range devices(o) {
			if k := d.Driver + "/" + d.Pool; !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
		return keys, nil
	}
	return nil, nil
}

// devices returns the devices that are allocated to a claim.
func devices(c *resourceapi.ResourceClaim) []resourceapi.DeviceRequestAllocationResult {
	if c.Status.Allocation == nil {
		return nil
	}
	return c.Status.Allocation.Devices.Results
}

func (e *controller) usersOf(c *resourceapi.ResourceClaim) {
	for _, r := range c.Status.ReservedFor {
		if r.APIGroup == "" && r.Resource == "pods" {
			e.podQueue.Add(c.Namespace + "/" + r.Name)
		}
	}
}

func (e *controller) sliceChanged(s *resourceapi.ResourceSlice) {
	for _, c := range reconcile.Indexed[*resourceapi.ResourceClaim](e.claimIndex, poolIndex, s.Spec.Driver+"/"+s.Spec.Pool.Name) {
		e.usersOf(c)
	}
}

func (e *controller) ruleChanged(r *resourceapi.DeviceTaintRule) {
	e.ruleQueue.Add(r.Name)
	e.selected(r)
}

// selected queues the pods whose devices a rule selects.
func (e *controller) selected(r *resourceapi.DeviceTaintRule) {
	for _, o := range e.claimIndex.List() {
		c := o.(*resourceapi.ResourceClaim)
		if slices.ContainsFunc(devices(c), func(d resourceapi.DeviceRequestAllocationResult) bool { return selects(r, d.Driver, d.Pool, d.Device) }) {
			e.usersOf(c)
		}
	}
}

// count adds to the number of pods that rules have evicted, and queues the rules
// with a delay to write their status, since more pods are likely to follow.
func (e *controller) count(rules []*resourceapi.DeviceTaintRule, evicted int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range rules {
		if evicted > 0 {
			e.evicted[r.UID] += evicted
		}
		e.ruleQueue.AddAfter(r.Name, statusPeriod)
	}
}

// selects reports whether a rule selects a device.
func selects(r *resourceapi.DeviceTaintRule, driver, pool, device string) bool {
	s := r.Spec.DeviceSelector
	return s != nil && (s.Driver == nil || *s.Driver == driver) && (s.Pool == nil || *s.Pool == pool) && (s.Device == nil || *s.Device == device)
}

// eviction is the time and the cause of a pod's eviction.
type eviction struct {
	at    time.Time
	rules []*resourceapi.DeviceTaintRule
	// cause is the object with the taint that ends the pod first.
	cause runtime.Object
}

// due returns the eviction of a pod, nil if it may stay.
func (e *controller) due(pod *v1.Pod) *eviction {
	rules, err := e.rules.List(labels.Everything())
	if err != nil {
		return nil
	}
	return e.dueBy(pod, slices.DeleteFunc(rules, func(r *resourceapi.DeviceTaintRule) bool {
		return r.Spec.Taint.Effect != resourceapi.DeviceTaintEffectNoExecute
	}), true)
}

// dueBy returns the eviction of a pod by these rules, as if all of them had the
// effect NoExecute, and, if wanted, by the taints of devices themselves.
func (e *controller) dueBy(pod *v1.Pod, rules []*resourceapi.DeviceTaintRule, own bool) *eviction {
	if pod.Spec.NodeName == "" || pod.DeletionTimestamp != nil || controllers.PodTerminated(pod) {
		return nil
	}
	var out *eviction
	for name, check := range resourceclaim.PodClaims(pod) {
		claim, err := e.claims.ResourceClaims(pod.Namespace).Get(name)
		if err != nil || check && resourceclaim.IsForPod(pod, claim, false) != nil || !resourceclaim.IsReservedForPod(pod, claim, false) {
			continue
		}
		add := func(d *resourceapi.DeviceRequestAllocationResult, t resourceapi.DeviceTaint, cause runtime.Object) bool {
			wait, forever := tolerated(d.Tolerations, t)
			if forever {
				return false
			}
			at := e.clock.Now()
			if t.TimeAdded != nil {
				at = t.TimeAdded.Time
			}
			if at = at.Add(wait); out == nil {
				out = &eviction{at: at, cause: cause}
			} else if at.Before(out.at) {
				out.at, out.cause = at, cause
			}
			return true
		}
		for i := range devices(claim) {
			d := &claim.Status.Allocation.Devices.Results[i]
			if own {
				slice, device := e.device(d)
				for _, t := range device.Taints {
					if t.Effect == resourceapi.DeviceTaintEffectNoExecute {
						add(d, t, slice)
					}
				}
			}
			for _, r := range rules {
				if t := r.Spec.Taint; selects(r, d.Driver, d.Pool, d.Device) {
					t.Effect = resourceapi.DeviceTaintEffectNoExecute
					if add(d, t, r) && !slices.Contains(out.rules, r) {
						out.rules = append(out.rules, r)
					}
				}
			}
		}
	}
	return out
}

// tolerated returns how long a taint is tolerated: the shortest time of the matching
// tolerations.
func tolerated(tolerations []resourceapi.DeviceToleration, t resourceapi.DeviceTaint) (wait time.Duration, forever bool) {
	found := false
	for _, tol := range tolerations {
		if !resourceclaim.ToleratesTaint(tol, t) {
			continue
		}
		if tol.TolerationSeconds == nil {
			return 0, true
		}
		if d := time.Duration(max(0, *tol.TolerationSeconds)) * time.Second; !found || d < wait {
			wait = d
		}
		found = true
	}
	return wait, false
}

// device returns an allocated device in the newest generation of its pool.
func (e *controller) device(d *resourceapi.DeviceRequestAllocationResult) (*resourceapi.ResourceSlice, resourceapi.Device) {
	var slice *resourceapi.ResourceSlice
	var device resourceapi.Device
	for _, s := range e.pool(d.Driver + "/" + d.Pool) {
		for i := range s.Spec.Devices {
			if s.Spec.Devices[i].Name == d.Device {
				slice, device = s, s.Spec.Devices[i]
			}
		}
	}
	return slice, device
}

// pool returns the slices of the newest generation of a pool.
func (e *controller) pool(key string) []*resourceapi.ResourceSlice {
	list := reconcile.Indexed[*resourceapi.ResourceSlice](e.sliceIndex, poolIndex, key)
	newest := int64(-1)
	for _, s := range list {
		newest = max(newest, s.Spec.Pool.Generation)
	}
	return slices.DeleteFunc(list, func(s *resourceapi.ResourceSlice) bool { return s.Spec.Pool.Generation != newest })
}

// reconcilePod evicts a pod when its tolerated time is over.
func (e *controller) reconcilePod(ctx context.Context, pod *v1.Pod) (reconcile.Result, error) {
	due := e.due(pod)
	if due == nil {
		return reconcile.Result{}, nil
	}
	if wait := due.at.Sub(e.clock.Now()); wait > 0 {
		e.count(due.rules, 0)
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	// The pod is read from the API server, since another pod may have its name by
	// now.
	client := e.client.CoreV1().Pods(pod.Namespace)
	now, err := client.Get(ctx, pod.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && (now.UID != pod.UID || now.DeletionTimestamp != nil) {
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	ctx = trace.WithCause(ctx, due.cause)
	e.recorder.Event(pod, v1.EventTypeNormal, "DeviceTaintManagerEviction", "Marking for deletion")
	gone, err := controllers.Disrupt(ctx, e.client, e.clock, now, "DeletionByDeviceTaintManager", "Device Taint manager: deleting due to NoExecute taint")
	if err != nil || !gone {
		return reconcile.Result{}, err
	}
	e.count(due.rules, 1)
	return reconcile.Result{}, nil
}

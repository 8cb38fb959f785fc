package serviceip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/store"
)

// Config of a Keeper.
type Config struct {
	Store     store.Store
	Catalogue *catalogue.Catalogue
	// Client acts as the API server. It is called when it is first needed: the server
	// may be yet to be made.
	Client func() kubernetes.Interface
	Clock  clock.WithTicker
	// Ranges holds the ranges of the default ServiceCIDR, one of each family that the
	// cluster has; Ports are the node ports.
	Ranges []netip.Prefix
	Ports  utilnet.PortRange
	// Shared reports whether other servers have the same store.
	Shared bool
}

// Keeper keeps the addresses and node ports of Services: it gives them out, and
// repairs what disagrees.
type Keeper struct {
	Config
	*Allocator
	objects *stored
	turn    sync.Mutex // one request of this server at a time asks the other servers
}

// NewKeeper makes a Keeper of the Services that there are.
func NewKeeper(ctx context.Context, cfg Config) (*Keeper, error) {
	cfg.Client = sync.OnceValue(cfg.Client)
	k := &Keeper{Config: cfg, objects: &stored{cfg.Store, cfg.Catalogue, cfg.Client}}
	services, err := k.objects.services(ctx)
	if err != nil {
		return nil, err
	}
	var families []v1.IPFamily
	for _, r := range cfg.Ranges {
		families = append(families, familyOf(r.Addr()))
	}
	k.Allocator = New(k.objects, families, int32(cfg.Ports.Base), int32(cfg.Ports.Base+cfg.Ports.Size-1), services)
	return k, nil
}

// repairPeriod is how often addresses of Services are compared with the Services, as
// upstream does.
const repairPeriod = 3 * time.Minute

// defaultCIDR is the name of the ServiceCIDR of the server's own flags.
const defaultCIDR = "kubernetes"

// retryPeriod is how soon it tries again after an error.
const retryPeriod = 2 * time.Second

// Start makes the default ServiceCIDR and repairs what a former server left; it does
// so again now and then, when an address of a Service is deleted, and soon where it
// fails: a webhook may be in the way that is yet to start.
func (k *Keeper) Start(p *component.Process) error {
	ctx := p.Ctx
	recorder := sync.OnceValue(func() record.EventRecorder { return p.Recorder(k.Client(), "ipallocator-repair-controller", "") })
	tell := func(about runtime.Object, reason, message string) {
		recorder().Event(about, v1.EventTypeWarning, reason, message)
	}
	again := make(chan struct{}, 1)
	look := func() time.Duration {
		err := k.ensureDefaultCIDR(ctx, tell)
		if err == nil {
			err = k.Repair(ctx, k.objects.services, k.Clock.Now(), tell)
		}
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Keeping the addresses of Services; trying again")
			return retryPeriod
		}
		return repairPeriod
	}
	w, err := k.Store.Watch(k.Catalogue.Must(networkingv1.GroupName, "v1", "ipaddresses").Prefix(""), store.WatchOptions{})
	if err != nil {
		return err
	}
	wait := look()
	p.Go(func() {
		defer w.Stop()
		for {
			events, err := w.Next(ctx)
			if err != nil {
				return // what is missed is found in time
			}
			if slices.ContainsFunc(events, func(ev store.Event) bool { return ev.Type == store.Delete && k.stillHeld(ctx, ev.Entry) }) {
				select {
				case again <- struct{}{}:
				default:
				}
			}
		}
	})
	p.Go(func() {
		for {
			t := k.Clock.NewTimer(wait)
			select {
			case <-t.C():
			case <-again:
				t.Stop()
			case <-ctx.Done():
				t.Stop()
				return
			}
			wait = look()
		}
	})
	return nil
}

// stillHeld reports whether the Service of a deleted IPAddress has that address.
func (k *Keeper) stillHeld(ctx context.Context, e *store.Entry) bool {
	a, ok := e.Object().(*networkingv1.IPAddress)
	if !ok || a.Spec.ParentRef == nil || a.Spec.ParentRef.Resource != "services" {
		return false
	}
	s, err := k.Store.Get(ctx, k.Catalogue.Must("", "v1", "services").Key(a.Spec.ParentRef.Namespace, a.Spec.ParentRef.Name))
	return err == nil && s != nil && slices.Contains(s.Object().(*v1.Service).Spec.ClusterIPs, a.Name)
}

// ensureDefaultCIDR makes the ServiceCIDR of the flags. One that there is gets a second
// family, and stays as it is otherwise: its range cannot be changed.
func (k *Keeper) ensureDefaultCIDR(ctx context.Context, tell func(runtime.Object, string, string)) error {
	client := k.Client().NetworkingV1().ServiceCIDRs()
	var own []string
	for _, r := range k.Ranges {
		own = append(own, r.Masked().String())
	}
	cidr, err := client.Get(ctx, defaultCIDR, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		cidr, err = client.Create(ctx, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: defaultCIDR}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: own}}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // another server was faster
			cidr, err = client.Get(ctx, defaultCIDR, metav1.GetOptions{})
		}
	}
	if err != nil {
		return err
	}
	if len(own) == 2 && len(cidr.Spec.CIDRs) == 1 && cidr.Spec.CIDRs[0] == own[0] {
		cidr.Spec.CIDRs = own
		if cidr, err = client.Update(ctx, cidr, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if !slices.Equal(cidr.Spec.CIDRs, own) {
		klog.FromContext(ctx).Info("The default ServiceCIDR is another than --service-cidr, and stays: services have addresses of it and of other ServiceCIDRs",
			"serviceCIDR", cidr.Spec.CIDRs, "flag", own)
		tell(cidr, "KubernetesDefaultServiceCIDRInconsistent", fmt.Sprintf("The default ServiceCIDR %v does not match the flag configurations %s", cidr.Spec.CIDRs, own))
	}
	if cidr.DeletionTimestamp != nil || slices.ContainsFunc(cidr.Status.Conditions, func(c metav1.Condition) bool { return c.Type == networkingv1.ServiceCIDRConditionReady }) {
		return nil
	}
	cidr.Status.Conditions = append(cidr.Status.Conditions, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
		Message: "Kubernetes default Service CIDR is ready", LastTransitionTime: metav1.Now()})
	_, err = client.UpdateStatus(ctx, cidr, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // another server looks after it
	}
	return err
}

package report

import (
	"context"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/node/cri"
	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/stats"
)

const (
	LeaseSeconds  = 40
	renewPeriod   = 10 * time.Second
	StatusPeriod  = 10 * time.Second
	unreadyPeriod = time.Second
	// Heartbeat is how often an unchanged status is written.
	Heartbeat = 5 * time.Minute
	// maxImages is the number of images that a node reports, upstream's default.
	DefaultMaxImages = 50
)

// Config configures a Reporter.
type Config struct {
	NodeName string
	Hostname string
	// NodeIPs returns the node's addresses, as they are now.
	NodeIPs func() []net.IP
	// External leaves the addresses and the initialization of the Node to a cloud's
	// controller manager. NodeIPs are then what that is asked to choose; none leaves
	// it the choice.
	External   bool
	Labels     map[string]string
	Taints     []v1.Taint
	ProviderID string
	Port       int32 // of the node's HTTP server
	Version    string
	// Root is the node's folder, on the file system that is its storage.
	Root    string
	MaxPods int64
	// KubeReserved and SystemReserved are resources that pods do not get.
	KubeReserved, SystemReserved v1.ResourceList
	// Thresholds holds the thresholds of evictions. The hard ones are not
	// allocatable to pods.
	Thresholds []eviction.Threshold

	Client   kubernetes.Interface
	CRI      *cri.Client
	Recorder record.EventRecorder
	Clock    clock.WithTicker
	// Pressure returns the pressure conditions that hold.
	Pressure func() []v1.NodeConditionType
	// MaxImages is how many images the status has: DefaultMaxImages where 0, all where
	// negative.
	MaxImages int
	// ShuttingDown reports whether the machine is.
	ShuttingDown func() bool
	// Devices returns the number of devices of each resource of device plug-ins, and of
	// those that are healthy.
	Devices func() (capacity, allocatable v1.ResourceList)
	// Registered is called when the Node has been created.
	Registered func()
	// Unanswered, if set, is called when the lease was not renewed twice in a row: the
	// connection to the API server may lead nowhere.
	Unanswered func()
	// Nodes is an informer of this Node.
	Nodes coreinformers.NodeInformer
}

// Reporter registers the node and keeps its status and its lease.
type Reporter struct {
	Config
	capacity v1.ResourceList
	alloc    v1.ResourceList
	// forPods is the limit of all pods together: the capacity less the reservations.
	// It exceeds alloc by the hard eviction thresholds: evictions begin when no more
	// than these are left.
	forPods v1.ResourceList
	// reserved is what alloc is less than the capacity by, but for huge pages.
	reserved v1.ResourceList
	total    int64
	// said is the last status that the runtime reported, nil before the first.
	said *runtimeapi.StatusResponse
	wake chan struct{} // received from Changed
	// renewed is when the node's Lease was last renewed, in Unix nanoseconds.
	renewed atomic.Int64
}

// New makes a reporter of the machine as it is now.
func New(c Config) *Reporter {
	s := &Reporter{Config: c, wake: make(chan struct{}, 1)}
	s.measure()
	// An informer refuses handlers only when it has stopped, and then has no more
	// events.
	_, _ = c.Nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: func(_, now any) {
		if n, ok := now.(*v1.Node); ok && n.Name == c.NodeName && doubted(n) {
			s.Changed()
		}
	}})
	return s
}

// measure reads the machine's resources.
func (s *Reporter) measure() {
	c := v1.ResourceList{
		v1.ResourceCPU:  *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		v1.ResourcePods: *resource.NewQuantity(s.MaxPods, resource.DecimalSI),
	}
	maps.Copy(c, hugePages("/sys"))
	if m := int64(stats.MemTotal()); m > 0 {
		s.total = m
		c[v1.ResourceMemory] = *resource.NewQuantity(m, resource.BinarySI)
	}
	var fs unix.Statfs_t
	dir := s.Root
	for unix.Statfs(dir, &fs) != nil && dir != "/" {
		dir = dir[:max(1, strings.LastIndexByte(dir, '/'))]
	}
	if fs.Blocks > 0 {
		c[v1.ResourceEphemeralStorage] = *resource.NewQuantity(int64(fs.Blocks)*fs.Bsize, resource.BinarySI)
	}
	s.capacity = c
	s.forPods = allocatable(c, s.KubeReserved, s.SystemReserved)
	kept := eviction.Reserved(s.Thresholds, c)
	s.alloc = allocatable(c, s.KubeReserved, s.SystemReserved, kept)
	s.reserved = sum(s.KubeReserved, s.SystemReserved, kept)
}

// Memory returns the machine's memory in bytes.
func (s *Reporter) Memory() int64 { return s.total }

// Allocatable returns the resources that the node has for pods.
func (s *Reporter) Allocatable() v1.ResourceList { return s.alloc }

// Reserved returns what is kept from pods, by reservations and for evictions.
func (s *Reporter) Reserved() v1.ResourceList { return s.reserved }

// ForPods returns the limit of all pods together.
func (s *Reporter) ForPods() v1.ResourceList { return s.forPods }

// Changed computes the status now, and writes it if it has changed.
func (s *Reporter) Changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run keeps status and lease until ctx ends.
func (s *Reporter) Run(ctx context.Context) {
	log := klog.FromContext(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.lease(ctx) })
	var last v1.NodeStatus
	var written time.Time
	for ctx.Err() == nil {
		status := s.compute(ctx)
		now := s.Clock.Now()
		if !written.IsZero() && now.Sub(written) < Heartbeat && sameStatus(&status, &last) && !s.doubted() {
			// logged and retried
		} else if err := s.report(ctx, status); err != nil {
			if ctx.Err() == nil {
				log.Error(err, "Updating the node's status failed")
			}
		} else {
			last, written = status, now
		}
		wait := StatusPeriod
		if !readyNode(&status) || written.IsZero() {
			wait = unreadyPeriod
		}
		select {
		case <-s.Clock.After(wait):
		case <-s.wake:
		case <-ctx.Done():
		}
	}
	wg.Wait()
}

// report writes the status once. A request without an answer does not delay the next
// one, which may use another connection.
func (s *Reporter) report(ctx context.Context, status v1.NodeStatus) error {
	ctx, cancel := context.WithTimeout(ctx, StatusPeriod)
	defer cancel()
	return s.write(ctx, status)
}

// doubted reports whether the node lifecycle controller has set the Node's
// conditions to Unknown, because the node was unreachable for a while.
func doubted(n *v1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c v1.NodeCondition) bool {
		return c.Status == v1.ConditionUnknown && slices.Contains(own, c.Type)
	})
}

// own are the conditions that the node itself reports.
var own = []v1.NodeConditionType{v1.NodeReady, v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure}

func (s *Reporter) doubted() bool {
	n, err := s.Nodes.Lister().Get(s.NodeName)
	return err == nil && doubted(n)
}

func readyNode(s *v1.NodeStatus) bool {
	for i := range s.Conditions {
		if s.Conditions[i].Type == v1.NodeReady {
			return s.Conditions[i].Status == v1.ConditionTrue
		}
	}
	return false
}

// sameStatus compares without the heartbeats.
func sameStatus(a, b *v1.NodeStatus) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	for _, s := range []*v1.NodeStatus{x, y} {
		for i := range s.Conditions {
			s.Conditions[i].LastHeartbeatTime, s.Conditions[i].LastTransitionTime = metav1.Time{}, metav1.Time{}
		}
	}
	return equality.Semantic.DeepEqual(x, y)
}

func (s *Reporter) labels() map[string]string {
	out := map[string]string{
		v1.LabelHostname: s.NodeName, v1.LabelOSStable: runtime.GOOS, v1.LabelArchStable: runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH,
	}
	for k, v := range s.Labels {
		out[k] = v
	}
	return out
}

// attachController is the annotation by which a node leaves attaching volumes to the
// attach and detach controller.
const attachController = "volumes.kubernetes.io/controller-managed-attach-detach"

// Initial returns the node as it is registered, without conditions.
func (s *Reporter) Initial() *v1.Node {
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: s.NodeName, Labels: s.labels(), Annotations: map[string]string{attachController: "true"}},
		Spec:       v1.NodeSpec{Taints: slices.Clone(s.Taints), ProviderID: s.ProviderID},
		Status:     v1.NodeStatus{Capacity: s.capacity.DeepCopy(), Allocatable: s.alloc.DeepCopy()},
	}
	if s.External {
		n.Spec.Taints = append(n.Spec.Taints, Uninitialized)
	}
	s.annotate(n)
	return n
}

// write makes the node, or brings its labels, annotations and status up to date.
func (s *Reporter) write(ctx context.Context, status v1.NodeStatus) error {
	nodes := s.Client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, s.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		node = s.Initial()
		status.Addresses = s.addresses(nil)
		node.Status = status
		if _, err = nodes.Create(ctx, node, metav1.CreateOptions{}); err == nil {
			s.Registered()
			s.Recorder.Event(s.Ref(), v1.EventTypeNormal, "Starting", "Starting kubelet.")
		}
		return err
	}
	if err != nil {
		return err
	}
	node = node.DeepCopy()
	changed := s.annotate(node)
	if node.Annotations[attachController] != "true" {
		metav1.SetMetaDataAnnotation(&node.ObjectMeta, attachController, "true")
		changed = true
	}
	for k, v := range s.labels() {
		if node.Labels[k] != v {
			if node.Labels == nil {
				node.Labels = map[string]string{}
			}
			node.Labels[k] = v
			changed = true
		}
	}
	if changed {
		if node, err = nodes.Update(ctx, node, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	for i := range status.Conditions {
		for j := range node.Status.Conditions {
			if o := &node.Status.Conditions[j]; o.Type == status.Conditions[i].Type && o.Status == status.Conditions[i].Status {
				status.Conditions[i].LastTransitionTime = o.LastTransitionTime
			}
		}
	}
	for _, c := range node.Status.Conditions {
		own := false
		for i := range status.Conditions {
			own = own || status.Conditions[i].Type == c.Type
		}
		if !own {
			status.Conditions = append(status.Conditions, c)
		}
	}
	status.Addresses = s.addresses(node.Status.Addresses)
	status.VolumesAttached, status.VolumesInUse = node.Status.VolumesAttached, node.Status.VolumesInUse
	for k, q := range node.Status.Capacity {
		if _, ok := status.Capacity[k]; !ok { // extended resources are others' to tell
			status.Capacity[k], status.Allocatable[k] = q, q
			if a, ok := node.Status.Allocatable[k]; ok && a.Cmp(q) < 0 {
				status.Allocatable[k] = a
			}
		}
	}
	was := readyNode(&node.Status)
	node.Status = status
	if _, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{}); err == nil && was != readyNode(&status) {
		event := "NodeNotReady"
		if !was {
			event = "NodeReady"
		}
		s.Recorder.Event(s.Ref(), v1.EventTypeNormal, event, fmt.Sprintf("Node %s status is now: %s", s.NodeName, event))
	}
	return err
}

// Ref returns the object of events about the node.
func (s *Reporter) Ref() *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: s.NodeName}
}

package node

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/node/eviction"
	"keelson.dev/keelson/internal/node/stats"
)

const (
	leaseSeconds  = 40
	renewPeriod   = 10 * time.Second
	statusPeriod  = 10 * time.Second
	unreadyPeriod = time.Second
	// heartbeat is how often an unchanged status is written all the same.
	heartbeat = 5 * time.Minute
	// maxImages is how many images a node tells of, upstream's.
	maxImages = 50
)

// nodeStatus registers the node and keeps its status and its lease.
type nodeStatus struct {
	a        *Agent
	capacity v1.ResourceList
	alloc    v1.ResourceList
	// forPods is the limit of all pods together: the capacity less the
	// reservations. It is more than alloc: evictions begin when no more than the
	// difference is left.
	forPods v1.ResourceList
	total   int64
	// said is the last status of the runtime, nil before the first.
	said *runtimeapi.StatusResponse
	wake chan struct{} // by changed
}

func newNodeStatus(a *Agent, thresholds []eviction.Threshold) *nodeStatus {
	s := &nodeStatus{a: a, wake: make(chan struct{}, 1)}
	s.measure(thresholds)
	return s
}

// measure reads what the machine has.
func (s *nodeStatus) measure(thresholds []eviction.Threshold) {
	c := v1.ResourceList{
		v1.ResourceCPU:  *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		v1.ResourcePods: *resource.NewQuantity(s.a.MaxPods, resource.DecimalSI),
	}
	maps.Copy(c, hugePages("/sys"))
	if m := int64(stats.MemTotal()); m > 0 {
		s.total = m
		c[v1.ResourceMemory] = *resource.NewQuantity(m, resource.BinarySI)
	}
	var fs unix.Statfs_t
	dir := s.a.RootDir
	for unix.Statfs(dir, &fs) != nil && dir != "/" {
		dir = dir[:max(1, strings.LastIndexByte(dir, '/'))]
	}
	if fs.Blocks > 0 {
		c[v1.ResourceEphemeralStorage] = *resource.NewQuantity(int64(fs.Blocks)*fs.Bsize, resource.BinarySI)
	}
	s.capacity = c
	s.forPods = allocatable(c, s.a.KubeReserved, s.a.SystemReserved)
	s.alloc = allocatable(c, s.a.KubeReserved, s.a.SystemReserved, eviction.Reserved(thresholds, c))
}

func (s *nodeStatus) memory() int64                { return s.total }
func (s *nodeStatus) allocatable() v1.ResourceList { return s.alloc }

// changed has the status computed, and written if it is another one, now.
func (s *nodeStatus) changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *nodeStatus) run(ctx context.Context) {
	log := klog.FromContext(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.lease(ctx) })
	var last v1.NodeStatus
	var written time.Time
	for ctx.Err() == nil {
		status := s.compute(ctx)
		now := s.a.Clock.Now()
		if !written.IsZero() && now.Sub(written) < heartbeat && sameStatus(&status, &last) {
			// nothing to tell
		} else if err := s.write(ctx, status); err != nil {
			if ctx.Err() == nil {
				log.Error(err, "Updating the node's status failed")
			}
		} else {
			last, written = status, now
		}
		wait := statusPeriod
		if !readyNode(&status) || written.IsZero() {
			wait = unreadyPeriod
		}
		select {
		case <-s.a.Clock.After(wait):
		case <-s.wake:
		case <-ctx.Done():
		}
	}
	wg.Wait()
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

func (s *nodeStatus) labels() map[string]string {
	out := map[string]string{
		v1.LabelHostname: s.a.NodeName, v1.LabelOSStable: runtime.GOOS, v1.LabelArchStable: runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH,
	}
	for k, v := range s.a.Labels {
		out[k] = v
	}
	return out
}

// initial is the node as it is registered, without conditions.
func (s *nodeStatus) initial() *v1.Node {
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: s.a.NodeName, Labels: s.labels()},
		Spec:       v1.NodeSpec{Taints: s.a.Taints, ProviderID: s.a.ProviderID},
		Status:     v1.NodeStatus{Capacity: s.capacity.DeepCopy(), Allocatable: s.alloc.DeepCopy()},
	}
}

// write makes the node, or brings its labels and status up to date.
func (s *nodeStatus) write(ctx context.Context, status v1.NodeStatus) error {
	nodes := s.a.Client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, s.a.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		node = s.initial()
		node.Status = status
		if _, err = nodes.Create(ctx, node, metav1.CreateOptions{}); err == nil {
			s.a.static.notify() // mirrors are owned by the node
			s.a.Recorder.Event(s.ref(), v1.EventTypeNormal, "Starting", "Starting kubelet.")
		}
		return err
	}
	if err != nil {
		return err
	}
	node = node.DeepCopy()
	changed := false
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
		s.a.Recorder.Event(s.ref(), v1.EventTypeNormal, event, fmt.Sprintf("Node %s status is now: %s", s.a.NodeName, event))
	}
	return err
}

func (s *nodeStatus) ref() *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: s.a.NodeName}
}

func (s *nodeStatus) compute(ctx context.Context) v1.NodeStatus {
	now := metav1.NewTime(s.a.Clock.Now().UTC().Truncate(time.Second))
	cond := func(t v1.NodeConditionType, status v1.ConditionStatus, reason, message string) v1.NodeCondition {
		return v1.NodeCondition{Type: t, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	out := v1.NodeStatus{Capacity: s.capacity.DeepCopy(), Allocatable: s.alloc.DeepCopy(), NodeInfo: s.info()}
	for _, ip := range s.a.NodeIPs {
		out.Addresses = append(out.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip.String()})
	}
	out.Addresses = append(out.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: s.a.Hostname})
	out.DaemonEndpoints.KubeletEndpoint.Port = s.a.Port
	under := s.a.eviction.UnderPressure()
	for _, p := range pressures {
		c := cond(p.condition, v1.ConditionFalse, p.no, "kubelet has "+p.noMessage)
		if slices.Contains(under, p.condition) {
			c.Status, c.Reason, c.Message = v1.ConditionTrue, p.yes, "kubelet has "+p.yesMessage
		}
		out.Conditions = append(out.Conditions, c)
	}
	said, err := s.a.cri.Status(ctx, &runtimeapi.StatusRequest{})
	if err == nil {
		s.said = said
	}
	tellFeatures(&out, s.said)
	out.Conditions = append(out.Conditions, ready(said, err, cond))
	out.Images = s.images(ctx)
	return out
}

func ready(r *runtimeapi.StatusResponse, err error, cond func(v1.NodeConditionType, v1.ConditionStatus, string, string) v1.NodeCondition) v1.NodeCondition {
	if err != nil {
		return cond(v1.NodeReady, v1.ConditionFalse, "KubeletNotReady", "container runtime is down: "+err.Error())
	}
	for _, c := range r.GetStatus().GetConditions() {
		if c.Status {
			continue
		}
		switch c.Type {
		case "NetworkReady":
			return cond(v1.NodeReady, v1.ConditionFalse, "KubeletNotReady", fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.Reason, c.Message))
		case "RuntimeReady":
			return cond(v1.NodeReady, v1.ConditionFalse, "KubeletNotReady", fmt.Sprintf("container runtime not ready: RuntimeReady=false reason:%s message:%s", c.Reason, c.Message))
		}
	}
	return cond(v1.NodeReady, v1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
}

// pressures are the node's conditions that evictions are made by, with upstream's
// reasons and messages.
var pressures = []struct {
	condition                      v1.NodeConditionType
	yes, no, yesMessage, noMessage string
}{
	{v1.NodeMemoryPressure, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "insufficient memory available", "sufficient memory available"},
	{v1.NodeDiskPressure, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk pressure", "no disk pressure"},
	{v1.NodePIDPressure, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "insufficient PID available", "sufficient PID available"},
}

func (s *nodeStatus) info() v1.NodeSystemInfo {
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	osImage := "linux"
	if f, err := os.Open("/etc/os-release"); err == nil {
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if v, ok := strings.CutPrefix(sc.Text(), "PRETTY_NAME="); ok {
				osImage = strings.Trim(v, `"`)
			}
		}
		f.Close()
	}
	uuid := read("/sys/class/dmi/id/product_uuid")
	machine := read("/etc/machine-id")
	if uuid == "" {
		uuid = machine
	}
	return v1.NodeSystemInfo{
		MachineID: machine, SystemUUID: uuid, BootID: read("/proc/sys/kernel/random/boot_id"), KernelVersion: read("/proc/sys/kernel/osrelease"),
		OSImage: osImage, ContainerRuntimeVersion: s.a.cri.RuntimeName + "://" + s.a.cri.RuntimeVersion, KubeletVersion: s.a.Version,
		OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
}

func (s *nodeStatus) images(ctx context.Context) []v1.ContainerImage {
	r, err := s.a.cri.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil
	}
	var out []v1.ContainerImage
	for _, i := range r.Images {
		if names := append(append([]string{}, i.RepoDigests...), i.RepoTags...); len(names) > 0 {
			out = append(out, v1.ContainerImage{Names: names, SizeBytes: int64(i.Size)})
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		if out[i].SizeBytes != out[j].SizeBytes {
			return out[i].SizeBytes > out[j].SizeBytes
		}
		return out[i].Names[0] < out[j].Names[0]
	})
	if len(out) > maxImages {
		out = out[:maxImages]
	}
	return out
}

// lease renews the node's lease: upstream's cheap heartbeat, KEP-589.
func (s *nodeStatus) lease(ctx context.Context) {
	leases := s.a.Client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	for ctx.Err() == nil {
		now := metav1.NewMicroTime(s.a.Clock.Now())
		l, err := leases.Get(ctx, s.a.NodeName, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			l = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: s.a.NodeName, Namespace: v1.NamespaceNodeLease},
				Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To(s.a.NodeName), LeaseDurationSeconds: ptr.To[int32](leaseSeconds), RenewTime: &now}}
			if n, nerr := s.a.Client.CoreV1().Nodes().Get(ctx, s.a.NodeName, metav1.GetOptions{}); nerr == nil {
				l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
			}
			_, err = leases.Create(ctx, l, metav1.CreateOptions{})
		case err == nil:
			l = l.DeepCopy()
			l.Spec.RenewTime = &now
			_, err = leases.Update(ctx, l, metav1.UpdateOptions{})
		}
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Renewing the node's lease failed")
		}
		select {
		case <-s.a.Clock.After(renewPeriod):
		case <-ctx.Done():
		}
	}
}

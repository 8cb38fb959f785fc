package attachdetach

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/storage/ephemeral"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/csimigration"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// managed is the annotation of nodes whose agents leave attaching to this
	// controller.
	managed = "volumes.kubernetes.io/controller-managed-attach-detach"
	// maxUnmount is how long an unhealthy node may take to unmount a volume.
	maxUnmount = 6 * time.Minute
	// doubt is when an attachment is looked at again that the cache has not yet had.
	doubt = 10 * time.Second

	podsByNode         = "attach-node"
	podsByClaim        = "attach-claim"
	attachmentsByNode  = "attach-node"
	attachmentsByClaim = "attach-volume"
)

type controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	clock    clock.PassiveClock
	queue    reconcile.Queue

	pods, attachments cache.SharedIndexInformer
	nodes             corelisters.NodeLister
	claims            corelisters.PersistentVolumeClaimLister
	volumes           corelisters.PersistentVolumeLister
	drivers           storagelisters.CSIDriverLister

	noForce bool // keeps volumes attached that an unhealthy node may use

	mu sync.Mutex
	// unwanted has the times since which no pod needs an attachment.
	unwanted map[string]time.Time
	// made has the node of the attachment of a volume for one node, by the volume, from
	// before it is made until the cache has it: in between another worker must not make
	// one to another node.
	made map[string]string
}

// New makes the controller. Its keys are the names of nodes.
func New(c controllers.Context) (reconcile.Run, error) {
	core, storageV1 := c.Informers.Core().V1(), c.Informers.Storage().V1()
	claims, volumes, drivers := core.PersistentVolumeClaims(), core.PersistentVolumes(), storageV1.CSIDrivers()
	a := &controller{
		client: c.Client(), recorder: c.Recorder(), clock: c.Clock, queue: c.Queue("attach_detach"),
		pods: core.Pods().Informer(), attachments: storageV1.VolumeAttachments().Informer(), nodes: core.Nodes().Lister(),
		claims: claims.Lister(), volumes: volumes.Lister(), drivers: drivers.Lister(), unwanted: map[string]time.Time{}, made: map[string]string{}, noForce: c.Tuned().NoForceDetach,
	}
	if err := errors.Join(
		a.pods.AddIndexers(cache.Indexers{podsByNode: nodeOf, podsByClaim: claimsOf}),
		a.attachments.AddIndexers(cache.Indexers{attachmentsByNode: attachedTo, attachmentsByClaim: attached}),
	); err != nil {
		return nil, err
	}
	nodes := core.Nodes().Informer()
	reconcile.Handle(nodes, func(n *v1.Node) { a.queue.Add(n.Name) }, func(old, cur *v1.Node) {
		if !slices.Equal(old.Status.VolumesInUse, cur.Status.VolumesInUse) || !slices.Equal(old.Status.VolumesAttached, cur.Status.VolumesAttached) ||
			ready(old) != ready(cur) || outOfService(old) != outOfService(cur) || old.Annotations[managed] != cur.Annotations[managed] {
			a.queue.Add(cur.Name)
		}
	}, nil)
	reconcile.Handle(a.pods, a.podChanged, func(old, cur *v1.Pod) {
		if old.Spec.NodeName != cur.Spec.NodeName || controllers.PodTerminated(old) != controllers.PodTerminated(cur) {
			a.podChanged(cur)
		}
	}, nil)
	reconcile.Handle(a.attachments, func(va *storage.VolumeAttachment) {
		a.seen(va)
		a.queue.Add(va.Spec.NodeName)
	}, nil, func(va *storage.VolumeAttachment) {
		a.seen(va)
		a.queue.Add(va.Spec.NodeName)
		a.volumeFree(va)
	})
	reconcile.Handle(claims.Informer(), func(c *v1.PersistentVolumeClaim) {
		for _, p := range reconcile.Indexed[*v1.Pod](a.pods.GetIndexer(), podsByClaim, reconcile.Key(c)) {
			a.podChanged(p)
		}
	}, func(old, cur *v1.PersistentVolumeClaim) {
		if old.Spec.VolumeName == cur.Spec.VolumeName && old.Status.Phase == cur.Status.Phase {
			return
		}
		for _, p := range reconcile.Indexed[*v1.Pod](a.pods.GetIndexer(), podsByClaim, reconcile.Key(cur)) {
			a.podChanged(p)
		}
	}, reconcile.Ignore)
	// A volume may be seen later than the claim that has it.
	reconcile.Handle(volumes.Informer(), a.volumeChanged, func(old, cur *v1.PersistentVolume) {
		if !equality.Semantic.DeepEqual(old.Spec.ClaimRef, cur.Spec.ClaimRef) {
			a.volumeChanged(cur)
		}
	}, reconcile.Ignore)
	reconcile.Handle(drivers.Informer(), func(*storage.CSIDriver) {
		all, _ := a.nodes.List(labels.Everything())
		for _, n := range all {
			a.queue.Add(n.Name)
		}
	}, nil, nil)
	return reconcile.Keys{
		Queue: a.queue, Workers: 2,
		Reads:     []cache.SharedIndexInformer{a.pods, a.attachments, nodes, claims.Informer(), volumes.Informer(), drivers.Informer()},
		Reconcile: a.reconcile,
	}.Run, nil
}

// attaches reports whether a pod has volumes that may have to be attached.
func attaches(p *v1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v v1.Volume) bool {
		return v.PersistentVolumeClaim != nil || v.Ephemeral != nil || csimigration.InTree(&v)
	})
}

func nodeOf(o any) ([]string, error) {
	if p, ok := o.(*v1.Pod); ok && p.Spec.NodeName != "" && attaches(p) {
		return []string{p.Spec.NodeName}, nil
	}
	return nil, nil
}

func claimsOf(o any) ([]string, error) {
	p, ok := o.(*v1.Pod)
	if !ok || p.Spec.NodeName == "" {
		return nil, nil
	}
	return podspec.ClaimKeys(p), nil
}

func attachedTo(o any) ([]string, error) {
	if va, ok := o.(*storage.VolumeAttachment); ok {
		return []string{va.Spec.NodeName}, nil
	}
	return nil, nil
}

func attached(o any) ([]string, error) {
	if va, ok := o.(*storage.VolumeAttachment); ok && va.Spec.Source.PersistentVolumeName != nil {
		return []string{*va.Spec.Source.PersistentVolumeName}, nil
	}
	return nil, nil
}

func (a *controller) podChanged(p *v1.Pod) {
	if p.Spec.NodeName != "" && attaches(p) {
		a.queue.Add(p.Spec.NodeName)
	}
}

// volumeFree queues the nodes whose pods may have waited for a volume that was
// attached elsewhere.
func (a *controller) volumeFree(va *storage.VolumeAttachment) {
	if va.Spec.Source.PersistentVolumeName == nil {
		return
	}
	if v, err := a.volumes.Get(*va.Spec.Source.PersistentVolumeName); err == nil {
		a.volumeChanged(v)
	}
}

// volumeChanged queues the nodes whose pods use a volume's claim.
func (a *controller) volumeChanged(v *v1.PersistentVolume) {
	if v.Spec.ClaimRef == nil {
		return
	}
	for _, p := range reconcile.Indexed[*v1.Pod](a.pods.GetIndexer(), podsByClaim, v.Spec.ClaimRef.Namespace+"/"+v.Spec.ClaimRef.Name) {
		a.podChanged(p)
	}
}

func ready(n *v1.Node) bool {
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == v1.NodeReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func outOfService(n *v1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t v1.Taint) bool { return t.Key == v1.TaintNodeOutOfService })
}

// Name returns the name of the attachment of a volume to a node. The node's agent
// computes it, too.
func Name(v *v1.CSIPersistentVolumeSource, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(v.VolumeHandle+v.Driver+node)))
}

// UniqueName returns the name of a volume in a node's status.
func UniqueName(v *v1.CSIPersistentVolumeSource) v1.UniqueVolumeName {
	return v1.UniqueVolumeName("kubernetes.io/csi/" + v.Driver + "^" + v.VolumeHandle)
}

// wanted is a volume that pods of a node need attached.
type wanted struct {
	volume *v1.PersistentVolume
	inline bool // it is the pods' own, and no object of the cluster
	pods   []*v1.Pod
}

// want returns the volumes that pods of a node need attached, by attachment. The
// claims of pods that have ended need none.
func (a *controller) want(node string) (map[string]*wanted, error) {
	out := map[string]*wanted{}
	add := func(v *v1.PersistentVolume, inline bool, p *v1.Pod) {
		key := Name(v.Spec.CSI, node)
		if out[key] == nil {
			out[key] = &wanted{volume: v, inline: inline}
		}
		out[key].pods = append(out[key].pods, p)
	}
	for _, p := range reconcile.Indexed[*v1.Pod](a.pods.GetIndexer(), podsByNode, node) {
		if controllers.PodTerminated(p) {
			continue
		}
		for i := range p.Spec.Volumes {
			name := podspec.ClaimName(p, &p.Spec.Volumes[i])
			if name == "" {
				if v, err := csimigration.Inline(&p.Spec.Volumes[i], p.Namespace); err == nil && v != nil && a.attachable(v.Spec.CSI.Driver) {
					add(v, true, p)
				}
				continue
			}
			claim, err := a.claims.PersistentVolumeClaims(p.Namespace).Get(name)
			if apierrors.IsNotFound(err) || err == nil && (claim.Spec.VolumeName == "" || claim.Status.Phase != v1.ClaimBound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if p.Spec.Volumes[i].Ephemeral != nil && ephemeral.VolumeIsForPod(p, claim) != nil {
				continue
			}
			v, err := a.volume(claim.Spec.VolumeName)
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if v.Spec.CSI == nil || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != claim.UID || !a.attachable(v.Spec.CSI.Driver) {
				continue
			}
			add(v, false, p)
		}
	}
	return out, nil
}

// volume returns a volume, as one of a CSI driver where it stands for such a one.
func (a *controller) volume(name string) (*v1.PersistentVolume, error) {
	v, err := a.volumes.Get(name)
	if err != nil {
		return nil, err
	}
	return csimigration.Volume(v)
}

// attachable reports whether volumes of a driver have to be attached, which is the
// default.
func (a *controller) attachable(driver string) bool {
	d, err := a.drivers.Get(driver)
	return err != nil || d.Spec.AttachRequired == nil || *d.Spec.AttachRequired
}

func (a *controller) reconcile(ctx context.Context, name string) (reconcile.Result, error) {
	node, err := a.nodes.Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return reconcile.Result{}, err
	}
	if err != nil {
		node = nil
	}
	want, err := a.want(name)
	if err != nil {
		return reconcile.Result{}, err
	}
	if node == nil || node.Annotations[managed] != "true" {
		want = nil
	}
	if err := a.settle(ctx, name, want); err != nil {
		return reconcile.Result{}, err
	}
	have := map[string]*storage.VolumeAttachment{}
	for _, va := range reconcile.Indexed[*storage.VolumeAttachment](a.attachments.GetIndexer(), attachmentsByNode, name) {
		if a.own(va) {
			have[va.Name] = va
		}
	}
	var errs []error
	var status []v1.AttachedVolume
	var detach []*storage.VolumeAttachment
	next := time.Duration(0)
	for key, va := range have {
		v := a.source(va)
		if want[key] != nil {
			a.forget(key)
			if va.Status.Attached && va.DeletionTimestamp == nil {
				status = append(status, a.entry(va, v))
			}
			continue
		}
		wait := a.mustWait(node, va, v)
		if wait == 0 {
			detach = append(detach, va)
			continue
		}
		if next == 0 || wait < next {
			next = wait
		}
		if va.Status.Attached {
			status = append(status, a.entry(va, v))
		}
	}
	// The volume leaves the status first, so that the agent does not begin to use
	// it.
	if node != nil {
		if err := a.report(ctx, node, status, want, have); err != nil {
			return reconcile.Result{}, err
		}
	}
	for _, va := range detach {
		if va.DeletionTimestamp != nil {
			continue
		}
		err := a.client.StorageV1().VolumeAttachments().Delete(ctx, va.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &va.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, err)
			continue
		}
		a.forget(va.Name)
	}
	for key, w := range want {
		if have[key] == nil {
			errs = append(errs, a.attach(ctx, name, key, w))
		} else if e := have[key].Status.AttachError; e != nil && !have[key].Status.Attached {
			a.tell(w.pods, fmt.Sprintf("AttachVolume.Attach failed for volume %q : %s", w.volume.Name, e.Message))
		}
	}
	return reconcile.Result{RequeueAfter: next}, errors.Join(errs...)
}

// source returns the volume's source in an attachment, nil if the volume is
// gone.
func (a *controller) source(va *storage.VolumeAttachment) *v1.PersistentVolume {
	if inline := va.Spec.Source.InlineVolumeSpec; inline != nil && inline.CSI != nil {
		return &v1.PersistentVolume{Spec: *inline}
	}
	if va.Spec.Source.PersistentVolumeName == nil {
		return nil
	}
	v, err := a.volume(*va.Spec.Source.PersistentVolumeName)
	if err != nil || v.Spec.CSI == nil {
		return nil
	}
	return v
}

// own reports whether this controller made the attachment: others are left
// alone.
func (a *controller) own(va *storage.VolumeAttachment) bool {
	if v := a.source(va); v != nil {
		return va.Name == Name(v.Spec.CSI, va.Spec.NodeName)
	}
	hash, ok := strings.CutPrefix(va.Name, "csi-")
	return ok && len(hash) == 2*sha256.Size && va.Spec.Source.PersistentVolumeName != nil
}

func (a *controller) entry(va *storage.VolumeAttachment, v *v1.PersistentVolume) v1.AttachedVolume {
	if v == nil {
		return v1.AttachedVolume{Name: v1.UniqueVolumeName("kubernetes.io/csi/" + va.Spec.Attacher + "^")}
	}
	return v1.AttachedVolume{Name: UniqueName(v.Spec.CSI)}
}

func (a *controller) forget(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.unwanted, key)
}

// mustWait returns how long an attachment that no pod needs is kept, as the node
// may still use it; 0 if it can go. Without force it is kept until the node no
// longer reports the volume in use, which wakes the controller.
func (a *controller) mustWait(node *v1.Node, va *storage.VolumeAttachment, v *v1.PersistentVolume) time.Duration {
	if node == nil || v == nil || !slices.Contains(node.Status.VolumesInUse, UniqueName(v.Spec.CSI)) {
		return 0
	}
	now := a.clock.Now()
	a.mu.Lock()
	since, ok := a.unwanted[va.Name]
	if !ok {
		since = now
		a.unwanted[va.Name] = now
	}
	a.mu.Unlock()
	switch left := maxUnmount - now.Sub(since); {
	case outOfService(node), left <= 0 && !ready(node) && !a.noForce:
		return 0
	case left > 0:
		return left
	}
	return maxUnmount
}

// report writes the node's volumesAttached, and records events of the pods whose
// volumes are new there.
func (a *controller) report(ctx context.Context, node *v1.Node, status []v1.AttachedVolume, want map[string]*wanted, have map[string]*storage.VolumeAttachment) error {
	slices.SortFunc(status, func(x, y v1.AttachedVolume) int { return strings.Compare(string(x.Name), string(y.Name)) })
	// Volumes that are not CSI's are kept.
	var next []v1.AttachedVolume
	for _, v := range node.Status.VolumesAttached {
		if !strings.HasPrefix(string(v.Name), "kubernetes.io/csi/") {
			next = append(next, v)
		}
	}
	next = append(next, status...)
	if slices.Equal(next, node.Status.VolumesAttached) {
		return nil
	}
	if next == nil {
		next = []v1.AttachedVolume{}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": node.UID}, "status": map[string]any{"volumesAttached": next}})
	if err != nil {
		return err
	}
	if _, err := a.client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	for key, w := range want {
		entry := v1.AttachedVolume{Name: UniqueName(w.volume.Spec.CSI)}
		if have[key] != nil && slices.Contains(next, entry) && !slices.Contains(node.Status.VolumesAttached, entry) {
			for _, p := range w.pods {
				a.recorder.Event(p, v1.EventTypeNormal, "SuccessfulAttachVolume", fmt.Sprintf("AttachVolume.Attach succeeded for volume %q ", w.volume.Name))
			}
		}
	}
	return nil
}

// attach makes an attachment, unless the volume is for one node at a time and is
// attached to another.
func (a *controller) attach(ctx context.Context, node, key string, w *wanted) error {
	if exclusive(w.volume) && !w.inline {
		if other := a.reserve(w.volume.Name, node); other != "" {
			a.tellTaken(other, w)
			return nil // the end of that attachment queues this node
		}
	}
	source := storage.VolumeAttachmentSource{PersistentVolumeName: &w.volume.Name}
	if w.inline {
		source = storage.VolumeAttachmentSource{InlineVolumeSpec: &w.volume.Spec}
	}
	_, err := a.client.StorageV1().VolumeAttachments().Create(ctx, &storage.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: key},
		Spec:       storage.VolumeAttachmentSpec{Attacher: w.volume.Spec.CSI.Driver, NodeName: node, Source: source},
	}, metav1.CreateOptions{})
	if err == nil || apierrors.IsAlreadyExists(err) {
		return nil
	}
	a.tell(w.pods, fmt.Sprintf("AttachVolume.Attach failed for volume %q : %v", w.volume.Name, err))
	return err
}

// reserve reserves a volume that is for one node for node, and returns the other node
// that has it, "" if none has.
func (a *controller) reserve(volume, node string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, va := range reconcile.Indexed[*storage.VolumeAttachment](a.attachments.GetIndexer(), attachmentsByClaim, volume) {
		if va.Spec.NodeName != node && a.own(va) {
			return va.Spec.NodeName
		}
	}
	if other := a.made[volume]; other != "" && other != node {
		return other
	}
	a.made[volume] = node
	return ""
}

// seen notes that the cache has an attachment, or had.
func (a *controller) seen(va *storage.VolumeAttachment) {
	if name := va.Spec.Source.PersistentVolumeName; name != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.made[*name] == va.Spec.NodeName {
			delete(a.made, *name)
		}
	}
}

// settle finds out what has become of attachments to a node that were to be made, that
// are no longer wanted and that the cache has never had: whether they were made may not
// be known. The volumes of those that do not exist are free.
func (a *controller) settle(ctx context.Context, node string, want map[string]*wanted) error {
	a.mu.Lock()
	var doubtful []string
	for volume, at := range a.made {
		if at == node && !slices.ContainsFunc(slices.Collect(maps.Values(want)), func(w *wanted) bool { return w.volume.Name == volume }) {
			doubtful = append(doubtful, volume)
		}
	}
	a.mu.Unlock()
	for _, name := range doubtful {
		v, err := a.volume(name)
		if err == nil && v.Spec.CSI != nil {
			if _, err = a.client.StorageV1().VolumeAttachments().Get(ctx, Name(v.Spec.CSI, node), metav1.GetOptions{}); err == nil {
				a.queue.AddAfter(node, doubt) // the cache will have it, unless it goes before
				continue
			}
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		a.mu.Lock()
		delete(a.made, name)
		a.mu.Unlock()
		if v != nil {
			a.volumeChanged(v)
		}
	}
	return nil
}

// exclusive reports whether a volume is for one node at a time.
func exclusive(v *v1.PersistentVolume) bool {
	return len(v.Spec.AccessModes) > 0 && !slices.ContainsFunc(v.Spec.AccessModes, func(m v1.PersistentVolumeAccessMode) bool {
		return m == v1.ReadWriteMany || m == v1.ReadOnlyMany
	})
}

func (a *controller) tell(pods []*v1.Pod, message string) {
	for _, p := range pods {
		a.recorder.Event(p, v1.EventTypeWarning, "FailedAttachVolume", message)
	}
}

// tellTaken records events of the pods whose volume is attached to another node,
// with the names of the pods of their namespace that use it there.
func (a *controller) tellTaken(node string, w *wanted) {
	all, err := a.want(node)
	if err != nil {
		return
	}
	users := all[Name(w.volume.Spec.CSI, node)]
	for _, p := range w.pods {
		var names []string
		others := 0
		if users != nil {
			for _, u := range users.pods {
				if u.Namespace == p.Namespace {
					names = append(names, u.Name)
				} else {
					others++
				}
			}
		}
		detail := "Volume is already exclusively attached to one node and can't be attached to another"
		switch {
		case len(names) > 0 && others > 0:
			detail = fmt.Sprintf("Volume is already used by pod(s) %s and %d pod(s) in different namespaces", strings.Join(names, ", "), others)
		case len(names) > 0:
			detail = "Volume is already used by pod(s) " + strings.Join(names, ", ")
		case others > 0:
			detail = fmt.Sprintf("Volume is already used by %d pod(s) in different namespaces", others)
		}
		a.recorder.Event(p, v1.EventTypeWarning, "FailedAttachVolume", fmt.Sprintf("Multi-Attach error for volume %q %s", w.volume.Name, detail))
	}
}

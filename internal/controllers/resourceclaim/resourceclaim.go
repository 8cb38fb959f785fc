package resourceclaim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	resourcelisters "k8s.io/client-go/listers/resource/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/resourceclaim/metrics"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	// claimAnnotation names the entry of the pod's spec.resourceClaims that a
	// claim was made for.
	claimAnnotation = "resource.kubernetes.io/pod-claim-name"
	// fieldManager owns the pod's status.resourceClaimStatuses.
	fieldManager = "ResourceClaimController"
	// usersIndex indexes pods by the claims that they use ("claim/<namespace>/<name>")
	// and the templates that claims of theirs are made from ("template/…").
	usersIndex = "keelson/resourceclaims"
	// longestBase is the longest base of a name of 63 characters with a hyphen and
	// a suffix of five.
	longestBase = 57
)

type controller struct {
	client     kubernetes.Interface
	recorder   record.EventRecorder
	pods       corelisters.PodLister
	podIndex   cache.Indexer
	claimIndex cache.Indexer
	claims     resourcelisters.ResourceClaimLister
	templates  resourcelisters.ResourceClaimTemplateLister
	// podQueue holds pods that claims are made or reserved for, claimQueue claims
	// whose reservations may be over.
	podQueue, claimQueue reconcile.Queue
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	metrics.RegisterMetrics()
	pods := c.Informers.Core().V1().Pods()
	claims, templates := c.Informers.Resource().V1().ResourceClaims(), c.Informers.Resource().V1().ResourceClaimTemplates()
	r := &controller{
		client: c.Client(), recorder: c.Recorder(),
		pods: pods.Lister(), podIndex: pods.Informer().GetIndexer(), claims: claims.Lister(), claimIndex: claims.Informer().GetIndexer(), templates: templates.Lister(),
		podQueue: c.Queue("resource_claim"), claimQueue: c.Queue("resource_claim_release"),
	}
	if err := pods.Informer().AddIndexers(cache.Indexers{usersIndex: uses}); err != nil {
		return nil, err
	}
	if err := claims.Informer().AddIndexers(cache.Indexers{ownerIndex: owner}); err != nil {
		return nil, err
	}
	reconcile.Handle(pods.Informer(), r.podChanged, nil, r.podGone)
	reconcile.Handle(claims.Informer(), r.claimChanged, nil, r.wakeUsers)
	reconcile.Handle(templates.Informer(), func(t *resourceapi.ResourceClaimTemplate) { r.wake("template/" + reconcile.Key(t)) }, nil, reconcile.Ignore)
	reads := []cache.SharedIndexInformer{pods.Informer(), claims.Informer(), templates.Informer()}
	return reconcile.Together(
		reconcile.Loop[*v1.Pod]{Queue: r.podQueue, Workers: c.Workers(5), For: pods.Informer(), Reads: reads, Reconcile: r.reconcilePod}.Run,
		reconcile.Loop[*resourceapi.ResourceClaim]{Queue: r.claimQueue, Workers: c.Workers(5), For: claims.Informer(), Reads: reads, Reconcile: r.reconcileClaim}.Run,
	), nil
}

// uses is usersIndex.
func uses(obj any) ([]string, error) {
	pod, ok := obj.(*v1.Pod)
	if !ok {
		return nil, nil
	}
	var keys []string
	for name := range resourceclaim.PodClaims(pod) {
		keys = append(keys, "claim/"+pod.Namespace+"/"+name)
	}
	for _, c := range pod.Spec.ResourceClaims {
		if t := c.ResourceClaimTemplateName; t != nil {
			keys = append(keys, "template/"+pod.Namespace+"/"+*t)
		}
	}
	return keys, nil
}

func (r *controller) podChanged(p *v1.Pod) {
	switch {
	case len(p.Spec.ResourceClaims) == 0 && p.Status.ExtendedResourceClaimStatus == nil:
	case done(p):
		r.podGone(p)
	default:
		r.podQueue.Add(reconcile.Key(p))
	}
}

// podGone queues the claims of a pod that needs them no more.
func (r *controller) podGone(p *v1.Pod) {
	for name := range resourceclaim.PodClaims(p) {
		r.claimQueue.Add(p.Namespace + "/" + name)
	}
	// A claim that was made last may not be in the pod's status.
	for _, c := range reconcile.Indexed[*resourceapi.ResourceClaim](r.claimIndex, ownerIndex, string(p.UID)) {
		r.claimQueue.Add(reconcile.Key(c))
	}
}

// ownerIndex has the claims by the UID of the pod that controls them.
const ownerIndex = "resourceclaim/owner"

func owner(obj any) ([]string, error) {
	c, ok := obj.(*resourceapi.ResourceClaim)
	if !ok {
		return nil, nil
	}
	if o := metav1.GetControllerOf(c); o != nil && o.Kind == "Pod" {
		return []string{string(o.UID)}, nil
	}
	return nil, nil
}

func (r *controller) claimChanged(c *resourceapi.ResourceClaim) {
	r.claimQueue.Add(reconcile.Key(c))
	r.wakeUsers(c)
}

func (r *controller) wakeUsers(c *resourceapi.ResourceClaim) { r.wake("claim/" + reconcile.Key(c)) }

func (r *controller) wake(key string) {
	for _, p := range reconcile.Indexed[*v1.Pod](r.podIndex, usersIndex, key) {
		r.podChanged(p)
	}
}

// done reports whether a pod needs no claim any more: it has ended, or was
// deleted before it had a node.
func done(p *v1.Pod) bool {
	return controllers.PodTerminated(p) || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
}

// reconcilePod makes the claims that the pod lacks, and reserves those that are
// allocated for a pod that the scheduler did not place.
func (r *controller) reconcilePod(ctx context.Context, pod *v1.Pod) (reconcile.Result, error) {
	if pod.DeletionTimestamp != nil || done(pod) {
		return reconcile.Result{}, nil
	}
	names := map[string]string{}
	for i := range pod.Spec.ResourceClaims {
		c := &pod.Spec.ResourceClaims[i]
		name, err := r.ensure(ctx, pod, c)
		if err != nil {
			r.recorder.Event(pod, v1.EventTypeWarning, "FailedResourceClaimCreation", fmt.Sprintf("PodResourceClaim %s: %v", c.Name, err))
			return reconcile.Result{}, fmt.Errorf("pod %s, PodResourceClaim %s: %w", reconcile.Key(pod), c.Name, err)
		}
		if name != "" {
			names[c.Name] = name
		}
	}
	if len(names) > 0 {
		var statuses []*corev1apply.PodResourceClaimStatusApplyConfiguration
		// What was made before stays this field manager's.
		for _, s := range pod.Status.ResourceClaimStatuses {
			if _, ok := names[s.Name]; !ok && s.ResourceClaimName != nil {
				names[s.Name] = *s.ResourceClaimName
			}
		}
		for _, n := range slices.Sorted(maps.Keys(names)) {
			statuses = append(statuses, corev1apply.PodResourceClaimStatus().WithName(n).WithResourceClaimName(names[n]))
		}
		apply := corev1apply.Pod(pod.Name, pod.Namespace).WithUID(pod.UID).WithStatus(corev1apply.PodStatus().WithResourceClaimStatuses(statuses...))
		if _, err := r.client.CoreV1().Pods(pod.Namespace).ApplyStatus(ctx, apply, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
			return reconcile.Result{}, fmt.Errorf("update pod %s ResourceClaimStatuses: %w", reconcile.Key(pod), err)
		}
		return reconcile.Result{}, nil // the change of the pod wakes this again
	}
	if pod.Spec.NodeName == "" {
		return reconcile.Result{}, nil // the scheduler reserves
	}
	for name, own := range resourceclaim.PodClaims(pod) {
		c, err := r.claims.ResourceClaims(pod.Namespace).Get(name)
		if apierrors.IsNotFound(err) {
			continue // its creation wakes this
		}
		if err != nil {
			return reconcile.Result{}, err
		}
		if own {
			if err := resourceclaim.IsForPod(pod, c, false); err != nil {
				continue // only its deletion can help
			}
		}
		if c.Status.Allocation == nil || resourceclaim.IsReservedForPod(pod, c, false) || !resourceclaim.CanBeReserved(c) || c.DeletionTimestamp != nil {
			continue
		}
		c = c.DeepCopy()
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		if _, err := r.client.ResourceV1().ResourceClaims(c.Namespace).UpdateStatus(ctx, c, metav1.UpdateOptions{}); err != nil {
			return reconcile.Result{}, fmt.Errorf("reserve claim %s for pod: %w", reconcile.Key(c), err)
		}
	}
	return reconcile.Result{}, nil
}

// ensure makes the claim of an entry that names a template, and returns its name
// where the pod's status lacks it.
func (r *controller) ensure(ctx context.Context, pod *v1.Pod, entry *v1.PodResourceClaim) (string, error) {
	known, own, err := resourceclaim.Name(pod, entry)
	switch {
	case errors.Is(err, resourceclaim.ErrClaimNotFound):
	case err != nil:
		return "", fmt.Errorf("checking for claim before creating it: %w", err)
	case known == nil || !own:
		return "", nil
	default:
		c, err := r.claims.ResourceClaims(pod.Namespace).Get(*known)
		if err == nil && resourceclaim.IsForPod(pod, c, false) == nil {
			return "", nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return "", err
		}
		// It was deleted, or is another's: another is made.
	}
	template, err := r.templates.ResourceClaimTemplates(pod.Namespace).Get(*entry.ResourceClaimTemplateName)
	if err != nil {
		return "", fmt.Errorf("resource claim template %q: %w", *entry.ResourceClaimTemplateName, err)
	}
	claim := &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Labels:          maps.Clone(template.Spec.Labels),
			Annotations:     maps.Clone(template.Spec.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, v1.SchemeGroupVersion.WithKind("Pod"))},
		},
		Spec: *template.Spec.Spec.DeepCopy(),
	}
	metav1.SetMetaDataAnnotation(&claim.ObjectMeta, claimAnnotation, entry.Name)
	client := r.client.ResourceV1().ResourceClaims(pod.Namespace)
	// The name is always the same for this entry of this pod, so that a claim
	// whose creation was not heard of is found. The next attempt is for the
	// coincidence that the name is another's.
	for attempt := range 10 {
		claim.Name = claimName(pod, entry.Name, attempt)
		made, err := client.Create(ctx, claim, metav1.CreateOptions{})
		count(err, admin(claim))
		if apierrors.IsAlreadyExists(err) {
			if made, err = client.Get(ctx, claim.Name, metav1.GetOptions{}); err == nil && (!metav1.IsControlledBy(made, pod) || made.DeletionTimestamp != nil) {
				continue
			}
		}
		if err != nil {
			return "", fmt.Errorf("create ResourceClaim %s: %w", claim.Name, err)
		}
		return made.Name, nil
	}
	return "", fmt.Errorf("create ResourceClaim %s: the names are taken", claim.Name)
}

// claimName returns "<pod>-<entry>-<suffix>", at most 63 characters; of names that
// are too long, both lose their ends in proportion.
func claimName(pod *v1.Pod, entry string, attempt int) string {
	base := pod.Name + "-" + entry + "-"
	if n := len(base); n > longestBase+1 {
		base = pod.Name[:len(pod.Name)*longestBase/n] + "-" + entry[:len(entry)*longestBase/n] + "-"
	}
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%s/%d", pod.UID, entry, attempt)
	suffix := rand.SafeEncodeString(fmt.Sprintf("%010d", h.Sum32()))
	return base + suffix[len(suffix)-5:]
}

func admin(c *resourceapi.ResourceClaim) bool {
	return slices.ContainsFunc(c.Spec.Devices.Requests, func(q resourceapi.DeviceRequest) bool {
		return q.Exactly != nil && ptr.Deref(q.Exactly.AdminAccess, false)
	})
}

func count(err error, admin bool) {
	status := "success"
	if err != nil {
		status = "failure"
	}
	metrics.ResourceClaimCreate.WithLabelValues(status, strconv.FormatBool(admin), "", "Pod").Inc()
}

// reconcileClaim drops the reservations of pods that need the claim no more. With
// the last one goes the allocation, and a claim that was made for a pod.
func (r *controller) reconcileClaim(ctx context.Context, claim *resourceapi.ResourceClaim) (reconcile.Result, error) {
	var valid []resourceapi.ResourceClaimConsumerReference
	for _, ref := range claim.Status.ReservedFor {
		if ref.APIGroup != "" || ref.Resource != "pods" {
			valid = append(valid, ref) // another's to give back
			continue
		}
		needed, err := r.needs(ctx, claim.Namespace, ref.Name, ref.UID)
		if err != nil {
			return reconcile.Result{}, err
		}
		if needed {
			valid = append(valid, ref)
		}
	}
	client := r.client.ResourceV1().ResourceClaims(claim.Namespace)
	protected := slices.Contains(claim.Finalizers, resourceapi.Finalizer)
	var err error
	// An allocation without a reservation is kept until the claim is deleted:
	// only that the last one has gone takes it back.
	dropped := len(valid) < len(claim.Status.ReservedFor)
	release := len(valid) == 0 && protected && claim.Status.Allocation != nil && (dropped || claim.DeletionTimestamp != nil)
	if dropped || release {
		claim = claim.DeepCopy()
		claim.Status.ReservedFor = valid
		if release {
			claim.Status.Allocation, claim.Status.Devices = nil, nil
		}
		if claim, err = client.UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil {
			return reconcile.Result{}, err
		}
	}
	// The scheduler sets the finalizer before it allocates: one without an
	// allocation is not left over as long as nothing was given back.
	if protected && len(valid) == 0 && claim.Status.Allocation == nil && (dropped || claim.DeletionTimestamp != nil) {
		claim = claim.DeepCopy()
		claim.Finalizers = slices.DeleteFunc(claim.Finalizers, func(f string) bool { return f == resourceapi.Finalizer })
		if claim, err = client.Update(ctx, claim, metav1.UpdateOptions{}); err != nil {
			return reconcile.Result{}, err
		}
	}
	owner := metav1.GetControllerOf(claim)
	if owner == nil || owner.APIVersion != "v1" || owner.Kind != "Pod" || claim.DeletionTimestamp != nil || len(valid) > 0 {
		return reconcile.Result{}, nil
	}
	if needed, err := r.needs(ctx, claim.Namespace, owner.Name, owner.UID); err != nil || needed {
		return reconcile.Result{}, err
	}
	err = client.Delete(ctx, claim.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(claim.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		err = nil
	}
	return reconcile.Result{}, err
}

// needs reports whether that pod exists and may still run. A pod that the cache
// lacks may only be too new for it: the API server decides.
func (r *controller) needs(ctx context.Context, namespace, name string, uid types.UID) (bool, error) {
	pod, err := r.pods.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) || err == nil && pod.UID != uid {
		pod, err = r.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	}
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return pod.UID == uid && !done(pod), nil
}

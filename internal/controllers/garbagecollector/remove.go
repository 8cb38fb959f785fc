package garbagecollector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/klog/v2"

	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

func (c *collector) client(n node) metadata.ResourceInterface {
	r := c.metadata.Resource(n.resource.GroupVersionResource)
	if n.resource.namespaced {
		return r.Namespace(n.namespace)
	}
	return r
}

// because makes the owner, gone or going, the cause of what happens to its
// dependents.
func because(ctx context.Context, owner types.UID) context.Context {
	return trace.WithCause(ctx, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{UID: owner}})
}

// tryRemove looks whether the object of a UID must go, and has it deleted then.
func (c *collector) tryRemove(ctx context.Context, uid string) (reconcile.Result, error) {
	return reconcile.Result{}, c.remove(ctx, uid)
}

func (c *collector) remove(ctx context.Context, key string) error {
	uid := types.UID(key)
	n, deps, ok := c.graph.look(uid)
	if !ok {
		return nil
	}
	if n.ref != nil {
		return c.verify(ctx, n)
	}
	if n.deleting && !n.foreground {
		return nil
	}
	if n.foreground {
		return c.finishForeground(ctx, n, deps)
	}
	if len(n.owners) == 0 {
		return nil
	}
	latest, err := c.client(n).Get(ctx, n.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && latest.UID != uid {
		c.graph.gone(uid)
		return nil
	}
	if err != nil {
		return err
	}
	if latest.DeletionTimestamp != nil {
		return nil
	}
	var solid, dangling, waiting []metav1.OwnerReference
	for _, ref := range latest.OwnerReferences {
		state, err := c.judge(ctx, n, ref)
		if err != nil {
			return err
		}
		switch state {
		case present:
			solid = append(solid, ref)
		case absent:
			dangling = append(dangling, ref)
		case going:
			waiting = append(waiting, ref)
		}
	}
	stale := slices.Concat(dangling, waiting)
	switch {
	case len(stale) == 0:
		return nil
	case len(solid) > 0:
		// Another owner still wants it: only the reference goes.
		return c.dropOwners(because(ctx, stale[0].UID), n, latest, stale)
	case len(waiting) > 0 && len(deps) > 0:
		ctx = because(ctx, waiting[0].UID)
		// Where a dependent waits in the foreground too there may be a circle of
		// objects each waiting for the next: this one then blocks none.
		if slices.ContainsFunc(deps, func(d node) bool { return d.foreground }) {
			if err := c.unblock(ctx, n, latest); err != nil {
				return err
			}
			latest.ResourceVersion = ""
		}
		return c.delete(ctx, n, latest, metav1.DeletePropagationForeground)
	}
	policy := metav1.DeletePropagationBackground
	switch {
	case slices.Contains(latest.Finalizers, metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(latest.Finalizers, metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	return c.delete(because(ctx, stale[0].UID), n, latest, policy)
}

func (c *collector) delete(ctx context.Context, n node, latest *metav1.PartialObjectMetadata, policy metav1.DeletionPropagation) error {
	pre := &metav1.Preconditions{UID: &n.uid}
	if latest.ResourceVersion != "" {
		pre.ResourceVersion = &latest.ResourceVersion
	}
	err := c.client(n).Delete(ctx, n.name, metav1.DeleteOptions{Preconditions: pre, PropagationPolicy: &policy})
	if apierrors.IsNotFound(err) {
		c.graph.gone(n.uid)
		return nil
	}
	return err
}

type ownerState int

const (
	present ownerState = iota
	absent
	going
)

// judge returns the state of an owner. That it exists is known from the graph,
// which follows deletions; that it does not exist is asked of the API server.
func (c *collector) judge(ctx context.Context, n node, ref metav1.OwnerReference) (ownerState, error) {
	c.graph.mu.Lock()
	known := c.graph.knownAbsent(&ref, n.namespace)
	owner := c.graph.nodes[ref.UID]
	state, decided := present, false
	if owner != nil && owner.is(&ref, n.namespace) {
		decided = true
		if owner.foreground {
			state = going
		}
	}
	elsewhere := owner != nil && owner.ref == nil && owner.resource.namespaced && owner.namespace != n.namespace
	c.graph.mu.Unlock()
	if decided {
		return state, nil
	}
	if known {
		return absent, nil
	}
	if elsewhere {
		c.invalidOwner(n, ref)
	}
	o, err := c.find(ctx, n.namespace, ref)
	switch {
	case apierrors.IsNotFound(err) || errors.Is(err, errClusterOwner):
		if err != nil && errors.Is(err, errClusterOwner) {
			// A cluster-scoped object cannot have a namespaced owner: such a
			// reference is never taken for a dangling one.
			return present, nil
		}
		c.graph.mu.Lock()
		c.graph.absent.Add(coordinatesOf(&ref, n.namespace), true)
		c.graph.mu.Unlock()
		return absent, nil
	case err != nil:
		return present, err
	case o.UID != ref.UID:
		c.graph.mu.Lock()
		c.graph.absent.Add(coordinatesOf(&ref, n.namespace), true)
		c.graph.mu.Unlock()
		return absent, nil
	case o.DeletionTimestamp != nil && slices.Contains(o.Finalizers, metav1.FinalizerDeleteDependents):
		return going, nil
	}
	return present, nil
}

var errClusterOwner = errors.New("cluster-scoped objects cannot refer to namespaced owners")

// find reads an owner from the API server.
func (c *collector) find(ctx context.Context, namespace string, ref metav1.OwnerReference) (*metav1.PartialObjectMetadata, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, err
	}
	mapping, err := c.mapper.RESTMapping(gv.WithKind(ref.Kind).GroupKind(), gv.Version)
	if err != nil {
		return nil, fmt.Errorf("unable to get REST mapping for %s/%s: %w", ref.APIVersion, ref.Kind, err)
	}
	r := c.metadata.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return r.Get(ctx, ref.Name, metav1.GetOptions{})
	}
	if namespace == "" {
		return nil, errClusterOwner
	}
	return r.Namespace(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
}

// verify looks for the object of a virtual node.
func (c *collector) verify(ctx context.Context, n node) error {
	o, err := c.find(ctx, n.namespace, *n.ref)
	switch {
	case errors.Is(err, errClusterOwner):
		return nil
	case apierrors.IsNotFound(err) || err == nil && o.UID != n.uid:
		c.graph.lacks(n.uid, coordinatesOf(n.ref, n.namespace))
		return nil
	}
	// If it exists, its own watch will add it.
	return err
}

// finishForeground lets an object go when nothing blocks its deletion.
func (c *collector) finishForeground(ctx context.Context, n node, deps []node) error {
	blocked := false
	for _, d := range deps {
		if !d.blocks(n.uid) {
			continue
		}
		blocked = true
		if !d.deleting {
			c.removals.Add(string(d.uid))
		}
	}
	if blocked {
		return nil
	}
	// The graph hears of a dependent a little after the API server has it.
	live, err := c.dependents(ctx, n, deps)
	if err != nil {
		return err
	}
	for i := range live {
		if d := &live[i]; d.blocks(n.uid) {
			return fmt.Errorf("%s %s/%s waits for %s %s, which is not known yet", n.resource.Resource, n.namespace, n.name, d.resource.Resource, d.name)
		}
	}
	return c.dropFinalizer(because(ctx, n.uid), n, metav1.FinalizerDeleteDependents)
}

// dependents reads from the API server what refers to an owner that is being
// deleted: nothing more will. Of a resource that cannot be read, because its
// aggregated server or its conversion webhook does not answer, it returns what
// the graph knows: the deletion of objects of which none is a dependent goes on.
func (c *collector) dependents(ctx context.Context, n node, known []node) ([]node, error) {
	c.monitorsMu.Lock()
	var resources []*resource
	for _, m := range c.monitors {
		if m.resource.namespaced || n.namespace == "" {
			resources = append(resources, m.resource)
		}
	}
	c.monitorsMu.Unlock()
	var out []node
	for _, r := range resources {
		var client metadata.ResourceInterface = c.metadata.Resource(r.GroupVersionResource)
		if r.namespaced && n.namespace != "" {
			client = c.metadata.Resource(r.GroupVersionResource).Namespace(n.namespace)
		}
		list, err := client.List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
			continue // a resource that is no longer served
		}
		if apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) {
			klog.FromContext(ctx).V(2).Info("Listing dependents failed", "resource", r.GroupVersionResource, "err", err)
			for _, d := range known {
				if d.resource != nil && d.resource.GroupVersionResource == r.GroupVersionResource {
					out = append(out, d)
				}
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			o := &list.Items[i]
			if slices.ContainsFunc(o.OwnerReferences, func(ref metav1.OwnerReference) bool { return ref.UID == n.uid }) {
				out = append(out, node{uid: o.UID, resource: r, namespace: o.Namespace, name: o.Name, owners: o.OwnerReferences})
			}
		}
	}
	return out, nil
}

// tryOrphan takes the owner that is being deleted out of its dependents'
// references.
func (c *collector) tryOrphan(ctx context.Context, uid string) (reconcile.Result, error) {
	return reconcile.Result{}, c.orphan(ctx, uid)
}

func (c *collector) orphan(ctx context.Context, key string) error {
	n, known, ok := c.graph.look(types.UID(key))
	if !ok || !n.orphaning || n.ref != nil {
		return nil
	}
	ctx = because(ctx, n.uid)
	deps, err := c.dependents(ctx, n, known)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range deps {
		err := c.dropOwners(ctx, d, nil, []metav1.OwnerReference{{UID: n.uid}})
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("orphaning dependents of %s/%s: %w", n.namespace, n.name, errors.Join(errs...))
	}
	return c.dropFinalizer(ctx, n, metav1.FinalizerOrphanDependents)
}

// dropOwners removes references from an object. latest may be nil.
func (c *collector) dropOwners(ctx context.Context, n node, latest *metav1.PartialObjectMetadata, refs []metav1.OwnerReference) error {
	gone := func(ref metav1.OwnerReference) bool {
		return slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.UID == ref.UID })
	}
	return c.changeOwners(ctx, n, latest, func(o []metav1.OwnerReference) []metav1.OwnerReference { return slices.DeleteFunc(o, gone) })
}

// unblock makes an object's references block no owner.
func (c *collector) unblock(ctx context.Context, n node, latest *metav1.PartialObjectMetadata) error {
	return c.changeOwners(ctx, n, latest, func(o []metav1.OwnerReference) []metav1.OwnerReference {
		for i := range o {
			no := false
			o[i].BlockOwnerDeletion = &no
		}
		return o
	})
}

// changeOwners writes an object's references with a merge patch, which custom
// resources know too; its resource version keeps it from undoing another's
// change.
func (c *collector) changeOwners(ctx context.Context, n node, latest *metav1.PartialObjectMetadata, f func([]metav1.OwnerReference) []metav1.OwnerReference) error {
	if latest == nil {
		var err error
		if latest, err = c.client(n).Get(ctx, n.name, metav1.GetOptions{}); err != nil {
			return ignoreGone(err)
		}
		if latest.UID != n.uid {
			return nil
		}
	}
	owners := f(slices.Clone(latest.OwnerReferences))
	return c.patch(ctx, n, latest, "ownerReferences", owners)
}

func (c *collector) dropFinalizer(ctx context.Context, n node, finalizer string) error {
	latest, err := c.client(n).Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return ignoreGone(err)
	}
	if latest.UID != n.uid || !slices.Contains(latest.Finalizers, finalizer) {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(latest.Finalizers), func(f string) bool { return f == finalizer })
	return c.patch(ctx, n, latest, "finalizers", left)
}

func (c *collector) patch(ctx context.Context, n node, latest *metav1.PartialObjectMetadata, field string, value any) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": n.uid, "resourceVersion": latest.ResourceVersion, field: value,
	}})
	if err != nil {
		return err
	}
	_, err = c.client(n).Patch(ctx, n.name, types.MergePatchType, data, metav1.PatchOptions{})
	return ignoreGone(err)
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

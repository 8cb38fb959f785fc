package garbagecollector

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"
)

// resource is a kind of object; nodes share it.
type resource struct {
	schema.GroupVersionResource
	namespaced bool
	kind       string
}

// node is one object of the graph. The graph's lock guards it.
type node struct {
	uid        types.UID
	resource   *resource
	namespace  string
	name       string
	owners     []metav1.OwnerReference
	dependents map[*node]struct{}
	// ref is set on a virtual node: one that is known only from its dependents'
	// references, of which this one is looked for. missed are those that have been
	// looked for in vain.
	ref    *metav1.OwnerReference
	missed map[coordinates]bool
	// deleting, foreground and orphaning follow deletionTimestamp and the
	// finalizers foregroundDeletion and orphan.
	deleting, foreground, orphaning bool
}

// is reports whether the reference of a dependent in this namespace gives the kind, the
// name and the namespace of n, which has been seen.
func (n *node) is(ref *metav1.OwnerReference, namespace string) bool {
	gk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).GroupKind()
	return n.ref == nil && n.name == ref.Name && gk == (schema.GroupKind{Group: n.resource.Group, Kind: n.resource.kind}) && (!n.resource.namespaced || n.namespace == namespace)
}

// refs returns n's references to an owner.
func (n *node) refs(owner types.UID) (out []*metav1.OwnerReference) {
	for i := range n.owners {
		if n.owners[i].UID == owner {
			out = append(out, &n.owners[i])
		}
	}
	return out
}

func (n *node) blocks(owner types.UID) bool {
	for _, r := range n.owners {
		if r.UID == owner {
			return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion
		}
	}
	return false
}

// graph holds the objects and their owners. remove and orphan are called, with
// the lock held, with the UID of each node to be looked at.
type graph struct {
	mu     sync.Mutex
	nodes  map[types.UID]*node
	absent *lru.Cache
	remove func(types.UID)
	orphan func(types.UID)
}

// absentOwners bounds the memory of owners that were looked for in vain.
const absentOwners = 500

// coordinates are those of an owner, as the reference of a dependent in a namespace gives
// them. A reference may give the UID of an object that exists with the name or the kind of
// one that does not: that says nothing of other references to the object. The coordinates of
// an owner that was seen and has gone are its UID alone.
type coordinates struct {
	uid                               types.UID
	apiVersion, kind, name, namespace string
}

func coordinatesOf(ref *metav1.OwnerReference, namespace string) coordinates {
	return coordinates{ref.UID, ref.APIVersion, ref.Kind, ref.Name, namespace}
}

func newGraph(remove, orphan func(types.UID)) *graph {
	return &graph{nodes: map[types.UID]*node{}, absent: lru.New(absentOwners), remove: remove, orphan: orphan}
}

// observe notes the state of an object.
func (g *graph) observe(r *resource, o metav1.Object) {
	uid := o.GetUID()
	if uid == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		n = &node{uid: uid}
		g.nodes[uid] = n
	}
	virtual := n.ref != nil
	n.ref, n.missed = nil, nil
	n.resource, n.namespace, n.name = r, o.GetNamespace(), o.GetName()
	if virtual {
		// Dependents that name the owner wrongly have to be judged anew.
		for d := range n.dependents {
			if slices.ContainsFunc(d.refs(uid), func(ref *metav1.OwnerReference) bool { return !n.is(ref, d.namespace) }) {
				g.remove(d.uid)
			}
		}
	}
	was := *n
	finalizers := o.GetFinalizers()
	n.deleting = o.GetDeletionTimestamp() != nil
	n.foreground = n.deleting && slices.Contains(finalizers, metav1.FinalizerDeleteDependents)
	n.orphaning = n.deleting && slices.Contains(finalizers, metav1.FinalizerOrphanDependents)
	if owners := o.GetOwnerReferences(); !slices.EqualFunc(was.owners, owners, sameRef) {
		n.owners = slices.Clone(owners)
		g.relink(n, was.owners)
	}
	if n.orphaning && !was.orphaning {
		g.orphan(uid)
	}
	if n.foreground && !was.foreground {
		for d := range n.dependents {
			g.remove(d.uid)
		}
		g.remove(uid)
	}
	if n.foreground {
		// An owner that waits for n in the foreground may have to know.
		g.wakeOwners(n.owners)
	}
}

func sameRef(a, b metav1.OwnerReference) bool {
	block := func(r metav1.OwnerReference) bool { return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion }
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion && block(a) == block(b)
}

// relink makes n the dependent of its owners, and no longer of those it had.
func (g *graph) relink(n *node, before []metav1.OwnerReference) {
	keep := map[types.UID]bool{}
	for i := range n.owners {
		ref := n.owners[i]
		keep[ref.UID] = true
		owner := g.nodes[ref.UID]
		if owner == nil {
			owner = &node{uid: ref.UID, ref: &ref, namespace: n.namespace, name: ref.Name}
			g.nodes[ref.UID] = owner
			g.remove(ref.UID)
		} else if owner.foreground || g.knownAbsent(&ref, n.namespace) ||
			owner.ref == nil && !owner.is(&ref, n.namespace) || owner.ref != nil && coordinatesOf(owner.ref, owner.namespace) != coordinatesOf(&ref, n.namespace) {
			g.remove(n.uid)
		}
		if owner.dependents == nil {
			owner.dependents = map[*node]struct{}{}
		}
		owner.dependents[n] = struct{}{}
	}
	for _, ref := range before {
		if !keep[ref.UID] {
			g.unlink(n, ref.UID)
		}
	}
	// A reference that went, or no longer blocks, may let its owner go.
	g.wakeOwners(before)
	if len(before) > 0 {
		g.remove(n.uid)
	}
}

func (g *graph) unlink(n *node, owner types.UID) {
	o := g.nodes[owner]
	if o == nil {
		return
	}
	delete(o.dependents, n)
	if o.ref != nil && len(o.dependents) == 0 {
		delete(g.nodes, owner)
	}
}

func (g *graph) wakeOwners(refs []metav1.OwnerReference) {
	for _, ref := range refs {
		if o := g.nodes[ref.UID]; o != nil && o.foreground {
			g.remove(o.uid)
		}
	}
}

func (g *graph) knownAbsent(ref *metav1.OwnerReference, namespace string) bool {
	if _, ok := g.absent.Get(coordinatesOf(ref, namespace)); ok {
		return true
	}
	_, ok := g.absent.Get(coordinates{uid: ref.UID})
	return ok
}

// lacks notes that no object has the coordinates by which a virtual node was looked for.
// It is looked for by those that other dependents give, if there are any.
func (g *graph) lacks(uid types.UID, c coordinates) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil || n.ref == nil || coordinatesOf(n.ref, n.namespace) != c {
		return // it has been seen meanwhile
	}
	g.absent.Add(c, true)
	if n.missed == nil {
		n.missed = map[coordinates]bool{}
	}
	n.missed[c] = true
	var next *metav1.OwnerReference
	for d := range n.dependents {
		for _, ref := range d.refs(uid) {
			switch given := coordinatesOf(ref, d.namespace); {
			case given == c:
				g.remove(d.uid)
			case !n.missed[given]:
				next = ref
				n.namespace = d.namespace
			}
		}
	}
	if next == nil {
		delete(g.nodes, uid)
		return
	}
	n.ref, n.name = next, next.Name
	g.remove(uid)
}

// gone notes that an object that was seen does not exist any more.
func (g *graph) gone(uid types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return
	}
	delete(g.nodes, uid)
	if len(n.dependents) > 0 {
		g.absent.Add(coordinates{uid: uid}, true)
	}
	for d := range n.dependents {
		g.remove(d.uid)
	}
	for _, ref := range n.owners {
		g.unlink(n, ref.UID)
	}
	g.wakeOwners(n.owners)
}

// ofResource returns the UIDs of a resource's nodes.
func (g *graph) ofResource(r *resource) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []types.UID
	for uid, n := range g.nodes {
		if n.resource == r {
			out = append(out, uid)
		}
	}
	return out
}

// look returns a copy of a node, and copies of its dependents.
func (g *graph) look(uid types.UID) (node, []node, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return node{}, nil, false
	}
	deps := make([]node, 0, len(n.dependents))
	for d := range n.dependents {
		deps = append(deps, *d)
	}
	return *n, deps, true
}

package dash

import (
	"context"
	"hash/maphash"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/internal/store"
)

// record is what a stream keeps of an object.
type record struct {
	id    uint32
	refs  int32 // of records that name this one
	class class
	// exists reports whether the object is there. A node or an owner that does not exist,
	// or whose kind the user may not list, is shown by its name while others refer to it.
	exists, dirty bool
	key           string
	of            *shown
	entry         *store.Entry // what is to be sent, if the object exists and is dirty
	line          uint64       // the hash of the line that was sent last; 0 is none
	as            *ident       // of a node and an owner
	node, owner   *record      // those that the last line names
}

// ident names an object.
type ident struct {
	uid                   types.UID
	kind, namespace, name string
}

// picture is the state of a stream: the objects that it shows, and which of them have
// changed since they were sent.
type picture struct {
	all []*shown
	// label is the key of a label of nodes that is shown; "" is none.
	label string
	seed  maphash.Seed
	// changed has an element when something is dirty, or was written elsewhere.
	changed chan struct{}

	mu     sync.Mutex
	nodes  map[string]*record    // by name
	owners map[types.UID]*record // by UID
	pods   map[string]*record    // by key
	dirty  [classes]queue
	ids    [classes]ids
	// objects is the number of all objects in the store.
	objects int64
}

// ids are numbers from 1 on; those that are given back are used again.
type ids struct {
	last uint32
	free []uint32
}

func (i *ids) take() uint32 {
	if n := len(i.free); n > 0 {
		id := i.free[n-1]
		i.free = i.free[:n-1]
		return id
	}
	i.last++
	return i.last
}

// queue has records in the order in which they became dirty. Those that are not dirty any
// more are passed over.
type queue struct {
	records []*record
	head    int
	popped  int // how many there were before the head
}

func (q *queue) push(r *record) {
	if q.head > 1024 && q.head > len(q.records)/2 {
		n := copy(q.records, q.records[q.head:])
		clear(q.records[n:])
		q.records, q.head = q.records[:n], 0
	}
	q.records = append(q.records, r)
}

func (q *queue) pop() *record {
	if q.head == len(q.records) {
		q.records, q.head = q.records[:0], 0
		if cap(q.records) > 4096 {
			q.records = nil // it was the first picture
		}
		return nil
	}
	r := q.records[q.head]
	q.records[q.head] = nil
	q.head++
	q.popped++
	return r
}

func newPicture(all []*shown) *picture {
	return &picture{all: all, seed: maphash.MakeSeed(), changed: make(chan struct{}, 1),
		nodes: map[string]*record{}, owners: map[types.UID]*record{}, pods: map[string]*record{}}
}

// load takes the objects of all resources, as they are at a revision; 0 is the present.
// Pods come first, so that what they name is there.
func (p *picture) load(ctx context.Context, s store.Store, revision int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range [...]class{pod, owner, node} {
		for _, of := range p.all {
			if of.class != c {
				continue
			}
			l, err := s.List(ctx, of.prefix, store.ListOptions{Revision: revision, Past: revision != 0})
			if err != nil {
				return err
			}
			of.since = l.Revision
			switch c {
			case pod:
				p.pods = make(map[string]*record, len(l.Entries))
			case node:
				p.nodes = make(map[string]*record, len(l.Entries))
			}
			all := make([]record, len(l.Entries)) // one allocation
			for i, e := range l.Entries {
				p.put(of, e, &all[i])
			}
		}
	}
	return nil
}

// follow takes the changes that w has, until ctx is done or w fails.
func (p *picture) follow(ctx context.Context, w store.Watcher) error {
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		p.mu.Lock()
		for i := range events {
			p.apply(&events[i])
		}
		p.mu.Unlock()
		p.wake()
	}
}

func (p *picture) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// apply takes a change. p.mu is held.
func (p *picture) apply(ev *store.Event) {
	switch {
	case ev.Type == store.Delete:
		p.objects--
	case ev.Prev == nil:
		p.objects++
	}
	for _, of := range p.all {
		if !strings.HasPrefix(ev.Entry.Key, of.prefix) {
			continue
		}
		switch {
		case ev.Revision <= of.since:
		case ev.Type == store.Delete:
			p.remove(of, ev.Entry)
		default:
			p.put(of, ev.Entry, nil)
		}
		return
	}
}

// mark makes a record dirty. p.mu is held.
func (p *picture) mark(r *record) {
	if !r.dirty {
		r.dirty = true
		p.dirty[r.class].push(r)
	}
}

// find returns the record of an entry's object; nil if there is none.
func (p *picture) find(of *shown, e *store.Entry) *record {
	switch of.class {
	case node:
		return p.nodes[strings.TrimPrefix(e.Key, of.prefix)]
	case pod:
		return p.pods[e.Key]
	}
	m, err := meta.Accessor(e.Object())
	if err != nil {
		return nil
	}
	return p.owners[m.GetUID()]
}

// put takes a version of an object, with room for its record if it has none. p.mu is held.
func (p *picture) put(of *shown, e *store.Entry, room *record) {
	r := p.find(of, e)
	if r == nil {
		if r = room; r == nil {
			r = &record{}
		}
		switch of.class {
		case pod:
			p.pods[e.Key] = r
		case node:
			r.as = &ident{name: strings.TrimPrefix(e.Key, of.prefix)}
			p.nodes[r.as.name] = r
		case owner:
			m, err := meta.Accessor(e.Object())
			if err != nil {
				return
			}
			r.as = &ident{m.GetUID(), of.kind, m.GetNamespace(), m.GetName()}
			p.owners[r.as.uid] = r
		}
		r.class, r.id = of.class, p.ids[of.class].take()
	}
	r.key, r.of, r.entry, r.exists = e.Key, of, e, true
	p.mark(r)
}

// remove takes the end of an object. p.mu is held.
func (p *picture) remove(of *shown, e *store.Entry) {
	if r := p.find(of, e); r != nil {
		r.entry, r.exists = nil, false
		p.mark(r)
	}
}

// marks are places in the queues of a picture.
type marks [classes]int

// pending returns the place behind what is dirty.
func (p *picture) pending() (m marks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.dirty {
		m[c] = p.dirty[c].popped + len(p.dirty[c].records) - p.dirty[c].head
	}
	return m
}

// reached reports whether everything up to a place has been drained.
func (p *picture) reached(m marks) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.dirty {
		if p.dirty[c].popped < m[c] {
			return false
		}
	}
	return true
}

// count returns the number of objects in the store.
func (p *picture) count() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.objects
}

// drain appends the lines of what is dirty to b, until there are limit bytes.
func (p *picture) drain(b []byte, limit int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for more := true; more && len(b) < limit; {
		more = false // what is sent may make others dirty that were before it
		for c := range p.dirty {
			for len(b) < limit {
				r := p.dirty[c].pop()
				if r == nil {
					break
				}
				if r.dirty {
					b, more = p.send(b, r), true
				}
			}
		}
	}
	return b
}

// send appends the line of a record, after those that it names. p.mu is held.
func (p *picture) send(b []byte, r *record) []byte {
	r.dirty = false
	if !r.exists && r.refs == 0 {
		return p.forget(b, r)
	}
	var obj runtime.Object
	if r.exists {
		if r.entry == nil {
			return b // nothing of the object has changed
		}
		obj, r.entry = r.entry.Object(), nil
	}
	onNode, by := r.node, r.owner
	switch o := obj.(type) {
	case nil:
		by = nil
	case *v1.Pod:
		onNode = p.nodeOf(o.Spec.NodeName)
		by = p.ownerOf(o.Namespace, o.OwnerReferences)
	case metav1.Object:
		if r.class == owner {
			by = p.ownerOf(o.GetNamespace(), o.GetOwnerReferences())
		}
	}
	if by == r {
		by = nil
	}
	b = p.refer(b, &r.node, onNode)
	b = p.refer(b, &r.owner, by)
	begin := len(b)
	switch o := obj.(type) {
	case nil:
		if r.class == node {
			b = appendNamedNode(b, r.id, r.as.name)
		} else {
			b = appendOwner(b, r.id, r.as, 0, 0, 0)
		}
	case *v1.Node:
		b = appendNode(b, r.id, o, p.label)
	case *v1.Pod:
		b = appendPod(b, r.id, o, r.node.number(), r.owner.number())
	default:
		desired, ready := r.of.count(obj)
		b = appendOwner(b, r.id, r.as, desired, ready, r.owner.number())
	}
	hash := max(1, maphash.Bytes(p.seed, b[begin:]))
	if hash == r.line {
		return b[:begin] // nothing that is shown has changed
	}
	r.line = hash
	return b
}

// number returns a record's number, 0 for none.
func (r *record) number() uint32 {
	if r == nil {
		return 0
	}
	return r.id
}

// forget drops a record and appends that it is gone. p.mu is held.
func (p *picture) forget(b []byte, r *record) []byte {
	b = p.refer(b, &r.node, nil)
	b = p.refer(b, &r.owner, nil)
	switch r.class {
	case pod:
		delete(p.pods, r.key)
	case node:
		delete(p.nodes, r.as.name)
	case owner:
		delete(p.owners, r.as.uid)
	}
	if r.line != 0 {
		b = appendGone(b, r.class.String(), r.id)
	}
	p.ids[r.class].free = append(p.ids[r.class].free, r.id)
	return b
}

// refer makes a record name another one in a place, after the line of which has been
// sent. p.mu is held.
func (p *picture) refer(b []byte, place **record, to *record) []byte {
	was := *place
	if was == to {
		return b
	}
	*place = to
	if to != nil {
		to.refs++
		if to.line == 0 {
			b = p.send(b, to)
		}
	}
	if was != nil {
		if was.refs--; was.refs == 0 && !was.exists {
			p.mark(was)
		}
	}
	return b
}

// nodeOf returns the record of the node of that name, making one of the name if there is
// none; nil for no name. p.mu is held.
func (p *picture) nodeOf(name string) *record {
	if name == "" {
		return nil
	}
	r := p.nodes[name]
	if r == nil {
		r = &record{class: node, id: p.ids[node].take(), as: &ident{name: name}}
		p.nodes[name] = r
	}
	return r
}

// ownerOf returns the record of the controller among refs, making one of what they say if
// there is none. The Node of a static pod is none. p.mu is held.
func (p *picture) ownerOf(namespace string, refs []metav1.OwnerReference) *record {
	for i := range refs {
		ref := &refs[i]
		if ref.Controller == nil || !*ref.Controller || ref.Kind == "Node" {
			continue
		}
		r := p.owners[ref.UID]
		if r == nil {
			r = &record{class: owner, id: p.ids[owner].take(), as: &ident{ref.UID, ref.Kind, namespace, ref.Name}}
			p.owners[ref.UID] = r
		}
		return r
	}
	return nil
}

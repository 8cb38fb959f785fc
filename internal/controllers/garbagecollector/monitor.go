package garbagecollector

import (
	"context"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// monitor feeds one resource's objects into the graph.
type monitor struct {
	resource *resource
	stop     func()
	synced   <-chan struct{}
}

// ignored are resources that own nothing, are owned by nothing and come in
// masses.
var ignored = map[schema.GroupResource]bool{
	{Resource: "events"}:                         true,
	{Group: "events.k8s.io", Resource: "events"}: true,
}

// deletable returns the resources that the collector can watch and delete. Where
// some groups could not be discovered it returns the others, and an error.
func deletable(d discovery.DiscoveryInterface) ([]resource, error) {
	lists, err := discovery.ServerPreferredResources(d)
	var out []resource
	for _, l := range lists {
		gv, parseErr := schema.ParseGroupVersion(l.GroupVersion)
		if parseErr != nil {
			continue
		}
		for _, r := range l.APIResources {
			gvr := gv.WithResource(r.Name)
			if !ignored[gvr.GroupResource()] && slices.Contains(r.Verbs, "delete") && slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "watch") {
				out = append(out, resource{gvr, r.Namespaced, r.Kind})
			}
		}
	}
	return out, err
}

// resync starts monitors for new resources and stops those of resources that
// are no longer served.
func (c *collector) resync(ctx context.Context) error {
	found, err := deletable(c.discovery)
	if len(found) == 0 {
		return err
	}
	c.monitorsMu.Lock()
	defer c.monitorsMu.Unlock()
	now := map[schema.GroupVersionResource]bool{}
	changed := false
	for _, r := range found {
		now[r.GroupVersionResource] = true
		if c.monitors[r.GroupVersionResource] == nil {
			c.monitors[r.GroupVersionResource] = c.monitor(ctx, &r)
			changed = true
		}
	}
	// A group that could not be discovered may be served all the same.
	if err == nil {
		for gvr, m := range c.monitors {
			if !now[gvr] {
				m.stop()
				delete(c.monitors, gvr)
				changed = true
			}
		}
	}
	if changed {
		meta.MaybeResetRESTMapper(c.mapper)
		klog.FromContext(ctx).V(2).Info("Resources changed", "monitors", len(c.monitors))
	}
	return err
}

func (c *collector) monitor(ctx context.Context, r *resource) *monitor {
	ctx, cancel := context.WithCancel(ctx)
	if inf := c.shared[r.GroupVersionResource]; inf != nil {
		return c.listen(r, inf, cancel)
	}
	s := &sink{c: c, r: r, synced: make(chan struct{})}
	client := c.metadata.Resource(r.GroupVersionResource)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}
	reflector := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, c.metadata), &metav1.PartialObjectMetadata{}, s,
		cache.ReflectorOptions{Name: "garbagecollector/" + r.Resource + "." + r.Group})
	c.watches.Go(func() { reflector.RunWithContext(ctx) })
	return &monitor{resource: r, stop: cancel, synced: s.synced}
}

// listen takes a resource's objects from an informer that exists anyway.
func (c *collector) listen(r *resource, inf cache.SharedIndexInformer, cancel func()) *monitor {
	observe := func(o any) {
		if m, err := meta.Accessor(o); err == nil {
			c.observe(r, m)
		}
	}
	reg, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    observe,
		UpdateFunc: func(_, o any) { observe(o) },
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if m, err := meta.Accessor(o); err == nil {
				c.graph.gone(m.GetUID())
			}
		},
	})
	if err != nil {
		// The informer has stopped, hence the whole process is about to.
		done := make(chan struct{})
		close(done)
		return &monitor{resource: r, stop: cancel, synced: done}
	}
	return &monitor{resource: r, synced: reg.HasSyncedChecker().Done(), stop: func() {
		_ = inf.RemoveEventHandler(reg)
		cancel()
	}}
}

// sink is a reflector's store that stores nothing but what the graph needs.
type sink struct {
	c      *collector
	r      *resource
	once   sync.Once
	synced chan struct{}
}

// Add implements cache.ReflectorStore.
func (s *sink) Add(obj any) error { return s.Update(obj) }

// Update implements cache.ReflectorStore.
func (s *sink) Update(obj any) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	s.c.observe(s.r, m)
	return nil
}

// Delete implements cache.ReflectorStore.
func (s *sink) Delete(obj any) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	s.c.graph.gone(m.GetUID())
	s.c.served(s.r)
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *sink) Replace(objs []any, _ string) error {
	seen := make(map[types.UID]bool, len(objs))
	for _, obj := range objs {
		m, err := meta.Accessor(obj)
		if err != nil {
			return err
		}
		seen[m.GetUID()] = true
		s.c.observe(s.r, m)
	}
	for _, uid := range s.c.graph.ofResource(s.r) {
		if !seen[uid] {
			s.c.graph.gone(uid)
		}
	}
	s.once.Do(func() { close(s.synced) })
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *sink) Resync() error { return nil }

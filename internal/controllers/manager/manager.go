package manager

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// Manager runs controllers.
type Manager struct {
	clients clients
	made    []made
	// broadcaster carries the events of all of them.
	broadcaster record.EventBroadcaster
}

// made is a controller that is ready to run.
type made struct {
	name string
	run  reconcile.Run
}

// New makes the controllers of the table that selection selects (see Select):
// each registers its handlers with c.Informers, which the caller starts
// afterwards. What c leaves to it is c.Broadcaster, c.Shared, and, where they
// are nil, c.Clock and c.RESTMapper.
func New(c controllers.Context, selection ...string) (*Manager, error) {
	selected, err := Select(selection)
	if err != nil {
		return nil, err
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.RESTMapper == nil && c.Discovery != nil {
		c.RESTMapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.Discovery))
	}
	c.Clients = once(c.Clients)
	m := &Manager{clients: clients{of: c.Clients, identities: map[string]string{}}, broadcaster: record.NewBroadcaster()}
	c.Broadcaster = m.broadcaster
	var rows []*controllers.Row
	for i := range table {
		if row := &table[i]; selected.Has(row.Name) {
			rows = append(rows, row)
			m.clients.identities[row.Component()] = row.Identity
		}
	}
	c.Shared = watched(rows)
	for _, row := range rows {
		run, err := row.New(c.For(row))
		if err != nil {
			m.broadcaster.Shutdown()
			return nil, fmt.Errorf("controller %q: %w", row.Name, err)
		}
		if run != nil {
			m.made = append(m.made, made{row.Name, run})
		}
	}
	return m, nil
}

// once returns a make that is called once per identity, so that the events of a
// controller share its client.
func once(of func(string) kubernetes.Interface) func(string) kubernetes.Interface {
	var mu sync.Mutex
	made := map[string]kubernetes.Interface{}
	return func(identity string) kubernetes.Interface {
		mu.Lock()
		defer mu.Unlock()
		if made[identity] == nil {
			made[identity] = of(identity)
		}
		return made[identity]
	}
}

// watched returns the resources that rows have informers for.
func watched(rows []*controllers.Row) []schema.GroupVersionResource {
	all := sets.New[schema.GroupVersionResource]()
	for _, row := range rows {
		all.Insert(row.Watches...)
	}
	return all.UnsortedList()
}

// Run runs the controllers until ctx is done, and returns when the last worker
// of the last of them has ended.
func (m *Manager) Run(ctx context.Context) {
	component.Record(ctx, m.broadcaster, &sink{m.clients})
	defer m.broadcaster.Shutdown()
	var running sync.WaitGroup
	for _, c := range m.made {
		running.Go(func() { c.run(klog.NewContext(ctx, klog.LoggerWithName(klog.FromContext(ctx), c.name))) })
	}
	running.Wait()
}

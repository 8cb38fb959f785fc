package inprocess

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/admissionregistration"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/autoscaling"
	"k8s.io/client-go/informers/batch"
	"k8s.io/client-go/informers/certificates"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/events"
	"k8s.io/client-go/informers/flowcontrol"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/node"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/informers/resource"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/informers/storagemigration"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/catalogue"
	"keelson.dev/keelson/internal/store"
)

// Informers is a SharedInformerFactory on a store. Its informers hold the
// store's own objects: do not change them.
type Informers struct {
	// The generated factory serves what no component here asks for.
	informers.SharedInformerFactory
	store store.Store
	rows  map[reflect.Type]*api.Resource
	cat   *catalogue.Catalogue

	mu        sync.Mutex
	informers map[reflect.Type]cache.SharedIndexInformer
	started   map[reflect.Type]bool
	wg        sync.WaitGroup
}

var _ informers.SharedInformerFactory = (*Informers)(nil)

// NewInformers makes a factory for the rows of cat.
func NewInformers(s store.Store, cat *catalogue.Catalogue) *Informers {
	f := &Informers{
		SharedInformerFactory: informers.NewSharedInformerFactory(nil, 0),
		store:                 s, cat: cat,
		rows:      map[reflect.Type]*api.Resource{},
		informers: map[reflect.Type]cache.SharedIndexInformer{},
		started:   map[reflect.Type]bool{},
	}
	for _, row := range cat.All() {
		if !row.NotStored && row.Hub == nil {
			f.rows[reflect.TypeOf(row.New())] = row
		}
	}
	return f
}

// InformerFor implements informers.SharedInformerFactory.
func (f *Informers) InformerFor(obj runtime.Object, _ internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	t := reflect.TypeOf(obj)
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := f.informers[t]; i != nil {
		return i
	}
	row := f.rows[t]
	if row == nil {
		panic(fmt.Sprintf("no informer for %T: the catalogue has no row that stores it", obj))
	}
	i := cache.NewSharedIndexInformer(&listWatch{f.store, row, whole}, obj, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	f.informers[t] = i
	return i
}

// Start implements informers.SharedInformerFactory.
func (f *Informers) Start(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-stop
		cancel()
	}()
	f.StartWithContext(ctx)
}

// StartWithContext implements informers.SharedInformerFactory.
func (f *Informers) StartWithContext(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for t, i := range f.informers {
		if !f.started[t] {
			f.started[t] = true
			f.wg.Go(func() { i.RunWithContext(ctx) })
		}
	}
}

// Shutdown implements informers.SharedInformerFactory.
func (f *Informers) Shutdown() { f.wg.Wait() }

// WaitForCacheSync implements informers.SharedInformerFactory.
func (f *Informers) WaitForCacheSync(stop <-chan struct{}) map[reflect.Type]bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return f.WaitForCacheSyncWithContext(ctx).Synced
}

// WaitForCacheSyncWithContext implements informers.SharedInformerFactory.
func (f *Informers) WaitForCacheSyncWithContext(ctx context.Context) cache.SyncResult {
	f.mu.Lock()
	all := map[reflect.Type]cache.SharedIndexInformer{}
	for t, i := range f.informers {
		if f.started[t] {
			all[t] = i
		}
	}
	f.mu.Unlock()
	res := cache.SyncResult{Synced: map[reflect.Type]bool{}}
	for t, i := range all {
		select {
		case <-i.HasSyncedChecker().Done():
		case <-ctx.Done():
			res.Err = context.Cause(ctx)
		}
		res.Synced[t] = i.HasSynced()
	}
	return res
}

type generic struct {
	informer cache.SharedIndexInformer
	resource schema.GroupResource
}

func (g generic) Informer() cache.SharedIndexInformer { return g.informer }
func (g generic) Lister() cache.GenericLister {
	return cache.NewGenericLister(g.informer.GetIndexer(), g.resource)
}

// ForResource implements informers.SharedInformerFactory.
func (f *Informers) ForResource(gvr schema.GroupVersionResource) (informers.GenericInformer, error) {
	row := f.cat.Lookup(gvr.Group, gvr.Version, gvr.Resource)
	if row == nil || f.rows[reflect.TypeOf(row.New())] != row {
		return nil, fmt.Errorf("no informer found for %v", gvr)
	}
	return generic{f.InformerFor(row.New(), nil), gvr.GroupResource()}, nil
}

// The groups' accessors make their informers through this factory.

func (f *Informers) Admissionregistration() admissionregistration.Interface {
	return admissionregistration.New(f, metav1.NamespaceAll, nil)
}
func (f *Informers) Apps() apps.Interface { return apps.New(f, metav1.NamespaceAll, nil) }
func (f *Informers) Autoscaling() autoscaling.Interface {
	return autoscaling.New(f, metav1.NamespaceAll, nil)
}
func (f *Informers) Batch() batch.Interface { return batch.New(f, metav1.NamespaceAll, nil) }
func (f *Informers) Certificates() certificates.Interface {
	return certificates.New(f, metav1.NamespaceAll, nil)
}
func (f *Informers) Coordination() coordination.Interface {
	return coordination.New(f, metav1.NamespaceAll, nil)
}
func (f *Informers) Core() core.Interface { return core.New(f, metav1.NamespaceAll, nil) }
func (f *Informers) Discovery() discovery.Interface {
	return discovery.New(f, metav1.NamespaceAll, nil)
}
func (f *Informers) Events() events.Interface { return events.New(f, metav1.NamespaceAll, nil) }
func (f *Informers) Flowcontrol() flowcontrol.Interface {
	return flowcontrol.New(f, metav1.NamespaceAll, nil)
}
func (f *Informers) Networking() networking.Interface {
	return networking.New(f, metav1.NamespaceAll, nil)
}
func (f *Informers) Node() node.Interface         { return node.New(f, metav1.NamespaceAll, nil) }
func (f *Informers) Policy() policy.Interface     { return policy.New(f, metav1.NamespaceAll, nil) }
func (f *Informers) Rbac() rbac.Interface         { return rbac.New(f, metav1.NamespaceAll, nil) }
func (f *Informers) Resource() resource.Interface { return resource.New(f, metav1.NamespaceAll, nil) }
func (f *Informers) Scheduling() scheduling.Interface {
	return scheduling.New(f, metav1.NamespaceAll, nil)
}
func (f *Informers) Storage() storage.Interface { return storage.New(f, metav1.NamespaceAll, nil) }
func (f *Informers) Storagemigration() storagemigration.Interface {
	return storagemigration.New(f, metav1.NamespaceAll, nil)
}

// listWatch reads a row's objects from the store.
type listWatch struct {
	store store.Store
	row   *api.Resource
	// shown returns an object as it is to be seen.
	shown func(runtime.Object) runtime.Object
}

func whole(obj runtime.Object) runtime.Object { return obj }

// IsWatchListSemanticsUnSupported tells the reflector that a list costs no
// more than a stream of initial events.
func (l *listWatch) IsWatchListSemanticsUnSupported() bool { return true }

// List implements cache.Lister.
func (l *listWatch) List(o metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(context.Background(), o)
}

// ListWithContext implements cache.ListerWithContext.
func (l *listWatch) ListWithContext(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
	res, err := l.store.List(ctx, l.row.Prefix(""), store.ListOptions{})
	if err != nil {
		return nil, err
	}
	list := &metainternal.List{Items: make([]runtime.Object, len(res.Entries))}
	list.ResourceVersion = strconv.FormatInt(res.Revision, 10)
	for i, e := range res.Entries {
		list.Items[i] = l.shown(e.Object())
	}
	return list, nil
}

// Watch implements cache.Watcher.
func (l *listWatch) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(context.Background(), o)
}

// WatchWithContext implements cache.WatcherWithContext.
func (l *listWatch) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	rev, err := strconv.ParseInt(o.ResourceVersion, 10, 64)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	w, err := l.store.Watch(l.row.Prefix(""), store.WatchOptions{Revision: rev})
	if errors.Is(err, store.ErrCompacted) {
		return nil, apierrors.NewResourceExpired(err.Error())
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	iw := &watcher{listWatch: l, w: w, cancel: cancel, out: make(chan watch.Event, 64)}
	go iw.run(ctx)
	return iw, nil
}

type watcher struct {
	*listWatch
	w      store.Watcher
	cancel context.CancelFunc
	out    chan watch.Event
}

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }

// bookmarkPeriod keeps an idle informer's place from being compacted away.
const bookmarkPeriod = time.Minute

func (w *watcher) run(ctx context.Context) {
	defer close(w.out)
	defer w.w.Stop()
	send := func(e watch.Event) bool {
		select {
		case w.out <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		wait, cancel := context.WithTimeout(ctx, bookmarkPeriod)
		events, err := w.w.Next(wait)
		cancel()
		switch {
		case err == nil:
			for i := range events {
				ev := &events[i]
				t := watch.Modified
				switch {
				case ev.Type == store.Delete:
					t = watch.Deleted
				case ev.Prev == nil:
					t = watch.Added
				}
				if !send(watch.Event{Type: t, Object: w.shown(ev.Entry.Object())}) {
					return
				}
			}
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			obj := w.shown(w.row.New())
			if m, ok := obj.(metav1.Object); ok {
				m.SetResourceVersion(strconv.FormatInt(w.w.Revision(), 10))
			}
			if !send(watch.Event{Type: watch.Bookmark, Object: obj}) {
				return
			}
		case errors.Is(err, store.ErrCompacted):
			s := apierrors.NewResourceExpired(err.Error()).Status()
			send(watch.Event{Type: watch.Error, Object: &s})
			return
		default:
			return
		}
	}
}

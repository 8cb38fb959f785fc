package controllers

import (
	"context"
	"crypto/x509"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Context is what controllers are started with.
type Context struct {
	// Client gives the client of a controller's own identity, for example
	// "deployment-controller".
	Client    func(name string) kubernetes.Interface
	Informers informers.SharedInformerFactory
	Metadata  metadata.Interface
	// Discovery names the cluster's resources, which come and go with CRDs.
	Discovery discovery.DiscoveryInterface
	// RESTMapper finds an owner reference's resource. It is reset, where it can
	// be, when the resources change.
	RESTMapper meta.RESTMapper
	Clock      clock.WithTicker
	// Broadcaster is the one event broadcaster of all controllers.
	Broadcaster record.EventBroadcaster
	// RootCA is the PEM bundle published to each namespace.
	RootCA []byte
	// Sign issues a certificate, in PEM, with the cluster's authority.
	Sign func(template *x509.Certificate, public any) ([]byte, error)
	// LegacyToken gives the token that is in secret, of an account.
	LegacyToken func(account *v1.ServiceAccount, secret *v1.Secret) (string, error)
}

// Recorder gives an event recorder for the named component. All recorders
// share the context's broadcaster, hence its goroutines.
func (c Context) Recorder(component string) record.EventRecorder {
	return c.Broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: component})
}

// Queue is a rate limited queue of "namespace/name" keys.
type Queue = workqueue.TypedRateLimitingInterface[string]

// NewQueue makes a queue whose only limit is each key's own exponential
// backoff: a key that does not fail is never held up.
func NewQueue(name string, clk clock.WithTicker) Queue {
	return workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, 1000*time.Second),
		workqueue.TypedRateLimitingQueueConfig[string]{Name: name, Clock: clk})
}

// Loop runs Sync for each key of Queue.
type Loop struct {
	Name    string
	Queue   Queue
	Workers int
	// Synced are the informers whose caches Sync reads.
	Synced []cache.SharedIndexInformer
	Sync   func(ctx context.Context, key string) error
}

// Run waits for the caches, works until ctx is done, and returns when the last
// worker has.
func (l *Loop) Run(ctx context.Context) {
	logger := klog.LoggerWithName(klog.FromContext(ctx), l.Name)
	ctx = klog.NewContext(ctx, logger)
	stop := context.AfterFunc(ctx, l.Queue.ShutDown)
	defer stop()
	if !WaitFor(ctx, l.Synced...) {
		return
	}
	var wg sync.WaitGroup
	for range max(l.Workers, 1) {
		wg.Go(func() {
			for l.next(ctx) {
			}
		})
	}
	wg.Wait()
}

// WaitFor waits until the informers have their first list, and says whether it
// did not give up because ctx was done. Unlike cache.WaitForCacheSync it does
// not poll.
func WaitFor(ctx context.Context, informers ...cache.SharedIndexInformer) bool {
	for _, inf := range informers {
		select {
		case <-ctx.Done():
			return false
		case <-inf.HasSyncedChecker().Done():
		}
	}
	return true
}

func (l *Loop) next(ctx context.Context) bool {
	key, quit := l.Queue.Get()
	if quit {
		return false
	}
	defer l.Queue.Done(key)
	if err := l.sync(ctx, key); err != nil {
		if ctx.Err() == nil {
			klog.FromContext(ctx).V(2).Info("Sync failed, will retry", "key", key, "err", err)
		}
		l.Queue.AddRateLimited(key)
		return true
	}
	l.Queue.Forget(key)
	return true
}

// sync turns a panic into an error, so that one bad object cannot stop the
// others from being reconciled.
func (l *Loop) sync(ctx context.Context, key string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic while syncing %q: %v", key, r)
			klog.FromContext(ctx).Error(err, "Recovered", "stack", string(debug.Stack()))
		}
	}()
	return l.Sync(ctx, key)
}

// Key gives obj's "namespace/name", also where obj is a tombstone.
func Key(obj any) string {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return ""
	}
	return key
}

// Deleted gives the object of a delete notification, which may be wrapped in a
// tombstone.
func Deleted[T any](obj any) (T, bool) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	o, ok := obj.(T)
	return o, ok
}

// Handle registers typed handlers with an informer; update may be nil where
// add serves for it.
func Handle[T any](inf cache.SharedIndexInformer, add func(T), update func(old, cur T), del func(T)) {
	if update == nil {
		update = func(_, cur T) { add(cur) }
	}
	if del == nil {
		del = add
	}
	// An informer that is stopped refuses handlers; there is nothing to hear
	// from it then.
	_, _ = inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { add(o.(T)) },
		UpdateFunc: func(o, n any) { update(o.(T), n.(T)) },
		DeleteFunc: func(o any) {
			if t, ok := Deleted[T](o); ok {
				del(t)
			}
		},
	})
}

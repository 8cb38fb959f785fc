package reconcile

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/trace"
)

// Queue is a rate limited queue of keys: "namespace/name", or "name" of a
// cluster-scoped object.
type Queue = workqueue.TypedRateLimitingInterface[string]

// NewQueue makes a queue whose only limit is each key's own exponential
// backoff: a key that does not fail is never held up.
func NewQueue(name string, clk clock.WithTicker) Queue {
	return NewQueueUpTo(name, clk, 1000*time.Second)
}

// NewQueueUpTo is NewQueue with the longest backoff.
func NewQueueUpTo(name string, clk clock.WithTicker, most time.Duration) Queue {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, most)
	return &queue{
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[string]{Name: name, Clock: clk}),
		limiter:                    limiter, clock: clk, due: map[string]time.Time{},
	}
}

// queue is a queue in which a key has one retry at a time: a failure before that,
// because something happened to the key meanwhile, does not double its backoff. Else a
// hundred events during a short failure would delay the retry by the longest backoff.
type queue struct {
	workqueue.TypedRateLimitingInterface[string]
	limiter workqueue.TypedRateLimiter[string]
	clock   clock.PassiveClock

	mu  sync.Mutex
	due map[string]time.Time // when each key that failed is retried
}

// AddRateLimited implements Queue.
func (q *queue) AddRateLimited(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	if !q.due[key].After(now) {
		q.due[key] = now.Add(q.limiter.When(key))
	}
	// Also where it is due already: the queue keeps one time for a key, the earliest, and
	// that may have been for something else.
	q.AddAfter(key, q.due[key].Sub(now))
}

// Forget implements Queue.
func (q *queue) Forget(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.due, key)
	q.TypedRateLimitingInterface.Forget(key)
}

// Run runs a control loop until ctx is done. It returns when all goroutines that
// it started have ended.
type Run func(ctx context.Context)

// Result is the outcome of a key that has been reconciled without error.
type Result struct {
	// RequeueAfter, if positive, is when the key is reconciled again though
	// nothing may have happened.
	RequeueAfter time.Duration
}

// Loop reconciles the objects of an informer by the keys in Queue. A key whose
// reconciliation fails, or panics, comes again with exponential backoff; the
// others go on.
type Loop[T runtime.Object] struct {
	Queue   Queue
	Workers int // 1 if zero
	// For is the informer whose objects are reconciled.
	For cache.SharedIndexInformer
	// Reads are the other informers whose caches Reconcile reads.
	Reads []cache.SharedIndexInformer
	// Reconcile compares what obj wants with what is, and takes the next steps.
	// Its writes are recorded as caused by obj, which it must not change.
	Reconcile func(ctx context.Context, obj T) (Result, error)
	// Gone, if set, is called with a key that has no object.
	Gone func(ctx context.Context, key string) error
}

// Run waits for the caches, works until ctx is done, and returns when the last
// worker has.
func (l Loop[T]) Run(ctx context.Context) {
	Keys{
		Queue: l.Queue, Workers: l.Workers, Reads: append([]cache.SharedIndexInformer{l.For}, l.Reads...),
		Reconcile: func(ctx context.Context, key string) (Result, error) {
			obj, ok, err := l.For.GetIndexer().GetByKey(key)
			switch {
			case err != nil:
				return Result{}, err
			case ok:
				o, ok := obj.(T)
				if !ok {
					return Result{}, fmt.Errorf("want a %T for %q, found a %T", o, key, obj)
				}
				return l.Reconcile(trace.WithCause(ctx, o), o)
			case l.Gone != nil:
				return Result{}, l.Gone(ctx, key)
			}
			return Result{}, nil
		},
	}.Run(ctx)
}

// Keys is a Loop over keys that are not those of an informer's objects.
type Keys struct {
	Queue     Queue
	Workers   int // 1 if zero
	Reads     []cache.SharedIndexInformer
	Reconcile func(ctx context.Context, key string) (Result, error)
}

// Run is as Loop's.
func (l Keys) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, l.Queue.ShutDown)
	defer stop()
	if !WaitFor(ctx, l.Reads...) {
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

func (l Keys) next(ctx context.Context) bool {
	key, quit := l.Queue.Get()
	if quit {
		return false
	}
	defer l.Queue.Done(key)
	var res Result
	err := recovered(func() (err error) {
		res, err = l.Reconcile(ctx, key)
		return err
	})
	if err != nil {
		if _, ok := err.(*panicked); ok { //nolint:errorlint // it is not wrapped
			klog.FromContext(ctx).Error(err, "Recovered", "key", key)
		} else if ctx.Err() == nil {
			klog.FromContext(ctx).V(2).Info("Sync failed, will retry", "key", key, "err", err)
		}
		l.Queue.AddRateLimited(key)
		return true
	}
	l.Queue.Forget(key)
	if res.RequeueAfter > 0 {
		l.Queue.AddAfter(key, res.RequeueAfter)
	}
	return true
}

// recovered turns a panic into an error, so that one bad object cannot stop the
// others from being reconciled.
func recovered(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicked{r, debug.Stack()}
		}
	}()
	return f()
}

// panicked is the error of a reconciliation that panicked.
type panicked struct {
	value any
	stack []byte
}

// Error returns what it panicked with, and where.
func (p *panicked) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

// Together runs several loops as one controller.
func Together(runs ...Run) Run {
	return func(ctx context.Context) {
		var wg sync.WaitGroup
		for _, run := range runs {
			wg.Go(func() { run(ctx) })
		}
		wg.Wait()
	}
}

// Every calls do once reads are synced, and then each period.
func Every(clk clock.WithTicker, period time.Duration, do Run, reads ...cache.SharedIndexInformer) Run {
	return func(ctx context.Context) {
		if !WaitFor(ctx, reads...) {
			return
		}
		tick := clk.NewTicker(period)
		defer tick.Stop()
		for {
			if err := recovered(func() error { do(ctx); return nil }); err != nil {
				klog.FromContext(ctx).Error(err, "Recovered")
			}
			select {
			case <-tick.C():
			case <-ctx.Done():
				return
			}
		}
	}
}

// WaitFor waits until the informers have their first list, and reports whether
// they have: it gives up when ctx is done. Unlike cache.WaitForCacheSync it
// does not poll.
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

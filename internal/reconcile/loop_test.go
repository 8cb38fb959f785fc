package reconcile_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/reconcile"
	"keelson.dev/keelson/internal/trace"
)

// TestLoop checks what becomes of each outcome of a reconciliation.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		times := map[string]int{}
		seen := func(key string) int {
			mu.Lock()
			defer mu.Unlock()
			times[key]++
			return times[key]
		}
		ended := false
		c := controllertest.New(t, func(c controllers.Context) (reconcile.Run, error) {
			informer, queue := c.Informers.Core().V1().Namespaces().Informer(), c.Queue("test")
			reconcile.Handle(informer, reconcile.Enqueue[*v1.Namespace](queue), nil, nil)
			loop := reconcile.Loop[*v1.Namespace]{
				Queue: queue, Workers: 2, For: informer,
				Reconcile: func(ctx context.Context, ns *v1.Namespace) (reconcile.Result, error) {
					n := seen(ns.Name)
					if cause, ok := trace.CauseFrom(ctx); !ok || cause.UID != ns.UID {
						t.Errorf("%s: the cause is %v", ns.Name, cause)
					}
					switch {
					case ns.Name == "panics" && n < 3:
						panic("bad")
					case ns.Name == "fails" && n < 4:
						return reconcile.Result{}, errors.New("bad")
					case ns.Name == "comes-again" && n < 5:
						return reconcile.Result{RequeueAfter: time.Hour}, nil
					}
					return reconcile.Result{}, nil
				},
				Gone: func(_ context.Context, key string) error {
					seen("gone " + key)
					return nil
				},
			}
			return func(ctx context.Context) {
				loop.Run(ctx)
				ended = true
			}, nil
		})
		for _, name := range []string{"panics", "fails", "comes-again", "fine"} {
			controllertest.Must[*v1.Namespace](t)(c.Client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
		}
		c.Advance(3*time.Hour + time.Minute)
		zero := int64(0)
		if err := c.Client.CoreV1().Namespaces().Delete(t.Context(), "fine", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for key, want := range map[string]int{"panics": 3, "fails": 4, "comes-again": 4, "fine": 1, "gone fine": 1} {
			if times[key] != want {
				t.Errorf("%q was reconciled %d times, want %d", key, times[key], want)
			}
		}
		c.Stop()
		if !ended {
			t.Error("Run has not returned")
		}
	})
}

// TestRetryAfterALook checks that a key that is looked at before its retry, for which it was
// to be added anyhow, has the retry.
func TestRetryAfterALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := reconcile.NewQueue("test", clock.RealClock{})
		defer q.ShutDown()
		start := time.Now()
		q.AddAfter("key", 2*time.Millisecond)
		q.AddRateLimited("key")
		for _, want := range []time.Duration{2, 5} {
			key, _ := q.Get()
			if at := time.Since(start); at != want*time.Millisecond {
				t.Errorf("it comes after %s, want %s", at, want*time.Millisecond)
			}
			q.AddRateLimited(key)
			q.Done(key)
		}
	})
}

// TestOneRetry checks that failures while a retry is due do not lengthen the backoff, and
// those of retries do.
func TestOneRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := reconcile.NewQueue("test", clock.RealClock{})
		defer q.ShutDown()
		start := time.Now()
		var at []time.Duration
		for range 5 {
			for range 100 {
				q.AddRateLimited("key")
			}
			key, _ := q.Get()
			at = append(at, time.Since(start))
			q.Done(key)
		}
		for i, want := range []time.Duration{5, 15, 35, 75, 155} {
			if at[i] != want*time.Millisecond {
				t.Errorf("retry %d is after %s, want %s", i, at[i], want*time.Millisecond)
			}
		}
		q.Forget("key")
		q.AddRateLimited("key")
		start = time.Now()
		if _, _ = q.Get(); time.Since(start) != 5*time.Millisecond {
			t.Errorf("after a success the first retry is after %s", time.Since(start))
		}
	})
}

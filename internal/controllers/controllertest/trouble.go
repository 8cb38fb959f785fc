package controllertest

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// trouble makes requests between controllers and the API server fail. The zero
// value makes none fail.
type trouble struct {
	mu  sync.Mutex
	rng *rand.Rand
}

// lag is how far an informer is behind at most.
const lag = 300 * time.Millisecond

// chance returns a number below 1 while there is trouble, and else 1.
func (f *trouble) chance() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rng == nil {
		return 1
	}
	return f.rng.Float64()
}

// set begins trouble; a nil rng ends it.
func (f *trouble) set(rng *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rng = rng
}

// client returns the controllers' client of the server behind c. In trouble, one
// write in ten is refused, and one in ten done and its answer lost; watches lag, each
// by a time of its own.
func (f *trouble) client(c *fake.Clientset, s *server) kubernetes.Interface {
	client := fake.NewClientset()
	client.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		write := a.GetVerb() != "get" && a.GetVerb() != "list" && a.GetResource().Resource != "events"
		roll := 1.0
		if write {
			roll = f.chance()
		}
		if roll < 0.1 {
			return true, nil, apierrors.NewServiceUnavailable("refused by the test")
		}
		obj, err := c.Invokes(a, nil)
		if err == nil && roll < 0.2 {
			return true, nil, apierrors.NewTimeoutError("lost by the test", 0)
		}
		return true, obj, err
	})
	client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, missed, err := s.watch(a.GetResource(), a.GetNamespace())
		if err != nil {
			return true, nil, err
		}
		out := make(chan watch.Event)
		proxy := watch.NewProxyWatcher(out)
		go func() {
			defer close(out)
			defer w.Stop()
			for {
				var e watch.Event
				if len(missed) > 0 {
					e, missed = missed[0], missed[1:]
				} else {
					select {
					case e = <-w.ResultChan():
					case <-proxy.StopChan():
						return
					}
				}
				if r := f.chance(); r < 1 {
					time.Sleep(time.Duration(r * float64(lag)))
				}
				select {
				case out <- e:
				case <-proxy.StopChan():
					return
				}
			}
		}()
		return true, proxy, nil
	})
	return client
}

// kubelet takes each pod of a namespace one step on, with some chance: to be ready,
// or away.
func (c *Cluster) kubelet(namespace string, chance func() bool) (changed bool) {
	c.t.Helper()
	for _, p := range c.Pods(namespace) {
		if !chance() {
			continue
		}
		switch {
		case p.DeletionTimestamp != nil:
			zero := int64(0)
			if err := c.Client.CoreV1().Pods(namespace).Delete(c.t.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil && !apierrors.IsNotFound(err) {
				c.t.Fatal(err)
			}
		case p.Status.Phase == "" || p.Status.Phase == v1.PodPending:
			p.Status.Phase = v1.PodRunning
			p.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now())}}
			if _, err := c.Client.CoreV1().Pods(namespace).UpdateStatus(c.t.Context(), &p, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				c.t.Fatal(err)
			}
		default:
			continue
		}
		changed = true
	}
	return changed
}

// Survives runs each of steps on clusters in which requests fail, answers are lost,
// informers lag behind one another and controllers are killed, all at random; then
// in peace, until the pods of the namespace ns no longer change; and then check.
func Survives(t *testing.T, seeds int, constructors []func(controllers.Context) (reconcile.Run, error), steps []func(c *Cluster), check func(t *testing.T, c *Cluster)) {
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			c := New(t, constructors...)
			c.GracefulPods()
			for _, step := range steps {
				c.trouble.set(nil)
				step(c)
				c.trouble.set(rand.New(rand.NewPCG(uint64(seed), rng.Uint64())))
				for range rng.IntN(20) {
					c.Advance(time.Duration(rng.IntN(500)) * time.Millisecond)
					c.kubelet("ns", func() bool { return rng.IntN(2) == 0 })
					if rng.IntN(5) == 0 {
						c.Restart()
					}
				}
			}
			c.trouble.set(nil)
			// The longest backoff that a few failures make, and the time after which
			// an expectation is given up, pass.
			for range 1000 {
				c.Advance(time.Second)
				changed := c.kubelet("ns", func() bool { return true })
				if !changed {
					c.Advance(6 * time.Minute)
					if !c.kubelet("ns", func() bool { return true }) {
						break
					}
				}
			}
			check(t, c)
			if t.Failed() {
				t.Fatalf("with seed %d", seed)
			}
		})
	}
}

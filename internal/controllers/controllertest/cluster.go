package controllertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// Cluster is an empty cluster in which the given controllers run.
type Cluster struct {
	Client  *fake.Clientset
	Context controllers.Context
	// Stop stops the controllers and returns when they have ended.
	Stop func()
	// Restart stops them and starts new ones, which know nothing of what these have
	// done.
	Restart func()

	t       testing.TB
	server  *server
	trouble trouble
	conn    *connection // of the controllers that run
	count   tally
	refuse  func(clienttesting.Action) error
	outside func(*Cluster, Life, *controllers.Context)
	mu      sync.Mutex
	events  []string
}

// Constructor makes a controller.
type Constructor = func(controllers.Context) (reconcile.Run, error)

// New starts controllers on an empty cluster. It must be called inside a
// synctest bubble; the controllers stop when the test ends.
func New(t testing.TB, constructors ...Constructor) *Cluster {
	t.Helper()
	return NewWith(t, nil, constructors...)
}

// NewWith is New with a change to the controllers' context.
func NewWith(t testing.TB, change func(*controllers.Context), constructors ...Constructor) *Cluster {
	t.Helper()
	c := newCluster(t)
	c.run(change, constructors)
	return c
}

// newCluster makes an empty cluster in which nothing runs.
func newCluster(t testing.TB) *Cluster {
	client := fake.NewClientset()
	client.Resources = served()
	s := &server{
		ObjectTracker: clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder()),
		// A namespace goes by its spec's finalizers, not by its metadata's.
		graceful: map[string]bool{"namespaces": true},
		beats:    map[string]bool{"leases": true},
	}
	client.PrependReactor("*", "*", clienttesting.ObjectReaction(s))
	client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := s.Watch(a.GetResource(), a.GetNamespace())
		return true, w, err
	})
	return &Cluster{Client: client, t: t, server: s, Stop: func() {}}
}

// run runs controllers until the test ends.
func (c *Cluster) run(change func(*controllers.Context), constructors []Constructor) {
	c.Restart = func() {
		c.Stop()
		c.start(change, constructors)
	}
	c.t.Cleanup(func() { c.Stop() })
	c.Restart()
}

// start starts controllers.
func (c *Cluster) start(change func(*controllers.Context), constructors []Constructor) {
	t := c.t
	t.Helper()
	conn := &connection{client: c.Client, server: c.server, trouble: &c.trouble, refuse: c.refuse, count: &c.count, fuse: c.trouble.writes()}
	c.conn = conn
	client := conn.clients()
	ctx, cancel := context.WithCancel(context.Background())
	c.Context = controllers.Context{
		Clients:     func(string) kubernetes.Interface { return client },
		Informers:   informers.NewSharedInformerFactory(client, 0),
		Metadatas:   func(string) metadata.Interface { return metadataClient{conn} },
		Discovery:   c.Client.Discovery(),
		RESTMapper:  mapper(),
		Clock:       clock.RealClock{},
		Broadcaster: record.NewBroadcaster(record.WithContext(ctx)),
	}
	if change != nil {
		change(&c.Context)
	}
	if c.outside != nil {
		c.outside(c, Life{conn}, &c.Context)
	}
	c.Context.Broadcaster.StartEventWatcher(func(e *v1.Event) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.events = append(c.events, fmt.Sprintf("%s %s %s", e.Type, e.Reason, e.Message))
	})
	var running sync.WaitGroup
	for _, construct := range constructors {
		run, err := construct(c.Context)
		if err != nil {
			t.Fatal(err)
		}
		if run != nil {
			running.Go(func() { run(ctx) })
		}
	}
	c.Context.Informers.Start(ctx.Done())
	c.Stop = func() {
		cancel()
		running.Wait()
		c.Context.Broadcaster.Shutdown()
		c.Context.Informers.Shutdown()
		c.Stop = func() {}
	}
	synctest.Wait()
}

// Done is closed when the test ends.
func (c *Cluster) Done() <-chan struct{} { return c.t.Context().Done() }

// GracefulPods makes the deletion of a pod wait for its kubelet, that is, for
// a deletion with grace period 0.
func (c *Cluster) GracefulPods() { c.server.graceful["pods"] = true }

// Events returns the events recorded since the last call, as "Type Reason
// Message".
func (c *Cluster) Events() []string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.events
	c.events = nil
	return e
}

// HasEvent fails the test where an event is not among those recorded since the
// last call of Events.
func (c *Cluster) HasEvent(want string) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.events, want) {
		c.t.Errorf("no event %q among %q", want, c.events)
	}
}

// Advance lets time pass and the controllers finish what they do.
func (c *Cluster) Advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Pods returns the pods of a namespace.
func (c *Cluster) Pods(namespace string) []v1.Pod {
	c.t.Helper()
	synctest.Wait()
	list, err := c.Client.CoreV1().Pods(namespace).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

// SetReady makes a pod run and its readiness what it says.
func (c *Cluster) SetReady(pod *v1.Pod, ready bool) {
	c.t.Helper()
	status := v1.ConditionFalse
	if ready {
		status = v1.ConditionTrue
	}
	p := pod.DeepCopy()
	p.Status.Phase = v1.PodRunning
	p.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(time.Now())}}
	if _, err := c.Client.CoreV1().Pods(p.Namespace).UpdateStatus(context.Background(), p, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	synctest.Wait()
}

// SetPhase ends a pod or sets its phase otherwise.
func (c *Cluster) SetPhase(pod *v1.Pod, phase v1.PodPhase) {
	c.t.Helper()
	p := pod.DeepCopy()
	p.Status.Phase = phase
	if _, err := c.Client.CoreV1().Pods(p.Namespace).UpdateStatus(context.Background(), p, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	synctest.Wait()
}

// RunPods is a kubelet for a namespace: it makes each pending pod ready and
// ends each deleted one, until nothing changes. After each step it calls check,
// where that is not nil, with the namespace's pods.
func (c *Cluster) RunPods(namespace string, check func([]v1.Pod)) {
	c.t.Helper()
	for {
		changed := false
		for _, p := range c.Pods(namespace) {
			switch {
			case p.DeletionTimestamp != nil:
				zero := int64(0)
				if err := c.Client.CoreV1().Pods(namespace).Delete(context.Background(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
					c.t.Fatal(err)
				}
			case p.Status.Phase == "" || p.Status.Phase == v1.PodPending:
				c.SetReady(&p, true)
			default:
				continue
			}
			changed = true
			c.Advance(time.Second)
			if check != nil {
				check(c.Pods(namespace))
			}
			break
		}
		if !changed {
			return
		}
	}
}

// Must returns v, and fails the test where there is an error.
func Must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

package podgc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

var ctx = context.Background()

func node(name string, ready v1.ConditionStatus, taints ...string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: ready}}}}
	for _, t := range taints {
		n.Spec.Taints = append(n.Spec.Taints, v1.Taint{Key: t, Effect: v1.TaintEffectNoExecute})
	}
	return n
}

func pod(name, node string, phase v1.PodPhase) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, Spec: v1.PodSpec{NodeName: node}, Status: v1.PodStatus{Phase: phase}}
}

func create(t *testing.T, c *controllertest.Cluster, nodes []*v1.Node, pods ...*v1.Pod) {
	t.Helper()
	for _, n := range nodes {
		controllertest.Must[*v1.Node](t)(c.Client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}))
	}
	for _, p := range pods {
		controllertest.Must[*v1.Pod](t)(c.Client.CoreV1().Pods("ns").Create(ctx, p, metav1.CreateOptions{}))
	}
}

func remaining(c *controllertest.Cluster) string {
	var names []string
	for _, p := range c.Pods("ns") {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// TestOrphans checks that the pods of a node that has gone are failed and
// deleted after the quarantine, and not where the node comes back.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controllertest.New(t, New)
		var marked []v1.PodStatus // as it was when the pod was deleted
		create(t, c, []*v1.Node{node("a", v1.ConditionTrue), node("b", v1.ConditionTrue), node("c", v1.ConditionTrue)},
			pod("a", "a", v1.PodRunning), pod("b", "b", v1.PodRunning), pod("c", "c", v1.PodRunning), pod("done", "c", v1.PodSucceeded), pod("none", "", v1.PodPending))
		w, err := c.Client.CoreV1().Pods("ns").Watch(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for e := range w.ResultChan() {
				if p := e.Object.(*v1.Pod); p.Name == "c" {
					marked = append(marked, p.Status)
				}
			}
		}()
		for _, n := range []string{"b", "c"} {
			if err := c.Client.CoreV1().Nodes().Delete(ctx, n, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		c.Advance(period + time.Second)
		create(t, c, []*v1.Node{node("b", v1.ConditionTrue)})
		c.Advance(quarantine - period)
		if got := remaining(c); got != "a b c done none" {
			t.Errorf("within the quarantine there are %s", got)
		}
		c.Advance(2 * period)
		if got := remaining(c); got != "a b none" {
			t.Errorf("after it there are %s", got)
		}
		w.Stop()
		synctest.Wait()
		last := marked[len(marked)-1]
		if i := slices.IndexFunc(last.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.DisruptionTarget }); last.Phase != v1.PodFailed || i < 0 || last.Conditions[i].Reason != "DeletionByPodGC" ||
			last.Conditions[i].Message != "PodGC: node no longer exists" {
			t.Errorf("it ended as %+v", last)
		}
	})
}

// TestDeleted checks that pods that are being deleted are finished where no
// kubelet does it.
func TestDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controllertest.New(t, New)
		c.GracefulPods()
		create(t, c, []*v1.Node{node("up", v1.ConditionTrue, v1.TaintNodeOutOfService), node("silent", v1.ConditionUnknown), node("off", v1.ConditionUnknown, v1.TaintNodeOutOfService)},
			pod("up", "up", v1.PodRunning), pod("silent", "silent", v1.PodRunning), pod("off", "off", v1.PodRunning), pod("off-wanted", "off", v1.PodRunning), pod("unscheduled", "", v1.PodPending), pod("pending", "", v1.PodPending))
		for _, name := range []string{"up", "silent", "off", "unscheduled"} {
			if err := c.Client.CoreV1().Pods("ns").Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		c.Advance(period + time.Second)
		if got := remaining(c); got != "off-wanted pending silent up" {
			t.Errorf("there are %s", got)
		}
	})
}

// TestThreshold checks that of the pods that have ended, the evicted and then the
// oldest go where there are too many.
func TestThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controllertest.New(t, New)
		indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		const threshold = 12500
		g := &collector{client: c.Client, pods: corelisters.NewPodLister(indexer), nodes: c.Context.Informers.Core().V1().Nodes().Lister(), clock: c.Context.Clock, gone: map[string]time.Time{}, most: threshold}
		add := func(p *v1.Pod, age time.Duration) {
			p.CreationTimestamp = metav1.NewTime(time.Now().Add(-age))
			if age > 0 {
				p = controllertest.Must[*v1.Pod](t)(c.Client.CoreV1().Pods("ns").Create(ctx, p, metav1.CreateOptions{}))
				p.CreationTimestamp = metav1.NewTime(time.Now().Add(-age)) // the server's is now
			}
			if err := indexer.Add(p); err != nil {
				t.Fatal(err)
			}
		}
		for i := range threshold - 2 {
			add(pod(fmt.Sprint("young", i), "", v1.PodSucceeded), 0)
		}
		evicted := pod("evicted", "", v1.PodFailed)
		evicted.Status.Reason = "Evicted"
		add(evicted, time.Minute)
		add(pod("old", "", v1.PodSucceeded), time.Hour)
		add(pod("older", "", v1.PodFailed), 2*time.Hour)
		add(pod("running", "", v1.PodRunning), 3*time.Hour)
		g.collect(ctx)
		if got := remaining(c); got != "old older running" {
			t.Errorf("there are %s", got)
		}
		add(pod("another", "", v1.PodFailed), 30*time.Minute)
		g.collect(ctx)
		if got := remaining(c); got != "another old running" {
			t.Errorf("there are %s", got)
		}
	})
}

func TestSurvives(t *testing.T) {
	controllertest.Trial{Seeds: 30, Controllers: []controllertest.Constructor{New}, Actions: []controllertest.Action{
		func(c *controllertest.Cluster) {
			create(t, c, []*v1.Node{node("a", v1.ConditionTrue), node("b", v1.ConditionTrue)}, pod("a", "a", v1.PodRunning), pod("b", "b", v1.PodRunning), pod("b2", "b", v1.PodFailed))
		},
		func(c *controllertest.Cluster) {
			if err := c.Client.CoreV1().Nodes().Delete(ctx, "b", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Fatal(err)
			}
		},
	}, End: func(t *testing.T, c *controllertest.Cluster) {
		if got := remaining(c); got != "a" {
			t.Errorf("there are %s", got)
		}
	}}.Survives(t)
}

package nodettl

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/reconcile"
)

// steps are the times by the number of nodes, upstream's. A step is left upwards
// above most and downwards below least, so that a cluster at the border of two does
// not go back and forth.
var steps = []struct{ least, most, seconds int }{
	{0, 100, 0}, {90, 500, 15}, {450, 1000, 30}, {900, 2000, 60}, {1800, math.MaxInt, 300},
}

// settle is the time in which many nodes may come: each is written once.
const settle = time.Second

type controller struct {
	client kubernetes.Interface
	nodes  cache.Indexer
	queue  reconcile.Queue
	step   atomic.Int32
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	nodes := c.Informers.Core().V1().Nodes().Informer()
	t := &controller{client: c.Client(), nodes: nodes.GetIndexer(), queue: c.Queue("ttlcontroller")}
	changed := func(n *v1.Node) {
		t.count()
		t.queue.AddAfter(n.Name, settle)
	}
	reconcile.Handle(nodes, changed, func(old, n *v1.Node) {
		if old.Annotations[v1.ObjectTTLAnnotationKey] != n.Annotations[v1.ObjectTTLAnnotationKey] {
			t.queue.Add(n.Name)
		}
	}, func(*v1.Node) { t.count() })
	return reconcile.Loop[*v1.Node]{Queue: t.queue, Workers: 5, For: nodes, Reconcile: t.reconcile}.Run, nil
}

// count finds the step for the number of nodes, and queues all where it is another.
func (t *controller) count() {
	n, old := len(t.nodes.ListKeys()), t.step.Load()
	now := old
	for n > steps[now].most {
		now++
	}
	for n < steps[now].least {
		now--
	}
	if now == old || !t.step.CompareAndSwap(old, now) {
		return
	}
	for _, name := range t.nodes.ListKeys() {
		t.queue.AddAfter(name, settle)
	}
}

func (t *controller) reconcile(ctx context.Context, n *v1.Node) (reconcile.Result, error) {
	want := strconv.Itoa(steps[t.step.Load()].seconds)
	if n.Annotations[v1.ObjectTTLAnnotationKey] == want {
		return reconcile.Result{}, nil
	}
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"annotations":{%q:%q}}}`, n.UID, v1.ObjectTTLAnnotationKey, want)
	_, err := t.client.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return reconcile.Result{}, err
}

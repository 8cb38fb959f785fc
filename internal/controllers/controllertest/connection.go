package controllertest

import (
	"errors"
	"reflect"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// connection is the way of one life of the controllers, from their start to their
// end, to the API server. Trouble happens on it.
type connection struct {
	client  *fake.Clientset // which has the whole of the server
	server  *server
	trouble *trouble
	// refuse, if set, is asked before each write; its error is the answer.
	refuse func(clienttesting.Action) error
	count  *tally

	mu   sync.Mutex
	dead bool
	fuse int // how many writes in trouble are left until the controllers die
}

// errKilled is the answer to all requests of controllers that have been killed.
var errKilled = errors.New("the controllers were killed by the test")

// errLost is the answer to a write that has been done.
var errLost = apierrors.NewTimeoutError("lost by the test", 0)

// tally counts the requests of controllers.
type tally struct {
	mu            sync.Mutex
	reads, writes int
}

func (c *tally) add(write bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if write {
		c.writes++
	} else {
		c.reads++
	}
}

func (c *tally) get() (reads, writes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads, c.writes
}

// kill has nothing of the controllers reach the server any more, in the middle of
// whatever they do.
func (c *connection) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
}

func (c *connection) killed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// read does what reads, while the controllers live.
func (c *connection) read(do func() error) error {
	if c.killed() {
		return errKilled
	}
	c.count.add(false)
	return do()
}

// write does what writes. In trouble, one write in ten is refused, and one in ten done
// and its answer lost; and before or after some write the controllers die.
func (c *connection) write(do func() error) error {
	if c.killed() {
		return errKilled
	}
	c.count.add(true)
	roll := c.trouble.chance()
	if roll < 1 {
		c.mu.Lock()
		if c.fuse--; c.fuse == 0 {
			c.dead = true
		}
		dead := c.dead
		c.mu.Unlock()
		if dead {
			if roll < 0.5 {
				_ = do()
			}
			return errKilled
		}
	}
	if roll < 0.1 {
		return apierrors.NewServiceUnavailable("refused by the test")
	}
	err := do()
	if err == nil && roll < 0.2 {
		return errLost
	}
	return err
}

// Life is one life of the controllers, from their start to their end.
type Life struct{ conn *connection }

// Call does what controllers ask of something else than the API server, such as a cloud's
// provider. It has the trouble of a write.
func (l Life) Call(do func() error) error { return l.conn.write(do) }

// Chance returns a number below 1 while there is trouble, and else 1.
func (l Life) Chance() float64 { return l.conn.trouble.chance() }

// clients returns the controllers' client.
func (c *connection) clients() kubernetes.Interface {
	client := fake.NewClientset()
	client.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		var obj runtime.Object
		do := func() (err error) {
			obj, err = c.serve(a)
			return err
		}
		verb := a.GetVerb()
		if verb == "get" || verb == "list" || a.GetResource().Resource == "events" {
			err := c.read(do)
			return true, obj, err
		}
		if c.refuse != nil {
			if err := c.refuse(a); err != nil {
				c.count.add(true)
				return true, nil, err
			}
		}
		if err := c.write(do); err != nil {
			return true, nil, err
		}
		return true, obj, nil
	})
	client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := c.watch(a.GetResource(), a.GetNamespace(), func(o runtime.Object) runtime.Object { return o })
		return true, w, err
	})
	return client
}

// serve answers a request. Of a status it takes the status, of the rest all but the
// status, and it knows the scales of what has replicas.
func (c *connection) serve(a clienttesting.Action) (runtime.Object, error) {
	gvr, ns := a.GetResource(), a.GetNamespace()
	switch a := a.(type) {
	case clienttesting.CreateActionImpl:
		switch {
		case a.GetSubresource() == "finalize":
			return c.finalize(a)
		case a.GetSubresource() == "eviction":
			return c.evict(a)
		case gvr.Resource == "subjectaccessreviews": // everybody may do everything
			review := a.GetObject().DeepCopyObject()
			part(review, "Status").FieldByName("Allowed").SetBool(true)
			return review, nil
		case a.GetSubresource() == "" && gvr.Resource != "nodes": // a kubelet registers with its status
			if f := part(a.GetObject(), "Status"); f.IsValid() {
				f.SetZero()
			}
		}
	case clienttesting.UpdateActionImpl:
		if a.GetSubresource() == "scale" {
			return c.rescale(gvr, ns, a.GetObject().(*autoscalingv1.Scale))
		}
		m, err := meta.Accessor(a.GetObject())
		if err != nil {
			return nil, err
		}
		old, err := c.server.Get(gvr, ns, m.GetName())
		if err != nil {
			return nil, err
		}
		keep := ""
		switch a.GetSubresource() {
		case "":
			keep = "Status"
		case "status":
			keep = "Spec"
		}
		if now, was := part(a.GetObject(), keep), part(old.DeepCopyObject(), keep); now.IsValid() && was.IsValid() {
			now.Set(was)
		}
	case clienttesting.GetActionImpl:
		if a.GetSubresource() == "scale" {
			obj, err := c.server.Get(gvr, ns, a.GetName())
			if err != nil {
				return nil, err
			}
			return scaleOf(obj), nil
		}
	case clienttesting.ListActionImpl:
		obj, err := c.client.Invokes(a, nil)
		if err == nil {
			err = selectFields(obj, a.GetListRestrictions().Fields)
		}
		return obj, err
	}
	return c.client.Invokes(a, nil)
}

// finalize writes the finalizers of a namespace's spec. Without any, one that is being
// deleted goes.
func (c *connection) finalize(a clienttesting.CreateActionImpl) (runtime.Object, error) {
	ns := a.GetObject().(*v1.Namespace)
	if err := c.server.Update(a.GetResource(), ns, ""); err != nil {
		return nil, err
	}
	if ns.DeletionTimestamp != nil && len(ns.Spec.Finalizers) == 0 {
		return ns, c.server.Delete(a.GetResource(), "", ns.Name, *metav1.NewDeleteOptions(0))
	}
	return ns, nil
}

// evict deletes a pod, unless one of its budgets allows no disruption. A budget allows
// one less then, until its controller counts again.
func (c *connection) evict(a clienttesting.CreateActionImpl) (runtime.Object, error) {
	e := a.GetObject().(*policy.Eviction)
	obj, err := c.server.Get(a.GetResource(), e.Namespace, e.Name)
	if err != nil {
		return nil, err
	}
	pod := obj.(*v1.Pod)
	budgets := schema.GroupVersionResource{Group: policy.GroupName, Version: "v1", Resource: "poddisruptionbudgets"}
	list, err := c.server.List(budgets, policy.SchemeGroupVersion.WithKind("PodDisruptionBudget"), e.Namespace)
	if err != nil {
		return nil, err
	}
	for _, b := range list.(*policy.PodDisruptionBudgetList).Items {
		s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !s.Matches(labels.Set(pod.Labels)) || pod.DeletionTimestamp != nil {
			continue
		}
		if b.Status.DisruptionsAllowed < 1 {
			return nil, apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
		}
		b.Status.DisruptionsAllowed--
		if err := c.server.Update(budgets, &b, e.Namespace); err != nil {
			return nil, err
		}
	}
	var options metav1.DeleteOptions
	if e.DeleteOptions != nil {
		options = *e.DeleteOptions
	}
	return e, c.server.Delete(a.GetResource(), e.Namespace, e.Name, options)
}

// part returns a field of an object, which is not valid where it has none.
func part(obj runtime.Object, name string) reflect.Value {
	if name == "" {
		return reflect.Value{}
	}
	return reflect.ValueOf(obj).Elem().FieldByName(name)
}

// selectFields leaves those items of a list that a selector of their names, and of pods'
// nodes, selects.
func selectFields(list runtime.Object, selector fields.Selector) error {
	if selector == nil || selector.Empty() {
		return nil
	}
	var left []runtime.Object
	err := meta.EachListItem(list, func(o runtime.Object) error {
		m, err := meta.Accessor(o)
		if err != nil {
			return err
		}
		set := fields.Set{"metadata.name": m.GetName(), "metadata.namespace": m.GetNamespace()}
		if p, ok := o.(*v1.Pod); ok {
			set["spec.nodeName"] = p.Spec.NodeName
		}
		if selector.Matches(set) {
			left = append(left, o)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return meta.SetList(list, left)
}

// scaleOf returns the scale of an object with replicas.
func scaleOf(obj runtime.Object) *autoscalingv1.Scale {
	m, err := meta.Accessor(obj)
	if err != nil {
		panic(err)
	}
	s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion()}}
	spec, status := part(obj, "Spec"), part(obj, "Status")
	if n := spec.FieldByName("Replicas").Interface().(*int32); n != nil {
		s.Spec.Replicas = *n
	}
	s.Status.Replicas = status.FieldByName("Replicas").Interface().(int32)
	if selector, ok := spec.FieldByName("Selector").Interface().(*metav1.LabelSelector); ok {
		s.Status.Selector = metav1.FormatLabelSelector(selector)
	}
	return s
}

// rescale writes an object's replicas.
func (c *connection) rescale(gvr schema.GroupVersionResource, ns string, s *autoscalingv1.Scale) (runtime.Object, error) {
	obj, err := c.server.Get(gvr, ns, s.Name)
	if err != nil {
		return nil, err
	}
	obj = obj.DeepCopyObject()
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	m.SetResourceVersion(s.ResourceVersion)
	part(obj, "Spec").FieldByName("Replicas").Set(reflect.ValueOf(&s.Spec.Replicas))
	if err := c.server.Update(gvr, obj, ns); err != nil {
		return nil, err
	}
	return scaleOf(obj), nil
}

// watch returns a watch, which in trouble lags behind, by a time of its own, stalls
// from time to time so that it is behind all others, or expires and has its client
// list again. Its objects are what shown makes of them.
func (c *connection) watch(gvr schema.GroupVersionResource, namespace string, shown func(runtime.Object) runtime.Object) (watch.Interface, error) {
	if c.killed() {
		return nil, errKilled
	}
	w, pending, err := c.server.watch(gvr, namespace)
	if err != nil {
		return nil, err
	}
	out := make(chan watch.Event)
	proxy := watch.NewProxyWatcher(out)
	go func() {
		defer close(out)
		defer w.Stop()
		delay := time.NewTimer(c.trouble.delay())
		defer delay.Stop()
		ready, ended := false, false
		for {
			var send chan watch.Event
			var next watch.Event
			switch {
			case ready && ended:
				send = out
				next = watch.Event{Type: watch.Error, Object: &apierrors.NewResourceExpired("ended by the test").ErrStatus}
			case ready && len(pending) > 0:
				send, next = out, watch.Event{Type: pending[0].Type, Object: shown(pending[0].Object)}
			}
			// What comes is always taken: the tracker's channel does not hold much.
			select {
			case e := <-w.ResultChan():
				pending = append(pending, e)
			case <-delay.C:
				ready = true
			case send <- next:
				if ended {
					return
				}
				pending = pending[1:]
				ended = c.trouble.chance() < 0.02
				if d := c.trouble.delay(); d > 0 {
					ready = false
					delay.Reset(d)
				}
			case <-proxy.StopChan():
				return
			}
		}
	}()
	return proxy, nil
}

package resourcequota

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/quota"
	"keelson.dev/keelson/internal/reconcile"
)

type controller struct {
	controllers.Context
	client     kubernetes.Interface
	quotas     corelisters.ResourceQuotaLister
	queue      reconcile.Queue
	evaluators []quotav1.Evaluator
	typed      map[schema.GroupResource]cache.SharedIndexInformer

	mu      sync.Mutex
	watches sync.WaitGroup
	// counted are the informers of the resources whose number some quota is on;
	// they are started when the first such quota is seen.
	counted map[schema.GroupResource]cache.SharedIndexInformer
}

// New makes the controller.
func New(c controllers.Context) (reconcile.Run, error) {
	core := c.Informers.Core().V1()
	q := &controller{
		Context: c, client: c.Client(), quotas: core.ResourceQuotas().Lister(),
		queue: c.Queue("resource_quota_controller"),
		typed: map[schema.GroupResource]cache.SharedIndexInformer{
			v1.Resource("pods"):                   core.Pods().Informer(),
			v1.Resource("services"):               core.Services().Informer(),
			v1.Resource("persistentvolumeclaims"): core.PersistentVolumeClaims().Informer(),
		},
		counted: map[schema.GroupResource]cache.SharedIndexInformer{},
	}
	q.evaluators = quota.Evaluators(q.list, c.Clock)
	quotas := core.ResourceQuotas().Informer()
	enqueue := reconcile.Enqueue[*v1.ResourceQuota](q.queue)
	reconcile.Handle(quotas, enqueue, func(old, cur *v1.ResourceQuota) {
		if !equality.Semantic.DeepEqual(old.Spec, cur.Spec) || !equality.Semantic.DeepEqual(cur.Status.Hard, cur.Spec.Hard) {
			enqueue(cur)
		}
	}, reconcile.Ignore)
	reconcile.Handle(q.typed[v1.Resource("pods")], nil, func(old, cur *v1.Pod) {
		if controllers.PodTerminated(cur) && !controllers.PodTerminated(old) || q.any(cur.Namespace) && !equality.Semantic.DeepEqual(old.Spec.Containers, cur.Spec.Containers) {
			q.replenish(cur.Namespace)
		}
	}, func(p *v1.Pod) { q.replenish(p.Namespace) })
	reconcile.Handle(q.typed[v1.Resource("services")], nil, func(old, cur *v1.Service) {
		if old.Spec.Type != cur.Spec.Type || len(old.Spec.Ports) != len(cur.Spec.Ports) {
			q.replenish(cur.Namespace)
		}
	}, func(s *v1.Service) { q.replenish(s.Namespace) })
	reconcile.Handle(q.typed[v1.Resource("persistentvolumeclaims")], nil, func(old, cur *v1.PersistentVolumeClaim) {
		if quota.RequiresReplenish(cur, old) {
			q.replenish(cur.Namespace)
		}
	}, func(p *v1.PersistentVolumeClaim) { q.replenish(p.Namespace) })
	loop := reconcile.Loop[*v1.ResourceQuota]{
		Queue: q.queue, Workers: c.Workers(5), For: quotas, Reads: slices.Collect(maps.Values(q.typed)),
		Reconcile: func(ctx context.Context, o *v1.ResourceQuota) (reconcile.Result, error) {
			return reconcile.Result{}, q.count(ctx, o.Namespace, o.Name)
		},
	}
	// An admitted request may have failed later, with its use charged.
	again := reconcile.Every(c.Clock, c.Tuned().ResourceQuotaSyncPeriod, func(context.Context) { q.replenish(metav1.NamespaceAll) }, quotas)
	return func(ctx context.Context) {
		reconcile.Together(loop.Run, again)(ctx)
		q.watches.Wait()
	}, nil
}

// any reports whether the namespace has a quota.
func (q *controller) any(namespace string) bool {
	all, err := q.quotas.ResourceQuotas(namespace).List(labels.Everything())
	return err != nil || len(all) > 0
}

func (q *controller) replenish(namespace string) {
	all, err := q.quotas.ResourceQuotas(namespace).List(labels.Everything())
	if err != nil {
		return
	}
	for _, o := range all {
		q.queue.Add(reconcile.Key(o))
	}
}

// list implements quota.Lister from the informers.
func (q *controller) list(gr schema.GroupResource, namespace string) ([]runtime.Object, error) {
	inf := q.typed[gr]
	if inf == nil {
		q.mu.Lock()
		inf = q.counted[gr]
		q.mu.Unlock()
	}
	if inf == nil {
		return nil, fmt.Errorf("%s is not watched", gr)
	}
	objs, err := inf.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil, err
	}
	out := make([]runtime.Object, len(objs))
	for i, o := range objs {
		out[i] = o.(runtime.Object)
	}
	return out, nil
}

// watch starts to count a resource's objects. It returns nil where the cluster
// has no such resource.
func (q *controller) watch(ctx context.Context, gr schema.GroupResource) (cache.SharedIndexInformer, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if inf := q.counted[gr]; inf != nil {
		return inf, nil
	}
	client := q.Metadata()
	if client == nil || q.RESTMapper == nil {
		return nil, nil
	}
	gvr, err := q.RESTMapper.ResourceFor(gr.WithVersion(""))
	if err != nil {
		return nil, err
	}
	inf := metadatainformer.NewFilteredMetadataInformer(client, gvr, metav1.NamespaceAll, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}, nil).Informer()
	reconcile.Handle(inf, func(*metav1.PartialObjectMetadata) {}, func(_, _ *metav1.PartialObjectMetadata) {},
		func(o *metav1.PartialObjectMetadata) { q.replenish(o.Namespace) })
	q.counted[gr] = inf
	q.watches.Go(func() { inf.RunWithContext(ctx) })
	return inf, nil
}

// registry has the evaluators of what the quota is on.
func (q *controller) registry(ctx context.Context, o *v1.ResourceQuota) (quotav1.Registry, error) {
	all := slices.Clone(q.evaluators)
	for name := range o.Spec.Hard {
		gr, ok := quota.Counted(name)
		if !ok || q.typed[gr] != nil {
			continue
		}
		inf, err := q.watch(ctx, gr)
		if err != nil {
			return nil, fmt.Errorf("counting %s: %w", gr, err)
		}
		if inf == nil {
			continue
		}
		if !cache.WaitForCacheSync(ctx.Done(), inf.HasSynced) {
			return nil, ctx.Err()
		}
		all = append(all, quota.Count(gr, q.list))
	}
	return generic.NewRegistry(all), nil
}

func (q *controller) count(ctx context.Context, namespace, name string) error {
	// The quota is read again: its charges of a moment ago may be gone already, and
	// the lister know of neither. The controller's role lists.
	found, err := q.client.CoreV1().ResourceQuotas(namespace).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return err
	}
	if len(found.Items) == 0 {
		return nil
	}
	o := &found.Items[0]
	registry, failed := q.registry(ctx, o)
	if registry == nil {
		registry = generic.NewRegistry(q.evaluators)
	}
	used, err := quotav1.CalculateUsage(namespace, o.Spec.Scopes, o.Spec.Hard, registry, o.Spec.ScopeSelector)
	if err != nil {
		failed = err
	}
	// What could not be counted stays as it was.
	for n, had := range o.Status.Used {
		if _, ok := used[n]; !ok {
			used[n] = had
		}
	}
	used = quotav1.Mask(used, quotav1.ResourceNames(o.Spec.Hard))
	if equality.Semantic.DeepEqual(o.Status.Hard, o.Spec.Hard) && quotav1.Equals(used, o.Status.Used) {
		return failed
	}
	next := o.DeepCopy()
	next.Status = v1.ResourceQuotaStatus{Hard: o.Spec.Hard.DeepCopy(), Used: used}
	_, err = q.client.CoreV1().ResourceQuotas(namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return failed
}

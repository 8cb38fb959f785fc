package endpointslice

import (
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	upstream "k8s.io/endpointslice"
	"k8s.io/endpointslice/topologycache"
	"k8s.io/endpointslice/util"
	"k8s.io/klog/v2"
)

// BenchmarkSync has one of a Service's 10,000 pods change, for this controller and
// for the reconciler of upstream's library.
func BenchmarkSync(b *testing.B) {
	svc := service()
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	var pods []*v1.Pod
	for i := range 10_000 {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i%1000), Labels: map[string]string{v1.LabelTopologyZone: "z"}}}
		if err := nodes.Add(n); err != nil {
			b.Fatal(err)
		}
		pods = append(pods, pod(fmt.Sprintf("p%05d", i), n.Name, true, fmt.Sprintf("10.1.%d.%d", i>>8, i&255)))
		pods[i].UID = types.UID(fmt.Sprint("uid", i))
	}
	e := &sliceController{nodes: corelisters.NewNodeLister(nodes), seen: util.NewEndpointSliceTracker(), zones: topologycache.NewTopologyCache()}
	e.triggers = util.NewTriggerTimeTracker()
	groups, err := e.groups(svc, targets(svc, pods), v1.IPv4Protocol)
	if err != nil {
		b.Fatal(err)
	}
	p := newPlan(svc, discoveryv1.AddressTypeIPv4, groups, nil, maxEndpoints)
	held := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	var objects []runtime.Object
	for i, s := range p.create {
		s.Name = fmt.Sprintf("s-%03d", i)
		if err := held.Add(s); err != nil {
			b.Fatal(err)
		}
		objects = append(objects, s)
	}
	pods[77] = pod("p00077", "n77", false, pods[77].Status.PodIP)
	b.Run("own", func(b *testing.B) {
		e.client, e.slices = fake.NewClientset(objects...), discoverylisters.NewEndpointSliceLister(held)
		for b.Loop() {
			if err := e.sync(b.Context(), svc, pods); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		r := upstream.NewReconciler(fake.NewClientset(objects...), e.nodes, maxEndpoints, util.NewEndpointSliceTracker(), nil, record.NewFakeRecorder(10), managedBy)
		for b.Loop() {
			if err := r.Reconcile(klog.Background(), svc, pods, p.create, time.Time{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

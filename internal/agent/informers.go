package agent

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"keelson.dev/keelson/internal/component"
	"keelson.dev/keelson/internal/network/dns"
)

// informers returns the node's informers, restricted to its own pods, its own Node, and
// the ConfigMap with the name server's settings. Those of the network use the client
// network.
func (o *ProcessOptions) informers(client, network kubernetes.Interface) informers.SharedInformerFactory {
	f := component.Informers(client)
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	only := func(field, value string) func(*metav1.ListOptions) {
		return func(l *metav1.ListOptions) { l.FieldSelector = fields.OneTermEqualSelector(field, value).String() }
	}
	// The factory returns an informer that was registered first to all callers. It runs
	// even if there are none.
	for _, i := range []struct {
		of   runtime.Object
		used bool
		with func(client kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer
	}{
		{&v1.Pod{}, true, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
			return coreinformers.NewFilteredPodInformer(c, metav1.NamespaceAll, resync, byNamespace, only("spec.nodeName", o.Name))
		}},
		{&v1.Node{}, true, func(c kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
			return coreinformers.NewFilteredNodeInformer(c, resync, cache.Indexers{}, only(metav1.ObjectNameField, o.Name))
		}},
		{&v1.ConfigMap{}, o.Network.DNS != None, func(_ kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
			return coreinformers.NewFilteredConfigMapInformer(network, metav1.NamespaceSystem, resync, byNamespace, only(metav1.ObjectNameField, dns.ConfigMap))
		}},
		{&v1.Namespace{}, o.Network.DNS != None || o.Network.Policies != None, func(_ kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
			return coreinformers.NewNamespaceInformer(network, resync, cache.Indexers{})
		}},
		{&discoveryv1.EndpointSlice{}, o.Network.Proxy != None || o.Network.DNS != None, func(_ kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
			return discoveryinformers.NewEndpointSliceInformer(network, metav1.NamespaceAll, resync, byNamespace)
		}},
		{&networkingv1.NetworkPolicy{}, o.Network.Policies != None, func(_ kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
			return networkinginformers.NewNetworkPolicyInformer(network, metav1.NamespaceAll, resync, byNamespace)
		}},
	} {
		if i.used {
			f.InformerFor(i.of, i.with)
		}
	}
	return f
}

// allPods returns a ListWatch of the pods of all nodes.
func allPods(client kubernetes.Interface) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.CoreV1().Pods(metav1.NamespaceAll).Watch(ctx, o)
		},
	}
}

// peers returns an informer of all Nodes reduced to the fields that the pods'
// network reads.
func peers(client kubernetes.Interface) (cache.SharedIndexInformer, error) {
	i := coreinformers.NewNodeInformer(client, 0, cache.Indexers{})
	return i, i.SetTransform(func(obj any) (any, error) {
		n, ok := obj.(*v1.Node)
		if !ok {
			return obj, nil
		}
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, CreationTimestamp: n.CreationTimestamp},
			Spec: v1.NodeSpec{PodCIDRs: n.Spec.PodCIDRs}, Status: v1.NodeStatus{Addresses: n.Status.Addresses, DaemonEndpoints: n.Status.DaemonEndpoints}}, nil
	})
}

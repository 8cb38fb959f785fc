package metrics

import (
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"keelson.dev/keelson/internal/api"
)

// GroupName is the group's name.
const GroupName = metricsv1.GroupName

// Resources returns the rows of metrics.k8s.io/v1 and, converted from it, of v1beta1.
func Resources() []*api.Resource {
	return []*api.Resource{
		nodes(metricsv1.SchemeGroupVersion, func() runtime.Object { return &metricsv1.NodeMetrics{} }, func() runtime.Object { return &metricsv1.NodeMetricsList{} }, nil),
		pods(metricsv1.SchemeGroupVersion, func() runtime.Object { return &metricsv1.PodMetrics{} }, func() runtime.Object { return &metricsv1.PodMetricsList{} }, nil),
		nodes(v1beta1.SchemeGroupVersion, func() runtime.Object { return &v1beta1.NodeMetrics{} }, func() runtime.Object { return &v1beta1.NodeMetricsList{} },
			func(o runtime.Object) runtime.Object { return nodeV1beta1(o.(*metricsv1.NodeMetrics)) }),
		pods(v1beta1.SchemeGroupVersion, func() runtime.Object { return &v1beta1.PodMetrics{} }, func() runtime.Object { return &v1beta1.PodMetricsList{} },
			func(o runtime.Object) runtime.Object { return podV1beta1(o.(*metricsv1.PodMetrics)) }),
	}
}

func base(gv schema.GroupVersion, resource, kind string, one, list func() runtime.Object, fromHub func(runtime.Object) runtime.Object) *api.Resource {
	quantity := func(name v1.ResourceName) metav1.TableColumnDefinition {
		return metav1.TableColumnDefinition{Name: string(name), Type: "string", Format: "quantity"} // as metrics-server's, without a description
	}
	r := &api.Resource{
		GroupVersionResource: gv.WithResource(resource), Kind: kind, New: one, NewList: list,
		Verbs: []string{"get", "list"}, NotStored: true,
		Columns: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
			quantity(v1.ResourceCPU), quantity(v1.ResourceMemory), {Name: "Window", Type: "string", Format: "duration"},
		},
	}
	if fromHub != nil {
		r.Hub = &api.Hub{Resource: metricsv1.SchemeGroupVersion.WithResource(resource),
			FromHub: func(o runtime.Object) (runtime.Object, error) { return fromHub(o), nil }}
	}
	return r
}

func nodes(gv schema.GroupVersion, one, list func() runtime.Object, fromHub func(runtime.Object) runtime.Object) *api.Resource {
	r := base(gv, "nodes", "NodeMetrics", one, list, fromHub)
	r.Cells = func(o runtime.Object, _ time.Time) []any {
		if n, ok := o.(*v1beta1.NodeMetrics); ok {
			return cells(n.Name, n.Usage, n.Window)
		}
		n := o.(*metricsv1.NodeMetrics)
		return cells(n.Name, n.Usage, n.Window)
	}
	return r
}

func pods(gv schema.GroupVersion, one, list func() runtime.Object, fromHub func(runtime.Object) runtime.Object) *api.Resource {
	r := base(gv, "pods", "PodMetrics", one, list, fromHub)
	r.Namespaced = true
	r.Cells = func(o runtime.Object, _ time.Time) []any {
		sum := v1.ResourceList{}
		add := func(usage v1.ResourceList) {
			for name, q := range usage {
				all := sum[name]
				all.Add(q)
				sum[name] = all
			}
		}
		if p, ok := o.(*v1beta1.PodMetrics); ok {
			for i := range p.Containers {
				add(p.Containers[i].Usage)
			}
			return cells(p.Name, sum, p.Window)
		}
		p := o.(*metricsv1.PodMetrics)
		for i := range p.Containers {
			add(p.Containers[i].Usage)
		}
		return cells(p.Name, sum, p.Window)
	}
	return r
}

func cells(name string, usage v1.ResourceList, window metav1.Duration) []any {
	return []any{name, usage.Cpu().String(), usage.Memory().String(), window.Duration.String()}
}

func nodeV1beta1(n *metricsv1.NodeMetrics) *v1beta1.NodeMetrics {
	return &v1beta1.NodeMetrics{ObjectMeta: n.ObjectMeta, Timestamp: n.Timestamp, Window: n.Window, Usage: n.Usage}
}

func podV1beta1(p *metricsv1.PodMetrics) *v1beta1.PodMetrics {
	out := &v1beta1.PodMetrics{ObjectMeta: p.ObjectMeta, Timestamp: p.Timestamp, Window: p.Window, Containers: make([]v1beta1.ContainerMetrics, len(p.Containers))}
	for i, c := range p.Containers {
		out.Containers[i] = v1beta1.ContainerMetrics(c)
	}
	return out
}

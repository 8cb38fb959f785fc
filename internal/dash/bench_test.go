package dash

import (
	"compress/gzip"
	"fmt"
	"io"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// fill makes nodes, and pods of Deployments of a hundred.
func (w *world) fill(nodes, pods int) {
	allocatable := v1.ResourceList{"cpu": resource.MustParse("32"), "memory": resource.MustParse("256Gi"), "pods": resource.MustParse("250")}
	for i := range nodes {
		w.put(testNode(fmt.Sprintf("node-%d", i), func(n *v1.Node) {
			n.Labels = map[string]string{v1.LabelTopologyZone: fmt.Sprint("zone-", i%3)}
			n.Status.Allocatable = allocatable
			n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeMemoryPressure, Status: v1.ConditionFalse}, {Type: v1.NodeReady, Status: v1.ConditionTrue}}
		}))
	}
	for i := range pods {
		set := fmt.Sprintf("web-%d-57cb68b45c", i/100)
		if i%100 == 0 {
			w.put(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: set, UID: types.UID(set)}, Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](100)}})
		}
		w.put(testPod("default", fmt.Sprintf("%s-%05d", set, i), fmt.Sprintf("node-%d", i%nodes), func(p *v1.Pod) {
			p.OwnerReferences = controller("ReplicaSet", set, types.UID(set))
			p.Status = v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionTrue}, {Type: v1.PodReady, Status: v1.ConditionTrue}},
				ContainerStatuses: []v1.ContainerStatus{{Ready: true, State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}}}
		}))
	}
}

// BenchmarkPicture makes the first picture of 50,000 pods on 5,000 nodes.
func BenchmarkPicture(b *testing.B) {
	w := newWorld(b)
	w.fill(5000, 50_000)
	for _, c := range []struct {
		name string
		sink func(*counter) io.WriteCloser
	}{
		{"plain", func(c *counter) io.WriteCloser { return c }},
		{"gzip", func(c *counter) io.WriteCloser {
			z, err := gzip.NewWriterLevel(c, gzip.BestSpeed)
			if err != nil {
				b.Fatal(err)
			}
			return z
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var n counter
			for b.Loop() {
				n = 0
				to := c.sink(&n)
				var r rights
				p := newPicture(r.shown(b.Context(), w.cat))
				if err := p.load(b.Context(), w.store, 0); err != nil {
					b.Fatal(err)
				}
				for buf := p.drain(nil, chunk); len(buf) > 0; buf = p.drain(buf[:0], chunk) {
					if _, err := to.Write(buf); err != nil {
						b.Fatal(err)
					}
				}
				if err := to.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/1e6, "MB")
		})
	}
}

// counter counts bytes.
type counter int

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

func (c *counter) Close() error { return nil }

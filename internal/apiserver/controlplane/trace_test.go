package controlplane

import (
	"context"
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"keelson.dev/keelson/internal/apiserver/inprocess"
)

// BenchmarkRecording writes pods to a server that records what caused what and to one that
// does not, in turns, and reports the processor time of a write and how much more it is of
// the former. Writes are those of a component of the process and there is no disk: of other
// writes it is a smaller part.
func BenchmarkRecording(b *testing.B) {
	var clients [2]kubernetes.Interface
	for i, memory := range []int{0, -1} {
		c, err := Start(b.Context(), Options{TraceMemory: memory})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := c.Stop(); err != nil {
				b.Error(err)
			}
		})
		clients[i] = c.Client(inprocess.Admin)
		account := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}} // no controller makes it here
		if _, err := clients[i].CoreV1().ServiceAccounts("default").Create(b.Context(), account, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	const turn = 100
	var spent [2]time.Duration
	writes := 0
	for b.Loop() {
		for i, c := range clients {
			begin := processorTime(b)
			for range turn {
				writes++
				write(b, c, fmt.Sprint("p-", writes))
			}
			spent[i] += processorTime(b) - begin
		}
	}
	each := func(i int) float64 { return float64(spent[i].Nanoseconds()) / float64(writes/2) }
	b.ReportMetric(each(0), "cpu-ns/recorded-write")
	b.ReportMetric(each(1), "cpu-ns/write")
	b.ReportMetric(100*(each(0)/each(1)-1), "%more")
	b.ReportMetric(0, "ns/op")
}

func write(b *testing.B, c kubernetes.Interface, name string) {
	b.Helper()
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}
	if _, err := c.CoreV1().Pods("default").Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
}

package testcluster_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/testcluster"
)

func web(replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec: appsv1.DeploymentSpec{Replicas: ptr.To(replicas), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "web", Image: "web"}}}}},
	}
}

// wait watches the deployment until it has n available replicas.
func wait(t testing.TB, client kubernetes.Interface, n int32) {
	t.Helper()
	w, err := client.AppsV1().Deployments("default").Watch(t.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "web").String()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for ev := range w.ResultChan() {
		if d, ok := ev.Object.(*appsv1.Deployment); ok && d.Status.AvailableReplicas == n && d.Status.ObservedGeneration == d.Generation {
			return
		}
	}
	t.Fatal("the watch ended")
}

func TestDeployment(t *testing.T) {
	c := testcluster.Start(t, testcluster.WithNodes(2))
	client := kubernetes.NewForConfigOrDie(c.Config)
	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), web(3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, client, 3)
	pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]int{}
	for _, p := range pods.Items {
		nodes[p.Spec.NodeName]++
		if p.Status.Phase != v1.PodRunning || p.Status.PodIP == "" {
			t.Errorf("pod %s: %s, %q", p.Name, p.Status.Phase, p.Status.PodIP)
		}
	}
	if len(pods.Items) != 3 || nodes["sim-0"]+nodes["sim-1"] != 3 {
		t.Errorf("%d pods on %v", len(pods.Items), nodes)
	}
}

// BenchmarkStart is the time until a cluster is ready.
// TestSnapshot begins two clusters with what another has: neither sees what is done in
// the others, and all go on by themselves.
func TestSnapshot(t *testing.T) {
	first := testcluster.Start(t, testcluster.WithNodes(2))
	client := kubernetes.NewForConfigOrDie(first.Config)
	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), web(3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, client, 3)
	snapshot := first.Snapshot(t)
	for _, replicas := range []int32{1, 5} {
		c := testcluster.Start(t, testcluster.WithNodes(2), testcluster.From(snapshot))
		client := kubernetes.NewForConfigOrDie(c.Config)
		d, err := client.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil || d.Status.AvailableReplicas != 3 {
			t.Fatalf("%+v, %v", d.Status, err)
		}
		d.Spec.Replicas = ptr.To(replicas)
		if _, err := client.AppsV1().Deployments("default").Update(t.Context(), d, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		wait(t, client, replicas)
	}
	if d, err := client.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{}); err != nil || *d.Spec.Replicas != 3 {
		t.Errorf("%+v, %v", d.Spec, err)
	}
}

// BenchmarkSnapshot takes snapshots of a cluster with 1,000 pods.
func BenchmarkSnapshot(b *testing.B) {
	c := testcluster.Start(b, testcluster.WithNodes(10))
	client := kubernetes.NewForConfigOrDie(c.Config)
	if _, err := client.AppsV1().Deployments("default").Create(b.Context(), web(1000), metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	wait(b, client, 1000)
	for b.Loop() {
		c.Snapshot(b)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		testcluster.Start(b)
	}
}

// Benchmark1000Pods is the time from a deployment's creation until 1,000
// replicas on 100 simulated nodes are Running and counted as available.
func Benchmark1000Pods(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		c := testcluster.Start(b, testcluster.WithNodes(100))
		client := kubernetes.NewForConfigOrDie(c.Config)
		b.StartTimer()
		if _, err := client.AppsV1().Deployments("default").Create(b.Context(), web(1000), metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		wait(b, client, 1000)
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "pods/s")
}

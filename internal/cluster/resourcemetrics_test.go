package cluster

import (
	"context"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/apiserver/usage"
	"keelson.dev/keelson/test/harness"
)

// TestResourceMetrics checks that the usage of simulated pods is served in both
// versions and in each form, and that an installed metrics-server serves all of the
// group until it is removed.
func TestResourceMetrics(t *testing.T) {
	c := boot(t, Options{SimNodes: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	defer cancel()
	config := c.Config(inprocess.Admin)
	core, metrics := kubernetes.NewForConfigOrDie(config), metricsclient.NewForConfigOrDie(config)
	_, err := core.CoreV1().Pods("default").Create(ctx, &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{usage.AnnotationCPU: "300m", usage.AnnotationMemory: "1Gi"}},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the pod's usage", func() bool {
		p, err := metrics.MetricsV1().PodMetricses("default").Get(ctx, "web", metav1.GetOptions{})
		return err == nil && p.Containers[0].Usage.Cpu().String() == "300m"
	})
	for selector, want := range map[string]int{"app=web": 1, "app!=web": 0} {
		l, err := metrics.MetricsV1beta1().PodMetricses("").List(ctx, metav1.ListOptions{LabelSelector: selector, FieldSelector: "metadata.name=web"})
		if err != nil || len(l.Items) != want {
			t.Errorf("%s: %v, %v", selector, l, err)
		}
	}
	protobuf := *config
	protobuf.ContentType = "application/vnd.kubernetes.protobuf"
	n, err := metricsclient.NewForConfigOrDie(&protobuf).MetricsV1beta1().NodeMetricses().Get(ctx, "sim-0", metav1.GetOptions{})
	if err != nil || n.Usage.Memory().String() != "1Gi" || n.Labels["type"] != "simulated" {
		t.Errorf("the node: %v, %v", n, err)
	}
	table, err := core.RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1/pods").SetHeader("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1").DoRaw(ctx)
	if err != nil || !strings.Contains(string(table), `"cells":["web","300m","1Gi","10s"]`) {
		t.Errorf("the table: %s, %v", table, err)
	}
	if _, err := metrics.MetricsV1().PodMetricses("default").Get(ctx, "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("of a pod that is not there: %v", err)
	}

	services := aggregator.NewForConfigOrDie(config).APIServices()
	const name = "v1beta1.metrics.k8s.io"
	harness.Eventually(t, "the APIService", func() bool { _, err := services.Get(ctx, name, metav1.GetOptions{}); return err == nil })
	// As kubectl apply does with metrics-server's.
	a, err := services.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.Spec.Service = &apiregistration.ServiceReference{Namespace: "kube-system", Name: "metrics-server", Port: ptr.To[int32](443)}
	a.Spec.InsecureSkipTLSVerify = true
	if _, err := services.Update(ctx, a, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "v1beta1 is taken over", func() bool {
		_, err := metrics.MetricsV1beta1().NodeMetricses().Get(ctx, "sim-0", metav1.GetOptions{})
		return apierrors.IsServiceUnavailable(err)
	})
	served := func(gv string) bool {
		_, err := discovery.NewDiscoveryClientForConfigOrDie(config).ServerResourcesForGroupVersion(gv)
		return err == nil
	}
	harness.Eventually(t, "v1 is not served beside it", func() bool { return !served("metrics.k8s.io/v1") })
	harness.Eventually(t, "nor has it an APIService", func() bool {
		_, err := services.Get(ctx, "v1.metrics.k8s.io", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	if a, err := services.Get(ctx, name, metav1.GetOptions{}); err != nil || a.Spec.Service == nil {
		t.Errorf("metrics-server's APIService: %v, %v", a, err)
	}
	if err := services.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "both are served again", func() bool { return served("metrics.k8s.io/v1") && served("metrics.k8s.io/v1beta1") })
	harness.Eventually(t, "with APIServices", func() bool {
		for _, n := range []string{name, "v1.metrics.k8s.io"} {
			if a, err := services.Get(ctx, n, metav1.GetOptions{}); err != nil || a.Spec.Service != nil {
				return false
			}
		}
		return true
	})
}

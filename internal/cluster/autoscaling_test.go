package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	v2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/apiserver/usage"
	"keelson.dev/keelson/test/harness"
)

// TestAutoscaleCustomResource checks that a custom resource with a scale is scaled
// by what its pods use, with nothing installed. Its kind is defined when the
// controllers run.
func TestAutoscaleCustomResource(t *testing.T) {
	c := boot(t, Options{SimNodes: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	defer cancel()
	config := c.Config(inprocess.Admin)
	core := kubernetes.NewForConfigOrDie(config)
	for _, name := range []string{"a", "b"} {
		_, err := core.CoreV1().Pods("default").Create(ctx, &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pond": "big"}, Annotations: map[string]string{usage.AnnotationMemory: "1Gi"}},
			Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	number := apiextensions.JSONSchemaProps{Type: "integer"}
	_, err := crdclient.NewForConfigOrDie(config).ApiextensionsV1().CustomResourceDefinitions().Create(ctx, &apiextensions.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "ponds.fish.example.com"},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: "fish.example.com", Scope: apiextensions.NamespaceScoped, Names: apiextensions.CustomResourceDefinitionNames{Plural: "ponds", Kind: "Pond"},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Subresources: &apiextensions.CustomResourceSubresources{Scale: &apiextensions.CustomResourceSubresourceScale{
					SpecReplicasPath: ".spec.replicas", StatusReplicasPath: ".status.replicas", LabelSelectorPath: ptr.To(".status.selector")}},
				Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &apiextensions.JSONSchemaProps{Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{
					"spec":   {Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{"replicas": number}},
					"status": {Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{"replicas": number, "selector": {Type: "string"}}}}}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ponds := dynamic.NewForConfigOrDie(config).Resource(schema.GroupVersionResource{Group: "fish.example.com", Version: "v1", Resource: "ponds"}).Namespace("default")
	harness.Succeeds(t, "a pond", func() error {
		_, err := ponds.Create(ctx, &unstructured.Unstructured{Object: map[string]any{"apiVersion": "fish.example.com/v1", "kind": "Pond", "metadata": map[string]any{"name": "big"},
			"spec": map[string]any{"replicas": int64(2)}, "status": map[string]any{"replicas": int64(2), "selector": "pond=big"}}}, metav1.CreateOptions{})
		return err
	})
	running := func() error {
		return wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(context.Context) (bool, error) {
			l, err := core.CoreV1().Pods("default").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
			return err == nil && len(l.Items) == 2, err
		})
	}
	if err := running(); err != nil {
		t.Fatal(err)
	}
	_, err = core.AutoscalingV2().HorizontalPodAutoscalers("default").Create(ctx, &v2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "big"},
		Spec: v2.HorizontalPodAutoscalerSpec{ScaleTargetRef: v2.CrossVersionObjectReference{APIVersion: "fish.example.com/v1", Kind: "Pond", Name: "big"}, MaxReplicas: 9,
			Metrics: []v2.MetricSpec{{Type: v2.ResourceMetricSourceType, Resource: &v2.ResourceMetricSource{Name: v1.ResourceMemory,
				Target: v2.MetricTarget{Type: v2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse("700Mi"))}}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var replicas int64
	harness.Succeeds(t, "the pond's replicas", func() error {
		p, err := ponds.Get(ctx, "big", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if replicas, _, _ = unstructured.NestedInt64(p.Object, "spec", "replicas"); replicas == 2 {
			return fmt.Errorf("the pond has still 2 replicas")
		}
		return nil
	})
	if replicas != 3 {
		t.Errorf("%d replicas, want 3", replicas)
	}
	harness.Succeeds(t, "the autoscaler's status", func() error {
		h, err := core.AutoscalingV2().HorizontalPodAutoscalers("default").Get(ctx, "big", metav1.GetOptions{})
		if err == nil && (h.Status.DesiredReplicas != 3 || h.Status.CurrentMetrics[0].Resource.Current.AverageValue.String() != "1Gi") {
			err = fmt.Errorf("its status is %+v", h.Status)
		}
		return err
	})
}

package horizontalpodautoscaler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	v2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/scale"
	clienttesting "k8s.io/client-go/testing"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalv1beta1 "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsfake "k8s.io/metrics/pkg/client/clientset/versioned/fake"
	customclient "k8s.io/metrics/pkg/client/custom_metrics"
	externalclient "k8s.io/metrics/pkg/client/external_metrics"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/reconcile"
)

const (
	period    = 15 * time.Second
	tolerance = 0.1
)

// scaled is the scale of the only object, ponds.fish.example.com/web, with a pod for
// each replica.
type scaled struct {
	c         *controllertest.Cluster
	autoscale autoscalingv1.Scale
	fail      []error // of the next updates
	none      bool    // there is no such object
}

func (s *scaled) Scales(string) scale.ScaleInterface { return s }

func (s *scaled) Get(_ context.Context, gr schema.GroupResource, name string, _ metav1.GetOptions) (*autoscalingv1.Scale, error) {
	if s.none || gr.String() != "ponds.fish.example.com" || name != "web" {
		return nil, apierrors.NewNotFound(gr, name)
	}
	return s.autoscale.DeepCopy(), nil
}

func (s *scaled) Update(_ context.Context, _ schema.GroupResource, next *autoscalingv1.Scale, _ metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	if len(s.fail) > 0 {
		err := s.fail[0]
		s.fail = s.fail[1:]
		return nil, err
	}
	s.autoscale.Spec.Replicas = next.Spec.Replicas
	return s.autoscale.DeepCopy(), nil
}

func (s *scaled) Patch(context.Context, schema.GroupVersionResource, string, types.PatchType, []byte, metav1.PatchOptions) (*autoscalingv1.Scale, error) {
	return nil, errors.New("it is updated")
}

// values holds the values of the metrics; an empty one is unknown.
type values struct {
	cpu              string // of each pod
	object, external string
}

func (v *values) NamespacedMetrics(string) customclient.MetricsInterface { return v }
func (v *values) RootScopedMetrics() customclient.MetricsInterface       { return v }

func (v *values) GetForObject(schema.GroupKind, string, string, labels.Selector) (*customv1beta2.MetricValue, error) {
	if v.object == "" {
		return nil, errors.New("there is no such metric")
	}
	return &customv1beta2.MetricValue{Value: resource.MustParse(v.object)}, nil
}

func (v *values) GetForObjects(schema.GroupKind, labels.Selector, string, labels.Selector) (*customv1beta2.MetricValueList, error) {
	return &customv1beta2.MetricValueList{}, nil
}

type externals struct{ *values }

func (e externals) NamespacedMetrics(string) externalclient.MetricsInterface { return e }

func (e externals) List(string, labels.Selector) (*externalv1beta1.ExternalMetricValueList, error) {
	l := &externalv1beta1.ExternalMetricValueList{}
	if e.external != "" {
		l.Items = []externalv1beta1.ExternalMetricValue{{Value: resource.MustParse(e.external)}}
	}
	return l, nil
}

// start starts the controller; replicas of the target are there, with as many pods.
func start(t *testing.T, replicas int32) (*controllertest.Cluster, *scaled, *values) {
	t.Helper()
	s, v := &scaled{}, &values{}
	s.autoscale.Spec.Replicas, s.autoscale.Status.Replicas, s.autoscale.Status.Selector = replicas, replicas, "app=web"
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Group: "fish.example.com", Version: "v1"}})
	mapper.Add(schema.GroupVersionKind{Group: "fish.example.com", Version: "v1", Kind: "Pond"}, meta.RESTScopeNamespace)
	client := metricsfake.NewSimpleClientset()
	client.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		l := &metricsv1beta1.PodMetricsList{}
		pods, err := s.c.Client.CoreV1().Pods("ns").List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return true, nil, err
		}
		for _, p := range pods.Items {
			if v.cpu != "" {
				l.Items = append(l.Items, metricsv1beta1.PodMetrics{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Labels: p.Labels}, Timestamp: metav1.Now(), Window: metav1.Duration{Duration: time.Second},
					Containers: []metricsv1beta1.ContainerMetrics{{Name: "c", Usage: v1.ResourceList{v1.ResourceCPU: resource.MustParse(v.cpu)}}}})
			}
		}
		return true, l, nil
	})
	s.c = controllertest.NewWith(t, func(c *controllers.Context) { c.RESTMapper = mapper }, func(c controllers.Context) (reconcile.Run, error) {
		return newRun(c, s, &source{resource: client.MetricsV1beta1(), custom: v, external: externals{v}}), nil
	})
	for i := range replicas {
		p := pod(fmt.Sprint("p", i), nil)
		p.Status.StartTime = &metav1.Time{Time: time.Now().Add(-time.Hour)}
		p.Status.Conditions[0].LastTransitionTime = *p.Status.StartTime
		controllertest.Must[*v1.Pod](t)(s.c.Client.CoreV1().Pods("ns").Create(t.Context(), p, metav1.CreateOptions{}))
	}
	synctest.Wait()
	return s.c, s, v
}

// autoscaler returns an autoscaler with a metric, between least and 10
// replicas.
func autoscaler(name string, least int32, m v2.MetricSpec) *v2.HorizontalPodAutoscaler {
	return &v2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: v2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: v2.CrossVersionObjectReference{APIVersion: "fish.example.com/v1", Kind: "Pond", Name: "web"},
		MinReplicas:    &least, MaxReplicas: 10, Metrics: []v2.MetricSpec{m}}}
}

var (
	onCPU = v2.MetricSpec{Type: v2.ResourceMetricSourceType, Resource: &v2.ResourceMetricSource{Name: v1.ResourceCPU,
		Target: v2.MetricTarget{Type: v2.UtilizationMetricType, AverageUtilization: ptr.To[int32](50)}}}
	onQueue = v2.MetricSpec{Type: v2.ExternalMetricSourceType, External: &v2.ExternalMetricSource{Metric: v2.MetricIdentifier{Name: "queue"},
		Target: v2.MetricTarget{Type: v2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse("100"))}}}
	onRequests = v2.MetricSpec{Type: v2.ObjectMetricSourceType, Object: &v2.ObjectMetricSource{Metric: v2.MetricIdentifier{Name: "requests"},
		DescribedObject: v2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "web"},
		Target:          v2.MetricTarget{Type: v2.ValueMetricType, Value: ptr.To(resource.MustParse("10"))}}}
)

func create(t *testing.T, c *controllertest.Cluster, hpa *v2.HorizontalPodAutoscaler) {
	t.Helper()
	controllertest.Must[*v2.HorizontalPodAutoscaler](t)(c.Client.AutoscalingV2().HorizontalPodAutoscalers("ns").Create(t.Context(), hpa, metav1.CreateOptions{}))
	synctest.Wait()
}

func get(t *testing.T, c *controllertest.Cluster, name string) *v2.HorizontalPodAutoscaler {
	t.Helper()
	return controllertest.Must[*v2.HorizontalPodAutoscaler](t)(c.Client.AutoscalingV2().HorizontalPodAutoscalers("ns").Get(t.Context(), name, metav1.GetOptions{}))
}

// says returns the conditions of an autoscaler.
func says(hpa *v2.HorizontalPodAutoscaler) (out []string) {
	for _, c := range hpa.Status.Conditions {
		out = append(out, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	return out
}

func expect(t *testing.T, c *controllertest.Cluster, name string, conditions ...string) {
	t.Helper()
	got := says(get(t, c, name))
	for _, want := range conditions {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("no condition %q among\n%s", want, strings.Join(got, "\n"))
		}
	}
}

func TestScaleByCPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, v := start(t, 2)
		v.cpu = "900m"
		create(t, c, autoscaler("web", 1, onCPU))
		if n := s.autoscale.Spec.Replicas; n != 4 {
			t.Errorf("%d replicas, want 4", n)
		}
		expect(t, c, "web", "AbleToScale=True SucceededRescale: the HPA controller was able to update the target scale to 4",
			"ScalingActive=True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)",
			"ScalingLimited=False DesiredWithinRange: the desired count is within the acceptable range",
			"ScaledToZero=False NotScaledToZero: the HPA controller did not scale the workload to zero")
		c.HasEvent("Normal SuccessfulRescale New size: 4; reason: cpu resource utilization (percentage of request) above target")
		hpa := get(t, c, "web")
		if st := hpa.Status; st.CurrentReplicas != 2 || st.DesiredReplicas != 4 || st.LastScaleTime == nil || *st.CurrentMetrics[0].Resource.Current.AverageUtilization != 90 ||
			st.CurrentMetrics[0].Resource.Current.AverageValue.String() != "900m" || *st.ObservedGeneration != hpa.Generation {
			t.Errorf("status %+v", st)
		}
		// Two of the pods are not there yet: the others' usage decides.
		v.cpu = "10m"
		c.Advance(period)
		expect(t, c, "web", "AbleToScale=True ScaleDownStabilized")
		c.Advance(6 * time.Minute)
		if n := s.autoscale.Spec.Replicas; n != 1 {
			t.Errorf("%d replicas, want 1", n)
		}
		c.HasEvent("Normal SuccessfulRescale New size: 1; reason: All metrics below target")
	})
}

func TestToZeroAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, v := start(t, 2)
		hpa := autoscaler("web", 0, onQueue)
		hpa.Spec.Behavior = &v2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(0, v2.MaxChangePolicySelect, byPods(10, 15)), ScaleDown: rules(0, v2.MaxChangePolicySelect, byPods(10, 15))}
		v.external = "0"
		create(t, c, hpa)
		if s.autoscale.Spec.Replicas != 0 {
			t.Errorf("%d replicas, want none", s.autoscale.Spec.Replicas)
		}
		expect(t, c, "web", "ScaledToZero=True ScaledToZero: the HPA controller scaled the workload to zero")
		s.autoscale.Status.Replicas = 0
		v.external = "250"
		c.Advance(period)
		if s.autoscale.Spec.Replicas != 3 {
			t.Errorf("%d replicas, want 3", s.autoscale.Spec.Replicas)
		}
		expect(t, c, "web", "ScaledToZero=False NotScaledToZero")
		// A target that was scaled to zero by hand is paused.
		s.autoscale.Spec.Replicas, s.autoscale.Status.Replicas = 0, 0
		c.Advance(period)
		expect(t, c, "web", "ScalingActive=False ScalingDisabled: scaling is disabled since the replica count of the target is zero")
		if s.autoscale.Spec.Replicas != 0 {
			t.Errorf("%d replicas, want none", s.autoscale.Spec.Replicas)
		}
	})
}

// TestLeastRaisedAtZero checks that a target that the controller has scaled to zero
// is scaled up to a raised minReplicas, though no metric asks for it.
func TestLeastRaisedAtZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, v := start(t, 0)
		hpa := autoscaler("web", 2, onQueue)
		hpa.Status.Conditions = []v2.HorizontalPodAutoscalerCondition{{Type: v2.ScaledToZero, Status: v1.ConditionTrue}}
		v.external = "0"
		create(t, c, hpa)
		if s.autoscale.Spec.Replicas != 2 {
			t.Errorf("%d replicas, want 2", s.autoscale.Spec.Replicas)
		}
		c.HasEvent("Normal SuccessfulRescale New size: 2; reason: Current number of replicas below Spec.MinReplicas")
	})
}

func TestFailures(t *testing.T) {
	both := autoscaler("web", 1, onCPU)
	both.Spec.Metrics = append(both.Spec.Metrics, onRequests)
	unknown := autoscaler("web", 1, onCPU)
	unknown.Spec.ScaleTargetRef.Kind = "Lake"
	for name, f := range map[string]struct {
		hpa        *v2.HorizontalPodAutoscaler
		values     values
		change     func(*scaled)
		replicas   int32
		conditions []string
		events     []string
	}{
		"no metrics": {hpa: autoscaler("web", 1, onCPU), replicas: 2,
			conditions: []string{"ScalingActive=False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"},
			events: []string{"Warning FailedGetResourceMetric failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API",
				"Warning FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"}},
		"one of two, and fewer": {hpa: both, values: values{cpu: "10m"}, replicas: 2,
			conditions: []string{"ScalingActive=False FailedGetObjectMetric: the HPA was unable to compute the replica count: unable to get metric requests on Service ns/web: unable to fetch metrics from custom metrics API: there is no such metric"},
			events:     []string{"Warning FailedComputeMetricsReplicas invalid metrics (1 invalid out of 2), first error is: failed to get object metric value: unable to get metric requests on Service ns/web: unable to fetch metrics from custom metrics API: there is no such metric"}},
		"one of two, and more": {hpa: both, values: values{cpu: "900m"}, replicas: 4, conditions: []string{"ScalingActive=True ValidMetricFound"}},
		"both":                 {hpa: both, values: values{cpu: "500m", object: "30"}, replicas: 4 /* it asks for 6 */, conditions: []string{"ScalingLimited=True ScaleUpLimit: the desired replica count is increasing faster than the maximum scale rate"}},
		"no target": {hpa: autoscaler("web", 1, onCPU), change: func(s *scaled) { s.none = true }, replicas: 2,
			conditions: []string{`AbleToScale=False FailedGetScale: the HPA controller was unable to get the target's current scale: ponds.fish.example.com "web" not found`},
			events:     []string{`Warning FailedGetScale ponds.fish.example.com "web" not found`}},
		"no kind": {hpa: unknown, replicas: 2, conditions: []string{`AbleToScale=False FailedGetScale: the HPA controller was unable to get the target's current scale: no matches for `}},
		"no selector": {hpa: autoscaler("web", 1, onCPU), change: func(s *scaled) { s.autoscale.Status.Selector = "" }, replicas: 2,
			conditions: []string{"ScalingActive=False InvalidSelector: the HPA target's scale is missing a selector"}, events: []string{"Warning SelectorRequired selector is required"}},
		"the update fails": {hpa: autoscaler("web", 1, onCPU), values: values{cpu: "900m"}, change: func(s *scaled) { s.fail = []error{errors.New("no")} }, replicas: 2,
			conditions: []string{"AbleToScale=False FailedUpdateScale: the HPA controller was unable to update the target scale: no"},
			events:     []string{"Warning FailedRescale New size: 4; reason: cpu resource utilization (percentage of request) above target; error: no"}},
		"the target changes meanwhile": {hpa: autoscaler("web", 1, onCPU), values: values{cpu: "900m"}, replicas: 4,
			change: func(s *scaled) {
				s.fail = []error{apierrors.NewConflict(schema.GroupResource{}, "web", errors.New("x"))}
			},
			conditions: []string{"AbleToScale=True SucceededRescale"}},
		"too many": {hpa: autoscaler("web", 1, onCPU), change: func(s *scaled) { s.autoscale.Spec.Replicas = 12 }, replicas: 10,
			events: []string{"Normal SuccessfulRescale New size: 10; reason: Current number of replicas above Spec.MaxReplicas"}},
		"too few": {hpa: autoscaler("web", 3, onCPU), replicas: 3,
			events: []string{"Normal SuccessfulRescale New size: 3; reason: Current number of replicas below Spec.MinReplicas"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s, v := start(t, 2)
				*v = f.values
				if f.change != nil {
					f.change(s)
				}
				create(t, c, f.hpa.DeepCopy())
				c.Advance(time.Second)
				if s.autoscale.Spec.Replicas != f.replicas {
					t.Errorf("%d replicas, want %d", s.autoscale.Spec.Replicas, f.replicas)
				}
				expect(t, c, "web", f.conditions...)
				for _, e := range f.events {
					c.HasEvent(e)
				}
			})
		})
	}
}

func TestAmbiguous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, v := start(t, 2)
		v.cpu = "500m"
		create(t, c, autoscaler("a", 1, onCPU))
		create(t, c, autoscaler("b", 1, onCPU))
		const message = "pods by selector app=web are controlled by multiple HPAs: [ns/a ns/b]"
		expect(t, c, "b", "ScalingActive=False AmbiguousSelector: "+message)
		c.HasEvent("Warning AmbiguousSelector " + message)
		if err := c.Client.AutoscalingV2().HorizontalPodAutoscalers("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		v.cpu = "900m"
		c.Advance(period)
		if s.autoscale.Spec.Replicas != 4 {
			t.Errorf("%d replicas, want 4", s.autoscale.Spec.Replicas)
		}
	})
}

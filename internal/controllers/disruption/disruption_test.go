package disruption

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v1"
	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	discoveryfake "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/rest"
	scalefake "k8s.io/client-go/scale/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/api/podspec"
	"keelson.dev/keelson/internal/controllers"
	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/controllers/replicaset"
	"keelson.dev/keelson/internal/reconcile"
)

// env is a cluster with custom resources of the kind Ship, whose subresource scale
// answers by name, and with Jobs, which have none.
type env struct {
	*controllertest.Cluster
	t     *testing.T
	ships map[string]*autoscaling.Scale
}

var ships = schema.GroupVersionKind{Group: "sea", Version: "v1", Kind: "Ship"}

func newEnv(t *testing.T) *env {
	e := &env{t: t, ships: map[string]*autoscaling.Scale{}}
	e.Cluster = controllertest.New(t, constructor(e.ships))
	return e
}

// constructor makes the controller of a cluster in which these Ships are.
func constructor(scaled map[string]*autoscaling.Scale) func(controllers.Context) (reconcile.Run, error) {
	scales := &scalefake.FakeScaleClient{}
	scales.AddReactor("get", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := a.(clienttesting.GetAction).GetName()
		if s := scaled[name]; s != nil && a.GetResource().Resource == "ships" {
			return true, s, nil
		}
		return true, nil, apierrors.NewNotFound(a.GetResource().GroupResource(), name)
	})
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, gvk := range []schema.GroupVersionKind{ships, {Group: "batch", Version: "v1", Kind: "Job"}, apps.SchemeGroupVersion.WithKind("ReplicaSet")} {
		mapper.Add(gvk, meta.RESTScopeNamespace)
	}
	disc := &discoveryfake.FakeDiscovery{Fake: &clienttesting.Fake{Resources: []*metav1.APIResourceList{
		{GroupVersion: "sea/v1", APIResources: []metav1.APIResource{{Name: "ships"}, {Name: "ships/scale", Group: "autoscaling", Version: "v1", Kind: "Scale"}}},
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{{Name: "replicasets/scale", Group: "autoscaling", Version: "v1", Kind: "Scale"}}},
		{GroupVersion: "batch/v1", APIResources: []metav1.APIResource{{Name: "jobs"}, {Name: "jobs/status", Kind: "Job"}}},
	}}}
	return func(c controllers.Context) (reconcile.Run, error) {
		c.RESTMapper, c.Discovery = mapper, disc
		return newWith(c, scales)
	}
}

// ref returns a reference to a controller whose UID is its name.
func ref(apiVersion, kind, name string) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: types.UID(name), Controller: ptr.To(true)}
}

func object(name string, owner *metav1.OwnerReference) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}}
	if owner != nil {
		m.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return m
}

func (e *env) pod(name string, owner *metav1.OwnerReference, ready bool) *v1.Pod {
	e.t.Helper()
	p := controllertest.Must[*v1.Pod](e.t)(e.Client.CoreV1().Pods("ns").Create(e.t.Context(), &v1.Pod{ObjectMeta: object(name, owner)}, metav1.CreateOptions{}))
	e.SetReady(p, ready)
	return e.get(name)
}

func (e *env) get(pod string) *v1.Pod {
	e.t.Helper()
	return controllertest.Must[*v1.Pod](e.t)(e.Client.CoreV1().Pods("ns").Get(e.t.Context(), pod, metav1.GetOptions{}))
}

func (e *env) update(p *v1.Pod) {
	e.t.Helper()
	controllertest.Must[*v1.Pod](e.t)(e.Client.CoreV1().Pods("ns").UpdateStatus(e.t.Context(), p, metav1.UpdateOptions{}))
	e.Advance(0)
}

func (e *env) replicaSet(name string, replicas int32, owner *metav1.OwnerReference) {
	e.t.Helper()
	controllertest.Must[*apps.ReplicaSet](e.t)(e.Client.AppsV1().ReplicaSets("ns").Create(e.t.Context(),
		&apps.ReplicaSet{ObjectMeta: object(name, owner), Spec: apps.ReplicaSetSpec{Replicas: &replicas}}, metav1.CreateOptions{}))
	e.Advance(0)
}

// budget makes one of "min" or "max", of pods that are labelled app=web.
func (e *env) budget(name, of, value string) {
	e.t.Helper()
	b := &policy.PodDisruptionBudget{ObjectMeta: object(name, nil), Spec: policy.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}
	if v := ptr.To(intstr.Parse(value)); of == "min" {
		b.Spec.MinAvailable = v
	} else {
		b.Spec.MaxUnavailable = v
	}
	controllertest.Must[*policy.PodDisruptionBudget](e.t)(e.Client.PolicyV1().PodDisruptionBudgets("ns").Create(e.t.Context(), b, metav1.CreateOptions{}))
	e.Advance(0)
}

func (e *env) read(budget string) *policy.PodDisruptionBudget {
	e.t.Helper()
	return controllertest.Must[*policy.PodDisruptionBudget](e.t)(e.Client.PolicyV1().PodDisruptionBudgets("ns").Get(e.t.Context(), budget, metav1.GetOptions{}))
}

// has checks a budget's status: healthy, desired and expected pods, disruptions
// that are allowed, and the reason of its condition.
func (e *env) has(budget string, healthy, desired, expected, allowed int32, reason string) {
	e.t.Helper()
	e.Advance(0)
	b := e.read(budget)
	s := b.Status
	have := fmt.Sprintf("%d %d %d %d", s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptionsAllowed)
	if want := fmt.Sprintf("%d %d %d %d", healthy, desired, expected, allowed); have != want {
		e.t.Errorf("healthy, desired, expected and allowed are %s, want %s", have, want)
	}
	c := meta.FindStatusCondition(s.Conditions, policy.DisruptionAllowedCondition)
	if c == nil || c.Reason != reason || (c.Status == metav1.ConditionTrue) != (allowed > 0) {
		e.t.Errorf("the condition is %+v, want reason %s", c, reason)
	}
	if reason != policy.SyncFailedReason && (s.ObservedGeneration != b.Generation || c.ObservedGeneration != b.Generation || c.Message != "") {
		e.t.Errorf("the status is of generation %d, %+v; the budget's is %d", s.ObservedGeneration, c, b.Generation)
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		of, value string
		// healthy of pods of owner are ready, unmanaged ones are besides.
		owner                      string
		healthy, pods, unmanaged   int
		desired, expected, allowed int32
	}{
		{"min", "2", "", 0, 0, 3, 2, 3, 1},
		{"min", "2", "set", 3, 4, 0, 2, 4, 1},
		{"min", "0", "", 0, 0, 0, 0, 0, 0},
		{"min", "50%", "set", 4, 5, 0, 3, 5, 1},
		{"min", "100%", "set", 5, 5, 0, 5, 5, 0},
		{"min", "50%", "", 0, 0, 3, 0, 0, 0}, // of none
		{"max", "1", "set", 5, 5, 0, 4, 5, 1},
		{"max", "1", "set", 3, 3, 0, 4, 5, 0}, // two are missing
		{"max", "9", "set", 5, 5, 0, 0, 5, 5},
		{"max", "30%", "set", 5, 5, 0, 3, 5, 2},
		{"max", "1", "set", 5, 5, 1, 4, 5, 2},
		{"max", "1", "stateful", 6, 6, 0, 5, 6, 1},
		{"max", "1", "rc", 7, 7, 0, 6, 7, 1},
		{"max", "1", "deployed", 8, 8, 0, 7, 8, 1},
		{"max", "1", "ship", 9, 9, 0, 8, 9, 1},
	} {
		t.Run(fmt.Sprintf("%s %s of %d %s and %d", c.of, c.value, c.pods, c.owner, c.unmanaged), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnv(t)
				ctx := t.Context()
				e.replicaSet("set", 5, nil)
				controllertest.Must[*apps.StatefulSet](t)(e.Client.AppsV1().StatefulSets("ns").Create(ctx,
					&apps.StatefulSet{ObjectMeta: object("stateful", nil), Spec: apps.StatefulSetSpec{Replicas: ptr.To[int32](6)}}, metav1.CreateOptions{}))
				controllertest.Must[*v1.ReplicationController](t)(e.Client.CoreV1().ReplicationControllers("ns").Create(ctx,
					&v1.ReplicationController{ObjectMeta: object("rc", nil), Spec: v1.ReplicationControllerSpec{Replicas: ptr.To[int32](7)}}, metav1.CreateOptions{}))
				controllertest.Must[*apps.Deployment](t)(e.Client.AppsV1().Deployments("ns").Create(ctx,
					&apps.Deployment{ObjectMeta: object("deployment", nil), Spec: apps.DeploymentSpec{Replicas: ptr.To[int32](8)}}, metav1.CreateOptions{}))
				e.replicaSet("deployed-0", 6, ref("apps/v1", "Deployment", "deployment"))
				e.replicaSet("deployed-1", 3, ref("apps/v1", "Deployment", "deployment"))
				e.ships["ship"] = &autoscaling.Scale{ObjectMeta: object("ship", nil), Spec: autoscaling.ScaleSpec{Replicas: 9}}
				for i := range c.pods {
					owner := map[string]*metav1.OwnerReference{
						"set": ref("apps/v1", "ReplicaSet", "set"), "stateful": ref("apps/v1", "StatefulSet", "stateful"), "rc": ref("v1", "ReplicationController", "rc"),
						"deployed": ref("apps/v1", "ReplicaSet", fmt.Sprintf("deployed-%d", i%2)), "ship": ref("sea/v1", "Ship", "ship"),
					}[c.owner]
					e.pod(fmt.Sprintf("pod-%d", i), owner, i < c.healthy)
				}
				for i := range c.unmanaged {
					e.pod(fmt.Sprintf("bare-%d", i), nil, true)
				}
				e.budget("b", c.of, c.value)
				reason := policy.InsufficientPodsReason
				if c.allowed > 0 {
					reason = policy.SufficientPodsReason
				}
				e.has("b", int32(c.healthy+c.unmanaged), c.desired, c.expected, c.allowed, reason)
				if c.pods+c.unmanaged == 0 {
					e.HasEvent("Normal NoPods No matching pods found")
				}
				warned := strings.Contains(fmt.Sprint(e.Events()), "Warning UnmanagedPods Pods selected by this PodDisruptionBudget (selector: &LabelSelector{")
				if want := c.unmanaged > 0 && (c.of == "max" || strings.HasSuffix(c.value, "%")); warned != want {
					t.Errorf("warned of unmanaged pods: %v, want %v", warned, want)
				}
			})
		})
	}
}

// TestChanges checks that a status follows its pods, their labels, and the
// scale of their controllers.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t)
		e.budget("b", "max", "1")
		e.has("b", 0, 0, 0, 0, policy.InsufficientPodsReason)
		e.replicaSet("set", 2, nil)
		a := e.pod("a", ref("apps/v1", "ReplicaSet", "set"), true)
		b := e.pod("b", ref("apps/v1", "ReplicaSet", "set"), true)
		e.has("b", 2, 1, 2, 1, policy.SufficientPodsReason)
		e.SetReady(b, false)
		e.has("b", 1, 1, 2, 0, policy.InsufficientPodsReason)
		e.SetReady(e.get("b"), true)
		set := controllertest.Must[*apps.ReplicaSet](t)(e.Client.AppsV1().ReplicaSets("ns").Get(t.Context(), "set", metav1.GetOptions{}))
		set.Spec.Replicas = ptr.To[int32](3)
		controllertest.Must[*apps.ReplicaSet](t)(e.Client.AppsV1().ReplicaSets("ns").Update(t.Context(), set, metav1.UpdateOptions{}))
		e.has("b", 2, 2, 3, 0, policy.InsufficientPodsReason)
		a.Labels = nil
		controllertest.Must[*v1.Pod](t)(e.Client.CoreV1().Pods("ns").Update(t.Context(), a, metav1.UpdateOptions{}))
		e.has("b", 1, 2, 3, 0, policy.InsufficientPodsReason)
		e.budget("c", "min", "0")
		e.SetReady(e.get("b"), false)
		e.HasEvent(`Warning MultiplePodDisruptionBudgets Pod "ns"/"b" matches multiple PodDisruptionBudgets.  Chose "b" arbitrarily.`)
		e.has("b", 0, 2, 3, 0, policy.InsufficientPodsReason)
		e.has("c", 0, 0, 1, 0, policy.InsufficientPodsReason)
		if err := e.Client.CoreV1().Pods("ns").Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		e.has("c", 0, 0, 0, 0, policy.InsufficientPodsReason)
		e.has("b", 0, 0, 0, 0, policy.InsufficientPodsReason)
	})
}

// TestFailure checks that where the expected pods cannot be found, nothing is
// allowed until they can be.
func TestFailure(t *testing.T) {
	for _, c := range []struct {
		owner *metav1.OwnerReference
		want  string
	}{
		{ref("sea/v1", "Ship", "new"), `found no controllers for pod "b"`},
		{ref("sea/v1", "Ship", "other"), `found no controllers for pod "b"`}, // another UID
		{ref("apps/v1", "ReplicaSet", "none"), `found no controllers for pod "b"`},
		{ref("batch/v1", "Job", "job"), "jobs.batch does not implement the scale subresource"},
		{ref("land/v1", "Cart", "cart"), `no matches for kind "Cart" in version "land/v1"`},
		{ref("a/b/c", "Cart", "cart"), "unexpected GroupVersion string: a/b/c"},
	} {
		t.Run(c.owner.Kind+" "+c.owner.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnv(t)
				e.ships["ship"] = &autoscaling.Scale{ObjectMeta: object("ship", nil), Spec: autoscaling.ScaleSpec{Replicas: 1}}
				e.ships["other"] = &autoscaling.Scale{ObjectMeta: object("successor", nil), Spec: autoscaling.ScaleSpec{Replicas: 1}}
				e.pod("a", ref("sea/v1", "Ship", "ship"), true)
				e.budget("b", "max", "1")
				e.has("b", 1, 0, 1, 1, policy.SufficientPodsReason)
				e.pod("b", c.owner, true)
				e.has("b", 1, 0, 1, 0, policy.SyncFailedReason)
				if m := e.read("b").Status.Conditions[0].Message; m != c.want {
					t.Errorf("the message is %q, want %q", m, c.want)
				}
				e.HasEvent("Warning CalculateExpectedPodCountFailed Failed to calculate the number of expected pods: " + c.want)
				if c.owner.Name == "new" {
					e.ships["new"] = &autoscaling.Scale{ObjectMeta: object("new", nil), Spec: autoscaling.ScaleSpec{Replicas: 1}}
					e.Advance(time.Hour)
					e.has("b", 2, 1, 2, 1, policy.SufficientPodsReason)
				}
			})
		})
	}
}

// TestDisrupted checks that a pod whose eviction was allowed is not healthy for
// two minutes.
func TestDisrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t)
		e.GracefulPods()
		for _, name := range []string{"a", "b", "c"} {
			e.pod(name, nil, true)
		}
		e.budget("b", "min", "1")
		e.has("b", 3, 1, 3, 2, policy.SufficientPodsReason)
		b := e.read("b")
		b.Status.DisruptionsAllowed = 0
		b.Status.DisruptedPods = map[string]metav1.Time{"a": metav1.Now(), "b": metav1.NewTime(time.Now().Add(-time.Minute)), "gone": metav1.Now()}
		controllertest.Must[*policy.PodDisruptionBudget](t)(e.Client.PolicyV1().PodDisruptionBudgets("ns").UpdateStatus(t.Context(), b, metav1.UpdateOptions{}))
		names := func(want int) {
			t.Helper()
			if got := e.read("b").Status.DisruptedPods; len(got) != want {
				t.Errorf("disrupted pods are %v, want %d", got, want)
			}
		}
		e.has("b", 1, 1, 3, 0, policy.InsufficientPodsReason)
		names(2)
		e.Advance(59 * time.Second)
		e.has("b", 1, 1, 3, 0, policy.InsufficientPodsReason)
		e.Advance(time.Second)
		e.has("b", 2, 1, 3, 1, policy.SufficientPodsReason)
		names(1)
		e.HasEvent("Warning NotDeleted Pod was expected by PDB ns/b to be deleted but it wasn't")
		if err := e.Client.CoreV1().Pods("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		e.has("b", 2, 1, 3, 1, policy.SufficientPodsReason)
		names(0)
	})
}

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*v1.Pod)
		stale  bool
	}{
		{"evicted", func(*v1.Pod) {}, true},
		{"by a kubelet", func(p *v1.Pod) { p.Status.Conditions[1].Reason = v1.PodReasonTerminationByKubelet }, false},
		{"ended", func(p *v1.Pod) { p.Status.Phase = v1.PodFailed }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnv(t)
				p := e.pod("a", nil, true)
				p.Status.Conditions = append(p.Status.Conditions, v1.PodCondition{
					Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting", LastTransitionTime: metav1.Now()})
				c.change(p)
				e.update(p)
				e.Advance(staleTimeout - time.Second)
				if s := podspec.Condition(e.get("a"), v1.DisruptionTarget).Status; s != v1.ConditionTrue {
					t.Errorf("before its time the condition is %s", s)
				}
				e.Advance(time.Second)
				got := podspec.Condition(e.get("a"), v1.DisruptionTarget)
				if stale := got.Status == v1.ConditionFalse; stale != c.stale || stale && (got.Reason != "" || got.Message != "" || time.Since(got.LastTransitionTime.Time) > 0) {
					t.Errorf("after two minutes the condition is %+v; want it taken back: %v", got, c.stale)
				}
			})
		})
	}
}

// TestScaleRequest checks that the scale of a custom resource is read from its
// path.
func TestScaleRequest(t *testing.T) {
	var asked string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"ship","uid":"ship"},"spec":{"replicas":4}}`)
	}))
	defer s.Close()
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(ships, meta.RESTScopeNamespace)
	scales, err := scaleClient(controllers.Context{RESTMapper: mapper, Discovery: &discoveryfake.FakeDiscovery{Fake: &clienttesting.Fake{}},
		Configs: func(string) *rest.Config { return &rest.Config{Host: s.URL} }})
	if err != nil {
		t.Fatal(err)
	}
	w := &workloads{mapper: mapper, scales: scales}
	got, err := w.find(t.Context(), "ns", ref("sea/v1", "Ship", "ship"))
	if err != nil || got == nil || got.replicas != 4 || asked != "/apis/sea/v1/namespaces/ns/ships/ship/scale" {
		t.Errorf("%v, %v, asked for %q", got, err, asked)
	}
}

// TestSurvives checks that whatever fails on the way, the status is right in
// the end.
func TestSurvives(t *testing.T) {
	controllertest.Trial{Seeds: 20, Controllers: []controllertest.Constructor{replicaset.New, constructor(nil)}, Actions: []controllertest.Action{
		func(c *controllertest.Cluster) {
			e := &env{Cluster: c, t: t}
			set := &apps.ReplicaSet{ObjectMeta: object("set", nil), Spec: apps.ReplicaSetSpec{Replicas: ptr.To[int32](3),
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
				Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}}}}
			controllertest.Must[*apps.ReplicaSet](t)(c.Client.AppsV1().ReplicaSets("ns").Create(t.Context(), set, metav1.CreateOptions{}))
			e.budget("b", "max", "1")
		},
		func(c *controllertest.Cluster) {
			sets := c.Client.AppsV1().ReplicaSets("ns")
			if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
				set := controllertest.Must[*apps.ReplicaSet](t)(sets.Get(t.Context(), "set", metav1.GetOptions{}))
				set.Spec.Replicas = ptr.To[int32](5)
				_, err := sets.Update(t.Context(), set, metav1.UpdateOptions{})
				return err
			}); err != nil {
				t.Fatal(err)
			}
		},
	}, End: func(t *testing.T, c *controllertest.Cluster) {
		(&env{Cluster: c, t: t}).has("b", 5, 4, 5, 1, policy.SufficientPodsReason)
	}}.Survives(t)
}

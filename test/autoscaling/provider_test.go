package autoscaling

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/nodegroup"
	"keelson.dev/keelson/internal/nodegroup/externalgrpc"
	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/testcluster"
)

// hosted is a cluster whose nodes are those of a cloud in another process.
type hosted struct {
	world
	dir string
}

// host starts a cloud, and a cluster that has its nodes from it.
func host(t *testing.T, change func(*nodegroup.Options), pools ...pool) *hosted {
	t.Helper()
	address := harness.FreeAddress(t)
	dir := cloudFiles(t, address, pools...)
	c := testcluster.Start(t, func(o *cluster.Options) {
		o.Autoscaling = nodegroup.DefaultOptions()
		a := &o.Autoscaling
		a.CloudConfig = filepath.Join(dir, configFile)
		a.ScanInterval, a.UnneededTime, a.DelayAfterAdd, a.DelayAfterFailure = 250*time.Millisecond, time.Second, time.Second, time.Second
		if change != nil {
			change(a)
		}
	})
	startCloud(t, c.Config, address, dir)
	return &hosted{world{t, kubernetes.NewForConfigOrDie(c.InProcess)}, dir}
}

// deploy makes a Deployment whose pods each request so much CPU.
func (h *hosted) deploy(name string, replicas int32, cpu string, change func(*v1.PodTemplateSpec)) {
	h.Helper()
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers: []v1.Container{{Name: "c", Image: name, Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}}}}}}}}
	if change != nil {
		change(&d.Spec.Template)
	}
	if _, err := h.client.AppsV1().Deployments("default").Create(h.Context(), d, metav1.CreateOptions{}); err != nil {
		h.Fatal(err)
	}
}

// resize gives a Deployment replicas.
func (h *hosted) resize(name string, replicas int) {
	h.Helper()
	if _, err := h.client.AppsV1().Deployments("default").Patch(h.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{}); err != nil {
		h.Fatal(err)
	}
}

// ready waits until a Deployment has so many pods, and that many of them are ready.
func (h *hosted) ready(name string, n, all int32) {
	h.Helper()
	h.until(fmt.Sprintf("%d of %d ready pods of %s", n, all, name), func(ctx context.Context) (bool, error) {
		d, err := h.client.AppsV1().Deployments("default").Get(ctx, name, metav1.GetOptions{})
		return err == nil && d.Status.ReadyReplicas == n && d.Status.Replicas == all && d.Status.UpdatedReplicas == all, err
	})
}

// names returns the names of the nodes.
func (h *hosted) names() (out []string) {
	h.Helper()
	l, err := h.client.CoreV1().Nodes().List(h.Context(), metav1.ListOptions{})
	if err != nil {
		h.Fatal(err)
	}
	for _, n := range l.Items {
		out = append(out, n.Name)
	}
	return out
}

// untilNodes waits until these are all nodes.
func (h *hosted) untilNodes(want ...string) {
	h.Helper()
	var got []string
	defer func() {
		if h.Failed() {
			h.Logf("the nodes are %q, not %q", got, want)
		}
	}()
	harness.Eventually(h, "the nodes", func() bool { got = h.names(); return slices.Equal(got, want) })
}

// untilEvents waits until each of these events has been recorded: its reason, a blank and
// its message.
func (h *hosted) untilEvents(want ...string) {
	h.Helper()
	harness.Succeeds(h, "the events", func() error {
		l, err := h.client.CoreV1().Events("").List(h.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, w := range want {
			if !slices.ContainsFunc(l.Items, func(e v1.Event) bool {
				return e.Source.Component == "cluster-autoscaler" && strings.HasPrefix(e.Reason+" "+e.Message, w)
			}) {
				var all []string
				for _, e := range l.Items {
					if e.Source.Component == "cluster-autoscaler" {
						all = append(all, e.Reason+" "+e.Message)
					}
				}
				return fmt.Errorf("no event %q among %q", w, all)
			}
		}
		return nil
	})
}

// state is what of the status is looked at here.
type state struct {
	AutoscalerStatus string
	NodeGroups       []struct {
		Name   string
		Health struct {
			CloudProviderTarget int
			NodeCounts          struct {
				Registered   struct{ Total, Ready int }
				Unregistered int
			}
		}
		ScaleUp struct {
			Status      string
			BackoffInfo struct{ ErrorCode string }
		}
		ScaleDown struct {
			Status        string
			LastProbeTime metav1.Time
		}
	}
}

// untilState waits until the status is so.
func (h *hosted) untilState(what string, ok func(state) bool) {
	h.Helper()
	harness.Succeeds(h, what, func() error {
		cm, err := h.client.CoreV1().ConfigMaps("kube-system").Get(h.Context(), "cluster-autoscaler-status", metav1.GetOptions{})
		if err != nil {
			return err
		}
		var s state
		if err := yaml.Unmarshal([]byte(cm.Data["status"]), &s); err != nil {
			return err
		}
		if s.AutoscalerStatus != "Running" || len(s.NodeGroups) == 0 || !ok(s) {
			return fmt.Errorf("it is %s", cm.Data["status"])
		}
		return nil
	})
}

// TestProvider scales from no node to several and back, with a provider in another
// process over mutual TLS.
func TestProvider(t *testing.T) {
	h := host(t, nil)
	marks := h.watchTaints()
	h.deploy("web", 3, "1500m", nil)
	// The autoscaler knows of all three before there is a group, which is therefore increased once.
	h.until("the pods that no group helps", func(ctx context.Context) (bool, error) {
		l, err := h.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=NotTriggerScaleUp"})
		return err == nil && len(l.Items) == 3, err
	})
	setPools(t, h.dir, pool{ID: "a", Most: 5, CPU: "2"})
	h.ready("web", 3, 3)
	h.untilNodes("a-0", "a-1", "a-2")
	h.untilEvents("TriggeredScaleUp pod triggered scale-up: [{a 0->3 (max: 5)}]",
		"ScaledUpGroup Scale-up: setting group a size to 3 instead of 0 (max: 5)", "ScaledUpGroup Scale-up: group a size set to 3 instead of 0 (max: 5)")
	h.untilState("the nodes in the status", func(s state) bool {
		g := s.NodeGroups[0]
		return g.Name == "a" && g.Health.CloudProviderTarget == 3 && g.Health.NodeCounts.Registered.Ready == 3 && g.ScaleUp.Status == "NoActivity"
	})

	// More than there may be.
	h.resize("web", 6)
	h.ready("web", 5, 6)
	h.untilEvents("NotTriggerScaleUp pod didn't trigger scale-up: 1 max node group size reached")

	h.resize("web", 0)
	h.untilNodes()
	h.untilEvents("ScaleDown marked the node as toBeDeleted/unschedulable", "ScaleDownEmpty Scale-down: removing empty node", "ScaleDown nodes removed by cluster autoscaler")
	for _, want := range []string{"DeletionCandidateOfClusterAutoscaler:PreferNoSchedule", "ToBeDeletedByClusterAutoscaler:NoSchedule"} {
		if !marks()[want] {
			t.Errorf("no node had the taint %s", want)
		}
	}
}

// watchTaints watches the nodes, and returns the function that returns all taints that
// some node has had since.
func (h *hosted) watchTaints() func() map[string]bool {
	h.Helper()
	w, err := h.client.CoreV1().Nodes().Watch(h.Context(), metav1.ListOptions{})
	if err != nil {
		h.Fatal(err)
	}
	seen, done := map[string]bool{}, make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if n, ok := e.Object.(*v1.Node); ok {
				for _, t := range n.Spec.Taints {
					seen[t.Key+":"+string(t.Effect)] = true
				}
			}
		}
	}()
	return func() map[string]bool {
		w.Stop()
		<-done
		return seen
	}
}

// keeps fails the test where a node goes while the autoscaler looks at the cluster for
// twice the time after which it removes those that are not needed.
func (h *hosted) keeps(node string) {
	h.Helper()
	begun := time.Now()
	h.untilState("looks at the cluster", func(s state) bool {
		if !slices.Contains(h.names(), node) {
			h.Fatalf("%s is gone", node)
		}
		return time.Since(begun) > 2*time.Second
	})
}

// TestDrain checks that a node whose pods fit elsewhere is drained, once nothing forbids it.
func TestDrain(t *testing.T) {
	h := host(t, nil, pool{ID: "a", Most: 5, CPU: "4"})
	nodes := h.client.CoreV1().Nodes()
	annotate := func(key string, value any) {
		t.Helper()
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, key, value)
		if _, err := nodes.Patch(t.Context(), "a-1", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.deploy("big", 1, "3", nil)
	h.ready("big", 1, 1)
	h.deploy("small", 1, "1500m", func(p *v1.PodTemplateSpec) {
		p.Annotations = map[string]string{"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
	})
	h.ready("small", 1, 1)
	h.untilNodes("a-0", "a-1")
	annotate("cluster-autoscaler.kubernetes.io/scale-down-disabled", `"true"`)
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "small"},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "small"}}}}
	if _, err := h.client.PolicyV1().PodDisruptionBudgets("default").Create(t.Context(), budget, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// There is room for it on the other node now, but the pod, its budget and its node forbid it.
	if _, err := h.client.AppsV1().Deployments("default").Patch(t.Context(), "big", types.StrategicMergePatchType,
		[]byte(`{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null},"template":{"spec":{"nodeName":"a-0","containers":[{"name":"c","resources":{"requests":{"cpu":"2500m"}}}]}}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	h.ready("big", 1, 1)
	h.keeps("a-1")
	annotate("cluster-autoscaler.kubernetes.io/scale-down-disabled", "null")
	h.keeps("a-1")
	pods, err := h.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=small"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatal(pods, err)
	}
	if _, err := h.client.CoreV1().Pods("default").Patch(t.Context(), pods.Items[0].Name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"cluster-autoscaler.kubernetes.io/safe-to-evict":null}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	h.keeps("a-1")
	if err := h.client.PolicyV1().PodDisruptionBudgets("default").Delete(t.Context(), "small", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.untilNodes("a-0")
	h.ready("small", 1, 1)
	h.untilEvents("ScaleDown Scale-down: removing node a-1, utilization: {0.375 0 0 0 cpu 0.375}, pods to reschedule: small-", "ScaleDown deleting pod for node scale down",
		"ScaleDown Scale-down: node a-1 removed with drain")
}

// TestFailures checks that what a cloud does not deliver is given up, and asked for again
// after a while.
func TestFailures(t *testing.T) {
	for fate, c := range map[string]struct {
		events []string
		code   string
	}{
		silent: {[]string{"ScaleUpTimedOut Nodes added to group a failed to register within", "DeleteUnregistered Removed unregistered node hollow://a-0"}, "timeout"},
		broken: {[]string{"ScaleUpFailed Failed adding 1 nodes to group a due to OutOfResource.STOCKOUT; source errors: no such machines are left"}, "STOCKOUT"},
		refuses: {[]string{"FailedToScaleUpGroup Scale-up failed for group a: rpc error: code = ResourceExhausted desc = there are no more machines for a",
			"NotTriggerScaleUp pod didn't trigger scale-up: 1 in backoff after failed scale-up"}, "cloudProviderError"},
	} {
		t.Run(fate, func(t *testing.T) {
			p := pool{ID: "a", Most: 5, CPU: "4", Fate: fate, Provision: time.Second}
			h := host(t, func(o *nodegroup.Options) { o.FirstBackoff, o.LastBackoff = 3*time.Second, 3*time.Second }, p)
			h.deploy("web", 1, "1", nil)
			h.untilState("the failure", func(s state) bool {
				up := s.NodeGroups[0].ScaleUp
				return up.Status == "Backoff" && up.BackoffInfo.ErrorCode == c.code
			})
			h.untilEvents(c.events...)
			p.Fate, p.Provision = registers, time.Minute
			setPools(t, h.dir, p)
			h.ready("web", 1, 1)
			h.untilState("that the failure is forgotten", func(s state) bool { return s.NodeGroups[0].ScaleUp.Status == "NoActivity" })
		})
	}
}

// TestExpanders checks which of several groups grows.
func TestExpanders(t *testing.T) {
	pools := []pool{{ID: "big", Most: 5, CPU: "32"}, {ID: "fit", Most: 5, CPU: "4"}, {ID: "tiny", Most: 5, CPU: "1"}}
	grown := func(t *testing.T, h *hosted) string {
		h.ready("web", 1, 1)
		name, _, _ := strings.Cut(h.names()[0], "-")
		return name
	}
	t.Run("least-waste", func(t *testing.T) {
		h := host(t, nil, pools...)
		h.deploy("web", 1, "3", nil)
		if got := grown(t, h); got != "fit" {
			t.Errorf("%s has grown", got)
		}
	})
	t.Run("priority", func(t *testing.T) {
		h := host(t, func(o *nodegroup.Options) { o.Expanders = []string{"priority", "least-waste"} }, pools...)
		if _, err := h.client.CoreV1().ConfigMaps("kube-system").Create(t.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cluster-autoscaler-priority-expander"},
			Data: map[string]string{"priorities": "10: ['.*']\n50: ['^bi', tiny]\n"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		h.deploy("web", 1, "3", nil)
		if got := grown(t, h); got != "big" {
			t.Errorf("%s has grown", got)
		}
	})
	t.Run("random", func(t *testing.T) {
		h := host(t, func(o *nodegroup.Options) { o.Expanders = []string{"random"} }, pools...)
		h.deploy("web", 1, "3", nil)
		if got := grown(t, h); got != "big" && got != "fit" {
			t.Errorf("%s has grown", got)
		}
	})
}

// TestUntrusted checks that a provider whose certificate is of another authority is not
// asked for nodes.
func TestUntrusted(t *testing.T) {
	address := harness.FreeAddress(t)
	dir := cloudFiles(t, address, pool{ID: "a", Most: 5, CPU: "4"})
	p, err := externalgrpc.New(filepath.Join(cloudFiles(t, address), configFile))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := testcluster.Start(t, testcluster.WithoutControllers())
	startCloud(t, c.Config, address, dir)
	if groups, err := p.Groups(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("%v, %v", groups, err)
	}
}

package whatif

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

	"keelson.dev/keelson/internal/apiserver/inprocess"
	"keelson.dev/keelson/internal/cluster"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/test/harness"
)

func deployment(name string, replicas int32, cpu string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "image",
			Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}}}}}}}}
}

// TestWhatIf changes forks of a cluster of 3 nodes with 32 CPUs each, on which 6 pods run.
func TestWhatIf(t *testing.T) {
	ctx := t.Context()
	c, err := cluster.Start(ctx, cluster.Options{SimNodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	client := kubernetes.NewForConfigOrDie(c.Config(inprocess.Admin))
	if _, err := client.AppsV1().Deployments("default").Create(ctx, deployment("web", 6, "8"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.PolicyV1().PodDisruptionBudgets("default").Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, MinAvailable: ptr.To(intstr.FromInt32(5))}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ResourceQuotas("default").Create(ctx, &v1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"},
		Spec: v1.ResourceQuotaSpec{Hard: v1.ResourceList{v1.ResourcePods: resource.MustParse("20")}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "6 pods, of which one may go", func() bool {
		d, err := client.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := client.PolicyV1().PodDisruptionBudgets("default").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return d.Status.AvailableReplicas == 6 && b.Status.DisruptionsAllowed == 1
	})
	content, err := c.Store.(*embedded.Store).Content(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	scale := func(replicas int) func(*Fork) error {
		return func(f *Fork) error {
			_, err := f.Client.AppsV1().Deployments("default").Patch(ctx, "web", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{})
			return err
		}
	}
	for _, test := range []struct {
		name   string
		change func(*Fork) error
		check  func(*Report) error
	}{
		{"nothing", func(*Fork) error { return nil }, func(r *Report) error {
			if len(r.Pods)+len(r.Created)+len(r.Changed)+len(r.Deleted)+len(r.Pending)+len(r.Warnings)+len(r.Nodes) > 0 {
				return fmt.Errorf("something happened: %+v", r)
			}
			return nil
		}},
		{"more than there is room for", scale(15), func(r *Report) error {
			if len(r.Pods) != 1 || r.Pods[0].Owner != "Deployment default/web" || r.Pods[0].Before != 6 || r.Pods[0].After != 15 {
				return fmt.Errorf("pods %+v", r.Pods)
			}
			if len(r.Pending) != 1 || len(r.Pending[0].Objects) != 3 || !strings.Contains(r.Pending[0].Message, "3 Insufficient cpu") {
				return fmt.Errorf("pending %+v", r.Pending)
			}
			return nil
		}},
		{"more than the quota", scale(25), func(r *Report) error {
			if len(r.Pods) != 1 || r.Pods[0].After != 20 || !strings.Contains(fmt.Sprint(r.Warnings), "exceeded quota: q") {
				return fmt.Errorf("pods %+v, warnings %+v", r.Pods, r.Warnings)
			}
			return nil
		}},
		{"a drain", func(f *Fork) error {
			stay, err := f.Drain(ctx, "sim-0")
			if len(stay) > 0 {
				return fmt.Errorf("%v stay", stay)
			}
			return err
		}, func(r *Report) error {
			if len(r.Pods) != 1 || r.Pods[0].After != 6 || r.Pods[0].On["sim-0"] != 0 || r.Pods[0].Deleted == 0 || len(r.Pending) != 0 {
				return fmt.Errorf("pods %+v, pending %+v", r.Pods, r.Pending)
			}
			if len(r.Changed) == 0 || !strings.Contains(fmt.Sprint(r.Changed), "sim-0") {
				return fmt.Errorf("changed %q", r.Changed)
			}
			return nil
		}},
		{"a deletion", func(f *Fork) error {
			return f.Client.AppsV1().Deployments("default").Delete(ctx, "web", metav1.DeleteOptions{})
		}, func(r *Report) error {
			if len(r.Pods) != 1 || r.Pods[0].After != 0 || r.Pods[0].Deleted != 6 || len(r.Deleted) != 2 {
				return fmt.Errorf("pods %+v, deleted %q", r.Pods, r.Deleted)
			}
			return nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := New(ctx, content)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Stop()
			if err := test.change(f); err != nil {
				t.Fatal(err)
			}
			took, err := f.Settle(ctx, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			r, err := f.Report(ctx, took)
			if err != nil {
				t.Fatal(err)
			}
			if err := test.check(r); err != nil {
				t.Error(err)
			}
		})
	}
	if n := len(content.Entries); n == 0 || c.Store.Count("/registry/pods/") != 6 {
		t.Errorf("the cluster has %d pods, want 6", c.Store.Count("/registry/pods/"))
	}
}

// TestInterrupted ends a fork while it is made: nothing of it goes on.
func TestInterrupted(t *testing.T) {
	c, err := cluster.Start(t.Context(), cluster.Options{SimNodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	content, err := c.Store.(*embedded.Store).Content(t.Context(), 0)
	if err := errors.Join(err, c.Stop()); err != nil {
		t.Fatal(err)
	}
	running := func(name string) bool {
		stacks := make([]byte, 8<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), name)
	}
	const nodes = "internal/cluster/sim.(*Nodes)"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	var after bool // whether its nodes are there when New has returned
	go func() {
		_, err := New(ctx, content)
		after = running(nodes)
		done <- err
	}()
	harness.Eventually(t, "the fork to settle", func() bool { return running("internal/whatif.(*Fork).Settle") })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("New gave %v", err)
	}
	if after {
		t.Error("the fork goes on")
	}
}

package disruption

import (
	"testing"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
	"keelson.dev/keelson/internal/controllers/replicaset"
)

// TestMisfits checks that budgets that overlap, or whose pods are nobody's, say so, are
// calculated ever more rarely where they cannot be, and hold up no other.
func TestMisfits(t *testing.T) {
	budget := func(name, app string, change func(*policy.PodDisruptionBudgetSpec)) *policy.PodDisruptionBudget {
		b := &policy.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
			Spec: policy.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, MaxUnavailable: ptr.To(intstr.FromInt32(1))}}
		if change != nil {
			change(&b.Spec)
		}
		return b
	}
	pod := func(name string, owner *metav1.OwnerReference) *v1.Pod {
		p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"app": "bad"}}}
		if owner != nil {
			p.OwnerReferences = []metav1.OwnerReference{*owner}
		}
		return p
	}
	set := func(name string) *apps.ReplicaSet {
		l := map[string]string{"app": name}
		return &apps.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: apps.ReplicaSetSpec{Replicas: ptr.To[int32](3),
			Selector: &metav1.LabelSelector{MatchLabels: l}, Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}}}}
	}
	failed := controllertest.Is("ns", "bad", func(b *policy.PodDisruptionBudget) error {
		c := meta.FindStatusCondition(b.Status.Conditions, policy.DisruptionAllowedCondition)
		return controllertest.Unless(c != nil && c.Status == metav1.ConditionFalse && c.Reason == policy.SyncFailedReason && b.Status.DisruptionsAllowed == 0, "the status is %+v", b.Status)
	})
	for name, m := range map[string]controllertest.Misfit{
		"two budgets of one pod": {
			World: []controllertest.Object{set("bad"), budget("bad", "bad", nil), budget("also", "bad", func(s *policy.PodDisruptionBudgetSpec) { s.MaxUnavailable = ptr.To(intstr.FromInt32(0)) })},
			Event: `Warning MultiplePodDisruptionBudgets Pod "ns"/"bad-`,
			Told: controllertest.Facts(
				controllertest.Is("ns", "bad", func(b *policy.PodDisruptionBudget) error {
					return controllertest.Unless(b.Status.DisruptionsAllowed == 1, "%+v", b.Status)
				}),
				controllertest.Is("ns", "also", func(b *policy.PodDisruptionBudget) error {
					return controllertest.Unless(b.Status.DisruptionsAllowed == 0, "%+v", b.Status)
				}),
			),
		},
		"pods of nobody's": {
			World: []controllertest.Object{pod("p", nil), budget("bad", "bad", nil)},
			Event: "Warning UnmanagedPods Pods selected by this PodDisruptionBudget",
		},
		"pods of a kind that is not known": {
			World: []controllertest.Object{pod("p", &metav1.OwnerReference{APIVersion: "unheard/v1", Kind: "Of", Name: "x", UID: "x", Controller: ptr.To(true)}), budget("bad", "bad", nil)},
			Event: "Warning CalculateExpectedPodCountFailed Failed to calculate the number of expected pods: ",
			Told:  failed,
		},
		"pods of an owner that is gone": {
			World: []controllertest.Object{pod("p", &metav1.OwnerReference{APIVersion: "sea/v1", Kind: "Ship", Name: "x", UID: "x", Controller: ptr.To(true)}), budget("bad", "bad", nil)},
			Event: "Warning CalculateExpectedPodCountFailed Failed to calculate the number of expected pods: ",
			Told:  failed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m.Controllers = []controllertest.Constructor{replicaset.New, constructor(nil)}
			m.Later = controllertest.Creates(set("good"), budget("good", "good", nil))
			m.Fine = controllertest.Is("ns", "good", func(b *policy.PodDisruptionBudget) error {
				return controllertest.Unless(b.Status.CurrentHealthy == 3 && b.Status.DisruptionsAllowed == 1, "the status is %+v", b.Status)
			})
			m.Bounded(t)
		})
	}
}

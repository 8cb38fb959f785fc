package devicetainteviction

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

// cluster has a node with the device d/p/gpu, and a pod that has it by a claim with
// tolerations.
type cluster struct {
	*controllertest.Cluster
	t *testing.T
}

func run(t *testing.T, tolerations []resourceapi.DeviceToleration, f func(c cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := cluster{controllertest.New(t, New), t}
		c.setup(tolerations)
		f(c)
	})
}

func (c cluster) setup(tolerations []resourceapi.DeviceToleration) {
	c.t.Helper()
	ctx := c.t.Context()
	controllertest.Must[*resourceapi.ResourceSlice](c.t)(c.Client.ResourceV1().ResourceSlices().Create(ctx, slice(1), metav1.CreateOptions{}))
	p := controllertest.Must[*v1.Pod](c.t)(c.Client.CoreV1().Pods("ns").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: "ns"},
		Spec: v1.PodSpec{NodeName: "n", ResourceClaims: []v1.PodResourceClaim{{Name: "c", ResourceClaimName: ptr.To("claim")}}}}, metav1.CreateOptions{}))
	controllertest.Must[*resourceapi.ResourceClaim](c.t)(c.Client.ResourceV1().ResourceClaims("ns").Create(ctx, &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "claim", Namespace: "ns"},
		Status: resourceapi.ResourceClaimStatus{
			Allocation: &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{
				{Driver: "d", Pool: "p", Device: "gpu", Tolerations: tolerations},
			}}},
			ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: p.Name, UID: p.UID}},
		},
	}, metav1.CreateOptions{}))
	synctest.Wait()
}

func slice(generation int64, taints ...resourceapi.DeviceTaint) *resourceapi.ResourceSlice {
	return &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "slice"}, Spec: resourceapi.ResourceSliceSpec{
		Driver: "d", Pool: resourceapi.ResourcePool{Name: "p", Generation: generation, ResourceSliceCount: 1}, Devices: []resourceapi.Device{{Name: "gpu", Taints: taints}, {Name: "other"}},
	}}
}

func rule(selector *resourceapi.DeviceTaintSelector, effect resourceapi.DeviceTaintEffect) *resourceapi.DeviceTaintRule {
	return &resourceapi.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "rule"}, Spec: resourceapi.DeviceTaintRuleSpec{DeviceSelector: selector, Taint: taint(effect)}}
}

func taint(effect resourceapi.DeviceTaintEffect) resourceapi.DeviceTaint {
	return resourceapi.DeviceTaint{Key: "k", Value: "v", Effect: effect, TimeAdded: ptr.To(metav1.NewTime(time.Now()))}
}

func (c cluster) evicted() bool { return len(c.Pods("ns")) == 0 }

// condition returns the rule's condition after the time in which it is written.
func (c cluster) condition() metav1.Condition {
	c.t.Helper()
	c.Advance(2 * statusPeriod)
	r := controllertest.Must[*resourceapi.DeviceTaintRule](c.t)(c.Client.ResourceV1().DeviceTaintRules().Get(c.t.Context(), "rule", metav1.GetOptions{}))
	return ptr.Deref(meta.FindStatusCondition(r.Status.Conditions, resourceapi.DeviceTaintConditionEvictionInProgress), metav1.Condition{})
}

// TestTaints checks evictions by taints of the driver and of rules, after the
// tolerated time.
func TestTaints(t *testing.T) {
	const noExecute, noSchedule, none = resourceapi.DeviceTaintEffectNoExecute, resourceapi.DeviceTaintEffectNoSchedule, resourceapi.DeviceTaintEffectNone
	tolerate := func(seconds *int64) []resourceapi.DeviceToleration {
		return []resourceapi.DeviceToleration{{Key: "k", Operator: resourceapi.DeviceTolerationOpEqual, Value: "v", Effect: noExecute, TolerationSeconds: seconds}}
	}
	byDriver := func(s *resourceapi.ResourceSlice) func(c cluster) {
		return func(c cluster) {
			controllertest.Must[*resourceapi.ResourceSlice](c.t)(c.Client.ResourceV1().ResourceSlices().Update(c.t.Context(), s, metav1.UpdateOptions{}))
		}
	}
	byRule := func(s *resourceapi.DeviceTaintSelector, effect resourceapi.DeviceTaintEffect) func(c cluster) {
		return func(c cluster) {
			controllertest.Must[*resourceapi.DeviceTaintRule](c.t)(c.Client.ResourceV1().DeviceTaintRules().Create(c.t.Context(), rule(s, effect), metav1.CreateOptions{}))
		}
	}
	for _, c := range []struct {
		name        string
		tolerations []resourceapi.DeviceToleration
		taint       func(c cluster)
		soon, later bool // within a second, within an hour
		condition   string
	}{
		{"the driver's", nil, func(c cluster) { byDriver(slice(2, taint(noExecute)))(c) }, true, true, ""},
		{"the driver's, without effect on what runs", nil, func(c cluster) { byDriver(slice(2, taint(noSchedule)))(c) }, false, false, ""},
		{"tolerated", tolerate(nil), func(c cluster) { byDriver(slice(2, taint(noExecute)))(c) }, false, false, ""},
		{"tolerated for a minute", tolerate(ptr.To[int64](60)), func(c cluster) { byDriver(slice(2, taint(noExecute)))(c) }, false, true, ""},
		{"all devices", nil, byRule(&resourceapi.DeviceTaintSelector{}, noExecute), true, true, "1 pod evicted since starting the controller."},
		{"no devices", nil, byRule(nil, noExecute), false, false, ""},
		{"the device", nil, byRule(&resourceapi.DeviceTaintSelector{Driver: ptr.To("d"), Pool: ptr.To("p"), Device: ptr.To("gpu")}, noExecute), true, true, "1 pod evicted since starting the controller."},
		{"another device", nil, byRule(&resourceapi.DeviceTaintSelector{Device: ptr.To("other")}, noExecute), false, false, ""},
		{"a minute left", tolerate(ptr.To[int64](60)), byRule(&resourceapi.DeviceTaintSelector{}, noExecute), false, true, "1 pod evicted since starting the controller."},
		{"a rule that tells only", nil, byRule(&resourceapi.DeviceTaintSelector{}, none), false, false,
			"2 published devices selected. 1 allocated device selected. 1 pod would be evicted in 1 namespace if the effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule to trigger an update."},
		{"a rule for new pods", nil, byRule(&resourceapi.DeviceTaintSelector{}, noSchedule), false, false, "Eviction only happens for the NoExecute effect."},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, c.tolerations, func(k cluster) {
				c.taint(k)
				k.Advance(time.Second)
				if got := k.evicted(); got != c.soon {
					t.Errorf("evicted soon: %v, want %v", got, c.soon)
				}
				if !c.soon && c.later && c.condition != "" {
					if got := k.condition(); got.Status != metav1.ConditionTrue || got.Message != "1 pod needs to be evicted in 1 namespace." {
						t.Errorf("before: %s %q", got.Status, got.Message)
					}
				}
				k.Advance(time.Hour)
				if got := k.evicted(); got != c.later {
					t.Errorf("evicted later: %v, want %v", got, c.later)
				}
				if c.later {
					k.HasEvent("Normal DeviceTaintManagerEviction Marking for deletion")
				}
				if c.condition != "" {
					if got := k.condition(); got.Status != metav1.ConditionFalse || got.Message != c.condition {
						t.Errorf("the condition is %s %q, want False %q", got.Status, got.Message, c.condition)
					}
				}
			})
		})
	}
}

// TestTaken checks that a pod stays whose taint is removed before the tolerated
// time is over.
func TestTaken(t *testing.T) {
	run(t, []resourceapi.DeviceToleration{{Operator: resourceapi.DeviceTolerationOpExists, TolerationSeconds: ptr.To[int64](60)}}, func(c cluster) {
		rules := c.Client.ResourceV1().DeviceTaintRules()
		controllertest.Must[*resourceapi.DeviceTaintRule](t)(rules.Create(t.Context(), rule(&resourceapi.DeviceTaintSelector{}, resourceapi.DeviceTaintEffectNoExecute), metav1.CreateOptions{}))
		c.Advance(30 * time.Second)
		if err := rules.Delete(t.Context(), "rule", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.Advance(time.Hour)
		if c.evicted() {
			t.Error("the pod was evicted by a rule that is gone")
		}
	})
}

// TestSurvives checks that the pod is evicted in the end, whatever errors come
// before.
func TestSurvives(t *testing.T) {
	controllertest.Trial{Seeds: 20, Controllers: []controllertest.Constructor{New}, Actions: []controllertest.Action{
		func(c *controllertest.Cluster) { cluster{c, t}.setup(nil) },
		func(c *controllertest.Cluster) {
			_, _ = c.Client.ResourceV1().DeviceTaintRules().Create(t.Context(), rule(&resourceapi.DeviceTaintSelector{}, resourceapi.DeviceTaintEffectNoExecute), metav1.CreateOptions{})
		},
	}, End: func(t *testing.T, c *controllertest.Cluster) {
		if n := len(c.Pods("ns")); n != 0 {
			t.Errorf("%d pods are there, want 0", n)
		}
	}}.Survives(t)
}

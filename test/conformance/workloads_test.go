package conformance

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// gate is the readiness gate by which a test makes a pod ready.
const gate v1.PodConditionType = "conformance.keelson.dev/serves"

// template returns the template of pods of a version that are ready when the test
// makes them so.
func template(app, version string) v1.PodTemplateSpec {
	return v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}}, Spec: v1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](0), ReadinessGates: []v1.PodReadinessGate{{ConditionType: gate}},
		Containers: []v1.Container{{Name: "web", Image: "keelson.local/demo", Env: []v1.EnvVar{{Name: "VERSION", Value: version}}}},
	}}
}

// versionOf returns the version of a pod's template.
func versionOf(p *v1.Pod) string { return p.Spec.Containers[0].Env[0].Value }

// serves sets whether a pod is ready, and waits until its status shows it.
func (t *T) serves(name string, ok bool) {
	t.Helper()
	status := v1.ConditionFalse
	if ok {
		status = v1.ConditionTrue
	}
	patch := patchOf(dict{"status": dict{"conditions": []dict{{"type": gate, "status": status}}}})
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"))
	t.until(fmt.Sprintf("%s to be ready: %v", name, ok), func(ctx context.Context) (bool, error) {
		p, err := t.Client.CoreV1().Pods(t.NS).Get(ctx, name, get)
		return err == nil && isReady(p) == ok, err
	})
}

func isReady(p *v1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.PodReady && c.Status == v1.ConditionTrue })
}

// podsWith returns the pods of an app by name.
func (t *T) podsWith(app string) []v1.Pod {
	t.Helper()
	list := got[*v1.PodList](t)(t.Client.CoreV1().Pods(t.NS).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app}))
	slices.SortFunc(list.Items, func(a, b v1.Pod) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	return list.Items
}

// readied makes every pod of an app ready, except those that are broken, until ok
// reports true for them.
func (t *T) readied(what, app string, broken map[string]bool, ok func([]v1.Pod) bool) {
	t.Helper()
	t.keepReady(what, app, func(p *v1.Pod) bool { return !broken[p.Name] }, ok)
}

// keepReady makes the healthy pods of an app ready until ok reports true for all pods.
func (t *T) keepReady(what, app string, healthy func(*v1.Pod) bool, ok func([]v1.Pod) bool) {
	t.Helper()
	t.until(what, func(ctx context.Context) (bool, error) {
		pods := t.podsWith(app)
		for i := range pods {
			p := &pods[i]
			if p.Status.Phase != v1.PodRunning || p.DeletionTimestamp != nil || !healthy(p) || isReady(p) {
				continue
			}
			patch := patchOf(dict{"metadata": dict{"uid": p.UID}, "status": dict{"conditions": []dict{{"type": gate, "status": "True"}}}})
			_, err := t.Client.CoreV1().Pods(t.NS).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return false, err
			}
		}
		return ok(pods), nil
	})
}

// ready returns a function that reports whether there are n pods, all ready and
// of a version (any if want is empty).
func ready(n int, want string) func([]v1.Pod) bool {
	return func(pods []v1.Pod) bool {
		return len(pods) == n && !slices.ContainsFunc(pods, func(p v1.Pod) bool {
			return !isReady(&p) || p.DeletionTimestamp != nil || want != "" && versionOf(&p) != want
		})
	}
}

// versions returns the versions of pods, in their order.
func versions(pods []v1.Pod) []string {
	out := make([]string, len(pods))
	for i := range pods {
		out[i] = versionOf(&pods[i])
	}
	return out
}

// uids returns the UIDs of pods by name.
func uids(pods []v1.Pod) map[string]types.UID {
	out := map[string]types.UID{}
	for i := range pods {
		out[pods[i].Name] = pods[i].UID
	}
	return out
}

// statusEndpoints checks that the status of a workload is read, written and patched
// by its subresource.
func (t *T) statusEndpoints(resource, name string) {
	t.Helper()
	r := t.Dynamic.Resource(appsv1.SchemeGroupVersion.WithResource(resource)).Namespace(t.NS)
	has := func(reason string) {
		t.Helper()
		t.until(name+" to have the condition of "+reason, func(ctx context.Context) (bool, error) {
			u, err := r.Get(ctx, name, get, "status")
			if err != nil {
				return false, err
			}
			status, _ := u.Object["status"].(dict)
			conditions, _ := status["conditions"].([]any)
			return slices.ContainsFunc(conditions, func(c any) bool { return c.(dict)["reason"] == reason }), nil
		})
	}
	t.change(r, name, "status", func(u *unstructured.Unstructured) {
		status, _ := u.Object["status"].(dict)
		if status == nil {
			status = dict{}
		}
		status["conditions"] = []any{dict{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}}
		u.Object["status"] = status
	})
	has("E2E")
	patch := patchOf(dict{"status": dict{"conditions": []any{dict{"type": "StatusPatched", "status": "True", "reason": "Patched"}}}})
	got[*unstructured.Unstructured](t)(r.Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"))
	has("Patched")
}

// scales checks the scale subresource of a workload that has one replica.
func (t *T) scales(resource schema.GroupVersionResource, name string) {
	t.Helper()
	r := t.Dynamic.Resource(resource).Namespace(t.NS)
	var scale *unstructured.Unstructured
	number := func(fields ...string) int64 {
		n, _, _ := unstructured.NestedInt64(scale.Object, fields...)
		return n
	}
	t.readied("a pod", name, nil, ready(1, ""))
	t.until("the scale to have a replica", func(ctx context.Context) (bool, error) {
		var err error
		scale, err = r.Get(ctx, name, get, "scale")
		return err == nil && number("status", "replicas") == 1, err
	})
	if selector, _, _ := unstructured.NestedString(scale.Object, "status", "selector"); number("spec", "replicas") != 1 || selector != "app="+name {
		t.Errorf("the scale is %v", scale.Object)
	}
	scale.SetResourceVersion("")
	t.must(unstructured.SetNestedField(scale.Object, int64(2), "spec", "replicas"))
	if scale = got[*unstructured.Unstructured](t)(r.Update(t.Context(), scale, update, "scale")); number("spec", "replicas") != 2 {
		t.Errorf("the scale after an update is %v", scale.Object)
	}
	t.readied("2 pods", name, nil, ready(2, ""))
	if scale = got[*unstructured.Unstructured](t)(r.Patch(t.Context(), name, types.MergePatchType, patchOf(dict{"spec": dict{"replicas": 4}}), metav1.PatchOptions{}, "scale")); number("spec", "replicas") != 4 {
		t.Errorf("the scale after a patch is %v", scale.Object)
	}
	t.readied("4 pods", name, nil, ready(4, ""))
}

// controlled waits until a pod's controller is the one with that UID, or, for
// "", until it has none.
func (t *T) controlled(pod string, by types.UID) {
	t.Helper()
	t.until(pod+" to be adopted or released", func(ctx context.Context) (bool, error) {
		p, err := t.Client.CoreV1().Pods(t.NS).Get(ctx, pod, get)
		if err != nil {
			return false, err
		}
		ref := metav1.GetControllerOf(p)
		return ref == nil && by == "" || ref != nil && ref.UID == by, nil
	})
}

// unmatch removes all labels of a pod, so that no selector matches it.
func (t *T) unmatch(pod string) {
	t.Helper()
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), pod, types.MergePatchType, patchOf(dict{"metadata": dict{"labels": nil}}), metav1.PatchOptions{}))
}

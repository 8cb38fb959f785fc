package conformance

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

const daemonSets = "[sig-apps] Daemon set "

// makeDaemonSet makes the DaemonSet ds of version one.
func (t *T) makeDaemonSet(change ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	t.Helper()
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "ds", Labels: map[string]string{"e2e": t.NS}}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "ds"}}, Template: template("ds", "one")}}
	for _, f := range change {
		f(ds)
	}
	return got[*appsv1.DaemonSet](t)(t.Client.AppsV1().DaemonSets(t.NS).Create(t.Context(), ds, create))
}

// changeDaemonSet changes the DaemonSet ds.
func (t *T) changeDaemonSet(f func(*appsv1.DaemonSet)) {
	t.Helper()
	sets := t.Client.AppsV1().DaemonSets(t.NS)
	t.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		ds := got[*appsv1.DaemonSet](t)(sets.Get(t.Context(), "ds", get))
		f(ds)
		_, err := sets.Update(t.Context(), ds, update)
		return err
	}))
}

// daemonSet waits until the controller has observed ds and ok reports true for
// it.
func (t *T) daemonSet(what string, ok func(*appsv1.DaemonSet) bool) *appsv1.DaemonSet {
	t.Helper()
	var ds *appsv1.DaemonSet
	t.until(what, func(ctx context.Context) (bool, error) {
		var err error
		ds, err = t.Client.AppsV1().DaemonSets(t.NS).Get(ctx, "ds", get)
		return err == nil && ds.Status.ObservedGeneration == ds.Generation && ok(ds), err
	})
	return ds
}

// forPods returns the names of the schedulable nodes.
func (t *T) forPods() []string {
	t.Helper()
	var out []string
	for _, n := range got[*v1.NodeList](t)(t.Client.CoreV1().Nodes().List(t.Context(), all)).Items {
		if !slices.ContainsFunc(n.Spec.Taints, func(x v1.Taint) bool { return x.Effect != v1.TaintEffectPreferNoSchedule }) {
			out = append(out, n.Name)
		}
	}
	if len(out) == 0 {
		t.Fatal("no node takes pods")
	}
	slices.Sort(out)
	return out
}

// everywhere returns a function that reports whether there is a ready pod of a
// version on each of nodes, and no other pod.
func everywhere(nodes []string, version string) func([]v1.Pod) bool {
	return func(pods []v1.Pod) bool {
		var have []string
		for i := range pods {
			have = append(have, pods[i].Spec.NodeName)
		}
		slices.Sort(have)
		return slices.Equal(have, nodes) && ready(len(nodes), version)(pods)
	}
}

func toDaemonVersion(v string) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Env[0].Value = v }
}

// removeDaemonSet deletes ds and waits for the end of its pods.
func (t *T) removeDaemonSet() {
	t.Helper()
	t.must(t.Client.AppsV1().DaemonSets(t.NS).Delete(t.Context(), "ds", propagate(metav1.DeletePropagationBackground)))
	t.podsOf("app=ds", 0)
}

var _ = It(daemonSets+"should run and stop simple daemon", func(t *T) {
	nodes := t.forPods()
	t.makeDaemonSet()
	t.readied("a pod on each node", "ds", nil, everywhere(nodes, ""))
	t.daemonSet("the status to say so", func(ds *appsv1.DaemonSet) bool { return int(ds.Status.NumberAvailable) == len(nodes) })
	victim := t.podsWith("ds")[0]
	t.must(t.Client.CoreV1().Pods(t.NS).Delete(t.Context(), victim.Name, remove))
	t.readied("the deleted pod to be replaced", "ds", nil, func(pods []v1.Pod) bool {
		return everywhere(nodes, "")(pods) && uids(pods)[victim.Name] == ""
	})
	t.removeDaemonSet()
})

// labelNode sets a label of a node until the test ends.
func (t *T) labelNode(node, key, value string) {
	t.Helper()
	patch := func(value any) []byte { return patchOf(dict{"metadata": dict{"labels": dict{key: value}}}) }
	got[*v1.Node](t)(t.Client.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, patch(value), metav1.PatchOptions{}))
	t.Cleanup(func() {
		if _, err := t.Client.CoreV1().Nodes().Patch(context.Background(), node, types.MergePatchType, patch(nil), metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	})
}

var _ = It(daemonSets+"should run and stop complex daemon", func(t *T) {
	node, color := t.forPods()[0], "conformance.keelson.dev/"+t.NS
	t.makeDaemonSet(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeSelector = map[string]string{color: "blue"} })
	t.daemonSet("the set to be seen", func(ds *appsv1.DaemonSet) bool { return ds.Status.DesiredNumberScheduled == 0 })
	t.stay("app=ds", 0)
	t.labelNode(node, color, "blue")
	t.readied("a pod on the blue node", "ds", nil, everywhere([]string{node}, ""))
	t.labelNode(node, color, "green")
	t.podsOf("app=ds", 0)
	t.changeDaemonSet(func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.NodeSelector[color] = "green"
		ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType}
	})
	t.readied("a pod on the green node", "ds", nil, everywhere([]string{node}, ""))
	t.removeDaemonSet()
})

var _ = It(daemonSets+"should retry creating failed daemon pods", func(t *T) {
	nodes := t.forPods()
	t.makeDaemonSet()
	t.readied("a pod on each node", "ds", nil, everywhere(nodes, ""))
	victim := t.podsWith("ds")[0]
	patch := patchOf(dict{"status": dict{"phase": "Failed"}})
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), victim.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"))
	t.readied("the failed pod to be replaced", "ds", nil, func(pods []v1.Pod) bool {
		return everywhere(nodes, "")(pods) && uids(pods)[victim.Name] == ""
	})
	t.removeDaemonSet()
})

var _ = It(daemonSets+"should update pod when spec was updated and update strategy is RollingUpdate", func(t *T) {
	nodes := t.forPods()
	t.makeDaemonSet(func(ds *appsv1.DaemonSet) {
		ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType}
	})
	t.readied("a pod on each node", "ds", nil, everywhere(nodes, "one"))
	first := t.daemonRevision(1)
	t.changeDaemonSet(toDaemonVersion("two"))
	t.readied("a pod of the new version on each node", "ds", nil, func(pods []v1.Pod) bool {
		missed := len(nodes)
		for i := range pods {
			if isReady(&pods[i]) {
				missed--
			}
		}
		if missed > 1 {
			t.Fatalf("%d pods are not ready, and 1 may be", missed)
		}
		return everywhere(nodes, "two")(pods)
	})
	second := t.daemonRevision(2)
	if first.Name == second.Name {
		t.Errorf("the revision is %s still", first.Name)
	}
	for _, p := range t.podsWith("ds") {
		if p.Labels[appsv1.ControllerRevisionHashLabelKey] != second.Labels[appsv1.ControllerRevisionHashLabelKey] {
			t.Errorf("labels of %s are %v", p.Name, p.Labels)
		}
	}
	t.removeDaemonSet()
})

// daemonRevision waits for ds's revision with that number.
func (t *T) daemonRevision(number int64) *appsv1.ControllerRevision {
	t.Helper()
	var out *appsv1.ControllerRevision
	t.until("a revision", func(ctx context.Context) (bool, error) {
		list, err := t.Client.AppsV1().ControllerRevisions(t.NS).List(ctx, metav1.ListOptions{LabelSelector: "app=ds"})
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(list.Items, func(r appsv1.ControllerRevision) bool { return r.Revision == number })
		if i >= 0 {
			out = &list.Items[i]
		}
		return i >= 0, nil
	})
	return out
}

var _ = It(daemonSets+"should rollback without unnecessary restarts", func(t *T) {
	nodes := t.forPods()
	t.makeDaemonSet(func(ds *appsv1.DaemonSet) {
		ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType}
	})
	t.readied("a pod on each node", "ds", nil, everywhere(nodes, "one"))
	t.daemonSet("the status to say so", func(ds *appsv1.DaemonSet) bool { return int(ds.Status.NumberAvailable) == len(nodes) })
	before := uids(t.podsWith("ds"))
	// The update stops at its first pod, which never becomes ready.
	t.changeDaemonSet(toDaemonVersion("bad"))
	t.until("a pod of the bad version", func(context.Context) (bool, error) { return slices.Contains(versions(t.podsWith("ds")), "bad"), nil })
	var kept []types.UID
	for _, p := range t.podsWith("ds") {
		if before[p.Name] == p.UID {
			kept = append(kept, p.UID)
		}
	}
	if len(kept) != len(nodes)-1 {
		t.Errorf("%d pods are left, want %d", len(kept), len(nodes)-1)
	}
	t.changeDaemonSet(toDaemonVersion("one"))
	t.readied("the former version on each node", "ds", nil, everywhere(nodes, "one"))
	after := t.podsWith("ds")
	for _, uid := range kept {
		if !slices.ContainsFunc(after, func(p v1.Pod) bool { return p.UID == uid }) {
			t.Errorf("a pod that was of the former version has been replaced")
		}
	}
	t.removeDaemonSet()
})

var _ = It(daemonSets+"should list and delete a collection of DaemonSets", func(t *T) {
	nodes := t.forPods()
	t.makeDaemonSet()
	t.readied("a pod on each node", "ds", nil, everywhere(nodes, ""))
	mine := metav1.ListOptions{LabelSelector: "e2e=" + t.NS}
	if l := got[*appsv1.DaemonSetList](t)(t.Client.AppsV1().DaemonSets("").List(t.Context(), mine)); len(l.Items) != 1 {
		t.Errorf("%d sets are listed over all namespaces, want 1", len(l.Items))
	}
	t.must(t.Client.AppsV1().DaemonSets(t.NS).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, mine))
	t.until("the end of the set", func(ctx context.Context) (bool, error) {
		_, err := t.Client.AppsV1().DaemonSets(t.NS).Get(ctx, "ds", get)
		return apierrors.IsNotFound(err), nil
	})
	t.podsOf("app=ds", 0)
})

var _ = It(daemonSets+"should verify changes to a daemon set status", func(t *T) {
	nodes := t.forPods()
	t.makeDaemonSet()
	t.readied("a pod on each node", "ds", nil, everywhere(nodes, ""))
	t.daemonSet("the status to say so", func(ds *appsv1.DaemonSet) bool { return int(ds.Status.NumberAvailable) == len(nodes) })
	t.statusEndpoints("daemonsets", "ds")
	t.removeDaemonSet()
})

var _ = It("[sig-apps] ControllerRevision should manage the lifecycle of a ControllerRevision", func(t *T) {
	nodes := t.forPods()
	ds := t.makeDaemonSet()
	t.readied("a pod on each node", "ds", nil, everywhere(nodes, ""))
	revisions := t.Client.AppsV1().ControllerRevisions(t.NS)
	mine := metav1.ListOptions{LabelSelector: "app=ds"}
	count := func(n int) {
		t.Helper()
		t.until("the revisions to be as many as wanted", func(ctx context.Context) (bool, error) {
			list, err := revisions.List(ctx, mine)
			return err == nil && len(list.Items) == n, err
		})
	}
	count(1)
	first := t.daemonRevision(1)
	if ref := metav1.GetControllerOf(first); ref == nil || ref.UID != ds.UID {
		t.Errorf("owners of the revision: %+v", first.OwnerReferences)
	}
	if r := got[*appsv1.ControllerRevision](t)(revisions.Get(t.Context(), first.Name, get)); r.UID != first.UID {
		t.Errorf("got %s, listed %s", r.UID, first.UID)
	}
	label := func(r *appsv1.ControllerRevision, key, value string) {
		t.Helper()
		patch := patchOf(dict{"metadata": dict{"labels": dict{key: value}}})
		if out := got[*appsv1.ControllerRevision](t)(revisions.Patch(t.Context(), r.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})); out.Labels[key] != value {
			t.Errorf("labels after the patch: %v", out.Labels)
		}
	}
	label(first, first.Name, "patched")
	second := first.DeepCopy()
	second.ObjectMeta = metav1.ObjectMeta{Name: "second", Namespace: t.NS, Labels: first.Labels, OwnerReferences: first.OwnerReferences}
	second.Data.Raw, second.Revision = []byte(`{"spec":{"template":{"$patch":"replace"}}}`), 7
	got[*appsv1.ControllerRevision](t)(revisions.Create(t.Context(), second, create))
	count(2)
	t.must(revisions.Delete(t.Context(), second.Name, remove))
	count(1)
	t.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		r := got[*appsv1.ControllerRevision](t)(revisions.Get(t.Context(), first.Name, get))
		r.Labels[first.Name] = "updated"
		_, err := revisions.Update(t.Context(), r, update)
		return err
	}))
	if l := got[*appsv1.ControllerRevisionList](t)(revisions.List(t.Context(), metav1.ListOptions{LabelSelector: first.Name + "=updated"})); len(l.Items) != 1 {
		t.Errorf("%d revisions have the updated label", len(l.Items))
	}
	t.changeDaemonSet(func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
		ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
	})
	count(2)
	t.must(revisions.DeleteCollection(t.Context(), remove, metav1.ListOptions{LabelSelector: first.Name + "=updated"}))
	count(1)
	t.removeDaemonSet()
})

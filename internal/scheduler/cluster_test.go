package scheduler_test

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
	"keelson.dev/keelson/testcluster"
)

const ns = "default"

func start(t *testing.T, nodes int) (kubernetes.Interface, *testcluster.Cluster) {
	t.Helper()
	c := testcluster.Start(t, testcluster.WithNodes(nodes))
	return kubernetes.NewForConfigOrDie(c.InProcess), c
}

func pod(name string, changes ...func(*v1.Pod)) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Labels: map[string]string{"app": name}},
		Spec: v1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](0), Containers: []v1.Container{{Name: "c", Image: "c"}}}}
	for _, f := range changes {
		f(p)
	}
	return p
}

func create(t *testing.T, client kubernetes.Interface, p *v1.Pod) {
	t.Helper()
	if _, err := client.CoreV1().Pods(ns).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// until watches a pod until ok, and returns it as it is then.
func until(t *testing.T, client kubernetes.Interface, name string, ok func(*v1.Pod, watch.EventType) bool) *v1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	w, err := client.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	last := ""
	for ev := range w.ResultChan() {
		if p, is := ev.Object.(*v1.Pod); is {
			if ok(p, ev.Type) {
				return p
			}
			last = condition(p, v1.PodScheduled).Message
		}
	}
	t.Fatalf("the watch of pod %s ended; it was last told %q", name, last)
	return nil
}

func condition(p *v1.Pod, kind v1.PodConditionType) v1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return v1.PodCondition{}
}

func bound(p *v1.Pod, _ watch.EventType) bool { return p.Spec.NodeName != "" }

// refused waits until the pod is not scheduled for a reason, with a message. It
// may be another one at first: caches may lag behind the test's writes.
func refused(t *testing.T, client kubernetes.Interface, name, why, message string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	w, err := client.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	last := ""
	for ev := range w.ResultChan() {
		if p, is := ev.Object.(*v1.Pod); is {
			c := condition(p, v1.PodScheduled)
			if c.Reason == why && c.Message == message {
				return
			}
			last = c.Message
		}
	}
	t.Fatalf("pod %s is not scheduled: %q\nwant %q", name, last, message)
}

// event waits for an event about a pod.
func event(t *testing.T, client kubernetes.Interface, pod, why string) *v1.Event {
	t.Helper()
	w, err := client.CoreV1().Events(ns).Watch(t.Context(), metav1.ListOptions{FieldSelector: fields.Set{"involvedObject.name": pod, "reason": why}.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for ev := range w.ResultChan() {
		if e, ok := ev.Object.(*v1.Event); ok {
			return e
		}
	}
	t.Fatalf("no event %s about pod %s", why, pod)
	return nil
}

// TestPreemption checks that an urgent pod takes the place of another one.
func TestPreemption(t *testing.T) {
	client, _ := start(t, 1)
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := nodes.Items[0].Status.Allocatable[v1.ResourceCPU]
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "urgent"}, Value: 1000}
	if _, err := client.SchedulingV1().PriorityClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	takesAll := func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: all}
	}
	create(t, client, pod("low", takesAll))
	until(t, client, "low", func(p *v1.Pod, _ watch.EventType) bool { return p.Status.Phase == v1.PodRunning })

	low, err := client.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "low").String()})
	if err != nil {
		t.Fatal(err)
	}
	defer low.Stop()
	// Watched from before it is there: it is nominated for a moment only.
	high, err := client.CoreV1().Pods(ns).Watch(t.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "high").String()})
	if err != nil {
		t.Fatal(err)
	}
	defer high.Stop()
	create(t, client, pod("high", takesAll, func(p *v1.Pod) { p.Spec.PriorityClassName = "urgent" }))
	var p *v1.Pod
	for ev := range high.ResultChan() {
		p = ev.Object.(*v1.Pod)
		if p.Spec.NodeName != "" || p.Status.NominatedNodeName != "" && condition(p, v1.PodScheduled).Message != "" {
			break
		}
	}
	if p.Status.NominatedNodeName != nodes.Items[0].Name {
		t.Errorf("nominated: %q", p.Status.NominatedNodeName)
	}
	if want := "0/1 nodes are available: 1 Insufficient cpu."; condition(p, v1.PodScheduled).Message != want {
		t.Errorf("%q, want %q", condition(p, v1.PodScheduled).Message, want)
	}
	var c v1.PodCondition
	for ev := range low.ResultChan() {
		c = condition(ev.Object.(*v1.Pod), v1.DisruptionTarget)
		if ev.Type == watch.Deleted {
			break
		}
	}
	if c.Reason != v1.PodReasonPreemptionByScheduler || c.Message != "default-scheduler: preempting to accommodate a higher priority pod" {
		t.Errorf("the victim's condition: %+v", c)
	}
	until(t, client, "high", bound)
	if e := event(t, client, "low", "Preempted"); !regexp.MustCompile(`^Preempted by pod [-0-9a-f]{36} on node ` + nodes.Items[0].Name + `$`).MatchString(e.Message) {
		t.Error(e.Message)
	}
	if e := event(t, client, "high", "Scheduled"); e.Message != "Successfully assigned default/high to "+nodes.Items[0].Name {
		t.Error(e.Message)
	}
}

// TestGates checks that a pod with gates waits for them; a pod of another
// scheduler is left alone.
func TestGates(t *testing.T) {
	client, _ := start(t, 1)
	create(t, client, pod("foreign", func(p *v1.Pod) { p.Spec.SchedulerName = "another" }))
	create(t, client, pod("gated", func(p *v1.Pod) { p.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "example.com/quota"}} }))
	refused(t, client, "gated", v1.PodReasonSchedulingGated, "Scheduling is blocked due to non-empty scheduling gates")
	p, err := client.CoreV1().Pods(ns).Get(t.Context(), "gated", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.SchedulingGates = nil
	if _, err := client.CoreV1().Pods(ns).Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, client, "gated", bound)
	if p, err := client.CoreV1().Pods(ns).Get(t.Context(), "foreign", metav1.GetOptions{}); err != nil || p.Spec.NodeName != "" || len(p.Status.Conditions) > 0 {
		t.Errorf("a pod of another scheduler: %+v, %v", p.Status, err)
	}
}

func claim(name, class string) *v1.PersistentVolumeClaim {
	return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, Spec: v1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}}}}
}

func uses(claim string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
	}
}

// TestVolumes checks that a pod waits for a claim of a class with immediate
// binding, and that a claim that waits for its first consumer gets the selected
// node.
func TestVolumes(t *testing.T) {
	client, _ := start(t, 2)
	ctx := t.Context()
	create(t, client, pod("early", uses("none")))
	refused(t, client, "early", v1.PodReasonUnschedulable,
		`0/2 nodes are available: persistentvolumeclaim "none" not found. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.`)
	claims := client.CoreV1().PersistentVolumeClaims(ns)
	if _, err := claims.Create(ctx, claim("immediate", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	create(t, client, pod("waits", uses("immediate")))
	refused(t, client, "waits", v1.PodReasonUnschedulable,
		"0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.")

	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Provisioner: "disk.example.com", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)}
	if _, err := client.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w, err := claims.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := claims.Create(ctx, claim("late", "late"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	create(t, client, pod("first", uses("late")))
	node := ""
	for ev := range w.ResultChan() {
		c, ok := ev.Object.(*v1.PersistentVolumeClaim)
		if !ok || c.Name != "late" {
			continue
		}
		if node = c.Annotations["volume.kubernetes.io/selected-node"]; node == "" {
			continue
		}
		// The test is the provisioner.
		if _, err := client.CoreV1().PersistentVolumes().Create(ctx, &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: v1.PersistentVolumeSpec{
			Capacity: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: c.Spec.AccessModes, StorageClassName: "late",
			ClaimRef:               &v1.ObjectReference{Namespace: ns, Name: c.Name, UID: c.UID},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: "disk.example.com", VolumeHandle: "1"}},
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{
				{MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{node}}}}}}},
		}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		break
	}
	if p := until(t, client, "first", bound); p.Spec.NodeName != node {
		t.Errorf("bound to %q, the claim was for %q", p.Spec.NodeName, node)
	}
	// Another pod goes where the volume is.
	create(t, client, pod("second", uses("late")))
	if p := until(t, client, "second", bound); p.Spec.NodeName != node {
		t.Errorf("bound to %q, the volume is on %q", p.Spec.NodeName, node)
	}
	create(t, client, pod("elsewhere", uses("late"), func(p *v1.Pod) {
		other := "sim-0"
		if node == other {
			other = "sim-1"
		}
		p.Spec.NodeSelector = map[string]string{v1.LabelHostname: other}
	}))
	refused(t, client, "elsewhere", v1.PodReasonUnschedulable, "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, "+
		"1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.")
}

// TestMetrics checks that the scheduler's metrics are served with the API
// server's.
func TestMetrics(t *testing.T) {
	client, c := start(t, 1)
	create(t, client, pod("p"))
	until(t, client, "p", bound)
	create(t, client, pod("q", func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"no": "node"} }))
	refused(t, client, "q", v1.PodReasonUnschedulable, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. "+
		"no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	h, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	metrics := func() string {
		r, err := h.Get(c.Config.Host + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatal(r.Status, err)
		}
		return string(body)
	}
	for _, want := range []string{
		`scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1`,
		`scheduler_schedule_attempts_total{profile="default-scheduler",result="unschedulable"} `, // a change of the node brings another attempt
		`scheduler_pending_pods{queue="unschedulable"} 1`,
		`scheduler_unschedulable_pods{plugin="NodeAffinity",profile="default-scheduler"} 1`,
		`scheduler_scheduling_attempt_duration_seconds_count{profile="default-scheduler",result="scheduled"} 1`,
		`scheduler_cache_size{type="nodes"} 1`,
	} {
		// Attempts are counted after what comes of them is written.
		harness.Eventually(t, want, func() bool {
			return strings.Contains(metrics(), want+"\n") || strings.HasSuffix(want, " ") && strings.Contains(metrics(), want)
		})
	}
}

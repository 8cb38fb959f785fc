package conformance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/test/harness"
)

// changePod updates a pod, and retries on conflicts.
func (t *T) changePod(name string, f func(*v1.Pod)) *v1.Pod {
	t.Helper()
	pods := t.Client.CoreV1().Pods(t.NS)
	for {
		p := got[*v1.Pod](t)(pods.Get(t.Context(), name, get))
		f(p)
		out, err := pods.Update(t.Context(), p, update)
		if !apierrors.IsConflict(err) {
			t.must(err)
			return out
		}
	}
}

var _ = InContainers("[sig-node] Pods should get a host IP", func(t *T) {
	p := t.run("p", nil)
	n := got[*v1.Node](t)(t.Client.CoreV1().Nodes().Get(t.Context(), p.Spec.NodeName, get))
	if !slices.ContainsFunc(n.Status.Addresses, func(a v1.NodeAddress) bool { return a.Address == p.Status.HostIP }) {
		t.Errorf("host IP %q of a node with %v", p.Status.HostIP, n.Status.Addresses)
	}
})

var _ = InContainers("[sig-node] Pods should be submitted and removed", func(t *T) {
	pods, mine := t.Client.CoreV1().Pods(t.NS), metav1.ListOptions{LabelSelector: "time=" + t.NS}
	if l := got[*v1.PodList](t)(pods.List(t.Context(), mine)); len(l.Items) != 0 {
		t.Fatalf("pods before: %v", l.Items)
	} else {
		mine.ResourceVersion = l.ResourceVersion
	}
	w := got[watch.Interface](t)(pods.Watch(t.Context(), mine))
	defer w.Stop()
	p := t.script("p", "trap exit TERM; sleep 1000 & wait", func(p *v1.Pod) {
		p.Labels, p.Spec.TerminationGracePeriodSeconds = map[string]string{"time": t.NS}, ptr.To[int64](30)
	})
	t.makePod(p)
	t.event(w, watch.Added, nil)
	t.inPhase("p", v1.PodRunning)
	t.must(pods.Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](30)}))
	last := t.event(w, watch.Deleted, nil).(*v1.Pod)
	if last.DeletionTimestamp == nil || last.Spec.TerminationGracePeriodSeconds == nil {
		t.Errorf("the last state of the pod: %+v", last.ObjectMeta)
	}
	if l := got[*v1.PodList](t)(pods.List(t.Context(), metav1.ListOptions{LabelSelector: mine.LabelSelector})); len(l.Items) != 0 {
		t.Errorf("pods after: %v", l.Items)
	}
})

var _ = InContainers("[sig-node] Pods should be updated", func(t *T) {
	t.makePod(t.script("p", "sleep 1000", func(p *v1.Pod) { p.Labels = map[string]string{"time": "before"} }))
	t.inPhase("p", v1.PodRunning)
	t.changePod("p", func(p *v1.Pod) { p.Labels["time"] = "after" })
	p := t.inPhase("p", v1.PodRunning)
	if l := got[*v1.PodList](t)(t.Client.CoreV1().Pods(t.NS).List(t.Context(), metav1.ListOptions{LabelSelector: "time=after"})); len(l.Items) != 1 || p.Status.ContainerStatuses[0].RestartCount > 0 {
		t.Errorf("%d pods, %+v", len(l.Items), p.Status)
	}
})

var _ = InContainers("[sig-node] Pods should allow activeDeadlineSeconds to be updated", func(t *T) {
	t.makePod(t.script("p", "sleep 1000"))
	t.inPhase("p", v1.PodRunning)
	t.changePod("p", func(p *v1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](2) })
	if p := t.inPhase("p", v1.PodFailed); p.Status.Reason != "DeadlineExceeded" {
		t.Errorf("reason %q", p.Status.Reason)
	}
})

var _ = InContainers("[sig-node] Pods should contain environment variables for services", func(t *T) {
	s := t.service("fooservice", "server", func(s *v1.Service) { s.Spec.Ports[0].Port = 8765 })
	ip := s.Spec.ClusterIP
	harness.Succeeds(t, "the variables", func() error {
		// The node may see the Service later than the pod.
		name := fmt.Sprintf("p-%d", time.Now().UnixNano())
		out := t.output(t.script(name, "env"))
		for _, v := range []string{"FOOSERVICE_SERVICE_HOST=" + ip, "FOOSERVICE_SERVICE_PORT=8765", "FOOSERVICE_PORT=tcp://" + ip + ":8765", "FOOSERVICE_PORT_8765_TCP=tcp://" + ip + ":8765",
			"FOOSERVICE_PORT_8765_TCP_PROTO=tcp", "FOOSERVICE_PORT_8765_TCP_PORT=8765", "FOOSERVICE_PORT_8765_TCP_ADDR=" + ip} {
			if !strings.Contains(out, v+"\n") {
				return fmt.Errorf("no %s in:\n%s", v, out)
			}
		}
		return nil
	})
})

var _ = InContainers("[sig-node] Pods should delete a collection of pods", func(t *T) {
	mine := metav1.ListOptions{LabelSelector: "type=Testing"}
	for i := range 3 {
		t.makePod(t.script(fmt.Sprintf("p%d", i), "trap exit TERM; sleep 1000 & wait", func(p *v1.Pod) { p.Labels = map[string]string{"type": "Testing"} }))
	}
	for i := range 3 {
		t.inPhase(fmt.Sprintf("p%d", i), v1.PodRunning)
	}
	t.must(t.Client.CoreV1().Pods(t.NS).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](1)}, mine))
	t.until("the end of the pods", func(ctx context.Context) (bool, error) {
		l, err := t.Client.CoreV1().Pods(t.NS).List(ctx, mine)
		return err == nil && len(l.Items) == 0, err
	})
})

var _ = InContainers("[sig-node] Pods should patch a pod status", func(t *T) {
	p := t.run("p", nil)
	patch := patchOf(dict{"metadata": dict{"labels": dict{"patched": "yes"}}, "status": dict{"message": "Patched by a test", "reason": "E2E"}})
	p = got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"))
	if p.Status.Message != "Patched by a test" || p.Status.Reason != "E2E" {
		t.Errorf("status %q %q", p.Status.Reason, p.Status.Message)
	}
})

var _ = InContainers("[sig-node] Pods should run through the lifecycle of Pods and PodStatus", func(t *T) {
	pods, mine := t.Client.CoreV1().Pods(t.NS), metav1.ListOptions{LabelSelector: "test-pod-static=true"}
	w := got[watch.Interface](t)(pods.Watch(t.Context(), mine))
	defer w.Stop()
	t.makePod(t.script("p", "sleep 1000", func(p *v1.Pod) { p.Labels = map[string]string{"test-pod-static": "true"} }))
	running := func(o runtime.Object) bool {
		p := o.(*v1.Pod)
		return p.Status.Phase == v1.PodRunning && len(p.Status.ContainerStatuses) > 0
	}
	t.event(w, watch.Modified, running)
	patch := patchOf(dict{"metadata": dict{"labels": dict{"test-pod": "patched"}}, "spec": dict{"terminationGracePeriodSeconds": 1}})
	got[*v1.Pod](t)(pods.Patch(t.Context(), "p", types.StrategicMergePatchType, patch, metav1.PatchOptions{}))
	t.event(w, watch.Modified, func(o runtime.Object) bool { return o.(*v1.Pod).Labels["test-pod"] == "patched" })
	if l := got[*v1.PodList](t)(t.Client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: "test-pod=patched", FieldSelector: "metadata.namespace=" + t.NS})); len(l.Items) != 1 {
		t.Errorf("%d pods with the label", len(l.Items))
	}
	// The node overwrites a status that another client has written.
	p := got[*v1.Pod](t)(pods.Get(t.Context(), "p", get))
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == v1.PodReady {
			c.Status = v1.ConditionFalse
		}
	}
	written, err := pods.UpdateStatus(t.Context(), p, update)
	if err != nil && !apierrors.IsConflict(err) {
		t.Fatal(err)
	}
	if err == nil && isReady(written) {
		t.Error("the status was not written")
	}
	t.pod("p", func(p *v1.Pod) error {
		if !isReady(p) {
			return fmt.Errorf("%+v", p.Status.Conditions)
		}
		return nil
	})
	t.must(pods.DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](1)}, mine))
	t.event(w, watch.Deleted, nil)
})

var _ = InContainers("[sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu", func(t *T) {
	r := amounts("cpu", "100m", "memory", "100Mi")
	t.makePod(t.script("p", "true", first(func(c *v1.Container) { c.Resources = v1.ResourceRequirements{Requests: r, Limits: r} })))
	if p := t.inPhase("p", v1.PodSucceeded); p.Status.QOSClass != v1.PodQOSGuaranteed {
		t.Errorf("class %s", p.Status.QOSClass)
	}
})

// observed waits until the pod has the generation, and its node has seen it.
func (t *T) observed(name string, generation int64) {
	t.Helper()
	t.pod(name, func(p *v1.Pod) error {
		if p.Generation != generation || p.Status.ObservedGeneration != generation {
			return fmt.Errorf("generation %d, observed %d, want %d", p.Generation, p.Status.ObservedGeneration, generation)
		}
		return nil
	})
}

var _ = InContainers("[sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update", func(t *T) {
	t.makePod(t.script("p", "sleep 1000", first(func(c *v1.Container) { c.Resources.Requests = amounts("cpu", "100m", "memory", "100Mi") })))
	t.inPhase("p", v1.PodRunning)
	t.observed("p", 1)
	want := int64(1)
	for _, c := range []struct {
		change func(*v1.Pod)
		counts bool
	}{
		{func(p *v1.Pod) { p.Labels = map[string]string{"test": "true"} }, false},
		{func(p *v1.Pod) { p.Annotations = map[string]string{"test": "true"} }, false},
		{func(p *v1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, v1.Toleration{Key: "foo-" + t.NS, Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](99)})
		}, true},
		{func(p *v1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5000) }, true},
		{func(p *v1.Pod) {}, false},
	} {
		if c.counts {
			want++
		}
		if p := t.changePod("p", c.change); p.Generation != want {
			t.Errorf("generation %d, want %d", p.Generation, want)
		}
		t.observed("p", want)
	}
	patch := patchOf(dict{"spec": dict{"containers": []dict{{"name": "main", "resources": dict{"requests": dict{"cpu": "110m"}}}}}})
	got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), "p", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "resize"))
	t.observed("p", want+1)
	t.addEphemeral("p", "debugger", "sleep 1000")
	t.observed("p", want+2)
})

var _ = InContainers("[sig-node] Pods Extended (pod generation) Pod Generation custom-set generation on new pods and graceful delete", func(t *T) {
	pods := t.Client.CoreV1().Pods(t.NS)
	p := t.makePod(t.script("p", "trap '' TERM; sleep 5 & wait", func(p *v1.Pod) {
		p.Generation, p.Spec.TerminationGracePeriodSeconds, p.Finalizers = 100, ptr.To[int64](30), []string{"conformance.keelson.dev/held"}
	}))
	if p.Generation != 1 {
		t.Errorf("generation %d of a new pod", p.Generation)
	}
	t.inPhase("p", v1.PodRunning)
	t.must(pods.Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](3)}))
	if p := got[*v1.Pod](t)(pods.Get(t.Context(), "p", get)); p.Generation != 2 || p.DeletionTimestamp == nil {
		t.Errorf("generation %d after the deletion, at %v", p.Generation, p.DeletionTimestamp)
	}
	t.changePod("p", func(p *v1.Pod) { p.Finalizers = nil })
	t.gone(t.Dynamic.Resource(v1.SchemeGroupVersion.WithResource("pods")).Namespace(t.NS), "p")
})

var _ = InContainers("[sig-node] Pods Extended (pod generation) Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge", func(t *T) {
	const updates = 500
	t.makePod(t.script("p", "sleep 1000", func(p *v1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5000) }))
	t.inPhase("p", v1.PodRunning)
	for i := range updates {
		patch := patchOf(dict{"spec": dict{"activeDeadlineSeconds": 4999 - i}})
		got[*v1.Pod](t)(t.Client.CoreV1().Pods(t.NS).Patch(t.Context(), "p", types.StrategicMergePatchType, patch, metav1.PatchOptions{}))
	}
	t.observed("p", updates+1)
})

// dial opens a websocket at a subresource of a pod.
func (t *T) dial(r *rest.Request, protocol string) *websocket.Conn {
	t.Helper()
	config, err := rest.TLSConfigFor(t.Config)
	t.must(err)
	u := r.URL()
	u.Scheme = "wss"
	d := websocket.Dialer{TLSClientConfig: config, Subprotocols: []string{protocol}, HandshakeTimeout: timeout}
	header := http.Header{}
	if t.Config.BearerToken != "" {
		header.Set("Authorization", "Bearer "+t.Config.BearerToken)
	}
	c, resp, err := d.DialContext(t.Context(), u.String(), header)
	if err != nil {
		if resp != nil {
			b, _ := io.ReadAll(resp.Body)
			t.Fatalf("%v: %s: %s", err, resp.Status, b)
		}
		t.Fatal(err)
	}
	if c.Subprotocol() != protocol {
		t.Errorf("protocol %q, want %q", c.Subprotocol(), protocol)
	}
	t.must(c.SetReadDeadline(time.Now().Add(timeout)))
	return c
}

var _ = InContainers("[sig-node] Pods should support remote command execution over websockets", func(t *T) {
	t.makePod(t.script("p", "echo container is alive; sleep 1000"))
	t.inPhase("p", v1.PodRunning)
	r := t.Client.CoreV1().RESTClient().Get().Namespace(t.NS).Resource("pods").Name("p").SubResource("exec").
		Param("stdout", "true").Param("stderr", "true").Param("container", "main").Param("command", "echo").Param("command", "remote execution test")
	c := t.dial(r, "channel.k8s.io")
	defer c.Close()
	var out strings.Builder
	for out.Len() < len("remote execution test\n") {
		_, message, err := c.ReadMessage()
		t.must(err)
		switch {
		case len(message) <= 1: // each channel begins with an empty message
		case message[0] != 1:
			t.Fatalf("from channel %d: %s", message[0], message[1:])
		default:
			out.Write(message[1:])
		}
	}
	if out.String() != "remote execution test\n" {
		t.Errorf("output %q", out.String())
	}
})

var _ = InContainers("[sig-node] Pods should support retrieving logs from the container over websockets", func(t *T) {
	t.makePod(t.script("p", "echo container is alive; sleep 1000"))
	t.hears("p", "main", "container is alive\n")
	r := t.Client.CoreV1().RESTClient().Get().Namespace(t.NS).Resource("pods").Name("p").SubResource("log").Param("container", "main")
	c := t.dial(r, "binary.k8s.io")
	defer c.Close()
	var out strings.Builder
	for {
		_, message, err := c.ReadMessage()
		if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			break
		}
		t.must(err)
		out.Write(message)
	}
	if out.String() != "container is alive\n" {
		t.Errorf("log %q", out.String())
	}
})

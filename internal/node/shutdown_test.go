package node

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// login announces the shutdowns that a test begins.
type login struct {
	events   chan bool
	released bool
}

func (l *login) Delay(context.Context) (time.Duration, error)  { return time.Hour, nil }
func (l *login) SetDelay(context.Context, time.Duration) error { return nil }
func (l *login) Inhibit(context.Context) (func() error, error) {
	return func() error { l.released = true; return nil }, nil
}
func (l *login) Close() error { return nil }

func (l *login) Watch(ctx context.Context) (<-chan bool, error) {
	l.events = make(chan bool)
	out := make(chan bool)
	go func() {
		defer close(out)
		for {
			select {
			case b := <-l.events:
				out <- b
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// TestShutdown checks that pods end before the machine does, and that no others begin
// meanwhile.
func TestShutdown(t *testing.T) {
	onHost(t, func(h *host) {
		h.create(v1.PodSpec{Containers: []v1.Container{{Name: "c"}}})
		h.until("running", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodRunning })
		h.login.events <- true
		p := h.until("the end", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
		if p.Status.Reason != "Terminated" || p.Status.Message != "Pod was terminated in response to imminent node shutdown." {
			t.Errorf("the pod ended by %s: %s", p.Status.Reason, p.Status.Message)
		}
		if !slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonTerminationByKubelet
		}) {
			t.Errorf("its conditions are %+v", p.Status.Conditions)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !h.login.released {
			t.Error("the shutdown is still delayed, and all pods have ended")
		}
		n, err := h.client.CoreV1().Nodes().Get(h.Context(), "node", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(n.Status.Conditions, func(c v1.NodeCondition) bool {
			return c.Type == v1.NodeReady && c.Status == v1.ConditionFalse && c.Message == "node is shutting down"
		}) {
			t.Errorf("the node's conditions are %+v", n.Status.Conditions)
		}
		late := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "late", Namespace: "n", UID: "late"}, Spec: v1.PodSpec{NodeName: "node", Containers: []v1.Container{{Name: "c", Image: "image"}}}, Status: v1.PodStatus{Phase: v1.PodPending}}
		if _, err := h.client.CoreV1().Pods("n").Create(h.Context(), late, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		late, err = h.client.CoreV1().Pods("n").Get(h.Context(), "late", metav1.GetOptions{})
		if err != nil || late.Status.Phase != v1.PodFailed || late.Status.Reason != "NodeShutdown" || late.Status.Message != "Pod was rejected: Pod was rejected as the node is shutting down." {
			t.Errorf("%v, %+v", err, late.Status)
		}
	})
}

package network_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/test/harness"
)

// policies checks that pods are isolated from their first packet, also through
// Services, until the policy is deleted.
func (e *env) policies() {
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	app := func(name string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	}
	apply := func(name string, spec networkingv1.NetworkPolicySpec) {
		e.Helper()
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
		if _, err := e.client.NetworkingV1().NetworkPolicies(e.ns).Create(e.Context(), p, metav1.CreateOptions{}); err != nil {
			e.Fatal(err)
		}
	}
	remove := func(name string) {
		e.Helper()
		if err := e.client.NetworkingV1().NetworkPolicies(e.ns).Delete(e.Context(), name, metav1.DeleteOptions{}); err != nil {
			e.Fatal(err)
		}
	}
	a := e.start("web", "a")[0].Status.PodIP
	web := e.expose("web", "web").Spec.ClusterIP

	// The container sends a single packet, right after its start.
	apply("shut", networkingv1.NetworkPolicySpec{PodSelector: *app("shut"), PolicyTypes: both})
	once := func(name, app string) {
		e.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}}, Spec: v1.PodSpec{RestartPolicy: v1.RestartPolicyNever,
			Containers: []v1.Container{{Name: "c", Image: image, Args: []string{"send", a + ":80"}}}}})
	}
	for i := range 4 {
		once(fmt.Sprint("shut-", i), "shut")
	}
	once("open", "open")
	for i := range 4 {
		if p := e.over(fmt.Sprint("shut-", i)); p != v1.PodFailed {
			e.Errorf("an isolated pod's first packet was answered: %s", p)
		}
	}
	if p := e.over("open"); p != v1.PodSucceeded {
		e.Errorf("the first packet of a pod that is not isolated: %s", p)
	}

	// The pod is ready by the node's probe, though no pod may reach it.
	e.start("shut", "shut")
	url := func(ip string) string { return "http://" + ip + "/" }
	fails := func(what, pod, to string) {
		e.Helper()
		harness.Succeeds(e, what, func() error {
			out, err := e.exec(pod, "send", to+":80")
			switch {
			case err == nil:
				return fmt.Errorf("%q answered", host(out))
			case strings.Contains(err.Error(), "i/o timeout"):
				return nil
			}
			return err
		})
	}
	fails("no way out", "shut", a)
	fails("no way out by a Service", "shut", web)
	shut := e.ready("shut").Status.PodIP
	fails("no way in", "a", shut)

	// Policies are additive: this one allows packets to the Service's pods.
	apply("out", networkingv1.NetworkPolicySpec{PodSelector: *app("shut"), PolicyTypes: both[1:], Egress: []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{PodSelector: app("web")}}}}})
	get := func(pod, to string) func() (string, error) {
		return func() (string, error) { return e.exec(pod, "get", url(to)) }
	}
	e.reaches("the pod", get("shut", a), "a")
	e.reaches("the pod by its Service", get("shut", web), "a")
	e.reaches("the pod by its Service's name", get("shut", "web"), "a")
	fails("still no way in", "a", shut)

	// Rules that another process deletes are restored.
	for _, what := range []string{"flush table ip keelson-policy", "delete table ip keelson-policy"} {
		ctx, cancel := context.WithTimeout(e.Context(), harness.Patience)
		defer cancel()
		if out, err := exec.CommandContext(ctx, "nft", what).CombinedOutput(); err != nil {
			e.Fatalf("nft %s: %v: %s", what, err, out)
		}
		fails("no way in after nft "+what, "a", shut)
	}
	remove("shut")
	e.reaches("the pod that is not isolated anymore", get("a", shut), "shut")
	remove("out")
}

// over waits for the end of a pod and returns its phase.
func (e *env) over(name string) (phase v1.PodPhase) {
	e.Helper()
	harness.Succeeds(e, "the end of "+name, func() error {
		p, err := e.client.CoreV1().Pods(e.ns).Get(e.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if phase = p.Status.Phase; phase != v1.PodSucceeded && phase != v1.PodFailed {
			return errors.New(string(phase))
		}
		return nil
	})
	return phase
}
